"""Values that change in training: noted, cut off, and as tensors."""

import pytest
import torch

from whence.pinn.training.series import NUMBER_BYTES, Series, is_same

ROWS = torch.arange(6.0, dtype=torch.float64)


def series_of(*entries):
    series = Series()
    for iteration, value in entries:
        series.note(iteration, value)
    return series


def test_only_what_changes_is_kept():
    series = series_of((0, ROWS), (5, ROWS.clone()), (7, ROWS[:2]), (9, None))
    assert series.begun == [0, 7, 9]
    assert series.at(6) is ROWS
    assert len(series.at(8)) == 2
    assert series.at(9) is None
    assert series.n_bytes == 8 * 8 + NUMBER_BYTES


def test_what_no_step_was_taken_with_is_replaced():
    series = series_of((0, 1.0), (5, 2.0), (5, 1.0))
    assert series.begun == [0]
    assert series.n_bytes == NUMBER_BYTES
    assert series_of((0, 1.0), (5, 2.0), (5, 3.0)).at(5) == 3.0


def test_a_series_is_cut_before_an_iteration():
    series = series_of((0, 1.0), (5, 2.0), (8, 3.0))
    assert series.before(5).begun == [0]
    assert series.before(6).begun == [0, 5]
    assert series.before(0).at(0) is None
    assert series.before(6).n_bytes == 2 * NUMBER_BYTES


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 1.0), (3, 0.1 + 0.2), (4, 5.0)],
        [(0, ROWS), (3, ROWS[1:4])],
        [(0, ROWS.float()), (2, None), (9, ROWS.float()[:1])],
        [(0, 1.0), (1, ROWS), (2, 2.0), (3, 3.0), (4, None), (5, ROWS[:1])],
        [(0, ROWS.reshape(3, 2)), (1, ROWS[:2].reshape(1, 2))],
        [(4, ROWS)],
        [],
    ],
)
def test_tensors_give_the_same_series(entries):
    series = series_of(*entries)
    again = Series.from_tensors(series.tensors())
    assert again.begun == series.begun
    for iteration in range(10):
        assert is_same(again.at(iteration), series.at(iteration))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("sizes", [-1, -1]),
        ("sizes", [-1, 2, 1]),
        ("sizes", [-2, -1]),
        ("begun", [0, 0]),
        ("begun", [3, 1]),
        ("begun", [-1, 0]),
        ("values", [1.0]),
    ],
)
def test_tensors_that_do_not_fit_are_refused(part, wrong):
    tensors = series_of((0, 1.0), (5, ROWS[:2])).tensors()
    tensors[part] = torch.tensor(wrong)
    with pytest.raises(ValueError, match="do not fit each other"):
        Series.from_tensors(tensors)
