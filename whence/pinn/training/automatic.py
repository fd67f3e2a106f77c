"""A recipe chosen by trial: what a few short runs say of a problem that nobody has tuned for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.slab import check_slabs, slab_problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.training.result import Result
from whence.pinn.training.slabs import Slabs
from whence.pinn.training.train import train

TRIED_FEATURES = (
    ("sin", 4.0),
    ("sin", 12.0),
    ("sin", 30.0),
    ("tanh", 8.0),
    ("tanh", 25.0),
)
"""Kinds and scales of features that are tried."""
N_TRIED = 300
"""Features of a trial."""
POINTS_PER_FEATURE = 8
"""Points of an equation for each feature: with half as many the residual between them grows."""
MAX_FEATURES = 1500
"""Most features: their factor grows with the square, the time with the cube of their number."""
MIN_FEATURES = 200
"""Least features of a recipe."""
CUBE_SECONDS = 8e-9
"""Seconds of a solve for the cube of the number of features, on one core."""
SHARE_OF_SOLVE = 0.25
"""Share of the time that solving all at once may take by that estimate."""
N_SLABS = 10
"""Slabs at first; those that come out poor are halved."""
TRAININGS = 30
"""Trainings of slabs: passes over each, and halves."""
SOLVES_OF_SLABS = 60
"""Solves that they may come to, twice as many for beside other work."""
SLAB_SCALE = 20.0
"""Slope up to which features of slabs go where nothing is steep."""
SLAB_TOLERANCE = 1e-11
"""Loss up to which a slab is good, in units of that of a network that is zero."""
FEW = 100
"""Points of each term, of a look at the residuals."""
SHARE_OF_GROWING = 0.1
"""Share of the time for a trial of the problem's own network."""


GROWING = "growing"
"""Choice of the problem's own network, on points that grow by influence."""
FEATURES = "features"
"""Choice of random features over all of the domain."""
SLABS = "slabs"
"""Choice of random features in slabs of time."""


@dataclass(frozen=True)
class AutomaticRecipe:
    """A recipe, and why it was chosen.

    Parameters
    ----------
    choice:
        Its name, from which :func:`recipe_of_choice` makes it again: ``growing``,
        ``features:ACTIVATION:SCALE:N`` or ``slabs:ACTIVATION:SCALE:N:LENGTH:TOLERANCE``.
    recipe:
        How to train.
    reasons:
        What was tried and what came of it, a sentence each.
    """

    choice: str
    recipe: Recipe
    reasons: tuple[str, ...]


def recipe_of_choice(problem: Problem, choice: str) -> Recipe:
    """Return the recipe of a choice by its name.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.training.automatic import recipe_of_choice
    >>> recipe_of_choice(pinn.zoo.load("diffusion"), "features:sin:4:300").points
    {'pde': 2400}
    """
    kind, *values = choice.split(":")
    try:
        if kind == GROWING and not values:
            return growing_recipe(problem)
        activation, scale, n, *of_slabs = values
        recipe = features_recipe(
            problem,
            features=int(n),
            scale=float(scale),
            points=POINTS_PER_FEATURE * int(n),
            activation=activation,
        )
        if kind == FEATURES and not of_slabs:
            return recipe
        if kind != SLABS or problem.time is None:
            raise ValueError("is none of them")
        length, tolerance = map(float, of_slabs)
    except ValueError as error:
        raise ValueError(
            "a recipe is chosen as growing, features:ACTIVATION:SCALE:N or "
            f"slabs:ACTIVATION:SCALE:N:LENGTH:TOLERANCE, got {choice!r}"
        ) from error

    options: dict[str, Any] = {problem.time: length}
    slabs = Slabs(tolerance=tolerance, trainings=TRAININGS, **options)
    return replace(recipe, slabs=slabs)


