"""LiSSA: a truncated Neumann series, of all points or of batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    default_tolerance,
    norms,
    relative_residual,
)
from whence.curvature.spectrum import Spectrum

SCALE_BATCHES = 8
"""Batches whose largest eigenvalue the scale must exceed."""
MARGIN = 1.1
"""By how much it exceeds that of the batches seen."""
ROUNDING = 1e-6
"""Relative growth beyond that of a contraction which is no sign of divergence."""


@dataclass(frozen=True, kw_only=True)
class NeumannSpectrum(Spectrum):
    """The scale s of the series and the points of a step, or ``"all"``."""

    scale: float
    batch: int | str


@SOLVERS.named()
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
    tolerance: float | None = None
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
        if self.tolerance is not None:
            _checks.positive("tolerance", self.tolerance, zero=True)
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find λ and the scale."""
        cached = operator.cached(self.memory_budget)
        largest = largest_eigenvalue(cached.matvec, cached.size, cached.like())
        system = Damped(cached, damping.resolve(largest))
        scale = self._scale(cached, largest) + system.damping
        return _Neumann(system, self, scale, largest)

    def _scale(self, operator: Curvature, largest: float) -> float:
        """Return s of A alone; that of ``A + λI`` is larger by λ."""
        if self.scale is not None:
            return self.scale
        if self.batch is None:
            return largest or 1.0

        # The curvature of a batch may exceed that of all points.
        batches = batched(operator, self.batch, self.seed)
        highest = 0.0
        for _ in range(SCALE_BATCHES):
            batch = next(batches)
            eigenvalue = largest_eigenvalue(batch.matvec, batch.size, batch.like())
            highest = max(highest, eigenvalue)
        return MARGIN * highest or 1.0


class _Neumann:
    """The system and the scale of its series; each solve is a series of its own."""

    def __init__(
        self, system: Damped, options: LiSSA, scale: float, largest: float
    ) -> None:
        self._system = system
        self._options = options
        self._scale = scale
        tolerance = options.tolerance
        if tolerance is None:
            tolerance = default_tolerance(system.like().dtype)
        self._tolerance = tolerance
        self.spectrum = NeumannSpectrum(
            solver=options.name,
            damping=system.damping,
            largest_eigenvalue=largest,
            scale=scale,
            batch=options.batch or "all",
        )

    def solve(self, right: Tensor) -> Solution:
        total = torch.zeros_like(right)
        repeats = self._options.repeats
        most_steps = 0
        message = ""
        for repeat in range(repeats):
            value, steps, message = self._series(right, repeat)
            # x = v/s, in the mean over the repeats.
            total += value / (repeats * self._scale)
            most_steps = max(most_steps, steps)
            if message:
                break

        # What batches reach is random, so nothing is promised of it.
        residual = relative_residual(self._system, right, total)
        is_random = self._options.batch is not None
        reached = is_random or residual <= 2 * self._tolerance

        if not message and not reached:
            message = (
                f"LiSSA reached a relative residual of {residual:.1e} in {most_steps} iterations: "
                "raise iterations or the damping, or use wh.ConjugateGradient()"
            )
        return Solution(total, residual, not message, most_steps, message)

    def _series(self, right: Tensor, repeat: int) -> tuple[Tensor, int, str]:
        """Return v, the steps taken, and what went wrong."""
        norm = norms(right)
        tolerance = self._tolerance * norm
        is_exact = self._options.batch is None

        # v_n = Σ_{j≤n} (I − (A + λI)/s)ʲ b, from v_0 = b.
        value = right.clone()
        for step, system in enumerate(self._systems(repeat), 1):
            # v ← b + v − (A + λI) v / s
            change = right - system.matmat(value) / self._scale
            value = value + change

            # Each of the n + 1 terms of a contraction is at most as long as b.
            growth = torch.linalg.vector_norm(value, dim=0) / norm
            bound = (step + 1) * (1 + ROUNDING)
            if not bool((growth <= bound).all()):
                return value, step, self._diverged(step)

            # The change is the residual of x = v/s, (A + λI) x = b.
            if is_exact:
                lengths = torch.linalg.vector_norm(change, dim=0)
                if bool((lengths <= tolerance).all()):
                    return value, step, ""

        return value, self._options.iterations, ""

    def _diverged(self, step: int) -> str:
        return (
            f"LiSSA diverges (seen at step {step}) with scale={self._scale:.3g}: raise the scale "
            "or the batch; where A has negative eigenvalues, as a Hessian may, raise the damping "
            "above them or use curvature='gauss_newton'"
        )

    def _systems(self, repeat: int) -> Iterator[Curvature]:
        """Yield the system of each step."""
        batch = self._options.batch
        if batch is None:
            for _ in range(self._options.iterations):
                yield self._system
            return

        # The first seed has drawn the batches of the scale.
        seed = self._options.seed + 1 + repeat
        batches = batched(self._system, batch, seed)
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

    shares = {}
    remaining = {}
    for name, term in terms.items():
        share = batch * len(term.points) / n
        shares[name] = max(1, round(share))
        remaining[name] = np.empty(0, dtype=np.int64)

    generator = np.random.default_rng(seed)
    while True:
        chosen = {}
        for name, share in shares.items():
            # A new pass, in another order, when fewer are left than a batch takes.
            if len(remaining[name]) < share:
                remaining[name] = generator.permutation(len(terms[name].points))

            points = remaining[name]
            chosen[name] = torch.as_tensor(points[:share])
            remaining[name] = points[share:]
        yield operator.subset(chosen)
