"""The linear system of a damped Gauss–Newton step, in the forms in which it can be solved.

With J and ρ scaled so that ``JᵀJ`` is the Gauss–Newton matrix and ``Jᵀρ = ∇L``, an anchor α and
``d = θ − θ₀``, a step of damping μ solves ``(JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd)``.

Two things may be added to a step. Where it is damped towards ``m`` in place of zero, it solves
``(JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd) + μm``: with m a share of the step before, that is SPRING
(Goldshlager et al., arXiv 2401.10190). And it may be bent along the geodesic of the residuals by
``−½ (JᵀJ + (α + μ)I)⁻¹ Jᵀ ρ″`` with ρ″ their second derivative along δ (Transtrum & Sethna,
arXiv 1201.5885).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from whence.curvature.operators import Hessian
from whence.jacobian import Jacobian
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.sketches import Sketch
from whence.symmetric_products import add_self_product, mirror
from whence.triangular import Triangle


@dataclass(frozen=True, eq=False)
class Step:
    """A step δ (P,), the damping μ that made it, and the decrease of F that it promises."""

    delta: Tensor
    damping: float
    promised: float


class Shifted:
    """A positive semi-definite matrix, solved for several shifts; the last factor is kept."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self._shift: float | None = None
        self._factor: Tensor | None = None

    def solve(self, shift: float, right: Tensor) -> Tensor | None:
        """Return ``(matrix + shift·I)⁻¹ right``, None where that is not positive definite."""
        if shift != self._shift:
            # The former factor goes first, so that no third matrix is in memory.
            self._factor = None
            self._shift = shift
            # A copy, as the matrix serves several shifts.
            shifted = self.matrix.clone()
            shifted.diagonal().add_(shift)
            factor, info = torch.linalg.cholesky_ex(shifted)
            self._factor = None if int(info) else factor

        if self._factor is None:
            return None
        column = right.unsqueeze(1)
        return torch.cholesky_solve(column, self._factor).squeeze(1)


class System(Protocol):
    """The linear system of a step at the network's parameters, for any damping."""

    mean_diagonal: float
    """Mean diagonal entry of JJᵀ, the scale of the damping."""
    scale: float
    """``‖J‖_F ‖ρ‖``, which bounds ``‖∇L‖``."""

    @property
    def gradient(self) -> Tensor:
        """``∇F = Jᵀρ + αd``, (P,)."""

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step | None:
        """Return the step, None where the system is singular to working precision.

        It is damped towards ``ahead`` (P,), by default zero: ``μ‖δ − m‖²``.
        """

    def bend(self, damping: float, second: Tensor) -> Tensor | None:
        """Return ``−½ (JᵀJ + (α + μ)I)⁻¹ Jᵀ ρ″``, (P,), for ρ″ (R,)."""


class DualSystem:
    """The system by ``K = JJᵀ``, for fewer residuals than parameters.

    With ν = α + μ and ``c = (αd − μm)/ν`` the step is ``δ = −Jᵀy − c`` with
    ``(K + νI) y = ρ − J c`` (Woodbury; Müller & Zeinhofer, arXiv 2302.13163 and 2505.21404).
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        self._kernel = TangentKernel(objective)
        self._matrix = Shifted(self._kernel.gram)
        self._anchor = anchor
        self._moved = moved

        rho = self._kernel.right  # (R,)
        self._image = torch.zeros_like(rho)
        """J d, which is not needed where nothing pulls back."""
        if anchor and bool(moved.any()):
            self._image = self._image_of(moved)

        trace = float(self._kernel.gram.trace())  # ‖J‖_F² = Tr JJᵀ
        self.mean_diagonal = trace / len(rho)
        self.scale = trace**0.5 * float(rho.norm())

    @cached_property
    def gradient(self) -> Tensor:
        """``∇F = Jᵀρ + αd``, (P,)."""
        return self._kernel.rmatvec(self._kernel.right) + self._anchor * self._moved

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step | None:
        """Return the step, None where the system is singular to working precision."""
        shift = self._anchor + damping
        center = _center(self._anchor, self._moved, damping, ahead)
        rho = self._kernel.right

        # J c = (α J d − μ J m)/ν.
        image = self._anchor / shift * self._image
        if ahead is not None:
            image = image - damping / shift * self._image_of(ahead)

        # (K + νI) y = ρ − J c, by a factor of order R.
        weights = self._matrix.solve(shift, rho - image)
        if weights is None:
            return None

        # δ = −Jᵀy − c.
        delta = -self._kernel.rmatvec(weights) - center
        # ρ + Jδ = ρ − Ky − Jc, and Ky = ρ − Jc − νy, so that νy is left.
        left = shift * weights
        promised = _promised(rho, left, self._anchor, self._moved, delta)
        return Step(delta, damping, promised)

    def bend(self, damping: float, second: Tensor) -> Tensor | None:
        """Return ``−½ Jᵀ(K + νI)⁻¹ρ″``, which is the same by Woodbury's formula."""
        shift = self._anchor + damping
        weights = self._matrix.solve(shift, second)
        if weights is None:
            return None
        return -0.5 * self._kernel.rmatvec(weights)

    def _image_of(self, vector: Tensor) -> Tensor:
        """Return ``J v``, (R,)."""
        column = vector.unsqueeze(1)
        return self._kernel.matmat(column).squeeze(1)


