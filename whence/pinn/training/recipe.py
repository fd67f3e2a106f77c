"""A way to train a problem, and the one that serves most problems best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import nn

from whence.pinn.networks import RadialFeatures, RandomFeatures
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.optimizers.varpro import VarPro
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.selections.proportional import Proportional
from whence.pinn.training.pinned import Pinned
from whence.pinn.training.result import Result

RADIAL = "radial"
"""What stands for Gaussians in place of an activation."""
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
    network:
        What to train, from a seed; None for the problem's own architecture.
    weights:
        Weight of each term, 1 unless given.
    slabs:
        Slabs of time (:class:`whence.pinn.Slabs`), None for all times at once.
    cycles:
        How many times the schedule is gone through.
    keep:
        Which network is kept, ``"best"`` or ``"last"``.
    validation, test:
        Numbers of points of each term at which losses are reported, see :func:`whence.pinn.train`.
    pinned:
        Points by term that are trained on beside these and never leave.
    """

    points: Mapping[str, int]
    schedule: tuple[Optimizer, ...]
    resample: Resampler | None
    max_seconds: float | None
    network: Callable[[int], nn.Module] | None = None
    weights: Mapping[str, float] | None = None
    slabs: Marching | None = None
    cycles: int = 1
    keep: Literal["best", "last"] = "best"
    validation: int = 2000
    test: int = 0
    pinned: Pinned | None = field(
        default=None, compare=False
    )  # arrays have no one truth

    def __post_init__(self) -> None:
        # Points at other times than a slab's would be outside of its domain.
        if self.slabs is not None and self.pinned:
            raise ValueError(
                "a recipe in slabs takes no pinned points: each slab draws its own, where the "
                "solution is steep; leave one of slabs= and pinned= out"
            )


class Marching(Protocol):
    """What trains one slab of time after another."""

    @property
    def train(self) -> Callable[..., Result]:
        """Train a network on each slab in turn, with the options of :func:`whence.pinn.train`."""


def features_recipe(
    problem: Problem,
    *,
    features: int,
    scale: float,
    points: int,
    activation: str = "sin",
    trainable: bool = False,
    condition_points: int | None = None,
    condition_weight: float = 1e4,
    slabs: Marching | None = None,
) -> Recipe:
    """Return the recipe of random features, whose last layer is solved by least squares.

    Where equations and conditions are linear it takes seconds, and gives as many digits as the
    features can follow. They can where the solution is smooth on the scale of 1/``scale`` of the
    half box; more features, and points with them, follow more. Nonlinear equations in time want
    slabs, over each of which the solution changes little.

    Parameters
    ----------
    problem:
        What to solve.
    features, scale, activation, trainable:
        As in :class:`whence.pinn.RandomFeatures`; the activation ``"radial"`` stands for
        :class:`whence.pinn.RadialFeatures`.
    points:
        Points of each equation.
    condition_points:
        Points of each condition; by default as dense along the whole boundary as within.
    condition_weight:
        Weight of each soft condition beside equations of weight 1.
    slabs:
        Slabs of time, None for all times at once.

    Examples
    --------
    >>> from whence import pinn
    >>> recipe = pinn.features_recipe(
    ...     pinn.zoo.load("wave", "soft"), features=600, scale=16.0, points=3000)
    >>> recipe.points["initial_u"], recipe.weights["initial_u"]
    (219, 10000.0)
    """
    counts = {}
    weights = {}
    d = problem.domain.dimension
    for term in problem.terms:
        if term in problem.given_terms:
            continue
        if term in problem.equations:
            counts[term] = points
            continue
        # As dense along a boundary as within: the 2d sides of a cube of so many points.
        dense = condition_points or int(2 * d * points ** ((d - 1) / d))
        room = problem.room(term)
        counts[term] = dense if room is None else min(dense, room)
        weights[term] = condition_weight

    bounds = problem.domain.bounds.tolist()
    layers = (problem.domain.dimension, features, len(problem.outputs))

    def network(seed: int) -> nn.Module:
        if activation == RADIAL:
            return RadialFeatures(layers, scale, bounds, seed)
        return RandomFeatures(layers, activation, scale, bounds, trainable, seed)

    # Features that stay take a step or a few, features that train tens.
    steps = 60 if trainable else 10
    return Recipe(
        points=counts,
        schedule=(VarPro(steps),),
        resample=None,
        max_seconds=None,
        network=network,
        weights=weights or None,
        slabs=slabs,
    )


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
