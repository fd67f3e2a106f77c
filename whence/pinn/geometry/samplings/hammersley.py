"""The Hammersley set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array, block_sizes


@SAMPLINGS.named("hammersley")
class Hammersley:
    """(i + 1/2)/n, then radical inverses in bases 2, 3, 5, …; a seed shifts all modulo one.

    Hammersley 1960; the shift is that of Cranley and Patterson, 1976.
    """

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = True

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        return next(self.blocks(n, dimension, seed, size=n))

    def blocks(
        self, n: int, dimension: int, seed: int | None, size: int
    ) -> Iterator[Array]:
        """Yield the points in order, ``size`` at a time."""
        from scipy.stats import qmc  # slow to import

        shift = None
        if seed is not None:
            shift = np.random.default_rng(seed).random(dimension)

        sequence = None
        if dimension > 1:
            # Index zero is the origin, a corner of every domain: the sequence starts at one.
            sequence = qmc.Halton(dimension - 1, scramble=False).fast_forward(1)

        start = 0
        for rows in block_sizes(n, size):
            numbers = np.arange(start, start + rows)
            start += rows

            unit = np.empty((rows, dimension))
            unit[:, 0] = (numbers + 0.5) / n
            if sequence is not None:
                # It goes on where the block before ended.
                unit[:, 1:] = sequence.random(rows)

            yield unit if shift is None else np.asarray((unit + shift) % 1.0)
