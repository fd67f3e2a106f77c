"""Independent uniform points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array, block_sizes


@SAMPLINGS.named("random")
class Random:
    """Independent and uniform points."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        return next(self.blocks(n, dimension, seed, size=n))

    def blocks(
        self, n: int, dimension: int, seed: int | None, size: int
    ) -> Iterator[Array]:
        """Yield the points in order, ``size`` at a time."""
        rng = np.random.default_rng(seed)
        for rows in block_sizes(n, size):
            # Numbers are drawn row by row, so that blocks follow each other in the stream.
            yield rng.random((rows, dimension))
