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

        # Rows first: their number may change with the points, that of the columns does not.
        rows = None
        if self.rows is not None and self.rows < n_rows:
            rows = CountSketch.drawn(self.rows, n_rows, random, like)

        columns = None
        if self.columns is not None and self.columns < n_columns:
            columns = CosineSketch.drawn(self.columns, n_columns, random, like)

        return DrawnSketch(rows, columns)


@dataclass(frozen=True, eq=False)
class CountSketch:
    """S (m, R): row i is added to row ``buckets[i]`` with the sign ``signs[i]``."""

    size: int
    buckets: Tensor
    signs: Tensor

    @classmethod
    def drawn(
        cls, size: int, n_rows: int, random: np.random.Generator, like: Tensor
    ) -> CountSketch:
        """Return S of m rows for R rows."""
        places = random.integers(size, size=n_rows)
        buckets = torch.as_tensor(places, device=like.device)
        signs = _random_signs(n_rows, random, like)
        return cls(size, buckets, signs)

    def summed(self, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Return ``S J`` (m, P) and ``S ρ`` (m,) of rows that come block by block."""
        table = self.signs.new_zeros(0)
        start = 0

        for rows, right in blocks:
            end = start + len(rows)

            # ρ is one more column of J: what becomes of both is the same.
            column = right.unsqueeze(1)
            joined = torch.cat([rows, column], dim=1)
            if not len(table):
                n_columns = joined.shape[1]
                table = joined.new_zeros(self.size, n_columns)

            # (S J)_b = Σ s_i J_i over the rows i of the bucket b.
            signs = self.signs[start:end]
            signed = joined * signs.unsqueeze(1)
            buckets = self.buckets[start:end]
            table.index_add_(0, buckets, signed)
            start = end

        return table[:, :-1], table[:, -1]


@dataclass(frozen=True, eq=False)
class CosineSketch:
    """Ω (P, k), of orthonormal columns: ``D Cᵀ`` with the columns ``kept`` of C's transform."""

    signs: Tensor
    kept: Tensor

    @classmethod
    def drawn(
        cls, size: int, n_columns: int, random: np.random.Generator, like: Tensor
    ) -> CosineSketch:
        """Return Ω of k columns for P columns."""
        signs = _random_signs(n_columns, random, like)
        chosen = random.choice(n_columns, size, replace=False)
        kept = torch.as_tensor(chosen, device=like.device)
        return cls(signs, kept)

    def compress(self, rows: Tensor) -> Tensor:
        """Return ``J Ω`` (n, k) of rows (n, P)."""
        # J D Cᵀ is the cosine transform of each row of J D.
        signed = rows * self.signs
        values = signed.detach().cpu().numpy()
        transformed = scipy.fft.dct(values, axis=1, norm="ortho")

        whole = torch.as_tensor(transformed).to(rows)
        return whole[:, self.kept]

    def lift(self, vector: Tensor) -> Tensor:
        """Return ``Ω y`` (P,) of y (k,)."""
        # Cᵀ takes y, with zeros where nothing was kept, back by the inverse transform.
        spread = torch.zeros_like(self.signs)
        spread[self.kept] = vector
        values = spread.cpu().numpy()
        transformed = scipy.fft.idct(values, norm="ortho")

        whole = torch.as_tensor(transformed).to(vector)
        return whole * self.signs


@dataclass(frozen=True, eq=False)
class DrawnSketch:
    """S and Ω, None for the identity."""

    rows: CountSketch | None
    columns: CosineSketch | None

    def compressed(self, blocks: Blocks) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``S J Ω`` and ``S ρ`` in blocks: one block where rows are sketched."""
        parts = blocks
        if self.rows is not None:
            whole = self.rows.summed(blocks)
            parts = [whole]

        for rows, right in parts:
            small = rows
            if self.columns is not None:
                small = self.columns.compress(rows)
            yield small, right

    def project(self, vector: Tensor) -> Tensor:
        """Return ``Ωᵀ v`` (k,) of v (P,)."""
        if self.columns is None:
            return vector

        # Ωᵀv is vᵀΩ: v is a row like those of J.
        row = vector.unsqueeze(0)
        return self.columns.compress(row).squeeze(0)

    def lift(self, vector: Tensor) -> Tensor:
        """Return ``Ω y`` (P,) of y (k,)."""
        if self.columns is None:
            return vector
        return self.columns.lift(vector)


def _random_signs(n: int, random: np.random.Generator, like: Tensor) -> Tensor:
    """Return n signs, ±1 with the same probability."""
    # 0 and 1 become −1 and 1.
    bits = random.integers(2, size=n)
    signs = torch.as_tensor(2 * bits - 1)
    return signs.to(like)
