"""Why a system ``(A + λI) x = b`` is refused: each reason in one place, with its remedy.

What an iteration did not reach is no error: the solution says it in its ``message``.
"""

from __future__ import annotations

import torch
from torch import Tensor

GIB = 2**30


class SingularSystem(ValueError):
    """``A + λI`` is singular to working precision, so that it determines no solution.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.curvature.failures import SingularSystem
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)           # two parameters
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> point = torch.tensor([[1.0]], dtype=torch.float64)             # one equation
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, point)]))
    >>> try:
    ...     wh.Exact("primal").factor(operator, wh.Damping(0.0))
    ... except SingularSystem as error:
    ...     print(error)
    the curvature is singular to working precision with damping λ = 0: raise the damping, for \
example damping=1e-11
    """


def singular(damping: float, enough: float) -> SingularSystem:
    """Return the error of a system that λ = ``damping`` leaves singular.

    ``enough`` is a relative damping that rounding would not hide.
    """
    return SingularSystem(
        f"the curvature is singular to working precision with damping λ = {damping:.3g}: "
        f"raise the damping, for example damping={enough:.1g}"
    )


def undamped(who: str, because: str) -> SingularSystem:
    """Return the error of a solver that has no answer without damping."""
    return SingularSystem(f"{who} needs damping above zero: {because}")


def needs_rows(who: str, instead: str) -> ValueError:
    """Return the error of a solver that needs the root J of A, which a Hessian does not have."""
    return ValueError(
        f"{who} needs a Gauss–Newton operator, not a Hessian: use curvature='gauss_newton', "
        f"{instead}"
    )


def check_finite(values: Tensor) -> None:
    """Raise ``ValueError`` unless what the curvature was computed from is finite."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "the curvature is not finite: parameters, points or residuals are not"
        )


def check_memory(who: str, needed: int, memory_budget: int, remedy: str) -> None:
    """Raise ``MemoryError`` if ``needed`` bytes exceed the budget, before they are allocated."""
    if needed > memory_budget:
        raise MemoryError(
            f"{who} needs {needed / GIB:.1f} GiB, above the memory budget of "
            f"{memory_budget / GIB:.1f} GiB: {remedy}"
        )
