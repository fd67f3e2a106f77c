"""Dense factorisation of ``A + λI``: the reference for every other solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.cholesky import factor_in_place, solve_factored
from whence.curvature.failures import (
    SingularSystem,
    check_memory,
    needs_rows,
)
from whence.curvature.kernel_factor import KernelFactor, resolved_for_kernel
from whence.curvature.lanczos import (
    Product,
    largest_eigenvalue,
    smallest_eigenvalue,
)
from whence.curvature.operators import Curvature, Damped, DenseMatrix
from whence.curvature.solvers import (
    GOOD_RESIDUAL,
    MEMORY_BUDGET,
    Damping,
    LinearSystem,
    RowSolution,
    Solution,
    State,
    few_columns,
    norms,
    random_weights,
    relative_residual,
    singular,
    worst,
)
from whence.curvature.spectrum import Spectrum
from whence.curvature.streamed import StreamedDual
from whence.jacobian import MAX_VECTORS, Jacobian
from whence.ntk import TangentKernel
from whence.points import MAX_ROW_BYTES
from whence.streamed_kernel import StreamedKernel, StreamPlan, stream_plan

MAX_REFINEMENTS = 4
ROUNDING = 8
"""Relative residual, in machine precisions, below which there is nothing to refine."""
MIN_PIVOT = 1e-2
"""Smallest pivot, in size times machine precision times the largest eigenvalue: rounding."""
UNCERTAIN = 8
"""A pivot of at most so many times size times machine precision times norm may be negative."""
SPECTRUM = 1e-3
"""Relative residual of the eigenvector of a Hessian's smallest eigenvalue."""


@dataclass(frozen=True, kw_only=True)
class DenseSpectrum(Spectrum):
    """What a dense factorisation knows: of a Hessian also the lower end of its spectrum.

    ``solver_form`` and ``solver_size`` say which matrix was factored: ``"primal"`` or
    ``"indefinite"`` P × P, ``"dual"`` R × R.
    """

    solver_form: str
    solver_size: int
    negative_eigenvalues: int | None = None
    smallest_eigenvalue: float | None = None


