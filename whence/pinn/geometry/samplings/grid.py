"""Regular grids."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array, tensor_product


@SAMPLINGS.named("grid")
class Grid:
    """Centres of equal cells, k or k + 1 of them along each coordinate, at most n in all."""

    may_return_fewer: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return at most n points of the unit cube, (·, dimension); no seed is used."""
        # The largest k with kᵈ ≤ n: the root may be rounded to one above.
        base = round(n ** (1 / dimension))
        if base**dimension > n:
            base -= 1

        # Then k + 1 along as many coordinates as n allows.
        counts = [base] * dimension
        for k in range(dimension):
            with_one_more = math.prod(counts) // base * (base + 1)
            if with_one_more <= n:
                counts[k] = base + 1

        axes = []
        for count in counts:
            axes.append((np.arange(count) + 0.5) / count)  # centres of the cells
        return tensor_product(axes)
