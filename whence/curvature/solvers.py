"""Solvers of ``(A + λI) x = b``: ``factor`` once, ``solve`` for any number of right-hand sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.curvature.operators import Curvature
from whence.jacobian import self_product
from whence.ntk import TangentKernel

# Predicts leave-one-out retraining best (docs/exactness.md).
DEFAULT_DAMPING = 1e-11
MEMORY_BUDGET = 2 * 2**30
MAX_REFINEMENTS = 4
GOOD_RESIDUAL = 1e-3
PROBES = 8


@dataclass(frozen=True)
class Damping:
    """λ in ``A + λI``: relative to the largest eigenvalue of A, or absolute.

    Parameters
    ----------
    value:
        λ, or λ divided by the largest eigenvalue. Not negative.
    relative:
        Which of the two.

    Examples
    --------
    >>> import whence as wh
    >>> wh.Damping(0.25).resolve(largest=8.0)
    2.0
    """

    value: float = DEFAULT_DAMPING
    relative: bool = True

    def __post_init__(self) -> None:
        _checks.positive("damping", self.value, zero=True)

    def resolve(self, largest: float) -> float:
        """Return the absolute λ for an operator with this largest eigenvalue."""
        return self.value * largest if self.relative else self.value


def default_damping(dtype: torch.dtype) -> float:
    """Return the default relative λ: 1e-11, or a thousand machine precisions if that is more.

    Examples
    --------
    >>> from whence.curvature.solvers import default_damping
    >>> default_damping(torch.float64)
    1e-11
    """
    return max(DEFAULT_DAMPING, 1e3 * torch.finfo(dtype).eps)


@dataclass(frozen=True)
class Solution:
    """The answer of a solver and how good it is.

    Parameters
    ----------
    value:
        x, shape (P, K).
    residual:
        Largest ``‖b − (A + λI)x‖ / ‖b‖`` over the K right-hand sides.
    converged:
        Whether the solver reached what it promises.
    iterations:
        Steps taken, for the exact solver the refinements.
    """

    value: Tensor
    residual: float
    converged: bool
    iterations: int


@dataclass(frozen=True)
class RowSolution:
    """``X = (A + λI)⁻¹ Jᵀ`` for all rows of a root J, as ``basis @ coefficients``.

    ``basis`` has shape (P, R), ``coefficients`` (R, R); the rest is as in :class:`Solution`.
    """

    basis: Tensor
    coefficients: Tensor
    residual: float
    converged: bool


class State(Protocol):
    """A factored operator."""

    description: dict[str, str | int | float]
    """What an attribution reports: form, λ, largest eigenvalue, negative eigenvalues."""

    def solve(self, right: Tensor) -> Solution:
        """Solve for the columns of ``right``, (P, K)."""


@runtime_checkable
class RowState(Protocol):
    """A factored operator whose solutions for all rows of its root are cheaper than one by one."""

    row_bytes: int
    """Memory that these take, that for making them included."""

    def solve_rows(self) -> RowSolution:
        """Return ``(A + λI)⁻¹ Jᵀ`` for the rows of its root J, all at once."""


class Solver(Protocol):
    """Turns an operator into a :class:`State`."""

    name: str

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Factor ``A + λI`` once."""


