"""Products of a matrix with its own transpose, of which only one half is multiplied."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

SELF_PRODUCT_BLOCKS = 8
"""Blocks of rows that a symmetric product is made of."""
MIN_SELF_PRODUCT_BLOCK = 64
"""Least rows of such a block: below that calls cost more than the products they save."""


def self_product(rows: Tensor) -> Tensor:
    """Return ``rows @ rows.T``, (n, n); only blocks on and below the diagonal are multiplied."""
    product = rows.new_zeros(len(rows), len(rows))
    _add_lower_product(product, rows.T)
    mirror(product)
    return product


def add_self_product(matrix: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to a matrix (P, P) in place, on and below the diagonal alone.

    Entries above it are of no meaning until :func:`mirror` is called. Columns that are zero are
    left out where they are many: points of one piece of a network see its parameters alone.
    """
    columns = (rows != 0).any(dim=0).nonzero()[:, 0]
    if 2 * len(columns) > len(matrix):
        _add_lower_product(matrix, rows)
        return

    seen = rows[:, columns]
    product = seen.T @ seen
    matrix.index_put_((columns[:, None], columns), product, accumulate=True)


def _add_lower_product(matrix: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to a matrix (P, P), on and below the diagonal alone."""
    for start, end in self_product_blocks(len(matrix)):
        matrix[start:end, :end].addmm_(rows[:, start:end].T, rows[:, :end])


def mirror(matrix: Tensor) -> None:
    """Copy what is below the diagonal of a square matrix to above it, in place."""
    for start, end in self_product_blocks(len(matrix)):
        matrix[:start, start:end] = matrix[start:end, :start].T

        on_diagonal = matrix[start:end, start:end]
        on_diagonal.copy_(on_diagonal.tril() + on_diagonal.tril(-1).T)


def self_product_blocks(n: int) -> Iterator[tuple[int, int]]:
    """Yield where blocks of rows of a symmetric product of order n start and end."""
    # With b blocks of rows (b + 1)/2b of the full product is multiplied: 9/16 with 8.
    step = max(MIN_SELF_PRODUCT_BLOCK, -(-n // SELF_PRODUCT_BLOCKS))
    for start in range(0, n, step):
        yield start, min(start + step, n)
