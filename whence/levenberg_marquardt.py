"""Levenberg–Marquardt: Gauss–Newton steps with a damping that follows their success.

What is minimized is ``F(θ) = L(θ) + (α/2)‖θ − θ₀‖²`` with the anchor α ≥ 0. With J and ρ scaled
so that ``JᵀJ`` is the Gauss–Newton matrix of L and ``Jᵀρ = ∇L``, and ``d = θ − θ₀``, a step δ
solves ``(JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd)`` (Levenberg 1944; Marquardt 1963). The optimizer
:class:`whence.pinn.GaussNewton` and :func:`whence.refit` are made of these pieces: a system that
is solved for rising μ, and a rule by which μ follows the gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from whence import _checks
from whence.damped_systems import (
    DualSystem,
    HessianSystem,
    PrimalSystem,
    SketchedSystem,
    Step,
    System,
    TriangularSystem,
)
from whence.jacobian import Jacobian
from whence.objective import Objective
from whence.sketches import Sketch
from whence.triangular import Triangle

Form = Literal["auto", "primal", "dual", "triangular"]
Curvature = Literal["gauss_newton", "hessian"]

FORMS = get_args(Form)
CURVATURES = get_args(Curvature)

MAX_TRIALS = 20
"""Dampings tried for one step."""
GOOD_GAIN = 0.5
"""Share of the promised decrease above which the damping falls."""
POOR_GAIN = 0.1
"""Share of the promised decrease below which the damping rises."""

# How this differs from scipy.optimize.least_squares(method="lm"), which is MINPACK's:
# 1. The damping is μI, not μ·diag(JᵀJ): parameters of a network are alike in scale, and the
#    dual form needs a multiple of the identity.
# 2. There is a dual form, K = JJᵀ, of the cost R²P in place of P²R for R residuals and P
#    parameters.
# 3. The damping follows the gain by fixed factors, not a trust region by its radius.


def system_of(
    objective: Objective,
    form: Form = "auto",
    *,
    anchor: float = 0.0,
    start: Tensor | None = None,
    sketch: Sketch | None = None,
    curvature: Curvature = "gauss_newton",
) -> System:
    """Return the system of a step at the network's parameters θ.

    Parameters
    ----------
    objective:
        L, at whose network's parameters the step is taken; a penalty ``(c/2)‖θ‖²`` of it is part
        of F, and so of the system.
    form:
        ``"primal"`` or ``"dual"``; ``"auto"`` takes the smaller of the two. ``"triangular"`` loses
        no digits to the square of J.
    anchor:
        α ≥ 0.
    start:
        θ₀, shape (P,); by default θ itself.
    sketch:
        Random combinations that take the place of rows and columns of J, whatever the form.
    curvature:
        ``"hessian"`` takes the Hessian of L in place of ``JᵀJ``, whatever the form.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.levenberg_marquardt import system_of
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> objective.parameters.assign(torch.zeros(1, dtype=torch.float64))
    >>> step = system_of(objective).solve(damping=1e-12)
    >>> round(float(step.delta), 9), round(step.promised, 9)     # Σxy/Σx², and all but ½·0.2²·…
    (1.6, 6.4)
    """
    _checks.one_of("form", form, FORMS)
    theta = objective.parameters.vector()
    moved = torch.zeros_like(theta) if start is None else theta - start

    penalty = objective.weight_decay
    if penalty:
        # (α/2)‖θ − θ₀‖² + (c/2)‖θ‖² = (α + c)/2 · ‖θ − θ₁‖² and a constant, θ₁ = α/(α + c) θ₀,
        # so that θ − θ₁ = (α(θ − θ₀) + cθ) / (α + c).
        moved = (anchor * moved + penalty * theta) / (anchor + penalty)
        anchor += penalty

    if sketch is not None:
        return SketchedSystem(objective, sketch, anchor, moved)

    if curvature == "hessian":
        return HessianSystem(objective, anchor, moved)

    if form == "auto":
        rows, columns = Jacobian(objective).shape
        form = "dual" if rows <= columns else "primal"

    if form == "dual":
        return DualSystem(objective, anchor, moved)
    if form == "triangular":
        pull = Jacobian(objective, scaled=True).rmatvec
        triangle = Triangle.of_objective(objective)
        return TriangularSystem(triangle, pull, anchor, moved)

    return PrimalSystem(objective, anchor, moved)


def trial_steps(system: System, damping: float, increase: float) -> Iterator[Step]:
    """Yield steps of rising damping: μ, cμ, 2c·cμ, 4c·2c·cμ, … with c = ``increase``.

    The factor itself doubles from trial to trial, so that a few trials span many orders.
    """
    growth = increase
    for _ in range(MAX_TRIALS):
        step = system.solve(damping)
        if step is not None:
            yield step
        damping *= growth
        growth *= 2


def next_damping(step: Step, gained: float, decrease: float, increase: float) -> float:
    """Return μ for the next step from what an accepted one gained of its promise."""
    # Not divided by the promise: at a minimum both are rounding, and it may be zero or below.
    if gained > GOOD_GAIN * step.promised:
        return step.damping / decrease
    if gained < POOR_GAIN * step.promised:
        return step.damping * increase
    return step.damping


def damping_by_ratio(
    step: Step, gained: float, target: float, decrease: float, increase: float
) -> float:
    """Return μ for the next step, such that the share gained of the promise tends to a target.

    A share g of the promise changes μ by ``increase^((t − g)/t)`` below the target t and by
    ``decrease^(−(g − t)/(1 − t))`` above it: not at all at t, by the whole factors at 0 and 1.

    Examples
    --------
    >>> import torch
    >>> from whence.levenberg_marquardt import Step, damping_by_ratio
    >>> step = Step(torch.ones(1), damping=1.0, promised=2.0)
    >>> [damping_by_ratio(step, gained, 0.5, 3.0, 2.0) for gained in (0.0, 1.0, 2.0)]
    [2.0, 1.0, 0.3333333333333333]
    """
    # At a minimum both are rounding, and the promise may be none.
    ratio = gained / step.promised if step.promised > 0 else 0.0
    ratio = min(max(ratio, 0.0), 1.0)
    if ratio < target:
        factor: float = increase ** ((target - ratio) / target)
        return step.damping * factor

    exponent = (ratio - target) / (1 - target)
    divisor: float = decrease**exponent
    return step.damping / divisor
