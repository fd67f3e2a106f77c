"""The value of an unknown number that was trained with the network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from whence.attribution.quantities.base import AtPoints
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike
from whence.points import Points, Pointwise


@QUANTITIES.named("unknown_value")
@dataclass(frozen=True, eq=False, init=False)
class UnknownValue(AtPoints):
    """The value of unknown numbers, such as a coefficient that was found with the solution.

    Parameters
    ----------
    names:
        Which unknowns of the problem, each a target.

    Examples
    --------
    Which measurement moves k, and by how much:

    >>> import torch, whence as wh
    >>> from whence import pinn
    >>> problem = pinn.Problem(
    ...     domain=pinn.Interval("t", 0, 1), outputs=("y",),
    ...     equations={"ode": lambda y, y_t, k: y_t + k * y},
    ...     ansatz=lambda t, y: 1 + t * y,
    ...     conditions=[pinn.Data("sensors", [[0.5], [1.0]], y=[0.6, 0.36], sigma=0.01)],
    ...     unknowns={"k": 0.5})
    >>> result = pinn.train(problem, pinn.MLP([1, 8, 1], seed=0), points={"ode": 20},
    ...                     schedule=pinn.GaussNewton(30), progress=False)
    >>> row = wh.Influence(result.objective).attribute(wh.UnknownValue("k"))
    >>> row.sel(term="sensors").sizes["point"]
    2
    """

    points: PointsLike = field(default=(), repr=False)
    names: tuple[str, ...] = ()

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "points", ())
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"UnknownValue takes names of unknowns, such as UnknownValue('k'), got {names!r}"
            )

    def label(self) -> str:
        """Return the unknowns' names."""
        return ", ".join(self.names)

    def prepared(self, objective: Objective) -> Points:
        """Return a training point: an unknown has the same value at all."""
        first = next(iter(objective.terms))
        return objective.locations(first)[:1]

    def function(self, objective: Objective) -> Pointwise:
        """Return the unknowns as a function of a point."""
        return objective.fields(self.names)

    def columns(self, objective: Objective) -> tuple[str, ...]:
        """Return the unknowns' names."""
        return self.names

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the unknowns' names, without the coordinates of a point."""
        return {"quantity": np.asarray(self.names)}
