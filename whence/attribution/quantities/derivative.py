"""A derivative of an output at given points."""

from __future__ import annotations

from dataclasses import dataclass

from whence.attribution.quantities.base import AtPoints
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike
from whence.points import Pointwise


@QUANTITIES.named("derivative")
@dataclass(frozen=True, eq=False)
class Derivative(AtPoints):
    """A derivative of an output at given points, named as in equations: ``"u_x"``, ``"u_xt"``.

    Parameters
    ----------
    points:
        Where, shape (T, d).
    of:
        The derivative's name.

    Examples
    --------
    >>> import whence as wh
    >>> wh.Derivative([[0.0, 0.0]], "u_x").label()
    'u_x'
    """

    of: str

    @classmethod
    def of_objective(cls, objective: Objective, points: PointsLike) -> Derivative:
        """Return the first output's derivative along the first coordinate at these points."""
        return cls(points, f"{objective.outputs[0]}_{objective.coordinates[0]}")

    def label(self) -> str:
        """Return the derivative's name."""
        return self.of

    def function(self, objective: Objective) -> Pointwise:
        """Return the derivative as a pointwise function."""
        if self.of in objective.coordinates:
            raise ValueError(
                f"{self.of!r} is a coordinate, which does not depend on the network: name a "
                f"derivative, such as '{objective.outputs[0]}_{self.of}'"
            )
        return objective.fields((self.of,))
