"""Dense factorisation of ``A + λI``: the reference for every other solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.curvature.failures import (
    SingularSystem,
    check_memory,
    needs_rows,
    undamped,
)
from whence.curvature.lanczos import Product, largest_eigenvalue
from whence.curvature.operators import CachedRows, Curvature, Damped, DenseMatrix
from whence.curvature.solvers import (
    GOOD_RESIDUAL,
    MEMORY_BUDGET,
    PROBES,
    Damping,
    RowSolution,
    Solution,
    State,
    norms,
    relative_residual,
    singular,
    worst,
)
from whence.curvature.spectrum import Spectrum
from whence.jacobian import self_product
from whence.ntk import TangentKernel

MAX_REFINEMENTS = 4
ROUNDING = 8
"""Relative residual, in machine precisions, below which there is nothing to refine."""


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
        If the form is unknown, does not exist for the operator, or the system is singular.
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
        root = operator.root()
        if root is None and self.form == "dual":
            raise needs_rows("the dual form", "or form='primal'")
        check_memory(
            "the exact solver",
            self.needs(operator, damping),
            self.memory_budget,
            "raise memory_budget, select fewer parameters or use solver='auto'",
        )
        if root is None:
            return _of_hessian(DenseMatrix(operator), damping, self.tolerance)
        if self._is_dual(operator, damping):
            kernel = operator.kernel()
            assert kernel is not None
            return _Dual(operator, kernel, damping, self.tolerance)
        return _Primal(DenseMatrix(operator), damping, self.tolerance)

    def needs(self, operator: Curvature, damping: Damping) -> int:
        """Return the bytes that the matrices of this operator take."""
        root, size = operator.root(), operator.size
        itemsize = operator.like().itemsize
        if root is not None and self._is_dual(operator, damping):
            rows = root.shape[0]
            return rows * (2 * rows + size) * itemsize
        spectrum = 16 * size**2 if root is None else 0  # found in double precision
        return 2 * size**2 * itemsize + spectrum

    def _is_dual(self, operator: Curvature, damping: Damping) -> bool:
        root = operator.root()
        if root is None or self.form == "primal":
            return False
        return self.form == "dual" or (
            root.shape[0] < operator.size and damping.value > 0
        )


def _refined(
    apply: Product, system: Curvature, right: Tensor, tolerance: float
) -> Solution:
    """Apply an approximate inverse, then refine until the residual stops falling, or is met."""
    norm = norms(right)
    tolerance = max(tolerance, ROUNDING * torch.finfo(right.dtype).eps)
    value = apply(right)
    error = right - system.matmat(value)
    residual = worst(error, norm)
    steps = 0
    while steps < MAX_REFINEMENTS and residual > tolerance:
        trial = value + apply(error)
        left = right - system.matmat(trial)
        now = worst(left, norm)
        if not now < 0.5 * residual:
            break
        value, error, residual, steps = trial, left, now, steps + 1
    return Solution(
        value, residual, bool(np.isfinite(residual)) and residual < GOOD_RESIDUAL, steps
    )


class _Primal:
    def __init__(
        self,
        operator: DenseMatrix,
        damping: Damping,
        tolerance: float,
        largest: float | None = None,
    ) -> None:
        self._tolerance = tolerance
        matrix = operator.matrix
        if largest is None:
            largest = largest_eigenvalue(operator.matvec, operator.size, matrix)
        self._largest = largest
        self.damping = damping.resolve(largest)
        self._operator = operator
        self._system = Damped(operator, self.damping)
        self._factor = _cholesky(self._system.dense(), self.damping, largest)
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=self.damping,
            largest_eigenvalue=largest,
            solver_form="primal",
            solver_size=len(matrix),
        )

    def least_pivot(self) -> float:
        """Return the smallest pivot of the Cholesky factorisation."""
        return float(self._factor.diagonal().min()) ** 2

    def redamped(self, damping: float) -> _Primal:
        return _Primal(
            self._operator,
            Damping(damping, relative=False),
            self._tolerance,
            self._largest,
        )

    def solve(self, right: Tensor) -> Solution:
        return _refined(
            lambda b: torch.cholesky_solve(b, self._factor),
            self._system,
            right,
            self._tolerance,
        )


class _Dual:
    def __init__(
        self,
        operator: Curvature,
        kernel: TangentKernel,
        damping: Damping,
        tolerance: float,
        largest: float | None = None,
    ) -> None:
        self._tolerance = tolerance
        gram = kernel.gram
        if largest is None:
            largest = largest_eigenvalue(lambda v: gram @ v, len(gram), gram)
        self._largest = largest
        self.damping = damping.resolve(largest)
        if self.damping == 0:
            raise undamped(
                "the dual form",
                "without it, directions that no training point constrains have no answer",
            )
        self._operator = operator
        self._kernel = kernel
        self.row_bytes = 4 * gram.itemsize * len(gram) * (len(gram) + kernel.size)
        shifted = gram.clone()
        shifted.diagonal().add_(self.damping)
        self._factor = _cholesky(shifted, self.damping, largest)
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=self.damping,
            largest_eigenvalue=largest,
            solver_form="dual",
            solver_size=len(gram),
        )

    def redamped(self, damping: float) -> _Dual:
        return _Dual(
            self._operator,
            self._kernel,
            Damping(damping, relative=False),
            self._tolerance,
            self._largest,
        )

    def solve(self, right: Tensor) -> Solution:
        rows = self._kernel.dense()

        def apply(b: Tensor) -> Tensor:
            return (
                b - rows.T @ torch.cholesky_solve(rows @ b, self._factor)
            ) / self.damping

        return _refined(
            apply,
            self._system(rows),
            right,
            self._tolerance,
        )

    def solve_rows(self) -> RowSolution:
        """Return ``X = Jᵀ(JJᵀ + λI)⁻¹`` by Cholesky QR done twice.

        The Cholesky factor L of the kernel carries its rounding, relative to λ; of ``L⁻¹J``,
        whose rows are nearly orthonormal, the same once more has none to speak of (Yamamoto et
        al. 2015, doi 10.1007/s11075-014-9941-x). So errors grow with λ^−½, not with λ^−1.
        """
        rows = self._kernel.dense()
        eye = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        inverse = torch.linalg.solve_triangular(self._factor, eye, upper=False)
        white = torch.linalg.solve_triangular(self._factor, rows, upper=False)
        second = self_product(white) + self.damping * self_product(inverse)
        coefficients = torch.cholesky_solve(inverse, torch.linalg.cholesky(second))
        residual = self._residual(rows, white.T, coefficients)
        return RowSolution(white.T, coefficients, residual, residual < GOOD_RESIDUAL)

    def _residual(self, rows: Tensor, basis: Tensor, coefficients: Tensor) -> float:
        drawn = np.random.default_rng(0).standard_normal((len(rows), PROBES))
        weights = torch.as_tensor(drawn).to(rows)
        value = basis @ (coefficients @ weights)
        return relative_residual(self._system(rows), rows.T @ weights, value)

    def _system(self, rows: Tensor) -> Damped:
        return Damped(CachedRows(self._operator, rows), self.damping)


def _of_hessian(operator: DenseMatrix, damping: Damping, tolerance: float) -> State:
    """Factor by Cholesky where damping outweighs every negative eigenvalue, else by LU."""
    matrix = operator.matrix
    try:
        state = _Primal(operator, damping, tolerance)
    except SingularSystem:
        return _Indefinite(operator, damping, tolerance)
    largest = state.spectrum.largest_eigenvalue
    rounding = len(matrix) * torch.finfo(matrix.dtype).eps * largest
    width = largest_eigenvalue(
        lambda v: largest * v - matrix @ v, len(matrix), matrix, tolerance=SPECTRUM
    )
    smallest = largest - width
    if (
        state.least_pivot() <= rounding or abs(smallest) > largest
    ):  # to which damping is relative
        return _Indefinite(operator, damping, tolerance)
    state.spectrum = replace(
        state.spectrum,
        negative_eigenvalues=_negative(matrix) if smallest < -rounding else 0,
        smallest_eigenvalue=smallest,
    )
    return state


def _negative(matrix: Tensor) -> int:
    """Return how many eigenvalues are negative: as many as in D of LDLᵀ (Sylvester)."""
    factor, pivots, _ = torch.linalg.ldl_factor_ex(matrix)
    pairs = pivots < 0  # a block of two has one of either sign
    return int((factor.diagonal()[~pairs] < 0).sum()) + int(pairs.sum()) // 2


class _Indefinite:
    """LU of a matrix that may have negative eigenvalues, which are counted."""

    def __init__(
        self, operator: DenseMatrix, damping: Damping, tolerance: float
    ) -> None:
        self._tolerance = tolerance
        matrix = operator.matrix
        values = torch.linalg.eigvalsh(matrix.double())
        largest = float(values.abs().max())
        self.damping = damping.resolve(largest)
        if (
            float((values + self.damping).abs().min())
            <= largest * torch.finfo(matrix.dtype).eps
        ):
            raise singular(self.damping, len(matrix), matrix.dtype)
        self._system = Damped(operator, self.damping)
        self._factor = torch.linalg.lu_factor(self._system.dense())
        self.spectrum = DenseSpectrum(
            solver=Exact.name,
            damping=self.damping,
            largest_eigenvalue=largest,
            solver_form="indefinite",
            solver_size=len(matrix),
            negative_eigenvalues=int((values < 0).sum()),
            smallest_eigenvalue=float(values[0]),
        )

    def solve(self, right: Tensor) -> Solution:
        return _refined(
            lambda b: torch.linalg.lu_solve(*self._factor, b),
            self._system,
            right,
            self._tolerance,
        )


def _cholesky(shifted: Tensor, damping: float, largest: float) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(shifted)
    smallest = float(factor.diagonal().min()) ** 2
    if (
        int(info)
        or not smallest > len(shifted) * torch.finfo(shifted.dtype).eps * largest * 1e-2
    ):
        raise singular(damping, len(shifted), shifted.dtype)
    return factor
