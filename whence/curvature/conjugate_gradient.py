"""Conjugate gradients, which need products with A alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.failures import needs_rows
from whence.curvature.lanczos import Product, largest_eigenvalue
from whence.curvature.lowrank import COPIES, Nystrom
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    Solver,
    State,
    default_tolerance,
    norms,
)
from whence.curvature.spectrum import Spectrum

MAX_RESTARTS = 10
AUTO_RANK = 100


@runtime_checkable
class Preconditioner(Protocol):
    """A factored approximation of ``A + λI``."""

    def precondition(self, right: Tensor) -> Tensor:
        """Return its inverse applied to the columns of ``right``, (P, K)."""


@dataclass(frozen=True, kw_only=True)
class ConjugateSpectrum(Spectrum):
    """The preconditioner's name, or ``"none"``."""

    preconditioner: str


@SOLVERS.named()
@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients for many right-hand sides at once (Hestenes & Stiefel 1952).

    A column leaves when its residual is small; what is left is checked against the true residual
    and restarted from it while that helps. A direction p with ``pᵀ(A + λI)p ≤ 0`` stops its column
    and is reported: ``A + λI`` is indefinite.

    Parameters
    ----------
    rtol:
        Relative residual to reach, by default 1e-8, or 1e-5 in single precision.
    max_iterations:
        Products with A, over all restarts.
    preconditioner:
        ``None``, ``"jacobi"`` (the diagonal of A; Gauss–Newton only), a solver whose state can
        be one (:class:`whence.Nystrom`, :class:`whence.Arnoldi`, :class:`whence.EKFAC`, which
        slows PINNs down, as their layers are too coupled), or
        ``"auto"``: ``Nystrom`` of rank 100, or what memory holds, for Gauss–Newton, none for a
        Hessian.
    memory_budget:
        Bytes that rows kept in memory between products may take; above it they are made again.

    Raises
    ------
    ValueError
        If an option is out of range, or the preconditioner does not suit the operator.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.ConjugateGradient().factor(operator, wh.Damping(0.0))
    >>> solution = state.solve(torch.tensor([[5.0]], dtype=torch.float64))
    >>> round(float(solution.value), 9), solution.converged, solution.iterations
    (0.5, True, 1)
    """

    rtol: float | None = None
    max_iterations: int = 2000
    preconditioner: Literal["auto", "jacobi"] | Solver | None = "auto"
    memory_budget: int = MEMORY_BUDGET
    name = "conjugate_gradient"

    def __post_init__(self) -> None:
        if self.rtol is not None:
            _checks.positive("rtol", self.rtol)
        _checks.count("max_iterations", self.max_iterations)
        if isinstance(self.preconditioner, str):
            _checks.one_of("preconditioner", self.preconditioner, ("auto", "jacobi"))
        elif not isinstance(self.preconditioner, Solver | None):
            raise TypeError(
                "preconditioner must be 'auto', 'jacobi', a solver such as wh.Nystrom(rank=50), or "
                f"None; got {_checks.describe(self.preconditioner)}"
            )
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find λ and make the preconditioner."""
        cached = operator.cached(self.memory_budget)
        largest = largest_eigenvalue(cached.matvec, cached.size, cached.like())
        system = Damped(cached, damping.resolve(largest))
        inverse, name = self._inverse(cached, system.damping)
        spectrum = ConjugateSpectrum(
            solver=self.name,
            damping=system.damping,
            largest_eigenvalue=largest,
            preconditioner=name,
        )
        return _Conjugate(system, inverse, self, spectrum)

    def _inverse(self, operator: Curvature, damping: float) -> tuple[Product, str]:
        """Return the preconditioner, M ≈ (A + λI)⁻¹ on columns, and its name."""
        chosen = self.preconditioner
        if chosen == "jacobi":
            return self._jacobi(operator, damping), "jacobi"

        # Without damping, or of a Hessian, a low rank would not be positive definite.
        if chosen == "auto":
            suits = operator.semidefinite and damping > 0
            chosen = self.low_rank(operator) if suits else None
        if chosen is None:
            return (lambda right: right), "none"

        state = chosen.factor(operator, Damping(damping, relative=False))
        if not isinstance(state, Preconditioner):
            raise ValueError(
                f"{chosen.name} cannot precondition: use 'jacobi', wh.Nystrom(), wh.Arnoldi() or "
                "wh.EKFAC()"
            )
        return state.precondition, chosen.name

    def low_rank(self, operator: Curvature) -> Nystrom | None:
        """Return a preconditioner of rank 100, or less where memory holds less."""
        column_bytes = COPIES * operator.size * operator.like().itemsize
        rank = min(AUTO_RANK, operator.size, self.memory_budget // column_bytes)
        if not rank:
            return None
        return Nystrom(rank, memory_budget=self.memory_budget)

    def _jacobi(self, operator: Curvature, damping: float) -> Product:
        """Return division by the diagonal of ``A + λI``."""
        root = operator.root()
        if root is None:
            raise needs_rows("preconditioner='jacobi'", "or preconditioner=None")

        # (JᵀJ)_pp = Σ_r J_rp²
        diagonal = operator.like().new_zeros(operator.size)
        for block, _ in root.blocks():
            rows = block.dense()  # (r, P)
            diagonal += rows.square().sum(dim=0)

        smallest = torch.finfo(diagonal.dtype).tiny
        inverse = 1 / (diagonal + damping).clamp_min(smallest)
        return lambda right: inverse[:, None] * right


class _Conjugate:
    """The system and its preconditioner; each solve is an iteration of its own."""

    def __init__(
        self,
        system: Damped,
        inverse: Product,
        options: ConjugateGradient,
        spectrum: ConjugateSpectrum,
    ) -> None:
        self._system = system
        self._inverse = inverse
        self._rtol = options.rtol or default_tolerance(system.like().dtype)
        self._most = options.max_iterations
        self.spectrum = spectrum

    def solve(self, right: Tensor) -> Solution:
        # With entries of size one the squares in inner products neither vanish nor overflow.
        smallest = torch.finfo(right.dtype).tiny
        size = right.abs().amax(dim=0).clamp_min(smallest)
        solution = self._solve(right / size)
        return replace(solution, value=solution.value * size)

    def _solve(self, right: Tensor) -> Solution:
        norm = norms(right)
        value = torch.zeros_like(right)
        error = right  # b − (A + λI)x at x = 0
        relative = _lengths(error) / norm
        negative = torch.zeros_like(norm, dtype=torch.bool)
        steps = 0

        for _ in range(MAX_RESTARTS):
            unsolved = (relative > self._rtol) & ~negative
            if not bool(unsolved.any()) or steps >= self._most:
                break

            change, is_negative, taken = self._run(
                error[:, unsolved], norm[unsolved], self._most - steps
            )
            steps += taken
            negative[unsolved] |= is_negative

            # The residual that the iteration carries along drifts from the true one by rounding;
            # only the true one counts, and a column keeps the better of its two values.
            trial = value.clone()
            trial[:, unsolved] += change
            trial_error = right - self._system.matmat(trial)
            trial_relative = _lengths(trial_error) / norm

            halved = bool((trial_relative < 0.5 * relative)[unsolved].any())
            better = trial_relative < relative
            value = torch.where(better, trial, value)
            error = torch.where(better, trial_error, error)
            relative = torch.minimum(trial_relative, relative)
            if not halved:
                break

        residual = 0.0
        if len(relative):
            residual = float(relative.max())
        message = self._message(residual, negative, steps)
        return Solution(value, residual, residual <= self._rtol, steps, message)

    def _run(
        self, right: Tensor, norm: Tensor, most: int
    ) -> tuple[Tensor, Tensor, int]:
        """Return the change of x for these residuals, which met negative curvature, and steps."""
        value = torch.zeros_like(right)
        negative = torch.zeros(right.shape[1], dtype=torch.bool, device=right.device)
        active = torch.arange(right.shape[1], device=right.device)

        # Of each column, with M the preconditioner: r = b, p = M r, ρ = rᵀM r.
        error = right
        direction = self._inverse(error)
        product = (error * direction).sum(dim=0)
        steps = 0

        while len(active) and steps < most:
            # q = (A + λI) p and pᵀq, the curvature along p.
            image = self._system.matmat(direction)
            curvature = (direction * image).sum(dim=0)
            steps += 1
            flat = ~(curvature > 0)  # a NaN is flat, too
            negative[active[flat]] = True

            # α = ρ / pᵀq minimises along p:  x ← x + α p,  r ← r − α q. Not in place, since without
            # a preconditioner p is the same tensor as r.
            step = torch.where(flat, torch.zeros_like(curvature), product / curvature)
            value[:, active] += step * direction
            error = error - step * image

            # Columns that are solved leave.
            small = _lengths(error) <= 0.5 * self._rtol * norm[active]
            kept = ~(small | flat)
            if not bool(kept.all()):
                active = active[kept]
                error = error[:, kept]
                direction = direction[:, kept]
                product = product[kept]
            if not len(active):
                break

            # β = ρ_new / ρ makes the next direction conjugate to p:  p ← M r + β p.
            pushed = self._inverse(error)
            new_product = (error * pushed).sum(dim=0)
            direction = pushed + (new_product / product) * direction
            product = new_product
        return value, negative, steps

    def _message(self, residual: float, negative: Tensor, steps: int) -> str:
        if bool(negative.any()):
            return (
                f"A + λI has negative curvature, met by {int(negative.sum())} of {len(negative)} "
                "right-hand sides: raise the damping above the most negative eigenvalue, use "
                "curvature='gauss_newton', or wh.Exact()"
            )
        if residual <= self._rtol:
            return ""

        reached = f"conjugate gradients reached a relative residual of {residual:.1e}"
        if steps < self._most:
            return (
                f"{reached}, about what rounding allows: raise rtol={self._rtol:g} or "
                "the damping"
            )
        return (
            f"{reached} in {steps} iterations: raise max_iterations or the damping, or give "
            "preconditioner=wh.Nystrom(rank=...)"
        )


def _lengths(columns: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(columns, dim=0)
    return lengths
