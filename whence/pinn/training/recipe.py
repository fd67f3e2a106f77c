"""A way to train a problem, and the one that serves most problems best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.selections.proportional import Proportional

CONDITION_POINTS = 100
"""First points of each condition."""


@dataclass(frozen=True)
class Recipe:
    """How to train a problem.

    Parameters
    ----------
    points:
        Numbers of first points by term.
    schedule:
        Optimizers in turn.
    resample:
        What renews points, None to keep them.
    max_seconds:
        Time limit, None for none.
    """

    points: Mapping[str, int]
    schedule: tuple[Optimizer, ...]
    resample: Resampler | None
    max_seconds: float | None


def growing_recipe(
    problem: Problem,
    *,
    first: int = 500,
    limit: int = 1000,
    renewed: int = 50,
    max_seconds: float = 600.0,
) -> Recipe:
    """Return the recipe of a growing set of points under Gauss–Newton.

    Start with few points, which makes the first steps cheap; let influence add some every ten
    Gauss–Newton steps, up to a limit; then the oldest leave. A step costs (points)² · parameters:
    larger networks get fewer points (docs/recipes.md says how the numbers were found).

    Parameters
    ----------
    problem:
        What to solve.
    first:
        First points of each equation.
    limit:
        Most points of the first equation.
    renewed:
        Points selected in each round.
    max_seconds:
        Time limit on two cores.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.growing_recipe(pinn.zoo.load("burgers"), first=500).points
    {'pde': 500}
    """
    points = {}
    for term in problem.terms:
        if term in problem.given_terms:
            continue
        if term in problem.equations:
            points[term] = first
        else:
            # A condition may hold at few points, such as an end of a line.
            room = problem.room(term)
            points[term] = CONDITION_POINTS if room is None else room

    resample = Resample(
        InfluenceScore(),
        Proportional(k=1, c=1),
        n=renewed,
        every=10,
        candidates=5000,
        max_points=limit,
    )
    return Recipe(
        points=points,
        schedule=(GaussNewton(5000),),
        resample=resample,
        max_seconds=max_seconds,
    )
