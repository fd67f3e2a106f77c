"""Scrambled Halton sequences."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array


@SAMPLINGS.named("halton")
class Halton:
    """The start of a scrambled Halton sequence (Halton 1960; Owen 2017)."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        from scipy.stats import qmc  # slow to import

        rng = np.random.default_rng(seed)
        sequence = qmc.Halton(dimension, scramble=True, seed=rng)
        return np.asarray(sequence.random(n))
