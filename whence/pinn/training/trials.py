"""Short runs on one problem, by which a recipe is chosen."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whence.pinn.pde.problem import Problem
from whence.pinn.pde.slab import check_slabs, slab_problem
from whence.pinn.training.choices import FEATURES, SLABS, recipe_of_choice
from whence.pinn.training.recipe import Recipe, features_recipe
from whence.pinn.training.result import Result
from whence.pinn.training.slabs import Slabs
from whence.pinn.training.train import train

TRIED_FEATURES = (
    ("sin", 4.0),
    ("sin", 12.0),
    ("sin", 30.0),
    ("tanh", 8.0),
    ("tanh", 25.0),
    ("radial", 4.0),
    ("radial", 10.0),
)
"""Kinds and scales of features that are tried over all of the domain."""
TRIED_IN_SLABS = (("tanh", 20.0),)
"""The same in slabs of time: slopes up to which features go where nothing is steep."""
TRIED_IN_SPACE = (("radial", 5.0), ("radial", 10.0), ("radial", 20.0))
"""In slabs of problems of more than one dimension of space, where ridges are too many."""
MIN_TRIED = 150
"""Least features of a trial."""
MAX_TRIED = 300
"""Most features of a trial."""
N_DOUBLED = 2
"""Kinds of which twice as many are tried."""
TRIED_SHARE = 0.2
"""Features of a trial for each that fits into the time."""
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
SOLVES_OF_SLABS = 60
"""Solves that they may come to, twice as many for beside other work."""
LINEAR_SOLVES = 35
"""The same of linear equations, which take two solves where others take four and more."""
SLAB_TOLERANCE = 1e-11
"""Loss up to which a slab is good, in units of that of a network that is zero."""
SLAB_TRIED_SHARE = 0.5
"""Features of a trial of a slab for each that fits into the time."""
SLAB_PASSES = 2
"""Trainings of the first slab in a trial: the second places features by the first."""
ROUNDING = 1e-25
"""Least loss to be expected in double precision, in the same units."""
FEW = 100
"""Points of each term, of a look at the residuals."""
FRESH = 1000
"""Points of each term, of a loss that trials are compared by."""
SHARE_OF_GROWING = 0.1
"""Share of the time for a trial of the problem's own network."""


@dataclass(frozen=True)
class Trial:
    """A choice that was tried, and the loss that it may be expected to come to."""

    choice: str
    loss: float


