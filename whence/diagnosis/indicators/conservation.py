"""Whether influence crosses what the equation says it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import Share, column

Reaches = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``reaches(points (n, d), targets (T, d)) -> (T, n)``, whether a point can act on a target."""


@INDICATORS.named("conservation")
@dataclass(frozen=True, eq=False)
class Conservation(Share):
    """The share of influence on a target that comes from where the equation lets it come from.

    A signal of a finite speed c reaches only what lies within ``|x − y| ≤ c (t − s)``; what is
    carried stays on its path, and nothing crosses a wall. Give the speed, or a function that says
    which points can act on which targets (Courant & Hilbert, Methods of Mathematical Physics II,
    chapter VI, on domains of dependence).

    Parameters
    ----------
    speed:
        c, in units of the coordinates.
    reaches:
        In place of a speed: a function of points (n, d) and targets (T, d) that returns booleans
        (T, n).
    time:
        The coordinate that is time, where a speed is given.

    Raises
    ------
    ValueError
        If both or none are given, or when measured, if the points have no such coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.diagnosis.indicators import Conservation
    >>> points, target = np.array([[0.4, 0.0], [1.5, 0.0]]), np.array([[0.0, 0.5]])
    >>> Conservation(speed=2.0).members(points, target, ("x", "t"))
    array([[1., 0.]])
    """

    speed: float | None = None
    reaches: Reaches | None = None
    time: str = "t"

    def __post_init__(self) -> None:
        if (self.speed is None) == (self.reaches is None):
            raise ValueError(
                "give one of speed=, of signals, and reaches=, a function of points and targets"
            )
        if self.speed is not None:
            _checks.positive("speed", self.speed)

    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Raise ``ValueError`` if a speed is given and there is no time."""
        if self.speed is not None:
            column(names, self.time, "conservation")

    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return 1 for points that can act on a target, else 0, (T, n)."""
        if self.reaches is not None:
            can_act = np.asarray(self.reaches(points, targets), dtype=bool)
            expected = (len(targets), len(points))
            if can_act.shape != expected:
                raise ValueError(
                    f"reaches must return booleans (targets, points), {expected}, got "
                    f"{can_act.shape}"
                )
            return can_act.astype(float)

        assert self.speed is not None
        k = column(names, self.time, "conservation")
        is_space = np.arange(len(names)) != k
        differences = targets[:, None, is_space] - points[None, :, is_space]
        distances = np.linalg.norm(differences, axis=2)
        passed = targets[:, k, None] - points[:, k]
        within = distances <= self.speed * passed
        return within.astype(float)