def automatic_recipe(
    problem: Problem,
    seconds: float = 300.0,
    *,
    network: Callable[[int], nn.Module] | None = None,
    seed: int = 0,
) -> AutomaticRecipe:
    """Return a recipe for a problem by short trials, which take about a sixth of the time.

    Random features are tried in a few kinds and scales: over all of the domain, or on the first of
    ten slabs of time where equations are nonlinear. The problem's own network is tried under
    Gauss–Newton, on points that grow by influence. Which has the least loss at fresh points is
    taken; of features as many as the time allows. Trials and choice are the same again for the same
    seed and time, but for the problem's own network, whose steps the clock counts.

    Parameters
    ----------
    problem:
        What to solve.
    seconds:
        Time for the trials and the training.
    network:
        The problem's own network, from a seed; by default its architecture.
    seed:
        Seed of the trials.

    Examples
    --------
    >>> from whence import pinn
    >>> automatic = pinn.automatic_recipe(pinn.zoo.load("diffusion"), seconds=10)
    >>> automatic.choice
    'features:sin:4:600'
    >>> automatic.reasons[0]
    'of 300 features over all of it those of sin and scale 4 leave the least, ...
    """
    _checks.positive("seconds", seconds)
    growing = growing_recipe(problem)
    if network is not None:
        growing = replace(growing, network=network)
    if problem.unknowns:
        unknowns = ", ".join(problem.unknowns)
        reason = f"it has unknowns ({unknowns}), which features are not solved for with"
        return AutomaticRecipe(GROWING, growing, (reason, "its own network is trained"))

    trials = _Trials(problem, seconds, seed)
    choice, loss = trials.features()
    own_loss = trials.own_network(growing)
    if own_loss < loss:
        reason = f"its own network comes to {own_loss:.1e} in its trial, and is trained"
        return AutomaticRecipe(GROWING, growing, (*trials.reasons, reason))

    reason = f"its own network comes to {own_loss:.1e} in its trial, features are taken"
    recipe = recipe_of_choice(problem, choice)
    return AutomaticRecipe(choice, recipe, (*trials.reasons, reason))


class _Trials:
    """Short runs on one problem."""

    def __init__(self, problem: Problem, seconds: float, seed: int) -> None:
        self._problem = problem
        self._seconds = seconds
        self._seed = seed
        self.reasons: list[str] = []

    def features(self) -> tuple[str, float]:
        """Return the best choice of features, and the loss of its trial at fresh points."""
        problem = self._problem
        linear = is_linear(
            problem, _network_of(problem, f"features:sin:4:{MIN_FEATURES}")
        )
        whole, loss = self._at_once()
        if linear:
            self.reasons.append(
                "it is linear in the network, whose features are solved for at once"
            )
            return whole, loss
        if not _takes_slabs(problem):
            self.reasons.append("it is nonlinear, and has no time to be cut into slabs")
            return whole, loss

        slabs, loss_of_slab = self._in_slabs()
        if loss_of_slab < loss:
            self.reasons.append("it is nonlinear in time, which is cut into slabs")
            return slabs, loss_of_slab
        self.reasons.append("it is nonlinear, and slabs of time would not help")
        return whole, loss

    def _at_once(self) -> tuple[str, float]:
        losses = {}
        for activation, scale in TRIED_FEATURES:
            choice = f"{FEATURES}:{activation}:{scale:g}:{N_TRIED}"
            recipe = recipe_of_choice(self._problem, choice)
            losses[activation, scale] = self._loss(self._problem, recipe)
        activation, scale = min(losses, key=losses.__getitem__)
        loss = losses[activation, scale]

        n = self._affordable(SHARE_OF_SOLVE * self._seconds)
        self.reasons.append(
            f"of {N_TRIED} features over all of it those of {activation} and scale {scale:g} leave "
            f"the least, {loss:.1e}; {n} fit into the time"
        )
        return f"{FEATURES}:{activation}:{scale:g}:{n}", loss

    def _in_slabs(self) -> tuple[str, float]:
        problem = self._problem
        time = problem.time
        assert time is not None
        column = problem.coordinates.index(time)
        start, end = (float(t) for t in problem.domain.bounds[:, column])
        length = (end - start) / N_SLABS
        tolerance = SLAB_TOLERANCE * self._loss_of_zero()
        features = f"tanh:{SLAB_SCALE:g}"

        first = slab_problem(problem, start, start + length, None)
        trial = recipe_of_choice(first, f"{FEATURES}:{features}:{N_TRIED}")
        loss = self._loss(first, trial)
        n = self._affordable(self._seconds / SOLVES_OF_SLABS)
        self.reasons.append(
            f"on the first of {N_SLABS} slabs they leave {loss:.1e}; {n} fit into the time"
        )
        return f"{SLABS}:{features}:{n}:{length:g}:{tolerance:.1g}", loss

    def own_network(self, recipe: Recipe) -> float:
        """Return the loss at fresh points of a trial of the problem's own network."""
        trial = replace(recipe, max_seconds=SHARE_OF_GROWING * self._seconds)
        return self._loss(self._problem, trial)

    def _affordable(self, seconds: float) -> int:
        """Return how many features are solved for in so many seconds."""
        # Each output has as many unknowns, and the cube of all counts.
        unknowns = (seconds / CUBE_SECONDS) ** (1 / 3)
        n = unknowns / len(self._problem.outputs)
        # In whole hundreds: more digits than the estimate has would say nothing.
        return max(MIN_FEATURES, min(MAX_FEATURES, 100 * int(n / 100)))

    def _loss_of_zero(self) -> float:
        """Return the loss of the equations where the network is zero."""
        network = _network_of(self._problem, f"features:sin:4:{MIN_FEATURES}")
        points = self._problem.sample(_few(self._problem), seed=self._seed)
        losses = self._problem.objective(network, points).losses()
        mean = sum(float(losses[name]) for name in self._problem.equations)
        # A start that is a solution already leaves nothing to compare with.
        return mean if mean > 0 else 1.0

    def _loss(self, problem: Problem, recipe: Recipe) -> float:
        """Train by a recipe; return the loss at fresh points, all terms of weight 1."""
        result = _trained(problem, recipe, self._seed)
        loss = result.summary["validation_loss"]
        if result.summary["failure"] or loss is None or not math.isfinite(loss):
            return math.inf
        return float(loss)