class Trials:
    """Short runs on one problem.

    Parameters
    ----------
    problem:
        What to solve.
    seconds:
        Time for the trials and the training.
    seed:
        Seed of the trials.
    """

    def __init__(self, problem: Problem, seconds: float, seed: int) -> None:
        self._problem = problem
        self._seconds = seconds
        self._seed = seed
        self._zero = self._loss_of_zero()
        self.reasons: list[str] = []

    def features(self) -> Trial:
        """Return the best choice of features."""
        problem = self._problem
        network = _network_of(problem, f"features:sin:4:{MIN_FEATURES}")
        linear = is_linear(problem, network)
        whole = self._at_once()
        kind = "linear in the network" if linear else "nonlinear"
        if whole.loss < SLAB_TOLERANCE * self._zero:
            self.reasons.append(f"it is {kind}, and needs no slabs of time")
            return whole
        if not _takes_slabs(problem):
            self.reasons.append(f"it is {kind}, and has no time to be cut into slabs")
            return whole

        slabs = self._in_slabs(linear)
        if slabs.loss < whole.loss:
            self.reasons.append(f"it is {kind}, and its time is cut into slabs")
            return slabs
        self.reasons.append(f"it is {kind}, and slabs of time would not help")
        return whole

    def own_network(self, recipe: Recipe) -> float:
        """Return the loss at fresh points of a trial of the problem's own network."""
        trial = replace(recipe, max_seconds=SHARE_OF_GROWING * self._seconds)
        return self._loss(self._problem, trial)

    # --- features over all of the domain ---

    def _at_once(self) -> Trial:
        n = self._affordable(SHARE_OF_SOLVE * self._seconds)
        n_tried = max(MIN_TRIED, min(MAX_TRIED, int(TRIED_SHARE * n)))
        losses = {}
        for kind, scale in TRIED_FEATURES:
            losses[kind, scale] = self._loss_at_once(kind, scale, n_tried)
        best = min(losses, key=losses.__getitem__)
        kind, scale = best
        self.reasons.append(
            f"of {n_tried} features over all of it those of {kind} and scale {scale:g} leave the "
            f"least, {losses[best]:.1e}; {n} fit into the time"
        )
        if losses[best] < SLAB_TOLERANCE * self._zero:
            return Trial(f"{FEATURES}:{kind}:{scale:g}:{n}", losses[best])

        # Those that are best when few need not be when many: what twice as many gain tells.
        twice = {}
        for kind, scale in sorted(losses, key=losses.__getitem__)[:N_DOUBLED]:
            twice[kind, scale] = self._loss_at_once(kind, scale, 2 * n_tried)
        best = min(twice, key=twice.__getitem__)
        kind, scale = best
        expected = extrapolated(losses[best], twice[best], n / n_tried)
        expected = max(expected, ROUNDING * self._zero)
        self.reasons.append(
            f"twice as many, of {kind} and scale {scale:g}, leave {twice[best]:.1e}: {n} may "
            f"come to {expected:.1e}"
        )
        return Trial(f"{FEATURES}:{kind}:{scale:g}:{n}", expected)

    def _loss_at_once(self, kind: str, scale: float, n: int) -> float:
        recipe = recipe_of_choice(self._problem, f"{FEATURES}:{kind}:{scale:g}:{n}")
        return self._loss(self._problem, recipe)

    # --- features in slabs of time ---

    def _in_slabs(self, linear: bool) -> Trial:
        problem = self._problem
        name = problem.time
        assert name is not None
        column = problem.coordinates.index(name)
        start, end = (float(t) for t in problem.domain.bounds[:, column])
        length = (end - start) / N_SLABS
        first = slab_problem(problem, start, start + length, None)
        tolerance = SLAB_TOLERANCE * self._zero

        solves = LINEAR_SOLVES if linear else SOLVES_OF_SLABS
        n = self._affordable(self._seconds / solves)
        n_tried = int(SLAB_TRIED_SHARE * n)
        tried = list(TRIED_IN_SLABS)
        if len(problem.coordinates) > 2:
            tried += TRIED_IN_SPACE

        trials = []
        for kind, scale in tried:
            recipe = recipe_of_choice(first, f"{FEATURES}:{kind}:{scale:g}:{n_tried}")
            options: dict[str, Any] = {name: length}
            slab = Slabs(passes=SLAB_PASSES, **options)
            loss = self._loss(first, replace(recipe, slabs=slab))
            choice = f"{SLABS}:{kind}:{scale:g}:{n}:{length:g}:{tolerance:.1g}"
            trials.append(Trial(choice, loss))

        best = min(trials, key=lambda trial: trial.loss)
        _, kind, slope, *_ = best.choice.split(":")
        self.reasons.append(
            f"on the first of {N_SLABS} slabs {n_tried} of {kind} and scale {slope} leave "
            f"{best.loss:.1e}; {n} fit into the time"
        )
        return best

    # --- losses ---

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
        points = self._problem.sample(_counts(self._problem, FEW), seed=self._seed)
        losses = self._problem.objective(network, points).losses()
        mean = sum(float(losses[name]) for name in self._problem.equations)
        # A start that is a solution already leaves nothing to compare with.
        return mean if mean > 0 else 1.0

    def _loss(self, problem: Problem, recipe: Recipe) -> float:
        """Train by a recipe; return the loss at fresh points, all terms of weight 1."""
        result = _trained(problem, recipe, self._seed)
        if result.summary["failure"]:
            return math.inf

        points = problem.sample(_counts(problem, FRESH), seed=self._seed + 1)
        losses = problem.objective(result.network, points).losses()
        loss = sum(float(value) for value in losses.values())
        return loss if math.isfinite(loss) else math.inf


def _trained(problem: Problem, recipe: Recipe, seed: int) -> Result:
    network = None
    if recipe.network is not None:
        network = recipe.network(seed)
    if recipe.slabs is not None:
        return recipe.slabs.train(
            problem,
            network,
            points=recipe.points,
            schedule=recipe.schedule,
            weights=recipe.weights,
            seed=seed,
            progress=False,
        )
    return train(
        problem,
        network,
        points=recipe.points,
        schedule=recipe.schedule,
        resample=recipe.resample,
        pinned=recipe.pinned,
        weights=recipe.weights,
        max_seconds=recipe.max_seconds,
        seed=seed,
        progress=False,
    )


def extrapolated(loss: float, twice: float, times: float) -> float:
    """Return the loss of ``times`` as many features, by those of so many and of twice as many.

    Each so many more gain the same factor, as where errors fall exponentially; fewer are no worse.

    Examples
    --------
    >>> from whence.pinn.training.trials import extrapolated
    >>> extrapolated(1e-2, 1e-4, 2.0)
    0.0001
    """
    if not twice < loss:
        return loss
    # ℓ(m) = ℓ(1) (ℓ(2)/ℓ(1))^(m − 1); fewer than were tried are not asked for.
    return float(loss * (twice / loss) ** max(0.0, times - 1))


def _network_of(problem: Problem, choice: str) -> nn.Module:
    """Return the network of a choice of features."""
    recipe = recipe_of_choice(problem, choice)
    assert recipe.network is not None
    return recipe.network(0)


def _counts(problem: Problem, n: int) -> dict[str, int]:
    """Return numbers of points by term, of each term at most n."""
    counts = features_recipe(problem, features=1, scale=4.0, points=n).points
    return {name: min(n, count) for name, count in counts.items()}


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
    points = problem.sample(_counts(problem, FEW), seed=0)
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
