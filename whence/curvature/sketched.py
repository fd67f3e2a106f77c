"""Random projection of the rows, for networks too large for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.failures import check_finite, check_memory, needs_rows
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.operators import Curvature, Damped
from whence.curvature.sketch_matrix import DenseSketch, SketchMatrix, SparseSketch
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    direct_solution,
    singular,
)
from whence.curvature.spectrum import Spectrum

BLOCK = 1024
"""Parameters whose random numbers are drawn together: the projection does not depend on memory."""

DIMENSION = 1024
"""Columns of a sketch, unless another number is asked for."""


@dataclass(frozen=True, kw_only=True)
class SketchedSpectrum(Spectrum):
    """What a sketch says: its kind, and as its rank the dimension k."""

    sketch: str
    rank: int


@SOLVERS.named()
@dataclass(frozen=True)
class Sketched:
    """Ridge regression on rows projected to k dimensions: ``S(SᵀAS + λI)⁻¹Sᵀ`` with random S.

    As TRAK does with gradients (Park et al. 2023, arXiv 2303.14186; LoGra, arXiv 2405.13954, with
    projections by layer). S is (P, k) with ``E[SSᵀ] = I``: of normal numbers, or with ``nonzeros``
    entries ±1/√nonzeros a row, at random places (Achlioptas 2003; Kane & Nelson 2014).

    Parameters
    ----------
    dimension:
        k, by default 1024; of no more parameters than that S is the identity by default, so that
        nothing is lost.
    kind:
        ``"sparse"``, which costs the same for any k, or ``"gaussian"``.
    nonzeros:
        Entries a row of the sparse S.
    seed:
        Of S.
    memory_budget:
        Bytes that S and the projected curvature may take.

    Raises
    ------
    ValueError
        If an option is out of range, or the operator is a Hessian.
    SingularSystem
        If the projected system is singular, which is a ValueError, too.
    MemoryError
        If S and the projected curvature exceed ``memory_budget``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("burgers")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> state = wh.Sketched(100).factor(wh.GaussNewtonMatrix(objective), wh.Damping(1e-3))
    >>> state.solve(objective.parameters.vector().unsqueeze(1)).value.shape
    torch.Size([2241, 1])
    """

    dimension: int | None = None
    kind: Literal["sparse", "gaussian"] = "sparse"
    nonzeros: int = 4
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET
    name = "sketched"

    def __post_init__(self) -> None:
        if self.dimension is not None:
            _checks.count("dimension", self.dimension)
        _checks.one_of("kind of sketch", self.kind, ("sparse", "gaussian"))
        _checks.count("nonzeros", self.nonzeros)
        _checks.count("seed", self.seed, zero=True)
        _checks.positive("memory_budget", self.memory_budget)
        k = DIMENSION if self.dimension is None else self.dimension
        if self.kind == "sparse" and self.nonzeros > k:
            raise ValueError(
                f"nonzeros is {self.nonzeros}, above the dimension of the sketch, {k}"
            )

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Project the rows and factor the projected curvature."""
        sketch, curvature = self.projected(operator)
        largest = largest_eigenvalue(operator.matvec, operator.size, operator.like())
        system = Damped(operator, damping.resolve(largest))
        return Projected(self, system, sketch, curvature, largest)

    def projected(self, operator: Curvature) -> tuple[SketchMatrix, Tensor]:
        """Return S (P, k) and ``SᵀAS`` (k, k), by one pass over the rows."""
        root = operator.root()
        if root is None:
            raise needs_rows("Sketched", "or wh.ConjugateGradient()")
        if self.dimension is not None and self.dimension > operator.size:
            raise ValueError(
                f"the dimension of the sketch is {self.dimension}, above the number of "
                f"parameters, {operator.size}: use wh.Exact()"
            )
        check_memory(
            "the sketch",
            self.needed(operator),
            self.memory_budget,
            "lower its dimension, use kind='sparse' or raise memory_budget",
        )

        # SᵀAS = (JS)ᵀ(JS), summed over blocks of rows.
        sketch = self.draw(operator.size, operator.like())
        k = sketch.columns
        curvature = operator.like().new_zeros(k, k)
        for rows, _ in root.blocks():
            projected = sketch.project(rows.dense())  # (r, k)
            curvature.addmm_(projected.T, projected)
        return sketch, curvature

    def needed(self, operator: Curvature) -> int:
        """Return the bytes that S, the projected curvature and its factor take."""
        k = self.columns(operator.size)
        itemsize = operator.like().itemsize
        if self.kind == "gaussian":
            sketch = operator.size * k * itemsize
        else:
            sketch = SparseSketch.bytes_needed(
                operator.size, self.nonzeros, k, itemsize
            )

        # Besides S the projected curvature and its factor, (k, k) each.
        return sketch + 2 * k * k * itemsize

    def columns(self, size: int) -> int:
        """Return k for so many parameters."""
        return min(DIMENSION, size) if self.dimension is None else self.dimension

    def draw(self, size: int, like: Tensor) -> SketchMatrix:
        """Return S for so many parameters, of the type and on the device of a tensor."""
        if self.dimension is None and size <= DIMENSION:
            return DenseSketch(torch.eye(size, dtype=like.dtype, device=like.device))
        if self.kind == "gaussian":
            return self._gaussian(size, like)
        return self._sparse(size, like)

    def _gaussian(self, size: int, like: Tensor) -> DenseSketch:
        # Variance 1/k, so that E[SSᵀ] = I.
        k = self.columns(size)
        parts = []
        for generator, n in self._generators(size):
            part = generator.standard_normal((n, k)) / k**0.5
            parts.append(part)
        return DenseSketch(torch.as_tensor(np.concatenate(parts)).to(like))

    def _sparse(self, size: int, like: Tensor) -> SparseSketch:
        k = self.columns(size)
        places = []
        for generator, n in self._generators(size):
            places.append(distinct(generator, n, self.nonzeros, k))

        # ±1/√nonzeros: the squares of a row sum to one, and signs average to zero.
        signs = []
        for generator, n in self._generators(size, stream=1):
            positive = generator.integers(2, size=(n, self.nonzeros), dtype=np.int8)
            signs.append(2 * positive - 1)

        columns = torch.cat(places).to(like.device)
        values = torch.as_tensor(np.concatenate(signs)).to(like)
        return SparseSketch(columns, values / self.nonzeros**0.5, k)

    def _generators(
        self, size: int, stream: int = 0
    ) -> Iterator[tuple[np.random.Generator, int]]:
        """Yield a generator of its own for every block of parameters, and how many they are."""
        for block, start in enumerate(range(0, size, BLOCK)):
            count = min(BLOCK, size - start)
            yield np.random.default_rng([self.seed, stream, block]), count


