"""Benchmark problems, each with its reference solution, from Naujoks et al., arXiv 2506.16443.

``load("burgers")`` returns a :class:`whence.pinn.problem.Problem` with architecture and solution.
"""

from __future__ import annotations

from typing import Literal

from whence import _checks
from whence.pinn.problem import Problem
from whence.pinn.zoo import allen_cahn, burgers, diffusion, drift_diffusion, wave

MODULES = {
    "diffusion": diffusion,
    "burgers": burgers,
    "allen_cahn": allen_cahn,
    "wave": wave,
    "drift_diffusion": drift_diffusion,
}


def names() -> tuple[str, ...]:
    """Return the names of the problems."""
    return tuple(MODULES)


def describe(name: str) -> str:
    """Return one line on a problem: its equation and conditions."""
    _checks.one_of("problem", name, MODULES)
    return (MODULES[name].__doc__ or "").strip().splitlines()[0]


def load(name: str, constraints: Literal["hard", "soft"] = "hard") -> Problem:
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
    _checks.one_of("problem", name, MODULES)
    _checks.one_of("constraints", constraints, ("hard", "soft"))
    return MODULES[name].problem(constraints)
