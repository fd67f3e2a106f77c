"""Iterative solvers, which need products with A alone: conjugate gradients and LiSSA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.curvature.lanczos import Product, largest_eigenvalue
from whence.curvature.lowrank import Nystrom
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    Solver,
    State,
    norms,
    relative_residual,
)
from whence.curvature.spectrum import Spectrum

RESTARTS = 10
AUTO_RANK = 100
SCALE_BATCHES = 8
MARGIN = 1.1
"""By how much LiSSA's scale exceeds the largest eigenvalue seen in a few batches."""


@runtime_checkable
class Preconditioner(Protocol):
    """A factored approximation of ``A + λI``."""

    def precondition(self, right: Tensor) -> Tensor:
        """Return its inverse applied to the columns of ``right``, (P, K)."""


@dataclass(frozen=True, kw_only=True)
class ConjugateSpectrum(Spectrum):
    """The preconditioner's name, or ``"none"``."""

    preconditioner: str


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients for many right-hand sides at once (Hestenes & Stiefel 1952).

    A column leaves when its residual is small; what is left is checked against the true residual
    and restarted from it while that helps. A direction p with ``pᵀ(A + λI)p ≤ 0`` stops its column
    and is reported: ``A + λI`` is indefinite.

    Parameters
    ----------
    rtol:
        Relative residual to reach.
    max_iterations:
        Products with A, over all restarts.
    preconditioner:
        ``None``, ``"jacobi"`` (the diagonal of A; Gauss–Newton only), a solver whose state can
        be one (:class:`whence.Nystrom`, :class:`whence.Arnoldi`, :class:`whence.EKFAC`, which
        slows PINNs down, as their layers are too coupled), or
        ``"auto"``: ``Nystrom`` of rank 100 for Gauss–Newton, none for a Hessian.
    memory_budget:
        Bytes that rows kept in memory between products may take; above it they are made anew.

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

    rtol: float = 1e-8
    max_iterations: int = 2000
    preconditioner: Literal["auto", "jacobi"] | Solver | None = "auto"
    memory_budget: int = MEMORY_BUDGET
    name = "conjugate_gradient"

    def __post_init__(self) -> None:
        _checks.positive("rtol", self.rtol)
        _checks.count("max_iterations", self.max_iterations)
        if isinstance(self.preconditioner, str):
            _checks.one_of("preconditioner", self.preconditioner, ("auto", "jacobi"))
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find λ and make the preconditioner."""
        held = operator.cached(self.memory_budget)
        largest = largest_eigenvalue(held.matvec, held.size, held.like())
        absolute = damping.resolve(largest)
        inverse, name = self._inverse(held, Damping(absolute, relative=False))
        spectrum = ConjugateSpectrum(
            solver=self.name,
            damping=absolute,
            largest_eigenvalue=largest,
            preconditioner=name,
        )
        return _Conjugate(
            held, absolute, inverse, self.rtol, self.max_iterations, spectrum
        )

    def _inverse(self, operator: Curvature, damping: Damping) -> tuple[Product, str]:
        chosen = self.preconditioner
        if chosen == "auto":
            rank = min(AUTO_RANK, operator.size)
            suits = operator.semidefinite and damping.value > 0
            chosen = Nystrom(rank) if suits else None
        if chosen is None:
            return (lambda right: right), "none"
        if chosen == "jacobi":
            inverse = 1 / (_diagonal(operator) + damping.value).clamp_min(
                torch.finfo(operator.like().dtype).tiny
            )
            return (lambda right: inverse[:, None] * right), "jacobi"
        state = chosen.factor(operator, damping)
        if not isinstance(state, Preconditioner):
            raise ValueError(
                f"{chosen.name} cannot precondition: use 'jacobi', wh.Nystrom(), wh.Arnoldi() or "
                "wh.EKFAC()"
            )
        return state.precondition, chosen.name


def _diagonal(operator: Curvature) -> Tensor:
    root = operator.root()
    if root is None:
        raise ValueError(
            "the diagonal of a Hessian is not at hand: use preconditioner=None, or "
            "curvature='gauss_newton'"
        )
    total = operator.like().new_zeros(operator.size)
    for rows, _ in root.blocks():
        total += rows.dense().square().sum(dim=0)
    return total


class _Conjugate:
    def __init__(
        self,
        operator: Curvature,
        damping: float,
        inverse: Product,
        rtol: float,
        max_iterations: int,
        spectrum: ConjugateSpectrum,
    ) -> None:
        self._system = Damped(operator, damping)
        self.damping = damping
        self._inverse = inverse
        self._rtol = rtol
        self._most = max_iterations
        self.spectrum = spectrum

    def solve(self, right: Tensor) -> Solution:
        size = right.abs().amax(dim=0).clamp_min(torch.finfo(right.dtype).tiny)
        solution = self._solve(
            right / size
        )  # whose squares neither vanish nor overflow
        return replace(solution, value=solution.value * size)

    def _solve(self, right: Tensor) -> Solution:
        norm = norms(right)
        value, error = torch.zeros_like(right), right
        relative = torch.linalg.vector_norm(error, dim=0) / norm
        negative = torch.zeros_like(norm, dtype=torch.bool)
        done, steps = 0, 0
        for _ in range(RESTARTS):
            left = (relative > self._rtol) & ~negative
            if not bool(left.any()) or done >= self._most:
                break
            change, found, steps = self._run(
                error[:, left], norm[left], self._most - done
            )
            done += steps
            trial = value.clone()
            trial[:, left] += change
            negative[left] |= found
            error = right - self._system.matmat(trial)
            now = torch.linalg.vector_norm(error, dim=0) / norm
            better = now < relative
            halved = bool((now < 0.5 * relative)[left].any())
            value = torch.where(better, trial, value)
            error = torch.where(better, error, right - self._system.matmat(value))
            relative = torch.minimum(now, relative)
            if not halved:
                break
        residual = float(relative.max()) if len(relative) else 0.0
        converged = residual <= self._rtol
        return Solution(
            value, residual, converged, done, self._message(residual, negative, done)
        )

    def _run(
        self, right: Tensor, norm: Tensor, most: int
    ) -> tuple[Tensor, Tensor, int]:
        """Return the change of x for these residuals, which met negative curvature, and steps."""
        value = torch.zeros_like(right)
        negative = torch.zeros(right.shape[1], dtype=torch.bool, device=right.device)
        active = torch.arange(right.shape[1], device=right.device)
        error = right
        direction = self._inverse(error)
        product = (error * direction).sum(dim=0)
        steps = 0
        while len(active) and steps < most:
            image = self._system.matmat(direction)
            curved = (direction * image).sum(dim=0)
            steps += 1
            flat = ~(curved > 0)
            negative[active[flat]] = True
            step = torch.where(flat, torch.zeros_like(curved), product / curved)
            value[:, active] += step * direction
            error = (
                error - step * image
            )  # not in place: a direction may be the same tensor
            small = (
                torch.linalg.vector_norm(error, dim=0)
                <= 0.5 * self._rtol * norm[active]
            )
            kept = ~(small | flat)
            if not bool(kept.all()):
                active, error, direction = (
                    active[kept],
                    error[:, kept],
                    direction[:, kept],
                )
                product = product[kept]
            if not len(active):
                break
            pushed = self._inverse(error)
            new = (error * pushed).sum(dim=0)
            direction = pushed + (new / product) * direction
            product = new
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


@dataclass(frozen=True, kw_only=True)
class NeumannSpectrum(Spectrum):
    """The scale s of the series and the points of a step, or ``"all"``."""

    scale: float
    batch: int | str


@dataclass(frozen=True)
class LiSSA:
    """The truncated Neumann series ``v ← b + v − (A + λI)v/s``, ``x = v/s`` (Agarwal et al. 2017).

    After n steps ``x = 1/s Σ_{j≤n} (I − (A + λI)/s)ʲ b``, which converges for ``s`` above half the
    largest eigenvalue of ``A + λI``, by ``1 − λ_min/s`` a step: for weak damping not in practice.
    With ``batch`` each step takes the curvature of a few points, so its expectation is the same.

    Parameters
    ----------
    iterations:
        Steps n of each repeat.
    batch:
        Points of a step, shared out over the terms by their sizes, drawn without replacement until
        all were seen; by default all points, and nothing is random.
    repeats:
        Independent runs, averaged; only with ``batch``.
    scale:
        s; by default a little above the largest eigenvalue (with ``batch``, of several batches).
    tolerance:
        Relative residual at which to stop, if all points are taken in each step.
    seed:
        Of the batches.
    memory_budget:
        Bytes that rows kept in memory between steps may take.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.LiSSA(scale=20.0).factor(operator, wh.Damping(0.0))
    >>> solution = state.solve(torch.tensor([[5.0]], dtype=torch.float64))
    >>> round(float(solution.value), 6), solution.converged
    (0.5, True)
    """

    iterations: int = 1000
    batch: int | None = None
    repeats: int = 1
    scale: float | None = None
    tolerance: float = 1e-8
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET
    name = "lissa"

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.count("repeats", self.repeats)
        _checks.count("seed", self.seed, zero=True)
        if self.batch is not None:
            _checks.count("batch", self.batch)
        elif self.repeats > 1:
            raise ValueError(
                "repeats are all alike where every step takes all points: give batch, too"
            )
        if self.scale is not None:
            _checks.positive("scale", self.scale)
        _checks.positive("tolerance", self.tolerance, zero=True)
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find λ and the scale."""
        held = operator.cached(self.memory_budget)
        largest = largest_eigenvalue(held.matvec, held.size, held.like())
        absolute = damping.resolve(largest)
        return _Neumann(
            held, absolute, self, self._scaled(held, largest) + absolute, largest
        )

    def _scaled(self, operator: Curvature, largest: float) -> float:
        if self.scale is not None:
            return self.scale
        if self.batch is None:
            return largest or 1.0
        batches = batched(operator, self.batch, self.seed)
        each = [next(batches) for _ in range(SCALE_BATCHES)]
        return (
            MARGIN * max(largest_eigenvalue(b.matvec, b.size, b.like()) for b in each)
            or 1.0
        )