@dataclass(frozen=True)
class Exact:
    """Dense Cholesky factorisation with iterative refinement: the reference for every other solver.

    ``primal`` factors the P × P matrix ``JᵀJ + λI``; ``dual`` the R × R matrix ``JJᵀ + λI`` and
    uses ``(JᵀJ + λI)⁻¹ b = (b − Jᵀ(JJᵀ + λI)⁻¹ J b) / λ``. ``auto`` takes the smaller. A Hessian
    is solved through its eigendecomposition, which counts the negative eigenvalues.

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
    >>> operator = wh.GaussNewton(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.Exact().factor(operator, wh.Damping(0.0))
    >>> round(float(state.solve(torch.tensor([[5.0]], dtype=torch.float64)).value), 9)
    0.5
    """

    form: Literal["auto", "primal", "dual"] = "auto"
    memory_budget: int = MEMORY_BUDGET
    tolerance: float = 0.0
    name = "exact"

    def __post_init__(self) -> None:
        _checks.one_of("form of the exact solver", self.form, ("auto", "primal", "dual"))
        _checks.positive("memory_budget", self.memory_budget)
        _checks.positive("tolerance", self.tolerance, zero=True)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Factor ``A + λI`` once."""
        root = operator.root()
        if root is None:
            if self.form == "dual":
                raise ValueError("the dual form needs a Gauss–Newton operator, not a Hessian")
            self._fits(2 * operator.size**2)
            return _Spectral(operator.dense(), damping, self.tolerance)
        rows, size = root.shape
        if self.form == "dual" or (self.form == "auto" and rows < size and damping.value > 0):
            self._fits(rows * (2 * rows + size))
            kernel = operator.kernel()
            assert kernel is not None
            return _Dual(kernel, damping, self.tolerance)
        self._fits(2 * size**2)
        return _Primal(operator.dense(), damping, self.tolerance)

    def _fits(self, numbers: int) -> None:
        if 8 * numbers > self.memory_budget:
            raise MemoryError(
                f"the exact solver needs {8 * numbers / 2**30:.1f} GiB, above the memory budget of "
                f"{self.memory_budget / 2**30:.1f} GiB: raise memory_budget or select fewer "
                "parameters"
            )


def largest_eigenvalue(product: Callable[[Tensor], Tensor], size: int, like: Tensor) -> float:
    """Return the largest eigenvalue of a symmetric positive semi-definite operator, by Lanczos.

    The starting vector is fixed, so the same operator gives the same number.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # slow to import

    if size < 3:
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        matrix = torch.stack([product(column) for column in eye])
        return float(torch.linalg.eigvalsh(matrix)[-1])

    def multiply(vector: np.ndarray) -> np.ndarray:
        given = torch.as_tensor(vector.ravel(), dtype=like.dtype, device=like.device)
        return product(given).cpu().double().numpy()

    start = np.random.default_rng(0).standard_normal(size)
    first = multiply(start)
    if not np.isfinite(first).all():
        raise ValueError("the curvature is not finite: parameters, points or residuals are not")
    if not first.any():
        return 0.0
    linear = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    return float(eigsh(linear, k=1, which="LA", v0=start, return_eigenvectors=False, tol=0)[0])


Product = Callable[[Tensor], Tensor]


def _refined(apply: Product, product: Product, right: Tensor, tolerance: float) -> Solution:
    """Apply an approximate inverse, then refine until the residual stops falling, or is met."""
    norm = torch.linalg.vector_norm(right, dim=0).clamp_min(torch.finfo(right.dtype).tiny)
    value = apply(right)
    error = right - product(value)
    worst = _worst(error, norm)
    steps = 0
    while steps < MAX_REFINEMENTS and worst > tolerance:
        trial = value + apply(error)
        left = right - product(trial)
        now = _worst(left, norm)
        if not now < 0.5 * worst:
            break
        value, error, worst, steps = trial, left, now, steps + 1
    return Solution(value, worst, bool(np.isfinite(worst)) and worst < GOOD_RESIDUAL, steps)


def _worst(error: Tensor, norm: Tensor) -> float:
    return float((torch.linalg.vector_norm(error, dim=0) / norm).max())


class _Primal:
    def __init__(self, matrix: Tensor, damping: Damping, tolerance: float) -> None:
        self._tolerance = tolerance
        largest = largest_eigenvalue(lambda v: matrix @ v, len(matrix), matrix)
        self.damping = damping.resolve(largest)
        self._matrix = matrix
        self._factor = _cholesky(matrix, self.damping, largest)
        self.description = _describe("primal", len(matrix), self.damping, largest)

    def solve(self, right: Tensor) -> Solution:
        return _refined(
            lambda b: torch.cholesky_solve(b, self._factor),
            lambda x: self._matrix @ x + self.damping * x,
            right,
            self._tolerance,
        )