def _trained(problem: Problem, recipe: Recipe, seed: int) -> Result:
    network = None
    if recipe.network is not None:
        network = recipe.network(seed)
    return train(
        problem,
        network,
        points=recipe.points,
        schedule=recipe.schedule,
        resample=recipe.resample,
        weights=recipe.weights,
        max_seconds=recipe.max_seconds,
        seed=seed,
        progress=False,
    )


def _network_of(problem: Problem, choice: str) -> nn.Module:
    """Return the network of a choice of features."""
    recipe = recipe_of_choice(problem, choice)
    assert recipe.network is not None
    return recipe.network(0)


def _few(problem: Problem) -> dict[str, int]:
    """Return numbers of points by term, with which all can be looked at in no time."""
    counts = features_recipe(problem, features=1, scale=4.0, points=FEW).points
    return {name: min(FEW, count) for name, count in counts.items()}


def _takes_slabs(problem: Problem) -> bool:
    try:
        check_slabs(problem)
    except ValueError:
        return False
    return True


def is_linear(problem: Problem, network: nn.Module) -> bool:
    """Whether all residuals are linear in the last layer of a network of features.

    An affine function r has ``r(a + b) − r(a) − r(b) + r(0) = 0`` for any a and b.
    """
    points = problem.sample(_few(problem), seed=0)
    generator = torch.Generator().manual_seed(0)
    trained = copy.deepcopy(network)
    last = [p for p in trained.parameters() if p.requires_grad]

    def drawn() -> list[Tensor]:
        return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in last]

    def residuals(values: list[Tensor]) -> Tensor:
        """Return the residuals of all terms, flat."""
        with torch.no_grad():
            for parameter, value in zip(last, values, strict=True):
                parameter.copy_(value)
        objective = problem.objective(trained, points)
        tensors = objective.parameters.tensors()
        parts = []
        for term in objective.terms.values():
            parts.append(term.checked_residual(tensors, term.points).flatten())
        return torch.cat(parts).detach()

    a = drawn()
    b = drawn()
    both = [x + y for x, y in zip(a, b, strict=True)]
    zero = [torch.zeros_like(x) for x in a]
    at_both = residuals(both)
    excess = at_both - residuals(a) - residuals(b) + residuals(zero)
    # Rounding of sums of terms that cancel, in the derivatives of steep features.
    return bool(excess.abs().max() <= 1e-9 * at_both.abs().max())
