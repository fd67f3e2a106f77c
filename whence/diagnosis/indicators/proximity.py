"""How near to a target its influence comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from whence import _checks
from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import Share


@INDICATORS.named("proximity")
@dataclass(frozen=True)
class Proximity(Share):
    """How near the influence on a target comes from: 1 all at the target, 0 all far from it.

    ``Σ|I|·exp(−‖x̃ − ỹ‖/2σ²) / Σ|I|`` with coordinates scaled to the unit box of the points, as in
    the ICML 2026 version of PINNfluence (arXiv 2409.08958), whose distance is not squared.

    Parameters
    ----------
    width:
        σ, in units of the box.

    Raises
    ------
    ValueError
        If the width is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.diagnosis.indicators import Proximity
    >>> points, target = np.array([[0.0], [1.0]]), np.array([[0.0]])
    >>> Proximity().members(points, target, ("x",)).round(3)      # exp(−1/2) at a distance of 1
    array([[1.   , 0.607]])
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive("width", self.width)

    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Points need nothing but coordinates."""

    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return ``exp(−‖x̃ − ỹ‖/2σ²)``, (T, n)."""
        lowest = points.min(axis=0)
        sides = points.max(axis=0) - lowest
        # Along a coordinate that all share there is no distance.
        sides = np.where(sides > 0, sides, 1.0)
        distances = cdist((targets - lowest) / sides, (points - lowest) / sides)
        return np.asarray(np.exp(-distances / (2 * self.width**2)))
