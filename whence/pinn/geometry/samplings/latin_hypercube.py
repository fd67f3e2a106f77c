"""Latin hypercubes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array


@SAMPLINGS.named("latin_hypercube")
class LatinHypercube:
    """One point in each of n slices along every coordinate (McKay et al. 1979)."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        from scipy.stats import qmc  # slow to import

        rng = np.random.default_rng(seed)
        hypercube = qmc.LatinHypercube(dimension, seed=rng)
        return np.asarray(hypercube.random(n))
