"""Names of recipes: what a choice by trial is called, and the recipe that a name stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.training.slabs import Slabs

POINTS_PER_FEATURE = 8
"""Points of an equation for each feature: with half as many the residual between them grows."""
TRAININGS = 30
"""Trainings of slabs: passes over each, and halves."""

GROWING = "growing"
"""Choice of the problem's own network, on points that grow by influence."""
FEATURES = "features"
"""Choice of features over all of the domain."""
SLABS = "slabs"
"""Choice of features in slabs of time."""


def recipe_of_choice(problem: Problem, choice: str) -> Recipe:
    """Return the recipe of a choice by its name.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.training.choices import recipe_of_choice
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
            "a recipe is chosen as growing, features:KIND:SCALE:N or "
            f"slabs:KIND:SCALE:N:LENGTH:TOLERANCE, KIND an activation or radial, got {choice!r}"
        ) from error

    options: dict[str, Any] = {problem.time: length}
    slabs = Slabs(tolerance=tolerance, trainings=TRAININGS, **options)
    return replace(recipe, slabs=slabs)
