"""Products of a matrix with its own transpose, against the full product."""

from __future__ import annotations

import oracles
import pytest
import torch

from whence.symmetric_products import add_self_product, mirror, self_product


def rows_of(n: int, size: int, seen: int) -> torch.Tensor:
    """Random rows (n, size) of which ``seen`` scattered columns are not zero."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(n, size, dtype=torch.float64)
    columns = torch.randperm(size, generator=generator)[:seen]
    rows[:, columns] = torch.randn(n, seen, generator=generator, dtype=torch.float64)
    return rows


@pytest.mark.parametrize("seen", [0, 1, 40, 100, 101, 200])
def test_zero_columns_are_left_out_and_nothing_else(seen):
    # Half of 200 columns is where the way changes.
    blocks = [rows_of(30, 200, seen), rows_of(7, 200, 200), rows_of(50, 200, seen)]
    matrix = torch.zeros(200, 200, dtype=torch.float64)
    for rows in blocks:
        add_self_product(matrix, rows)
    mirror(matrix)

    together = torch.cat(blocks)
    oracles.close(matrix, together.T @ together, 1e-13)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 700])
def test_a_product_of_any_order(n):
    rows = rows_of(n, 20, 20)
    oracles.close(self_product(rows), rows @ rows.T, 1e-13)


@pytest.mark.parametrize("n", [1, 63, 700])
def test_nothing_above_the_diagonal_counts(n):
    lower = torch.randn(n, n, dtype=torch.float64).tril()
    matrix = lower + torch.full_like(lower, torch.nan).triu(1)
    mirror(matrix)
    assert torch.equal(matrix, lower + lower.tril(-1).T)