def distinct(generator: np.random.Generator, n: int, count: int, end: int) -> Tensor:
    """Return n random sets of ``count`` distinct numbers below ``end``, (n, count), all as likely.

    Floyd's algorithm (Bentley & Floyd 1987): the j-th number is drawn up to ``end - count + j``,
    and where it was drawn before, this highest one, which cannot have been, takes its place.
    """
    numbers = np.empty((n, count), dtype=np.int32)
    for j in range(count):
        highest = end - count + j
        drawn = generator.integers(highest, size=n, dtype=np.int32, endpoint=True)
        before = (numbers[:, :j] == drawn[:, None]).any(axis=1)
        numbers[:, j] = np.where(before, highest, drawn)
    return torch.as_tensor(numbers)


class Projected:
    """``S (SᵀAS + λI)⁻¹ Sᵀ``; of ``curvature`` no more than its factor is kept."""

    def __init__(
        self,
        solver: Sketched,
        system: Damped,
        sketch: SketchMatrix,
        curvature: Tensor,
        largest: float,
    ) -> None:
        self._system = system
        self._sketch = sketch
        check_finite(curvature)

        # The projected curvature is not needed again: λ and the factor take its place.
        curvature.diagonal().add_(system.damping)
        self._factor, info = torch.linalg.cholesky_ex(curvature)
        if int(info):
            raise singular(system.damping, len(curvature), curvature.dtype)

        self.spectrum = SketchedSpectrum(
            solver=solver.name,
            damping=system.damping,
            largest_eigenvalue=largest,
            sketch=solver.kind,
            rank=sketch.columns,
        )

    def inverse(self, right: Tensor) -> Tensor:
        """Return ``S (SᵀAS + λI)⁻¹ Sᵀ`` times the columns of ``right``, (P, K)."""
        # b → Sᵀb → (SᵀAS + λI)⁻¹Sᵀb → S (SᵀAS + λI)⁻¹ Sᵀb
        projected = self._sketch.project(right.T).T
        solved = torch.cholesky_solve(projected, self._factor)
        return self._sketch.lift(solved)

    def solve(self, right: Tensor) -> Solution:
        """Return the same with the residual of the system that is not projected."""
        value = self.inverse(right)
        return direct_solution(self._system, right, value)