@SOLVERS.named()
@dataclass(frozen=True)
class Exact:
    """Dense Cholesky factorisation with iterative refinement: the reference for every other solver.

    ``primal`` factors the P × P matrix ``JᵀJ + λI``; ``dual`` the R × R matrix ``JJᵀ + λI`` and
    uses ``(JᵀJ + λI)⁻¹ b = (b − Jᵀ(JJᵀ + λI)⁻¹ J b) / λ``. ``auto`` takes the smaller. Of a
    Hessian, which may be indefinite, the P × P matrix is factored, and its negative eigenvalues
    are counted.

    Parameters
    ----------
    form:
        ``"auto"``, ``"primal"`` or ``"dual"``.
    memory_budget:
        Bytes that matrices may take; more is an error before any work.
    tolerance:
        Relative residual at which refinement stops; by default only where it gains no more.

    Raises
    ------
    ValueError
        If the form is unknown, or does not exist for the operator.
    SingularSystem
        If ``A + λI`` is singular, which is a ValueError, too.
    MemoryError
        If the matrices exceed ``memory_budget``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.Exact().factor(operator, wh.Damping(0.0))
    >>> round(float(state.solve(torch.tensor([[5.0]], dtype=torch.float64)).value), 9)
    0.5
    """

    form: Literal["auto", "primal", "dual"] = "auto"
    memory_budget: int = MEMORY_BUDGET
    tolerance: float = 0.0
    name = "exact"

    def __post_init__(self) -> None:
        _checks.one_of(
            "form of the exact solver", self.form, ("auto", "primal", "dual")
        )
        _checks.positive("memory_budget", self.memory_budget)
        _checks.positive("tolerance", self.tolerance, zero=True)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Factor ``A + λI`` once."""
        is_hessian = operator.root() is None
        if is_hessian and self.form == "dual":
            raise needs_rows("the dual form", "or form='primal'")
        check_memory(
            "the exact solver",
            self.needs(operator, damping),
            self.memory_budget,
            "raise memory_budget, select fewer parameters or use solver='auto'",
        )

        if is_hessian:
            return self._of_hessian(DenseMatrix(operator), damping)
        if self.is_dual(operator, damping):
            return self._dual(operator, damping)
        return _Primal(DenseMatrix(operator), damping, self.tolerance)

    def needs(self, operator: Curvature, damping: Damping) -> int:
        """Return the bytes that the matrices of this operator take."""
        size = operator.size
        itemsize = operator.like().itemsize
        root = operator.root()

        if root is not None and self.is_dual(operator, damping):
            plan = self.streamed_plan(operator)
            return (
                held_rows_bytes(*root.shape, itemsize) if plan is None else plan.needed
            )

        # A and its factor, (P, P) each.
        needed = 2 * size**2 * itemsize
        if root is None:
            # The eigenvalues of a Hessian are found from two more, in double precision.
            needed += 16 * size**2
        return needed

    def streamed_plan(self, operator: Curvature) -> StreamPlan | None:
        """Return how the dual form goes without rows in memory; None where they fit, or must be."""
        root = operator.root()
        # What stands for a Jacobian in an operator of one's own has no layers.
        if not isinstance(root, Jacobian) or root.has_many_outputs:
            return None
        with_rows = held_rows_bytes(*root.shape, operator.like().itemsize)
        if with_rows <= self.memory_budget:
            return None
        plan = stream_plan(root, self.memory_budget)
        is_less = plan is not None and plan.needed < with_rows
        return plan if is_less else None

    def _dual(self, operator: Curvature, damping: Damping) -> State:
        """Return the dual form, with the rows in memory where they fit."""
        if self.streamed_plan(operator) is not None:
            streamed = StreamedKernel(operator.objective, self.memory_budget)
            return StreamedDual(streamed, damping, self.tolerance, self.name)

        kernel = operator.kernel()
        assert kernel is not None
        return _Dual(kernel, damping, self.tolerance)

    def is_dual(self, operator: Curvature, damping: Damping) -> bool:
        """Whether the smaller matrix, or the one asked for, is that of the rows."""
        root = operator.root()
        if root is None or self.form == "primal":
            return False
        if self.form == "dual":
            return True
        return root.shape[0] < operator.size and damping.is_positive

    def _of_hessian(self, operator: DenseMatrix, damping: Damping) -> State:
        """Factor by Cholesky where damping outweighs every negative eigenvalue, else by LU."""
        try:
            state = _Primal(operator, damping, self.tolerance)
        except SingularSystem:
            return _Indefinite(operator, damping, self.tolerance)

        size = operator.size
        matrix = operator.matrix
        largest = state.spectrum.largest_eigenvalue

        def product(vector: Tensor) -> Tensor:
            return matrix @ vector

        smallest = smallest_eigenvalue(product, size, matrix, largest, SPECTRUM)

        # Damping is relative to the eigenvalue of largest magnitude, which may be the smallest one.
        # Pivots are those of A + λI, and as uncertain as its eigenvalues are large.
        norm = largest + state.spectrum.damping
        rounding = UNCERTAIN * size * torch.finfo(matrix.dtype).eps * norm
        if state.smallest_pivot() <= rounding or abs(smallest) > largest:
            return _Indefinite(operator, damping, self.tolerance)

        negative = 0
        if smallest < -rounding:
            negative = _count_negative(matrix)
        state.spectrum = replace(
            state.spectrum, negative_eigenvalues=negative, smallest_eigenvalue=smallest
        )
        return state


def held_rows_bytes(rows: int, size: int, itemsize: int) -> int:
    """Return the bytes of the dual form with all rows (R, P) in memory."""
    # JJᵀ, its two Cholesky factors and what they are made of, (R, R) each; J and L⁻¹J, (R, P) each.
    kept = rows * (4 * rows + 2 * size) * itemsize
    if kept <= MAX_ROW_BYTES:
        return kept
    # Of large ones blocks of solutions, and of the making of J, matter too.
    return kept + 2 * MAX_ROW_BYTES


class _Rows(Protocol):
    """Products with the rows J (R, P) of an operator's root."""

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``J V``, (P, K) to (R, K)."""

    def rmatmat(self, vectors: Tensor) -> Tensor:
        """Return ``Jᵀ Y``, (R, K) to (P, K)."""


@dataclass(frozen=True, eq=False)
class _DenseRows:
    """J in memory."""

    rows: Tensor

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``J V``, (P, K) to (R, K)."""
        return self.rows @ vectors

    def rmatmat(self, vectors: Tensor) -> Tensor:
        """Return ``Jᵀ Y``, (R, K) to (P, K)."""
        return self.rows.T @ vectors


