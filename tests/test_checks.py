"""Checks whose answers come from less than they are asked for."""

import numpy as np
import pytest
import torch

from whence import _checks


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_repeated_rows_are_found_as_by_comparing_all(dtype):
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = torch.tensor(rng.integers(-3, 3, (8, 3)) / 4, dtype=dtype)
        pairs = (rows[:, None] == rows[None]).all(dim=2)
        repeats = bool(torch.triu(pairs, diagonal=1).any())
        assert _checks.may_repeat(rows) == repeats


def test_rows_that_are_near_or_turned_round_do_not_count_as_equal():
    line = torch.arange(2000, dtype=torch.float64)
    near = torch.nextafter(line, torch.full_like(line, 1e9))
    for rows in (
        torch.stack([line, near], dim=1),
        torch.cat([torch.stack([line, near], 1), torch.stack([near, line], 1)]),
        torch.cartesian_prod(line[:200], line[:200]),
    ):
        assert not _checks.may_repeat(rows)


def test_a_negative_zero_is_zero_and_blocks_are_compared_with_each_other():
    rows = torch.arange(2.0 * _checks.MAX_COMPARED)[:, None]
    assert not _checks.may_repeat(rows)
    rows[-1] = -0.0
    with pytest.raises(ValueError, match=r"row 65535, equal to row 0"):
        _checks.distinct("points", rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(value):
    rows = torch.zeros(5, 2)
    rows[3, 1] = value
    with pytest.raises(ValueError, match="1 of 5 rows are not, the first is row 3"):
        _checks.points("points", rows, 2)
