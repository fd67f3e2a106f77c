"""Scrambled Sobol sequences."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array


@SAMPLINGS.named("sobol")
class Sobol:
    """The start of a scrambled Sobol sequence (Sobol 1967; Owen 1998)."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        from scipy.stats import qmc  # slow to import

        rng = np.random.default_rng(seed)
        sequence = qmc.Sobol(dimension, scramble=True, seed=rng)
        # A whole power of two is drawn, which keeps scipy from warning; its start is the same.
        return np.asarray(sequence.random_base2((n - 1).bit_length())[:n])
