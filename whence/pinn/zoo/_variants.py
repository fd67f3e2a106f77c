"""What variants of the zoo's problems are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.settings.soft import POOR, PoorlyTrained
from whence.pinn.training.variant import Variant


def poorly_trained(name: str) -> Variant:
    """Return the variant of a problem that is trained by the setting ``pinnfluence_poor``.

    That is published for soft constraints; with hard ones its points of the equation are left.
    """
    # The numbers of the published table, in words.
    numbers = POOR[name].text()
    summary = f"trained poorly: {numbers}"
    return Variant(summary, recipe=PoorlyTrained().recipe)


def with_equation(summary: str, equation: Callable[..., Tensor]) -> Variant:
    """Return the variant with another equation in place of the problem's only one."""

    def changed(problem: Problem) -> Problem:
        # Conditions and ansatz stay, and so does the reference solution.
        return replace(problem, equations={"pde": equation})

    return Variant(summary, changed)


def with_conditions(
    summary: str,
    conditions: Sequence[Condition],
    ansatz: Callable[..., Tensor],
) -> Variant:
    """Return the variant with other conditions, and the ansatz that meets these."""

    def changed(problem: Problem) -> Problem:
        # Hard constraints are in the ansatz, soft ones among the conditions.
        if problem.ansatz is not None:
            return replace(problem, ansatz=ansatz)
        return replace(problem, conditions=conditions)

    return Variant(summary, changed)