@dataclass(frozen=True, eq=False)
class _KernelSystem:
    """``JJᵀ + λI`` by products with J, which know it better than its own rounding."""

    rows: _Rows
    damping: float

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``(JJᵀ + λI) Y``, (R, K) to (R, K)."""
        images = self.rows.matmat(self.rows.rmatmat(vectors))
        return images + self.damping * vectors


@dataclass(frozen=True, eq=False)
class _NormalSystem:
    """``JᵀJ + λI`` by products with J."""

    rows: _Rows
    damping: float

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``(JᵀJ + λI) V``, (P, K) to (P, K)."""
        products = self.rows.rmatmat(self.rows.matmat(vectors))
        return products + self.damping * vectors


def _refined(
    apply: Product, system: LinearSystem, right: Tensor, tolerance: float
) -> Solution:
    """Apply an approximate inverse, then refine until the residual stops falling, or is met.

    With M ≈ (A + λI)⁻¹ a refinement is ``x ← x + M (b − (A + λI) x)``.
    """
    norm = norms(right)
    tolerance = max(tolerance, ROUNDING * torch.finfo(right.dtype).eps)

    value = apply(right)
    error = right - system.matmat(value)
    residual = worst(error, norm)
    steps = 0

    while steps < MAX_REFINEMENTS and residual > tolerance:
        trial = value + apply(error)
        trial_error = right - system.matmat(trial)
        trial_residual = worst(trial_error, norm)

        # Written so that a residual that is NaN stops it, too.
        if not trial_residual < 0.5 * residual:
            break

        value = trial
        error = trial_error
        residual = trial_residual
        steps += 1

    converged = bool(np.isfinite(residual)) and residual < GOOD_RESIDUAL
    return Solution(value, residual, converged, steps)


class _Primal:
    """Cholesky of ``A + λI``, (P, P)."""

    def __init__(
        self,
        operator: DenseMatrix,
        damping: Damping,
        tolerance: float,
        largest: float | None = None,
    ) -> None:
        self._operator = operator
        self._tolerance = tolerance
        if largest is None:
            largest = largest_eigenvalue(
                operator.matvec, operator.size, operator.matrix
            )

        absolute = damping.resolve(largest)
        self._system = Damped(operator, absolute)
        self._factor = _cholesky(self._system.dense(), absolute, largest)
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=absolute,
            largest_eigenvalue=largest,
            solver_form="primal",
            solver_size=operator.size,
        )

    def smallest_pivot(self) -> float:
        """Return the smallest pivot of the Cholesky factorisation."""
        return float(self._factor.diagonal().min()) ** 2

    def redamped(self, damping: float) -> _Primal:
        """Return the state with this absolute λ: A and its largest eigenvalue are known."""
        return _Primal(
            self._operator,
            Damping(damping, relative=False),
            self._tolerance,
            self.spectrum.largest_eigenvalue,
        )

    def solve(self, right: Tensor) -> Solution:
        # LLᵀ x = b
        def apply(columns: Tensor) -> Tensor:
            return solve_factored(self._factor, columns)

        return _refined(apply, self._system, right, self._tolerance)


