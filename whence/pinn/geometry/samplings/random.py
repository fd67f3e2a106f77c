"""Independent uniform points."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whence.catalogue import SAMPLINGS
from whence.pinn.geometry.samplings.base import Array


@SAMPLINGS.named("random")
class Random:
    """Independent and uniform points."""

    may_return_fewer: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False

    def points(self, n: int, dimension: int, seed: int | None) -> Array:
        """Return points of the unit cube, (n, dimension)."""
        rng = np.random.default_rng(seed)
        return rng.random((n, dimension))
