"""A low rank of a symmetric operator by its largest positive eigenvalues, as captum has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.curvature.lanczos import Eigenpairs, dominant_eigenpairs
from whence.curvature.lowrank import LowRankSpectrum
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    direct_solution,
)


@dataclass(frozen=True)
class PositiveEigenvalues:
    """``U(Λ + λ)⁻¹Uᵀ`` of the r largest eigenvalues of A with ``Λ + λ`` above a threshold.

    Directions outside them are dropped, as those of negative curvature are. The pairs are exact:
    :class:`whence.Arnoldi` finds those of largest magnitude, among which these are.

    Parameters
    ----------
    rank:
        r, at most.
    threshold:
        What an eigenvalue, λ included, must exceed, of N times the operator.
    n:
        N.
    """

    rank: int
    threshold: float
    n: int = 1
    name = "arnoldi"

    def __post_init__(self) -> None:
        _checks.count("rank", self.rank)
        _checks.positive("threshold", self.threshold, zero=True)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find the eigenpairs.

        Raises
        ------
        ValueError
            If there are none.
        """
        cached = operator.cached(MEMORY_BUDGET)
        absolute = damping.resolve(1.0)
        vectors, values = self.eigenpairs(cached, absolute)
        if not len(values):
            raise ValueError(
                "the curvature has no positive eigenvalue above the threshold: raise the damping"
            )
        return Kept(Damped(cached, absolute), vectors, values)

    def eigenpairs(self, operator: Curvature, damping: float) -> Eigenpairs:
        """Return the eigenvectors (P, r) and eigenvalues (r,), falling."""
        size = operator.size
        count = min(self.rank, size)
        while True:
            vectors, values = self.dominant(operator, count)
            kept = self.n * (values + damping) > self.threshold
            # Negative ones of larger magnitude stand before those that are looked for.
            if int(kept.sum()) >= self.rank or count == size:
                break
            count = min(2 * count, size)

        chosen = kept.nonzero().flatten()[: self.rank]
        order = values[chosen].argsort(descending=True)
        return vectors[:, chosen[order]], values[chosen[order]]

    def dominant(self, operator: Curvature, count: int) -> Eigenpairs:
        """Return eigenpairs of largest magnitude, falling."""
        # Of half of them or more, all at once is quicker.
        if 2 * count < operator.size:
            like = operator.like()
            return dominant_eigenpairs(operator.matvec, operator.size, like, count)
        values, vectors = torch.linalg.eigh(operator.dense())
        order = values.abs().argsort(descending=True)
        return vectors[:, order], values[order]


class Kept:
    """The eigenpairs that are kept, and the system whose residual is told."""

    def __init__(self, system: Damped, vectors: Tensor, values: Tensor) -> None:
        self._system = system
        self._vectors = vectors
        self._values = values
        self.spectrum = LowRankSpectrum(
            solver="arnoldi",
            damping=system.damping,
            largest_eigenvalue=float(values[0]),
            rank=len(values),
            trace_share=float("nan"),
            smallest_held_eigenvalue=float(values[-1]),
            negative_eigenvalues_held=int((values < 0).sum()),
        )

    def solve(self, right: Tensor) -> Solution:
        """Return ``U(Λ + λ)⁻¹Uᵀ`` times the columns."""
        inverse = 1 / (self._values + self._system.damping)
        value = self._vectors @ (inverse[:, None] * (self._vectors.T @ right))
        return direct_solution(self._system, right, value)