class PrimalSystem:
    """The system by ``JᵀJ``, for fewer parameters than residuals.

    It is summed up over blocks of rows: memory does not grow with the number of points.
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        jacobian = Jacobian(objective, scaled=True)
        size = jacobian.parameters.size
        # JᵀJ on and below the diagonal, and Jᵀρ.
        matrix = moved.new_zeros(size, size)
        gradient = torch.zeros_like(moved)
        squares = 0.0
        n_rows = 0

        for block, right in jacobian.blocks():
            rows = block.dense()
            add_self_product(matrix, rows)
            gradient.addmv_(rows.T, right)
            squares += float(right @ right)
            n_rows += len(rows)

        mirror(matrix)
        self._matrix = Shifted(matrix)
        self._jacobian = jacobian
        self._anchor = anchor
        self.gradient = gradient + anchor * moved  # Jᵀρ + αd

        # Tr JᵀJ = Tr JJᵀ, so that both forms scale alike.
        trace = float(matrix.trace())
        self.mean_diagonal = trace / n_rows
        self.scale = (trace * squares) ** 0.5

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step | None:
        """Return the step, None where the system is singular to working precision."""
        # (JᵀJ + (α + μ)I) δ = −(Jᵀρ + αd) + μm, by a factor of order P.
        right = -self.gradient
        if ahead is not None:
            right = right + damping * ahead
        delta = self._matrix.solve(self._anchor + damping, right)
        if delta is None:
            return None

        # The model of F falls by −∇F·δ − ½ δ·(JᵀJ + αI)δ; the first is about twice the second,
        # so that no digits are lost.
        image = self._matrix.matrix @ delta + self._anchor * delta
        promised = -float(self.gradient @ delta) - 0.5 * float(delta @ image)
        return Step(delta, damping, promised)

    def bend(self, damping: float, second: Tensor) -> Tensor | None:
        """Return ``−½ (JᵀJ + νI)⁻¹Jᵀρ″``."""
        shift = self._anchor + damping
        right = -0.5 * self._jacobian.rmatvec(second)
        return self._matrix.solve(shift, right)


class HessianSystem(PrimalSystem):
    """The system by the Hessian H of L in place of ``JᵀJ``: damped steps of Newton's method.

    Near a minimum whose residuals do not vanish its steps are quadratic, those by ``JᵀJ`` linear.
    Where H is indefinite a step is ``−(|H + αI| + μI)⁻¹∇F``, by the absolute eigenvalues, which
    leads away from saddles (Dauphin et al. 2014, arXiv 1406.2572).
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        super().__init__(objective, anchor, moved)
        # A penalty is in the anchor, which all systems share.
        bare = objective.with_weight_decay(0.0)
        self._eigenvalues, self._eigenvectors = torch.linalg.eigh(Hessian(bare).dense())

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step:
        """Return the step."""
        right = -self.gradient
        if ahead is not None:
            right = right + damping * ahead
        curvatures = self._eigenvalues + self._anchor
        along = self._eigenvectors.T @ right
        coefficients = along / (curvatures.abs() + damping)
        delta = self._eigenvectors @ coefficients

        # The model of F falls by −∇F·δ − ½ δ·(H + αI)δ.
        squares = coefficients.square() @ curvatures
        promised = -float(self.gradient @ delta) - 0.5 * float(squares)
        return Step(delta, damping, promised)


