"""A recipe chosen by trial: what a few short runs say of a problem that nobody has tuned for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.pinn.training.choices import GROWING, recipe_of_choice
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.training.trials import Trials


@dataclass(frozen=True)
class AutomaticRecipe:
    """A recipe, and why it was chosen.

    Parameters
    ----------
    choice:
        Its name, which ``whence train --recipe`` takes: ``growing``, ``features:KIND:SCALE:N`` or
        ``slabs:KIND:SCALE:N:LENGTH:TOLERANCE``.
    recipe:
        How to train.
    reasons:
        What was tried and what came of it, a sentence each.
    """

    choice: str
    recipe: Recipe
    reasons: tuple[str, ...]


def automatic_recipe(
    problem: Problem,
    seconds: float = 300.0,
    *,
    network: Callable[[int], nn.Module] | None = None,
    seed: int = 0,
) -> AutomaticRecipe:
    """Return a recipe for a problem by short trials, which take about a quarter of the time.

    Features of a few kinds and scales are tried over all of the domain, and where the problem has
    a time and that leaves much, on the first of ten slabs of it. The problem's own network is tried
    under Gauss–Newton, on points that grow by influence. Which has the least loss at fresh points
    is taken; of features as many as the time allows. Trials and choice are the same again for the
    same seed and time, but for the problem's own network, whose steps the clock counts.

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
    'of 150 features over all of it those of sin and scale 4 leave the least, ...
    """
    _checks.positive("seconds", seconds)
    growing = growing_recipe(problem)
    if network is not None:
        growing = replace(growing, network=network)
    if problem.unknowns:
        unknowns = ", ".join(problem.unknowns)
        reason = f"it has unknowns ({unknowns}), which features are not solved for with"
        return AutomaticRecipe(GROWING, growing, (reason, "its own network is trained"))

    trials = Trials(problem, seconds, seed)
    features = trials.features()
    own_loss = trials.own_network(growing)
    if own_loss < features.loss:
        reason = f"its own network comes to {own_loss:.1e} in its trial, and is trained"
        return AutomaticRecipe(GROWING, growing, (*trials.reasons, reason))

    reason = f"its own network comes to {own_loss:.1e} in its trial, features are taken"
    recipe = recipe_of_choice(problem, features.choice)
    return AutomaticRecipe(features.choice, recipe, (*trials.reasons, reason))
