"""Random sketches of a least-squares problem: fewer rows, and fewer columns.

Rows: the count sketch S (m, R) adds each row, with a random sign, to one of m rows that is drawn
for it (Charikar, Chen & Farach-Colton 2002; Clarkson & Woodruff, arXiv 1207.6365). It takes one
pass over rows that need not be in memory together, and ``E[SᵀS] = I``.

Columns: the subsampled randomized cosine transform Ω (P, k) is ``D Cᵀ`` with D random signs and k
random columns kept of the orthonormal cosine transform C (Avron, Maymounkov & Toledo 2010). Its
columns are orthonormal, and ``E[ΩΩᵀ] = (k/P) I``. Both are as sketched Gauss–Newton for
physics-informed networks has them (DSGNAR, arXiv 2607.02194).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from torch import Tensor

Blocks = Iterable[tuple[Tensor, Tensor]]
"""Rows (n, P) and their right-hand side (n,), block by block."""


@dataclass(frozen=True)
class Sketch:
    """How many rows and columns are kept, and the seed of what is drawn.

    Parameters
    ----------
    rows:
        m, None or at least R for all of them as they are.
    columns:
        k, None or at least P for all of them as they are.
    seed:
        Seed, and the number of the step for which this is drawn.

    Examples
    --------
    >>> import torch
    >>> from whence.sketches import Sketch
    >>> J, rho = torch.rand(50, 8), torch.rand(50)
    >>> drawn = Sketch(rows=20, columns=5, seed=(0, 0)).draw((50, 8), J[0])
    >>> [(rows, right)] = drawn.compressed([(J, rho)])
    >>> rows.shape, right.shape, drawn.lift(torch.rand(5)).shape
    (torch.Size([20, 5]), torch.Size([20]), torch.Size([8]))
    """

    rows: int | None
    columns: int | None
    seed: tuple[int, int]

    def draw(self, shape: tuple[int, int], like: Tensor) -> DrawnSketch:
        """Return S and Ω for a Jacobian of this shape, in the dtype and on the device of θ."""
        n_rows, n_columns = shape
        # Drawn by NumPy, whose numbers are the same on every device.
        random = np.random.default_rng(self.seed)

        rows = None
        if self.rows is not None and self.rows < n_rows:
            buckets = random.integers(self.rows, size=n_rows)
            signs = 2.0 * random.integers(2, size=n_rows) - 1.0
            rows = CountSketch(
                self.rows,
                torch.as_tensor(buckets, device=like.device),
                torch.as_tensor(signs).to(like),
            )

        columns = None
        if self.columns is not None and self.columns < n_columns:
            signs = 2.0 * random.integers(2, size=n_columns) - 1.0
            kept = random.choice(n_columns, self.columns, replace=False)
            columns = CosineSketch(
                torch.as_tensor(signs).to(like),
                torch.as_tensor(kept, device=like.device),
            )

        return DrawnSketch(rows, columns)


@dataclass(frozen=True, eq=False)
class CountSketch:
    """S (m, R): row i is added to row ``buckets[i]`` with the sign ``signs[i]``."""

    size: int
    buckets: Tensor
    signs: Tensor

    def summed(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Return ``S J`` (m, P) and ``S ρ`` (m,) of rows that come block by block."""
        # One column more, for ρ.
        table: Tensor | None = None
        start = 0

        for rows, right in blocks:
            end = start + len(rows)
            signs = self.signs[start:end].unsqueeze(1)
            signed = torch.cat([rows, right.unsqueeze(1)], dim=1) * signs
            if table is None:
                table = signed.new_zeros(self.size, signed.shape[1])
            table.index_add_(0, self.buckets[start:end], signed)
            start = end

        assert table is not None, "an objective has at least one row"
        return table[:, :-1], table[:, -1]


@dataclass(frozen=True, eq=False)
class CosineSketch:
    """Ω (P, k), of orthonormal columns: ``D Cᵀ`` with the columns ``kept`` of C's transform."""

    signs: Tensor
    kept: Tensor

    def compress(self, rows: Tensor) -> Tensor:
        """Return ``J Ω`` (n, k) of rows (n, P)."""
        # J D Cᵀ is the cosine transform of each row of J D.
        return _transformed(rows * self.signs)[:, self.kept]

    def lift(self, vector: Tensor) -> Tensor:
        """Return ``Ω y`` (P,) of y (k,)."""
        spread = torch.zeros_like(self.signs)
        spread[self.kept] = vector
        return _transformed(spread.unsqueeze(0), inverse=True).squeeze(0) * self.signs


@dataclass(frozen=True, eq=False)
class DrawnSketch:
    """S and Ω, None for the identity."""

    rows: CountSketch | None
    columns: CosineSketch | None

    def compressed(self, blocks: Blocks) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``S J Ω`` and ``S ρ`` in blocks: one block where rows are sketched."""
        parts = blocks if self.rows is None else [self.rows.summed(blocks)]
        for rows, right in parts:
            yield self._compress(rows), right

    def _compress(self, rows: Tensor) -> Tensor:
        return rows if self.columns is None else self.columns.compress(rows)

    def project(self, vector: Tensor) -> Tensor:
        """Return ``Ωᵀ v`` (k,) of v (P,)."""
        return self._compress(vector.unsqueeze(0)).squeeze(0)

    def lift(self, vector: Tensor) -> Tensor:
        """Return ``Ω y`` (P,) of y (k,)."""
        return vector if self.columns is None else self.columns.lift(vector)


def _transformed(rows: Tensor, *, inverse: bool = False) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) of each row, or its inverse."""
    transform = scipy.fft.idct if inverse else scipy.fft.dct
    result = transform(rows.detach().cpu().numpy(), axis=1, norm="ortho")
    return torch.as_tensor(result).to(rows)
