"""Whether answers come from the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import Share, column


@INDICATORS.named("causality")
@dataclass(frozen=True)
class Causality(Share):
    """The share of influence on a target that comes from its past: points that are not later.

    An initial value problem has an arrow of time, which a network trained on all times at once
    need not respect (Wang, Sankaran & Perdikaris, Comput. Methods Appl. Mech. Eng. 421, 2024).

    Parameters
    ----------
    time:
        The coordinate that is time.

    Raises
    ------
    ValueError
        When measured, if the points have no such coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.diagnosis.indicators import Causality
    >>> points, target = np.array([[0.0, 0.2], [0.0, 0.9]]), np.array([[0.0, 0.5]])
    >>> Causality().members(points, target, ("x", "t"))
    array([[1., 0.]])
    """

    time: str = "t"

    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Raise ``ValueError`` if there is no such coordinate."""
        column(names, self.time, "causality")

    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return 1 for points that are not later than a target, else 0, (T, n)."""
        k = column(names, self.time, "causality")
        is_past = points[:, k] <= targets[:, k, None]
        return is_past.astype(float)
