"""Refits: an objective minimized from where its network is, by damped Gauss–Newton.

A refit of the objective without some of its points shows what they really do, see
:mod:`whence.evaluation.leaving_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.damped_systems import System
from whence.levenberg_marquardt import (
    CURVATURES,
    Curvature,
    next_damping,
    system_of,
    trial_steps,
)
from whence.objective import Objective

DECREASE = 3.0
INCREASE = 2.0
"""Factors by which the damping follows the gain."""
STALLED_STEPS = 3
"""Steps that together must gain enough, as one with much damping gains little."""
ROUNDING = 8
"""Machine precisions of a loss that its changes are lost in."""


@dataclass(frozen=True, eq=False)
class Refit:
    """Where a refit ended.

    Parameters
    ----------
    theta:
        The parameters found, (P,).
    loss:
        L there, the anchor not included.
    gradient_norm:
        Norm of the gradient of what was minimized, the anchor included.
    steps:
        Steps taken.
    converged:
        Whether the gradient, or a whole step, fell to the tolerance.
    """

    theta: Tensor
    loss: float
    gradient_norm: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class RefitOptions:
    """Options of a refit, see :func:`refit`."""

    steps: int = 50
    tolerance: float = 1e-10
    damping: float = 1e-8
    anchor: float = 0.0
    curvature: Curvature = "gauss_newton"
    stall: float = 0.0

    def __post_init__(self) -> None:
        _checks.count("steps", self.steps)
        _checks.positive("tolerance", self.tolerance, zero=True)
        _checks.positive("damping", self.damping)
        _checks.positive("anchor", self.anchor, zero=True)
        _checks.one_of("curvature", self.curvature, CURVATURES)
        _checks.positive("stall", self.stall, zero=True)


def refit(
    objective: Objective,
    *,
    steps: int = 50,
    tolerance: float = 1e-10,
    damping: float = 1e-8,
    anchor: float = 0.0,
    curvature: Curvature = "gauss_newton",
    stall: float = 0.0,
) -> Refit:
    """Minimize an objective from the network's current parameters θ₀ by damped Gauss–Newton.

    What is minimized is ``L(θ) + (anchor/2)·‖θ − θ₀‖²``; a step is ``−(JᵀJ + (anchor + μ)I)⁻¹∇``,
    primal or dual by size, with μ changed from step to step (Levenberg 1944; Marquardt 1963).
    With ``anchor`` the absolute λ of an influence this is what a damped prediction predicts
    (a proximal refit, Bae et al. 2022, arXiv 2209.05364). The same call gives the same result,
    and the network has the parameters again that it had, also after an error.

    Parameters
    ----------
    objective:
        What to minimize.
    steps:
        Most steps to take.
    tolerance:
        It has converged where ``‖∇‖ ≤ tolerance·‖J‖·‖ρ‖``, or where a step with no more than the
        first damping is at most ``tolerance·‖θ‖``.
    damping:
        First μ, relative to the mean diagonal entry of JJᵀ.
    anchor:
        Weight of the distance from θ₀, absolute.
    curvature:
        ``"gauss_newton"``, or ``"hessian"`` for damped steps of Newton's method, whose matrix of
        P² numbers is dense: where the residuals do not vanish these end in a few steps.
    stall:
        It ends, not converged, where three steps together lower what is minimized by less than
        this share of it.

    Raises
    ------
    ValueError
        If an option is out of range, or the loss is not finite at the start.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> result = wh.refit(objective)
    >>> round(float(result.theta), 9), result.converged              # Σxy / Σx²
    (1.6, True)
    """
    options = RefitOptions(steps, tolerance, damping, anchor, curvature, stall)
    parameters = objective.parameters
    with parameters.at(parameters.vector()):
        return Descent(objective, options).run(steps)


class Descent:
    """Levenberg–Marquardt on ``F(θ) = L(θ) + (anchor/2)·‖θ − θ₀‖²``, moving the network."""

    def __init__(self, objective: Objective, options: RefitOptions) -> None:
        self._objective = objective
        self._parameters = objective.parameters
        self._options = options
        self._start = objective.parameters.vector()  # θ₀
        self._damping: float | None = None  # μ, known with the first system
        self._steps = 0
        self._value = self._value_at(self._start)
        if not math.isfinite(self._value):
            raise ValueError(
                f"the loss is {self._value} at the network's parameters: a refit needs one that "
                "is finite"
            )

    def run(self, steps: int) -> Refit:
        """Go on until it has converged, no step helps, or it has taken ``steps`` in all."""
        tolerance = self._options.tolerance
        values = [self._value]
        has_settled = False
        while True:
            system = system_of(
                self._objective,
                anchor=self._options.anchor,
                start=self._start,
                curvature=self._options.curvature,
            )
            gradient_norm = float(system.gradient.norm())
            # ‖∇L‖ = ‖Jᵀρ‖ is at most ‖J‖‖ρ‖, and as good as zero far below it.
            if gradient_norm <= tolerance * system.scale:
                has_settled = True
            if has_settled or self._steps >= steps or self._stalls(values):
                break

            has_moved, has_settled = self._step(system, gradient_norm)
            if not has_moved:
                break
            self._steps += 1
            values.append(self._value)

        loss = float(self._objective.loss())
        theta = self._parameters.vector()
        return Refit(theta, loss, gradient_norm, self._steps, has_settled)

    def _stalls(self, values: Sequence[float]) -> bool:
        """Whether the last few steps lowered F by less than is worth going on for."""
        stall = self._options.stall
        if not stall or len(values) <= STALLED_STEPS:
            return False
        before = values[-1 - STALLED_STEPS]
        return before - values[-1] < stall * before

    def _step(self, system: System, gradient_norm: float) -> tuple[bool, bool]:
        """Take the first step that helps; return whether one did, and whether one was tiny."""
        tolerance = self._options.tolerance
        theta = self._parameters.vector()
        tiny = tolerance * (tolerance + float(theta.norm()))

        first_damping = self._options.damping * system.mean_diagonal
        if self._damping is None:
            self._damping = first_damping

        has_settled = False
        for step in trial_steps(system, self._damping, INCREASE):
            # More damping makes any step small: only one with little says that it is over.
            is_whole = step.damping <= first_damping
            if is_whole and float(step.delta.norm()) <= tiny:
                has_settled = True

            trial = theta + step.delta
            value = self._value_at(trial)
            if self._helps(value, trial, gradient_norm):
                self._parameters.assign(trial)
                gained = self._value - value
                self._damping = next_damping(step, gained, DECREASE, INCREASE)
                self._value = value
                return True, has_settled

        return False, has_settled

    def _value_at(self, theta: Tensor) -> float:
        """Return F(θ), what is minimized."""
        distance = float((theta - self._start).square().sum())
        loss = float(self._objective.loss(self._parameters.substituted(theta)))
        return loss + 0.5 * self._options.anchor * distance

    def _helps(self, value: float, theta: Tensor, gradient_norm: float) -> bool:
        """Whether F falls, or where that is lost in rounding, whether ``‖∇F‖`` does."""
        gained = self._value - value
        rounding = ROUNDING * torch.finfo(theta.dtype).eps * self._value
        if not abs(gained) <= rounding:  # nor is it where the value is not finite
            return gained > 0

        with self._parameters.at(theta):
            _, gradient = self._objective.loss_and_gradient()
        gradient = gradient + self._options.anchor * (theta - self._start)
        return float(gradient.norm()) < gradient_norm
