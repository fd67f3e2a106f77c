"""Benchmark problems, each with its reference solution and recipe (arXiv 2506.16443).

``load("burgers")`` returns a :class:`whence.pinn.Problem` with architecture and solution. A
problem is one module in this folder (or of another package, by the entry point
``whence.problems``) that defines ``problem(constraints)`` and, if wanted, ``recipe(constraints)``,
``VARIANTS`` and ``FUNCTIONALS``: what a file for ``whence train FILE.py`` defines, too.
"""

from __future__ import annotations

from typing import Literal

from whence import _checks
from whence.catalogue import PROBLEMS
from whence.pinn.pde.problem import Problem
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe
from whence.pinn.training.variant import GOOD

Constraints = Literal["hard", "soft"]
CONSTRAINTS = ("hard", "soft")


def names() -> tuple[str, ...]:
    """Return the names of the problems.

    Examples
    --------
    >>> from whence import pinn
    >>> "burgers" in pinn.zoo.names()
    True
    """
    return tuple(PROBLEMS)


def describe(name: str) -> str:
    """Return one line on a problem: its equation and conditions.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.describe("diffusion")[:20]
    'Diffusion: u_t = u_x'
    """
    return PROBLEMS.summary(name)


def variants(name: str) -> dict[str, str]:
    """Return the variants of a problem by name, each with what is different in words.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.variants("burgers")["broken"]
    'wrong viscosity: 0.1/π in place of 0.01/π'
    """
    words = {GOOD: "the problem as it is, by its best recipe"}
    for variant, kind in _source(name).variants.items():
        words[variant] = kind.summary
    return words


def load(
    name: str, constraints: Constraints = "hard", variant: str | None = None
) -> Problem:
    """Return a problem by name.

    Parameters
    ----------
    name:
        One of :func:`names`.
    constraints:
        ``"hard"``: an ansatz meets the conditions exactly and the equation is the only term.
        ``"soft"``: one term per condition beside it.
    variant:
        One of :func:`variants`: ``"broken"`` has a wrong equation or condition, ``"bad"`` is the
        same problem and differs in its :func:`recipe`; ``"good"``, or None, is the problem as it
        is. The reference solution is that of ``"good"`` in each.

    Raises
    ------
    ValueError
        For an unknown name, kind or variant; the message names the nearest.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.load("burgers").terms
    ('pde',)
    >>> pinn.zoo.load("wave", constraints="soft").terms
    ('pde', 'initial_u', 'initial_u_t', 'dirichlet_u')
    >>> pinn.zoo.load("burgers", variant="broken").label
    'burgers (broken)'
    """
    _checks.one_of("constraints", constraints, CONSTRAINTS)
    return _source(name).problem(constraints, variant)


def recipe(
    name: str, constraints: Constraints = "hard", variant: str | None = None
) -> Recipe:
    """Return the best known way to train a problem; docs/recipes.md says how it was found.

    Of a variant it is its own, which may be a poor one on purpose.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.zoo.recipe("burgers").points
    {'pde': 8000}
    >>> pinn.zoo.recipe("burgers", variant="bad").points
    {'pde': 500}
    """
    problem = load(name, constraints, variant)
    # A problem of another package may leave the recipe open.
    return _source(name).recipe(problem, constraints, variant=variant)


def _source(name: str) -> ProblemFile:
    module = PROBLEMS[name]
    return ProblemFile(name, vars(module))
