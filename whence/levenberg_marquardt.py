"""Levenberg–Marquardt: Gauss–Newton steps with a damping that follows their success.

What is minimized is ``F(θ) = L(θ) + (α/2)‖θ − θ₀‖²`` with the anchor α ≥ 0. With J and ρ scaled
so that ``JᵀJ`` is the Gauss–Newton matrix of L and ``Jᵀρ = ∇L``, and ``d = θ − θ₀``, a step δ
solves ``(JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd)`` (Levenberg 1944; Marquardt 1963). The optimizer
:class:`whence.pinn.GaussNewton` and :func:`whence.refit` are made of these pieces: a system that
is solved for rising μ, and a rule by which μ follows the gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from whence import _checks
from whence.jacobian import Jacobian, add_self_product, mirror
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.triangular import Triangle

Form = Literal["auto", "primal", "dual", "triangular"]

FORMS = get_args(Form)

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


@dataclass(frozen=True, eq=False)
class Step:
    """A step δ (P,), the damping μ that made it, and the decrease of F that it promises."""

    delta: Tensor
    damping: float
    promised: float


class System(Protocol):
    """The linear system of a step at the network's parameters, for any damping."""

    mean_diagonal: float
    """Mean diagonal entry of JJᵀ, the scale of the damping."""
    scale: float
    """``‖J‖_F ‖ρ‖``, which bounds ``‖∇L‖``."""

    @property
    def gradient(self) -> Tensor:
        """``∇F = Jᵀρ + αd``, (P,)."""

    def solve(self, damping: float) -> Step | None:
        """Return the step, None where the system is singular to working precision."""


class DualSystem:
    """The system by ``K = JJᵀ``, for fewer residuals than parameters.

    With ν = α + μ and s = α/ν the step is ``δ = −Jᵀy − s d`` with ``(K + νI) y = ρ − s J d``
    (Woodbury; Müller & Zeinhofer, arXiv 2302.13163 and 2505.21404).
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        self._kernel = TangentKernel(objective)
        self._anchor = anchor
        self._moved = moved

        rho = self._kernel.right  # (R,)
        self._image = torch.zeros_like(rho)
        """J d, which is not needed where nothing pulls back."""
        if anchor and bool(moved.any()):
            self._image = Jacobian(objective, scaled=True).matvec(moved)

        trace = float(self._kernel.gram.trace())  # ‖J‖_F² = Tr JJᵀ
        self.mean_diagonal = trace / len(rho)
        self.scale = trace**0.5 * float(rho.norm())

    @cached_property
    def gradient(self) -> Tensor:
        """``∇F = Jᵀρ + αd``, (P,)."""
        return self._kernel.rmatvec(self._kernel.right) + self._anchor * self._moved

    def solve(self, damping: float) -> Step | None:
        """Return the step, None where the system is singular to working precision."""
        shift = self._anchor + damping
        share = self._anchor / shift
        rho = self._kernel.right

        # (K + νI) y = ρ − s J d, by a factor of order R.
        weights = _solved(self._kernel.gram, shift, rho - share * self._image)
        if weights is None:
            return None

        # δ = −Jᵀy − s d.
        delta = -self._kernel.rmatvec(weights) - share * self._moved
        # ρ + Jδ = ρ − Ky − s Jd, and Ky = ρ − s Jd − νy, so that νy is left.
        left = shift * weights
        promised = _promised(rho, left, self._anchor, self._moved, delta)
        return Step(delta, damping, promised)


class PrimalSystem:
    """The system by ``JᵀJ``, for fewer parameters than residuals.

    It is summed up over blocks of rows: memory does not grow with the number of points.
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        jacobian = Jacobian(objective, scaled=True)
        size = jacobian.parameters.size
        # JᵀJ on and below the diagonal, and Jᵀρ.
        self._matrix = moved.new_zeros(size, size)
        gradient = torch.zeros_like(moved)
        squares = 0.0
        n_rows = 0

        for block, right in jacobian.blocks():
            rows = block.dense()
            add_self_product(self._matrix, rows)
            gradient.addmv_(rows.T, right)
            squares += float(right @ right)
            n_rows += len(rows)

        mirror(self._matrix)
        self._anchor = anchor
        self.gradient = gradient + anchor * moved  # Jᵀρ + αd

        # Tr JᵀJ = Tr JJᵀ, so that both forms scale alike.
        trace = float(self._matrix.trace())
        self.mean_diagonal = trace / n_rows
        self.scale = (trace * squares) ** 0.5

    def solve(self, damping: float) -> Step | None:
        """Return the step, None where the system is singular to working precision."""
        # (JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd), by a factor of order P.
        delta = _solved(self._matrix, self._anchor + damping, -self.gradient)
        if delta is None:
            return None

        # The model of F falls by −∇F·δ − ½ δ·(JᵀJ + αI)δ; the first is about twice the second,
        # so that no digits are lost.
        image = self._matrix @ delta + self._anchor * delta
        promised = -float(self.gradient @ delta) - 0.5 * float(delta @ image)
        return Step(delta, damping, promised)


