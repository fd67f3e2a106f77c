"""The dual system of a large network: its kernel made layer by layer, its rows never held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.curvature.cholesky import factor_in_place, solve_factored
from whence.curvature.kernel_factor import resolved_for_kernel
from whence.curvature.solvers import (
    GOOD_RESIDUAL,
    Damping,
    Solution,
    norms,
    random_weights,
    singular,
    worst,
)
from whence.curvature.spectrum import Spectrum
from whence.streamed_kernel import Source, StreamedKernel

MAX_REFINEMENTS = 2


@dataclass(frozen=True, kw_only=True)
class StreamedSpectrum(Spectrum):
    """The matrix that was factored, ``"dual"`` of R rows, and passes over the points for it."""

    solver_form: str
    solver_size: int
    kernel_passes: int


class StreamedDual:
    """Cholesky of ``JJᵀ + λI``, (R, R) in double precision, for J that is not in memory.

    Gradients that are sums of J's rows, as those of training points are, need no vector of P
    numbers: with ``v = Jᵀw`` it is ``J(A + λI)⁻¹v = (K + λI)⁻¹Kw``. Any other gradient is met by
    passes through the network, forward for ``Jv`` and backward for ``Jᵀy``; in
    ``(A + λI)⁻¹v = (v − Jᵀ(K + λI)⁻¹Jv)/λ`` (Woodbury) two nearly equal vectors are subtracted, of
    which a refinement by the true residual makes up for what rounding took.

    Parameters
    ----------
    kernel:
        K and products with J.
    damping:
        λ.
    tolerance:
        Relative residual at which refinement stops.
    largest:
        The largest eigenvalue of K, where it is known.
    name:
        Of the solver, for results.
    """

    def __init__(
        self,
        kernel: StreamedKernel,
        damping: Damping,
        tolerance: float,
        name: str,
        largest: float | None = None,
    ) -> None:
        self._kernel = kernel
        self.product_passes = kernel.plan.product_passes
        """Passes through the network that :meth:`solve_products` takes."""
        # Below some thousand machine precisions passes through the network gain nothing.
        rounding = 1e3 * torch.finfo(kernel.right.dtype).eps
        self._tolerance = max(tolerance, rounding)
        gram = kernel.gram
        self._damping, largest = resolved_for_kernel(damping, gram, largest)

        # K itself is needed again, for sums of rows and for other dampings.
        shifted = gram.clone()
        shifted.diagonal().add_(self._damping)
        self._factor, is_factored = factor_in_place(shifted)
        if not is_factored:
            raise singular(self._damping, len(gram), kernel.right.dtype)
        self.spectrum = StreamedSpectrum(
            solver=name,
            damping=self._damping,
            largest_eigenvalue=largest,
            solver_form="dual",
            solver_size=len(gram),
            kernel_passes=len(kernel.plan.groups),
        )

    def redamped(self, damping: float) -> StreamedDual:
        """Return the state with this absolute λ: K and its largest eigenvalue are known."""
        name = self.spectrum.solver or ""
        largest = self.spectrum.largest_eigenvalue
        shifted = Damping(damping, relative=False)
        return StreamedDual(self._kernel, shifted, self._tolerance, name, largest)

    def solve(self, right: Tensor) -> Solution:
        """Solve for the columns of ``right``, (P, K), by passes through the network."""
        # x ← x + M(v − (A + λI)x) with M as in Woodbury's formula, as long as that helps.
        norm = norms(right)
        value = self._apply(right)
        error = self._error(right, value)
        residual = worst(error, norm)
        steps = 0
        while steps < MAX_REFINEMENTS and residual > self._tolerance:
            trial = value + self._apply(error)
            trial_error = self._error(right, trial)
            trial_residual = worst(trial_error, norm)
            # Written so that a residual that is NaN stops it, too.
            if not trial_residual < 0.5 * residual:
                break
            value, error, residual = trial, trial_error, trial_residual
            steps += 1
        return Solution(value, residual, residual < GOOD_RESIDUAL, steps)

    def _apply(self, right: Tensor) -> Tensor:
        """Return ``(v − Jᵀ(K + λI)⁻¹Jv)/λ`` of the columns v."""
        # v → Jv → y = (K + λI)⁻¹Jv in double precision → (v − Jᵀy)/λ
        images = self._kernel.matmat(right)
        inner = self._solved(images).to(right.dtype)
        return (right - self._kernel.rmatmat(inner)) / self._damping

    def _error(self, right: Tensor, value: Tensor) -> Tensor:
        """Return ``v − (A + λI)x`` of the columns."""
        # x → Jx → JᵀJx, by the network itself: K is not asked, so that its rounding shows.
        images = self._kernel.matmat(value)
        return right - self._kernel.rmatmat(images) - self._damping * value

    def _solved(self, images: Tensor) -> Tensor:
        """Return ``(K + λI)⁻¹`` of columns (R, K), in double precision."""
        return solve_factored(self._factor, images.double())

    def solve_images(self, vectors: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹V = (K + λI)⁻¹JV``: (P, K) to (R, K)."""
        images = self._kernel.matmat(vectors).double()

        def remainder(chosen: Tensor, inner: Tensor) -> Tensor:
            return vectors @ chosen.to(vectors) - self._sum_of_rows(inner)

        return self._checked(images, remainder)

    def solve_sums(self, weights: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹JᵀW = (K + λI)⁻¹KW``: sums of rows (R, K) to (R, K)."""
        # J v = J Jᵀ w = K w: no pass through the network.
        images = self._kernel.gram @ weights.double()

        def remainder(chosen: Tensor, inner: Tensor) -> Tensor:
            # JᵀWc − Jᵀy is one pass, and the difference has all digits.
            return self._sum_of_rows(weights.double() @ chosen - inner)

        return self._checked(images, remainder)

    def solve_products(
        self, source: Source, count: int, vector: Callable[[Tensor], Tensor]
    ) -> Solution:
        """Return ``J(A + λI)⁻¹Gᵀ = (K + λI)⁻¹JGᵀ`` for rows G that a source gives, (R, count).

        ``vector`` returns ``Gᵀc``, (P, 1), for c (count, 1).
        """
        images = self._kernel.cross(source, count)

        def remainder(chosen: Tensor, inner: Tensor) -> Tensor:
            return vector(chosen) - self._sum_of_rows(inner)

        return self._checked(images, remainder)

    def combination(self, weights: Tensor) -> Tensor:
        """Return ``(A + λI)⁻¹Jᵀw = Jᵀ(K + λI)⁻¹w``, (R,) to (P,): nothing cancels."""
        # (JᵀJ + λI)⁻¹Jᵀ = Jᵀ(JJᵀ + λI)⁻¹, as both are Jᵀ between the two inverses.
        inner = self._solved(weights.unsqueeze(1))
        return self._sum_of_rows(inner).squeeze(1)

    def squared_length(self, weights: Tensor) -> float:
        """Return ``wᵀJ(A + λI)⁻¹Jᵀw = wᵀK(K + λI)⁻¹w``: no pass through the network."""
        column = weights.double().unsqueeze(1)
        image = self._kernel.gram @ column
        return float((image * self._solved(column)).sum())

    def _sum_of_rows(self, weights: Tensor) -> Tensor:
        """Return ``Jᵀw`` of columns (R, K) in double precision, in the network's."""
        return self._kernel.rmatmat(weights.to(self._kernel.right))

    def _checked(
        self, images: Tensor, remainder: Callable[[Tensor, Tensor], Tensor]
    ) -> Solution:
        """Return the solutions for images ``JV``, with the residual of one combination of them.

        ``remainder`` returns ``Vc − Jᵀy`` (P, 1) for c (K, 1) and y (R, 1). Products with J itself
        tell what K has lost: with ``y = (K + λI)⁻¹JV c`` the residual is ``J(Vc − Jᵀy) − λy``.
        """
        value = self._solved(images)
        columns = images.shape[1]
        chosen = random_weights(images, columns)[:, :1]
        if columns == 1:
            chosen = torch.ones_like(chosen)

        combined = value @ chosen
        left = remainder(chosen, combined)
        error = self._kernel.matmat(left).double() - self._damping * combined
        residual = worst(error, norms(images @ chosen))
        # Results have the digits of the network.
        rounded = value.to(self._kernel.right.dtype)
        return Solution(rounded, residual, residual < GOOD_RESIDUAL, 0)