class TriangularSystem:
    """The system by ``J = QR``, which loses no digits to the square of J.

    It costs several times the primal one, and keeps directions that are 1e-8 times as steep as the
    steepest: see :mod:`whence.triangular`.
    """

    def __init__(
        self,
        triangle: Triangle,
        pull: Callable[[Tensor], Tensor],
        anchor: float,
        moved: Tensor,
    ) -> None:
        self._triangle = triangle
        self._pull = pull
        """``u → Jᵀu``."""
        self._anchor = anchor
        self._moved = moved

        factor = triangle.factor
        self.gradient = factor.T @ triangle.right + anchor * moved  # Rᵀz = Jᵀρ
        trace = float(factor.square().sum())
        squares = float(triangle.right.square().sum()) + triangle.left**2
        self.mean_diagonal = trace / triangle.n_rows
        self.scale = (trace * squares) ** 0.5

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step:
        """Return the step."""
        triangle = self._triangle
        shift = self._anchor + damping
        # ‖Rδ + z‖² + α‖δ + d‖² + μ‖δ − m‖² is least where ‖Rδ + z‖² + ν‖δ + c‖² is.
        center = _center(self._anchor, self._moved, damping, ahead)
        delta = triangle.damped(shift, center)

        left = triangle.right + triangle.factor @ delta
        promised = _promised(triangle.right, left, self._anchor, self._moved, delta)
        return Step(delta, damping, promised)

    def bend(self, damping: float, second: Tensor) -> Tensor:
        """Return ``−½ (RᵀR + νI)⁻¹Jᵀρ″``."""
        shift = self._anchor + damping
        right = -0.5 * self._pull(second)
        return self._triangle.solve(shift, right)


class SketchedSystem:
    """The system of ``S J Ω`` in place of J, for random S and Ω: ``δ = Ωy``.

    With Ω of orthonormal columns ``‖Ωy − m‖² = ‖y − Ωᵀm‖²`` and a constant, so that y solves the
    same system with ``Ωᵀd`` and ``Ωᵀm``. What is asked of the small matrix ``S J Ω`` is not
    squared: its triangle costs little.
    """

    def __init__(
        self, objective: Objective, sketch: Sketch, anchor: float, moved: Tensor
    ) -> None:
        jacobian = Jacobian(objective, scaled=True)
        drawn = sketch.draw(jacobian.shape, moved)

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            for rows, right in jacobian.blocks():
                yield rows.dense(), right

        # S J Ω and S ρ, and their triangle.
        small = drawn.compressed(blocks())
        projected = drawn.project(moved)
        triangle = Triangle.of_blocks(small, projected)

        def pull(vector: Tensor) -> Tensor:
            # Of ρ″ all rows are at hand, so that only Ω is needed: ΩᵀJᵀρ″.
            image = jacobian.rmatvec(vector)
            return drawn.project(image)

        self._drawn = drawn

        self._small = TriangularSystem(triangle, pull, anchor, projected)
        self.mean_diagonal = self._small.mean_diagonal
        self.scale = self._small.scale

    @property
    def gradient(self) -> Tensor:
        """What the sketch shows of ∇F: ``Ω Ωᵀ(JᵀSᵀSρ + αd)``, (P,)."""
        return self._drawn.lift(self._small.gradient)

    def solve(self, damping: float, ahead: Tensor | None = None) -> Step:
        """Return the step."""
        towards = ahead
        if ahead is not None:
            towards = self._drawn.project(ahead)

        small = self._small.solve(damping, towards)
        delta = self._drawn.lift(small.delta)
        return Step(delta, damping, small.promised)

    def bend(self, damping: float, second: Tensor) -> Tensor:
        """Return ``−½ Ω(ΩᵀJᵀSᵀSJΩ + νI)⁻¹ΩᵀJᵀρ″``."""
        small = self._small.bend(damping, second)
        return self._drawn.lift(small)


def _center(
    anchor: float, moved: Tensor, damping: float, ahead: Tensor | None
) -> Tensor:
    """Return c with ``α‖δ + d‖² + μ‖δ − m‖² = ν‖δ + c‖²`` and a constant: ``(αd − μm)/ν``."""
    weighted = anchor * moved
    if ahead is not None:
        weighted = weighted - damping * ahead
    return weighted / (anchor + damping)


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
