"""Benchmark problems, each with its reference solution and recipe (arXiv 2506.16443).

``load("burgers")`` returns a :class:`whence.pinn.Problem` with architecture and solution. A
problem is one module in this folder (or of another package, by the entry point
``whence.problems``) that defines ``problem(constraints)`` and, if wanted, ``recipe(constraints)``:
what a file for ``whence train FILE.py`` defines, too.
"""

from __future__ import annotations

from typing import Literal

from whence import _checks
from whence.catalogue import PROBLEMS
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe

Constraints = Literal["hard", "soft"]
CONSTRAINTS = ("hard", "soft")


def names() -> tuple[str, ...]:
    """Return the names of the problems."""
    return tuple(PROBLEMS)


def describe(name: str) -> str:
    """Return one line on a problem: its equation and conditions."""
    return PROBLEMS.summary(name)


def load(name: str, constraints: Constraints = "hard") -> Problem:
    """Return a problem by name.

    Parameters
    ----------
    name:
        One of :func:`names`.
    constraints:
        ``"hard"``: an ansatz meets the conditions exactly and the equation is the only term.
        ``"soft"``: one term per condition beside it.

    Raises
    ------
    ValueError
        For an unknown name or kind; the message names the nearest.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.load("burgers").terms
    ('pde',)
    >>> pinn.zoo.load("wave", constraints="soft").terms
    ('pde', 'initial_u', 'initial_u_t', 'dirichlet_u')
    """
    _checks.one_of("constraints", constraints, CONSTRAINTS)
    problem: Problem = PROBLEMS[name].problem(constraints)
    return problem


def recipe(name: str, constraints: Constraints = "hard") -> Recipe:
    """Return the best known way to train a problem; docs/recipes.md says how it was found.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.recipe("burgers").points
    {'pde': 8000}
    """
    _checks.one_of("constraints", constraints, CONSTRAINTS)
    module = PROBLEMS[name]
    # A problem of another package may leave the recipe open.
    if not hasattr(module, "recipe"):
        return growing_recipe(load(name, constraints))

    best: Recipe = module.recipe(constraints)
    return best
