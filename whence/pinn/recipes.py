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


def recipe(name: str, constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the recipe for a problem of the zoo.

    Start with few points, which makes the first steps cheap; let influence add 25 every five
    Gauss–Newton steps, up to 2000; then the oldest leave.

    Examples
    --------
    >>> from whence.pinn.recipes import recipe
    >>> recipe("burgers").points
    {'pde': 500}
    """
    _checks.one_of("problem", name, zoo.names())
    terms = zoo.load(name, constraints).terms
    return Recipe(
        points={term: 500 if term == "pde" else 100 for term in terms},
        schedule=(GaussNewton(3000),),
        resample=Resample(
            InfluenceScore(damping=1e-6), Proportional(k=1, c=1), n=25, every=5, max_points=2000
        ),
        max_seconds=240.0,
    )
