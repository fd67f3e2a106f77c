"""Scrambled Halton sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array, block_sizes


@SAMPLINGS.named("halton")
class Halton:
    """The start of a scrambled Halton sequence (Halton 1960; Owen 2017)."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        return next(self.blocks(n, dimension, seed, size=n))

    def blocks(
        self, n: int, dimension: int, seed: int | None, size: int
    ) -> Iterator[Array]:
        """Yield the points in order, ``size`` at a time."""
        from scipy.stats import qmc  # slow to import

        rng = np.random.default_rng(seed)
        sequence = qmc.Halton(dimension, scramble=True, seed=rng)

        for rows in block_sizes(n, size):
            # It goes on where the block before ended.
            yield np.asarray(sequence.random(rows))