class _Dual:
    """Cholesky of ``JJᵀ + λI``, (R, R), which has the eigenvalues of ``JᵀJ + λI`` but for λ."""

    def __init__(
        self,
        kernel: TangentKernel,
        damping: Damping,
        tolerance: float,
        largest: float | None = None,
    ) -> None:
        self._kernel = kernel
        self._tolerance = tolerance
        gram = kernel.gram
        self._damping, largest = resolved_for_kernel(damping, gram, largest)
        shifted = gram.clone()
        shifted.diagonal().add_(self._damping)
        self._factor = _cholesky(shifted, self._damping, largest)
        self._twice = KernelFactor(kernel, self._factor, self._damping)

        # Solving for all rows takes four matrices (R, R) beside the three and J and L⁻¹J.
        rows = len(gram)
        self.row_bytes = gram.itemsize * rows * (7 * rows + 2 * kernel.size)
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=self._damping,
            largest_eigenvalue=largest,
            solver_form="dual",
            solver_size=len(gram),
        )

    def redamped(self, damping: float) -> _Dual:
        """Return the state with this absolute λ: J, JJᵀ and its largest eigenvalue are known."""
        return _Dual(
            self._kernel,
            Damping(damping, relative=False),
            self._tolerance,
            self.spectrum.largest_eigenvalue,
        )

    def solve(self, right: Tensor) -> Solution:
        # Rows of thin layers are made where that is worth it.
        rows: _Rows = self._kernel
        if right.shape[1] > MAX_VECTORS:
            rows = _DenseRows(self._kernel.dense())

        def apply(columns: Tensor) -> Tensor:
            # (JᵀJ + λI)⁻¹ b = (b − Jᵀ (JJᵀ + λI)⁻¹ J b) / λ   (Woodbury)
            inner = solve_factored(self._factor, rows.matmat(columns))
            return (columns - rows.rmatmat(inner)) / self._damping

        system = _NormalSystem(rows, self._damping)
        return _refined(apply, system, right, self._tolerance)

    def solve_images(self, vectors: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹V = (JJᵀ + λI)⁻¹JV``: (P, K) to (R, K).

        :meth:`solve` finds the part of a solution within J's rows as a small difference of what is
        divided by λ; here nothing cancels, and no vector of P numbers is solved for.
        """
        value = self._twice.solve_images(vectors)

        # The residual of a few columns, or of as many random combinations.
        some_vectors, some_values = few_columns(vectors, value)
        images = self._kernel.matmat(some_vectors)
        system = _KernelSystem(self._kernel, self._damping)
        residual = relative_residual(system, images, some_values)
        return Solution(value, residual, residual < GOOD_RESIDUAL, 0)

    def solve_rows(self) -> RowSolution:
        """Return ``X = Jᵀ(JJᵀ + λI)⁻¹`` for all rows at once."""
        basis, coefficients = self._twice.solve_rows()

        # The residual of random combinations of them.
        kernel = self._kernel
        weights = random_weights(basis, len(coefficients))
        right = kernel.rmatmat(weights)
        value = basis @ (coefficients @ weights)
        system = _NormalSystem(kernel, self._damping)
        residual = relative_residual(system, right, value)
        return RowSolution(basis, coefficients, residual, residual < GOOD_RESIDUAL)


def _count_negative(matrix: Tensor) -> int:
    """Return how many eigenvalues are negative: as many as in D of LDLᵀ (Sylvester)."""
    factor, pivots, _ = torch.linalg.ldl_factor_ex(matrix)

    # D has blocks of one and of two; LAPACK marks the latter by negative pivots, twice each. A
    # block of two has one eigenvalue of either sign.
    in_pairs = pivots < 0
    singles = int((factor.diagonal()[~in_pairs] < 0).sum())
    pairs = int(in_pairs.sum()) // 2
    return singles + pairs


class _Indefinite:
    """LU of a matrix that may have negative eigenvalues, which are counted."""

    def __init__(
        self, operator: DenseMatrix, damping: Damping, tolerance: float
    ) -> None:
        self._tolerance = tolerance
        values = torch.linalg.eigvalsh(operator.matrix.double())
        largest = float(values.abs().max())
        absolute = damping.resolve(largest)

        # λ may cancel a negative eigenvalue.
        dtype = operator.matrix.dtype
        nearest = float((values + absolute).abs().min())
        if nearest <= operator.size * torch.finfo(dtype).eps * largest:
            raise singular(absolute, operator.size, dtype)

        self._system = Damped(operator, absolute)
        self._factor = torch.linalg.lu_factor(self._system.dense())
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=absolute,
            largest_eigenvalue=largest,
            solver_form="indefinite",
            solver_size=operator.size,
            negative_eigenvalues=int((values < 0).sum()),
            smallest_eigenvalue=float(values[0]),
        )

    def solve(self, right: Tensor) -> Solution:
        # PLU x = b
        def apply(columns: Tensor) -> Tensor:
            return torch.linalg.lu_solve(*self._factor, columns)

        return _refined(apply, self._system, right, self._tolerance)


def _cholesky(shifted: Tensor, damping: float, largest: float) -> Tensor:
    """Return the Cholesky factor of a matrix that λ is part of already, in its place."""
    factor, is_factored = factor_in_place(shifted)

    # A pivot within rounding of zero says nothing but the rounding.
    size = len(shifted)
    pivot = float(factor.diagonal().min()) ** 2
    rounding = size * torch.finfo(shifted.dtype).eps * largest
    failed = not is_factored or not pivot > MIN_PIVOT * rounding
    if failed:
        raise singular(damping, size, shifted.dtype)
    return factor