class TriangularSystem:
    """The system by ``J = QR``, which loses no digits to the square of J.

    It costs several times the primal one, and keeps directions that are 1e-8 times as steep as the
    steepest: see :mod:`whence.triangular`.
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        self._triangle = Triangle.of_objective(objective)
        self._anchor = anchor
        self._moved = moved

        triangle = self._triangle
        factor = triangle.factor
        self.gradient = factor.T @ triangle.right + anchor * moved  # Rᵀz = Jᵀρ
        trace = float(factor.square().sum())
        squares = float(triangle.right.square().sum()) + triangle.left**2
        self.mean_diagonal = trace / triangle.n_rows
        self.scale = (trace * squares) ** 0.5

    def solve(self, damping: float) -> Step:
        """Return the step."""
        triangle = self._triangle
        shift = self._anchor + damping
        # ‖Rδ + z‖² + α‖δ + d‖² + μ‖δ‖² is least where ‖Rδ + z‖² + ν‖δ + (α/ν)d‖² is.
        share = self._anchor / shift
        delta = triangle.damped(shift, share * self._moved)

        left = triangle.right + triangle.factor @ delta
        promised = _promised(triangle.right, left, self._anchor, self._moved, delta)
        return Step(delta, damping, promised)


def system_of(
    objective: Objective,
    form: Form = "auto",
    *,
    anchor: float = 0.0,
    start: Tensor | None = None,
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

    if form == "auto":
        rows, columns = Jacobian(objective).shape
        form = "dual" if rows <= columns else "primal"

    if form == "dual":
        return DualSystem(objective, anchor, moved)
    if form == "triangular":
        return TriangularSystem(objective, anchor, moved)

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


def _promised(
    rho: Tensor, left: Tensor, anchor: float, moved: Tensor, delta: Tensor
) -> float:
    """Return the model's decrease ``½‖ρ‖² − ½‖ρ + Jδ‖² + (α/2)(‖d‖² − ‖d + δ‖²)``."""
    # ‖a‖² − ‖b‖² = (a − b)·(a + b), which loses no digits where both are nearly equal.
    decrease = 0.5 * float((rho - left) @ (rho + left))
    if anchor:
        # ‖d + δ‖² − ‖d‖² = δ·(2d + δ).
        decrease -= 0.5 * anchor * float(delta @ (2 * moved + delta))
    return decrease


def _solved(matrix: Tensor, shift: float, right: Tensor) -> Tensor | None:
    """Return ``(matrix + shift·I)⁻¹ right``, None where that is not positive definite."""
    # A copy, as the matrix serves several dampings.
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    factor, info = torch.linalg.cholesky_ex(shifted)
    if int(info):
        return None
    return torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
