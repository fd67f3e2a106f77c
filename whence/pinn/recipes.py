"""The best known way to train each problem of the zoo; docs/recipes.md says how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whence import _checks
from whence.pinn import zoo
from whence.pinn.optimizers import GaussNewton, Optimizer
from whence.pinn.sampling import InfluenceScore, Proportional, Resample


@dataclass(frozen=True)
class Recipe:
    """How to train a problem: first points, schedule, resampling, and a time limit in seconds."""

    points: Mapping[str, int]
    schedule: tuple[Optimizer, ...]
    resample: Resample
    max_seconds: float


@dataclass(frozen=True)
class _Size:
    """First points, most points, points renewed each round, and seconds on two cores."""

    first: int
    limit: int
    renewed: int
    seconds: float


# A Gauss–Newton step costs (points)² · parameters: larger networks get fewer points. What counts
# is the number of steps; more points than these changed little per step.
SIZES = {
    "diffusion": _Size(500, 2000, 50, 240.0),
    "burgers": _Size(500, 2000, 50, 420.0),
    "allen_cahn": _Size(500, 1000, 50, 420.0),
    "wave": _Size(1000, 1000, 200, 560.0),
    "drift_diffusion": _Size(500, 1000, 200, 480.0),
}


def recipe(name: str, constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the recipe for a problem of the zoo.

    Start with few points, which makes the first steps cheap; let influence add some every ten
    Gauss–Newton steps, up to a limit; then the oldest leave.

    Examples
    --------
    >>> from whence.pinn.recipes import recipe
    >>> recipe("burgers").points
    {'pde': 500}
    """
    _checks.one_of("problem", name, zoo.names())
    terms = zoo.load(name, constraints).terms
    size = SIZES[name]
    return Recipe(
        points={term: size.first if term == "pde" else 100 for term in terms},
        schedule=(GaussNewton(5000),),
        resample=Resample(
            InfluenceScore(),
            Proportional(k=1, c=1),
            n=size.renewed,
            every=10,
            candidates=5000,
            max_points=size.limit,
        ),
        max_seconds=size.seconds,
    )