class _Neumann:
    def __init__(
        self,
        operator: Curvature,
        damping: float,
        options: LiSSA,
        scale: float,
        largest: float,
    ) -> None:
        self._system = Damped(operator, damping)
        self._options = options
        self.damping = damping
        self._scale = scale
        self.spectrum = NeumannSpectrum(
            solver=LiSSA.name,
            damping=damping,
            largest_eigenvalue=largest,
            scale=scale,
            batch=options.batch or "all",
        )

    def solve(self, right: Tensor) -> Solution:
        total, message, most = torch.zeros_like(right), "", 0
        repeats = self._options.repeats
        for repeat in range(repeats):
            value, steps, message = self._series(right, repeat)
            total += value / (repeats * self._scale)
            most = max(most, steps)
            if message:
                break
        residual = relative_residual(self._system, right, total)
        reached = (
            self._options.batch is not None or residual <= 2 * self._options.tolerance
        )
        if not message and not reached:
            message = (
                f"LiSSA reached a relative residual of {residual:.1e} in {most} iterations: raise "
                "iterations or the damping, or use wh.ConjugateGradient()"
            )
        return Solution(total, residual, not message, most, message)

    def _series(self, right: Tensor, repeat: int) -> tuple[Tensor, int, str]:
        """Return v, the steps taken, and what went wrong."""
        norm = norms(right)
        value = right.clone()
        for step, system in enumerate(self._systems(repeat), 1):
            change = right - system.matmat(value) / self._scale
            value = value + change
            size = torch.linalg.vector_norm(value, dim=0) / norm
            if not bool(
                (size <= (step + 1) * (1 + 1e-6)).all()
            ):  # no contraction has more
                return value, step, self._diverged(step)
            exact = self._options.batch is None
            if exact and bool(
                (
                    torch.linalg.vector_norm(change, dim=0)
                    <= self._options.tolerance * norm
                ).all()
            ):
                return value, step, ""
        return value, self._options.iterations, ""

    def _diverged(self, step: int) -> str:
        return (
            f"LiSSA diverges (seen at step {step}) with scale={self._scale:.3g}: raise the scale "
            "or the batch; where A has negative eigenvalues, as a Hessian may, raise the damping "
            "above them or use curvature='gauss_newton'"
        )

    def _systems(self, repeat: int) -> Iterator[Curvature]:
        if self._options.batch is None:
            for _ in range(self._options.iterations):
                yield self._system
            return
        batches = batched(
            self._system, self._options.batch, self._options.seed + 1 + repeat
        )
        for _ in range(self._options.iterations):
            yield next(batches)


def batched(operator: Curvature, batch: int, seed: int) -> Iterator[Curvature]:
    """Yield the operator of ``batch`` points at a time, for ever, in passes over all points.

    Each term gives its share of the points, at least one; each batch keeps the terms' weights.
    """
    terms = operator.objective.terms
    n = operator.objective.n_points
    if batch > n:
        raise ValueError(f"batch is {batch}, above the number of points, {n}")
    shares = {
        name: max(1, round(batch * len(t.points) / n)) for name, t in terms.items()
    }
    generator = np.random.default_rng(seed)
    left = {name: np.empty(0, dtype=np.int64) for name in terms}
    while True:
        chosen = {}
        for name, share in shares.items():
            if len(left[name]) < share:
                left[name] = generator.permutation(len(terms[name].points))
            taken, left[name] = left[name][:share], left[name][share:]
            chosen[name] = torch.as_tensor(taken)
        yield operator.subset(chosen)
