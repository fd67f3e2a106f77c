"""The Hammersley set."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array


@SAMPLINGS.named("hammersley")
class Hammersley:
    """(i + 1/2)/n, then radical inverses in bases 2, 3, 5, …; a seed shifts all modulo one.

    Hammersley 1960; the shift is that of Cranley and Patterson, 1976.
    """

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = True

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        from scipy.stats import qmc  # slow to import

        unit = np.empty((n, dimension))
        unit[:, 0] = (np.arange(n) + 0.5) / n
        if dimension > 1:
            # Index zero is the origin, a corner of every domain: the sequence starts at one.
            sequence = qmc.Halton(dimension - 1, scramble=False).fast_forward(1)
            unit[:, 1:] = sequence.random(n)

        if seed is None:
            return unit

        shift = np.random.default_rng(seed).random(dimension)
        return np.asarray((unit + shift) % 1.0)
