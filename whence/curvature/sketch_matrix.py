"""Random matrices S that project rows, and lift what is solved in the projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

BLOCK = 16_384
"""Parameters that are projected together: their part of some rows stays in a processor's cache."""


class SketchMatrix(Protocol):
    """A matrix S of shape (size, columns)."""

    @property
    def size(self) -> int:
        """Rows of S: parameters."""

    @property
    def columns(self) -> int:
        """Columns of S: the dimension of the projection."""

    def project(self, rows: Tensor) -> Tensor:
        """Return ``rows S`` of shape (r, columns) for rows (r, size)."""

    def lift(self, vectors: Tensor) -> Tensor:
        """Return ``S vectors`` of shape (size, K) for columns (columns, K)."""

    def dense(self) -> Tensor:
        """Return S."""


@dataclass(frozen=True, eq=False)
class DenseSketch:
    """S as it is."""

    matrix: Tensor

    @property
    def size(self) -> int:
        """Rows of S."""
        return self.matrix.shape[0]

    @property
    def columns(self) -> int:
        """Columns of S."""
        return self.matrix.shape[1]

    def project(self, rows: Tensor) -> Tensor:
        """Return ``rows S``."""
        return rows @ self.matrix

    def lift(self, vectors: Tensor) -> Tensor:
        """Return ``S vectors``."""
        return self.matrix @ vectors

    def dense(self) -> Tensor:
        """Return S."""
        return self.matrix


@dataclass(frozen=True, eq=False)
class Block:
    """The entries of S of some parameters, in the order of their columns.

    Parameters
    ----------
    parameters:
        Which of the block's parameters each entry is of, (entries,).
    values:
        The entries.
    starts:
        Where each column's entries begin, (columns,).
    """

    parameters: Tensor
    values: Tensor
    starts: Tensor


class SparseSketch:
    """S with as many entries in each row.

    Both products are sums of a few rows of a small table for each row of the result, which
    ``embedding_bag`` has: by the order in which entries lie no sparse product has to sort them.

    Parameters
    ----------
    places:
        The columns of the entries of each row, distinct within it, (size, s), of type int32.
    values:
        The entries, (size, s).
    columns:
        How many columns S has.
    """

    def __init__(self, places: Tensor, values: Tensor, columns: int) -> None:
        self.columns = columns
        self._places = places
        self._values = values
        self._blocks = [
            self._by_columns(first) for first in range(0, len(places), BLOCK)
        ]

    @staticmethod
    def bytes_needed(size: int, nonzeros: int, columns: int, itemsize: int) -> int:
        """Return the bytes that such a sketch holds."""
        # Each entry by rows and by columns: a place of 4 bytes and a value.
        entries = 2 * size * nonzeros * (4 + itemsize)
        starts = 4 * columns * -(-size // BLOCK)
        return entries + starts

    @property
    def size(self) -> int:
        """Rows of S."""
        return len(self._places)

    def _by_columns(self, first: int) -> Block:
        columns = self._places[first : first + BLOCK].flatten()
        order = columns.argsort(stable=True)
        parameters = order // self._places.shape[1]

        counts = columns.bincount(minlength=self.columns)
        starts = counts.cumsum(0) - counts
        values = self._values[first : first + BLOCK].flatten()
        return Block(parameters.int(), values[order], starts.int())

    def _parts(self, rows: Tensor) -> Iterator[tuple[Block, Tensor]]:
        yield from zip(self._blocks, rows.split(BLOCK, dim=1), strict=True)

    def project(self, rows: Tensor) -> Tensor:
        """Return ``rows S``."""
        # (rows S)_ij = Σ_p rows_ip S_pj, over the parameters p that have an entry in column j.
        projected = rows.new_zeros(self.columns, len(rows))
        for block, part in self._parts(rows):
            projected += functional.embedding_bag(
                block.parameters,
                part.T.contiguous(),
                block.starts,
                mode="sum",
                per_sample_weights=block.values,
            )
        return projected.T

    def lift(self, vectors: Tensor) -> Tensor:
        """Return ``S vectors``."""
        # (S v)_p = Σ_j S_pj v_j, over the few columns j of row p.
        return functional.embedding_bag(
            self._places,
            vectors.contiguous(),
            mode="sum",
            per_sample_weights=self._values,
        )

    def dense(self) -> Tensor:
        """Return S."""
        matrix = self._values.new_zeros(self.size, self.columns)
        return matrix.scatter_(1, self._places.long(), self._values)
