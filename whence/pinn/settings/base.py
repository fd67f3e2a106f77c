"""What every setting is, and what settings share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe


@runtime_checkable
class Setting(Protocol):
    """A published way to train: a recipe for each problem, and the kind of its constraints."""

    constraints: str
    """``"hard"`` or ``"soft"``."""

    def recipe(self, problem: Problem) -> Recipe:
        """Return how the problem is trained.

        Raises
        ------
        ValueError
            If the setting says nothing of this problem.
        """


def points_by_term(
    problem: Problem, domain: int, initial: int, boundary: int
) -> dict[str, int]:
    """Return numbers of points by term: of equations, initial conditions, other conditions.

    Terms whose points are part of them, as measurements are, are left out; a term that holds at
    fewer points gets these.
    """
    counts = {}
    for term in problem.terms:
        if term in problem.given_terms:
            continue

        wanted = boundary
        if term in problem.equations:
            wanted = domain
        elif term.startswith("initial"):
            wanted = initial

        room = problem.room(term)
        counts[term] = wanted if room is None else min(wanted, room)

    return counts
