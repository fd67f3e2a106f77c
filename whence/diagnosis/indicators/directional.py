"""The share of influence that comes from upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import Share

Flow = Callable[[np.ndarray], np.ndarray]
"""``flow(targets (T, d)) -> (T, d)``, the direction at each target."""


@INDICATORS.named("directional")
@dataclass(frozen=True, eq=False)
class Directional(Share):
    """The share of influence that comes from upstream of a target.

    A point y is upstream of a target x where ``(y − x)·v < 0``, v the direction, in the units of
    the coordinates. What a flow carries depends on what lies upstream (Naujoks et al.,
    PINNfluence, arXiv 2409.08958). With ``center`` a point is upstream where it is nearer to the
    center, as of what spreads from there.

    Parameters
    ----------
    direction:
        v, a number for each coordinate, or a function of the targets (T, d) that returns (T, d):
        the velocities of a run are ``lambda targets: result.solution(targets, "u", "v")``.
    center:
        In place of a direction.

    Raises
    ------
    ValueError
        If both or none are given, or they do not fit the coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.diagnosis.indicators import Directional
    >>> points, target = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> Directional((1.0, 0.0)).members(points, target, ("x", "y"))
    array([[1., 0.]])
    """

    direction: Sequence[float] | Flow | None = None
    center: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if (self.direction is None) == (self.center is None):
            raise ValueError(
                "give one of direction=, such as (1.0, 0.0), and center=, such as (0.0, 0.0)"
            )
        for name in ("direction", "center"):
            numbers = getattr(self, name)
            if numbers is None or callable(numbers):
                continue
            for number in numbers:
                _checks.number(name, number)
        if isinstance(self.direction, Sequence) and not any(self.direction):
            raise ValueError(
                f"direction points nowhere: one number at least must not be zero, got "
                f"{tuple(self.direction)}"
            )

    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Raise ``ValueError`` unless there is a number for each coordinate."""
        for name in ("direction", "center"):
            numbers = getattr(self, name)
            if numbers is None or callable(numbers):
                continue
            if len(numbers) != len(names):
                raise ValueError(
                    f"{name} must have {len(names)} numbers, for {', '.join(names)}, got "
                    f"{len(numbers)}: {tuple(numbers)}"
                )

    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return 1 for points upstream of a target, else 0, (T, n)."""
        if self.center is not None:
            center = np.asarray(self.center, dtype=float)
            of_points = np.linalg.norm(points - center, axis=1)
            of_targets = np.linalg.norm(targets - center, axis=1)
            is_nearer = of_points < of_targets[:, None]
            return is_nearer.astype(float)

        directions = self._directions(targets)
        # (y − x)·v = y·v − x·v
        of_points = directions @ points.T
        of_targets = (directions * targets).sum(axis=1)
        is_upstream = of_points < of_targets[:, None]
        return is_upstream.astype(float)

    def _directions(self, targets: np.ndarray) -> np.ndarray:
        """Return the direction at each target, (T, d)."""
        if not callable(self.direction):
            direction = np.asarray(self.direction, dtype=float)
            return np.broadcast_to(direction, targets.shape)

        directions = np.asarray(self.direction(targets), dtype=float)
        if directions.shape != targets.shape:
            raise ValueError(
                f"the flow must return a direction for each target, {targets.shape}, got "
                f"{directions.shape}"
            )
        return directions