class _Dual:
    def __init__(self, kernel: TangentKernel, damping: Damping, tolerance: float) -> None:
        self._tolerance = tolerance
        gram = kernel.gram
        largest = largest_eigenvalue(lambda v: gram @ v, len(gram), gram)
        self.damping = damping.resolve(largest)
        if self.damping == 0:
            raise ValueError(
                "the dual form needs damping above zero: without it, directions that no training "
                "point constrains have no answer"
            )
        self._kernel = kernel
        self.row_bytes = 4 * gram.itemsize * len(gram) * (len(gram) + kernel.size)
        self._factor = _cholesky(gram, self.damping, largest)
        self.description = _describe("dual", len(gram), self.damping, largest)

    def solve(self, right: Tensor) -> Solution:
        rows = self._kernel.dense()

        def apply(b: Tensor) -> Tensor:
            return (b - rows.T @ torch.cholesky_solve(rows @ b, self._factor)) / self.damping

        return _refined(
            apply, lambda x: rows.T @ (rows @ x) + self.damping * x, right, self._tolerance
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
        residual = self._probed(rows, white.T, coefficients)
        return RowSolution(white.T, coefficients, residual, residual < GOOD_RESIDUAL)

    def _probed(self, rows: Tensor, basis: Tensor, coefficients: Tensor) -> float:
        """Return the relative residual of X for a few random combinations of its columns."""
        drawn = np.random.default_rng(0).standard_normal((len(rows), PROBES))
        weights = torch.as_tensor(drawn).to(rows)
        right, x = rows.T @ weights, basis @ (coefficients @ weights)
        error = right - rows.T @ (rows @ x) - self.damping * x
        return _worst(error, torch.linalg.vector_norm(right, dim=0))


class _Spectral:
    def __init__(self, matrix: Tensor, damping: Damping, tolerance: float) -> None:
        self._tolerance = tolerance
        values, self._vectors = torch.linalg.eigh(matrix)
        largest = float(values.abs().max())
        self.damping = damping.resolve(largest)
        shifted = values + self.damping
        if float(shifted.abs().min()) <= largest * torch.finfo(matrix.dtype).eps:
            raise ValueError(_singular(self.damping, matrix))
        self._inverse = 1 / shifted
        self._matrix = matrix
        self.description = _describe("spectral", len(matrix), self.damping, largest)
        self.description["negative_eigenvalues"] = int((values < 0).sum())
        self.description["smallest_eigenvalue"] = float(values[0])

    def solve(self, right: Tensor) -> Solution:
        return _refined(
            lambda b: self._vectors @ (self._inverse[:, None] * (self._vectors.T @ b)),
            lambda x: self._matrix @ x + self.damping * x,
            right,
            self._tolerance,
        )


def _cholesky(matrix: Tensor, damping: float, largest: float) -> Tensor:
    shifted = matrix.clone()
    shifted.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(shifted)
    smallest = float(factor.diagonal().min()) ** 2
    if int(info) or not smallest > len(matrix) * torch.finfo(matrix.dtype).eps * largest * 1e-2:
        raise ValueError(_singular(damping, matrix))
    return factor


def _singular(damping: float, matrix: Tensor) -> str:
    enough = max(DEFAULT_DAMPING, 10 * len(matrix) * torch.finfo(matrix.dtype).eps)
    return (
        f"the curvature is singular to working precision with damping λ = {damping:.3g}: "
        f"raise the damping, for example damping={enough:.1g}"
    )


def _describe(form: str, size: int, damping: float, largest: float) -> dict[str, str | int | float]:
    return {
        "solver_form": form,
        "solver_size": size,
        "damping": damping,
        "relative_damping": damping / largest if largest else float("inf"),
        "largest_eigenvalue": largest,
    }
