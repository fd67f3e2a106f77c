"""Low-rank solvers: the largest eigenvalues by Lanczos, or by a random sketch; the rest damped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.failures import check_finite, check_memory, undamped
from whence.curvature.lanczos import (
    Eigenpairs,
    dominant_eigenpairs,
    largest_eigenvalue,
    smallest_eigenvalue,
)
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    direct_solution,
    singular,
)
from whence.curvature.spectrum import Spectrum

DEFAULT_RANK = 300
FIRST_RANK = 50
"""The first rank tried if a tolerance may make it grow."""
LARGEST = 1e-8
"""How exact the largest eigenvalue of an indefinite operator is, relative to it."""
SMALLEST = 1e-4
"""How exact the smallest one is, relative to the width of the spectrum."""
COPIES = 3
"""Matrices (P, r) that are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class LowRankSpectrum(Spectrum):
    """What the r eigenpairs of a low-rank approximation say.

    ``trace_share`` is their part of the trace of A; smallest and negative eigenvalues are counted
    among the r only. ``smallest_eigenvalue`` is that of A where a sketch needed it, to a ten
    thousandth of the spectrum's width.
    """

    rank: int
    trace_share: float
    smallest_held_eigenvalue: float
    negative_eigenvalues_held: int
    smallest_eigenvalue: float | None = None


@SOLVERS.named()
@dataclass(frozen=True)
class Arnoldi:
    """The r eigenpairs of A of largest magnitude, the rest of A left out.

    ``(UΛUᵀ + λI)⁻¹ = U(Λ + λ)⁻¹Uᵀ + (I − UUᵀ)/λ``. For a symmetric operator Arnoldi's iteration
    is that of Lanczos, restarted implicitly (ARPACK). Schioppa et al. 2022 (arXiv 2112.03052) drop
    the second part, which answers nothing outside the r directions: ``complement=False``.

    Parameters
    ----------
    rank:
        r, by default 300 (or what fits in memory), or as much as ``tolerance`` asks for.
    tolerance:
        Share of the trace of A that may be left out; the rank is doubled until no more is, or
        ``rank`` is reached.
    complement:
        Whether directions outside the r are damped, or dropped.
    memory_budget:
        Bytes that eigenvectors and rows kept in memory may take.

    Raises
    ------
    ValueError
        If rank is above the number of parameters.
    SingularSystem
        If the damping is zero while the complement is damped, or ``A + λI`` is singular; this is a
        ValueError, too.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.Arnoldi(rank=1).factor(operator, wh.Damping(1.0, relative=False))
    >>> state.spectrum.rank, round(state.spectrum.trace_share, 6)
    (1, 0.9)
    >>> state.solve(torch.eye(2, dtype=torch.float64)).value      # 1/λ in the direction left out
    tensor([[1.0000, 0.0000],
            [0.0000, 0.1000]], dtype=torch.float64)
    """

    rank: int | None = None
    tolerance: float | None = None
    complement: bool = True
    memory_budget: int = MEMORY_BUDGET
    name = "arnoldi"

    def __post_init__(self) -> None:
        self._growth().check()
        _checks.boolean("complement", self.complement)

    def _growth(self) -> _Growth:
        return _Growth(self.rank, self.tolerance, self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find the eigenpairs."""
        cached = operator.cached(self.memory_budget)

        def pairs_of(rank: int) -> Eigenpairs:
            return self._eigenpairs(cached, rank)

        pairs, share = self._growth().eigenpairs(cached, pairs_of)
        return LowRankState(self, cached, pairs, damping, share)

    def _eigenpairs(self, operator: Curvature, rank: int) -> Eigenpairs:
        size = operator.size
        if rank + 1 < size:
            return dominant_eigenpairs(operator.matvec, size, operator.like(), rank)

        # All of the eigenvalues, or all but one: no iteration has anything to gain.
        values, vectors = torch.linalg.eigh(operator.dense())
        order = values.abs().argsort(descending=True)[:rank]
        return vectors[:, order], values[order]


@SOLVERS.named()
@dataclass(frozen=True)
class Nystrom:
    """The Nyström approximation ``AΩ(ΩᵀAΩ)⁻¹ΩᵀA`` of A for r random directions Ω.

    One product of A with r vectors; damped as in :class:`Arnoldi`. Stable form of Frangella, Tropp
    & Udell 2021 (arXiv 2110.02820, algorithm 2.1). Also a good preconditioner of
    :class:`whence.ConjugateGradient`.

    Of a Hessian, which may have negative eigenvalues, ``A + sI`` is sketched and s taken off again,
    with s the size of the most negative eigenvalue by Lanczos' iteration. The less is known of A
    the larger s is beside λ: :class:`Arnoldi` of the same rank takes more products and is nearer.

    Parameters
    ----------
    rank, tolerance, complement, memory_budget:
        As for :class:`Arnoldi`.
    seed:
        Of Ω.

    Raises
    ------
    ValueError
        As for :class:`Arnoldi`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0, 3.0], [2.0, 6.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = wh.Nystrom(rank=1).factor(operator, wh.Damping(1e-6))
    >>> round(state.spectrum.trace_share, 6)          # the curvature has rank one
    1.0
    """

    rank: int | None = None
    tolerance: float | None = None
    complement: bool = True
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET
    name = "nystrom"

    def __post_init__(self) -> None:
        self._growth().check()
        _checks.boolean("complement", self.complement)
        _checks.count("seed", self.seed, zero=True)

    def _growth(self) -> _Growth:
        return _Growth(self.rank, self.tolerance, self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Multiply A by random directions, of a Hessian once its eigenvalues are positive."""
        cached = operator.cached(self.memory_budget)
        largest = smallest = None
        shift = 0.0
        if not cached.semidefinite:
            largest, smallest = ends_of_spectrum(cached)
            shift = shift_above(largest, smallest)

        def pairs_of(rank: int) -> Eigenpairs:
            return nystrom(cached, rank, self.seed, shift)

        pairs, share = self._growth().eigenpairs(cached, pairs_of)
        return LowRankState(self, cached, pairs, damping, share, largest, smallest)


def ends_of_spectrum(operator: Curvature) -> tuple[float, float]:
    """Return the largest magnitude of an eigenvalue, and the smallest eigenvalue, by Lanczos."""
    size = operator.size
    like = operator.like()
    largest = largest_eigenvalue(operator.matvec, size, like, LARGEST)
    smallest = smallest_eigenvalue(operator.matvec, size, like, largest, SMALLEST)
    return max(largest, abs(smallest)), smallest


def shift_above(largest: float, smallest: float) -> float:
    """Return s ≥ 0 with ``A + sI`` positive semi-definite, also where Lanczos is not exact.

    Examples
    --------
    >>> from whence.curvature.lowrank import shift_above
    >>> round(shift_above(1.0, -0.5), 4), shift_above(1.0, 0.2)
    (0.5003, 0.0)
    """
    # The smallest eigenvalue is known to a share of the width: twice that is on the safe side.
    uncertain = 2 * SMALLEST * (largest - smallest)
    return max(0.0, uncertain - smallest)


def largest_rank(solver: Arnoldi | Nystrom, operator: Curvature) -> int:
    """Return the rank that a solver takes at most, of what is asked for and fits in memory."""
    return solver._growth().most(operator)


@dataclass(frozen=True)
class _Growth:
    """How many eigenpairs to find: a number, or as many as a tolerance asks for."""

    rank: int | None
    tolerance: float | None
    memory_budget: int

    def check(self) -> None:
        """Raise ``ValueError`` for an option out of range."""
        if self.rank is not None:
            _checks.count("rank", self.rank)
        if self.tolerance is not None:
            _checks.positive("tolerance", self.tolerance)
            if self.tolerance >= 1:
                raise ValueError(
                    f"tolerance is a share of the trace, below 1, got {self.tolerance}"
                )
        _checks.positive("memory_budget", self.memory_budget)

    def eigenpairs(
        self, operator: Curvature, pairs_of: Callable[[int], Eigenpairs]
    ) -> tuple[Eigenpairs, float]:
        """Return the eigenpairs and their share of the trace of A.

        With a tolerance the rank is doubled until no more than that is left out.
        """
        most = self.most(operator)
        trace = operator.trace()
        rank = most
        if self.tolerance is not None:
            rank = min(most, FIRST_RANK)

        while True:
            vectors, values = pairs_of(rank)
            share = 1.0
            if trace:
                share = float(values.sum()) / trace
            if self.tolerance is None or rank == most or share >= 1 - self.tolerance:
                return (vectors, values), share
            rank = min(most, 2 * rank)

    def most(self, operator: Curvature) -> int:
        """Return the largest rank that is asked for, fits in memory and A can have."""
        size = operator.size
        if self.rank is not None and self.rank > size:
            raise ValueError(
                f"rank is {self.rank}, above the number of parameters, {size}"
            )

        bytes_each = COPIES * size * operator.like().itemsize
        fits = max(1, self.memory_budget // bytes_each)
        if self.rank is None:
            wanted = size if self.tolerance else DEFAULT_RANK
            most = min(size, fits, wanted)
        else:
            most = self.rank
            if most > fits:
                check_memory(
                    f"rank {most}",
                    most * bytes_each,
                    self.memory_budget,
                    "lower the rank or raise memory_budget",
                )

        # JᵀJ has no more eigenvalues than J has rows.
        root = operator.root()
        if root is not None:
            most = max(1, min(most, root.shape[0]))
        return most


def nystrom(
    operator: Curvature, rank: int, seed: int, shift: float = 0.0
) -> Eigenpairs:
    """Return eigenpairs of the Nyström approximation of A, where ``A + sI`` has no negative ones.

    Algorithm 2.1 of Frangella, Tropp & Udell 2021 (arXiv 2110.02820), of the shifted operator. The
    approximation is never above it, so that eigenvalues are at least −s and at most those of A.
    """
    like = operator.like()
    numbers = np.random.default_rng(seed).standard_normal((operator.size, rank))

    # Ω with orthonormal columns, (P, r), and Y = AΩ.
    directions, _ = torch.linalg.qr(torch.as_tensor(numbers).to(like))
    image = operator.matmat(directions)
    check_finite(image)

    # Rounding may leave ΩᵀAΩ with eigenvalues below zero. Of A + νI, with ν of the size of that
    # rounding, it is positive definite; ν is taken off again at the end.
    image = image + shift * directions  # Y ← (A + sI)Ω
    rounding = float(image.norm()) * torch.finfo(image.dtype).eps
    if not rounding:
        return directions, image.new_zeros(rank)
    image = image + rounding * directions  # Y ← (A + sI + νI)Ω

    # ΩᵀY = C Cᵀ, from eigenvectors rather than by Cholesky, which rounding could still break.
    core = directions.T @ image
    values, vectors = torch.linalg.eigh(0.5 * (core + core.T))
    root = vectors / values.clamp_min(rounding).sqrt()  # C⁻ᵀ

    # Y (ΩᵀY)⁻¹ Yᵀ = B Bᵀ with B = Y C⁻ᵀ = U Σ Vᵀ, so its eigenvalues are Σ².
    left, singular_values, _ = torch.linalg.svd(image @ root, full_matrices=False)
    return left, (singular_values**2 - rounding).clamp_min(0) - shift


class LowRankSolver(Protocol):
    """What a state of low rank asks of its solver."""

    @property
    def name(self) -> str:
        """How results refer to it."""

    @property
    def complement(self) -> bool:
        """Whether directions outside the rank are damped, or dropped."""


class LowRankState:
    """``U Λ Uᵀ + λI``, inverted by Woodbury's formula."""

    def __init__(
        self,
        solver: LowRankSolver,
        operator: Curvature,
        pairs: Eigenpairs,
        damping: Damping,
        trace_share: float,
        largest: float | None = None,
        smallest: float | None = None,
    ) -> None:
        self._solver = solver
        self._operator = operator
        self._vectors, self._values = pairs
        self._complement = solver.complement
        if largest is None:
            largest = self._largest(operator)
        absolute = damping.resolve(largest)
        self._system = Damped(operator, absolute)

        if self._complement and absolute == 0:
            raise undamped(
                "a low-rank solver",
                "without it, directions outside its rank have no answer; or drop them with "
                "complement=False",
            )

        # λ may cancel a negative eigenvalue.
        shifted = self._values + absolute
        rounding = largest * torch.finfo(shifted.dtype).eps
        if not float(shifted.abs().min()) > rounding:
            raise singular(absolute, operator.size, shifted.dtype)
        self._inverse = 1 / shifted

        self.spectrum = LowRankSpectrum(
            solver=solver.name,
            damping=absolute,
            largest_eigenvalue=largest,
            rank=len(self._values),
            trace_share=trace_share,
            smallest_held_eigenvalue=float(self._values.min()),
            negative_eigenvalues_held=int((self._values < 0).sum()),
            smallest_eigenvalue=smallest,
        )

    def redamped(self, damping: float) -> LowRankState:
        """Return the state with this absolute λ: the eigenpairs are known."""
        return LowRankState(
            self._solver,
            self._operator,
            (self._vectors, self._values),
            Damping(damping, relative=False),
            self.spectrum.trace_share,
            self.spectrum.largest_eigenvalue,
            self.spectrum.smallest_eigenvalue,
        )

    def _largest(self, operator: Curvature) -> float:
        """Return the largest eigenvalue of A, of which that of a sketch falls a little short."""
        approximate = float(self._values.abs().max())
        if not operator.semidefinite:
            return approximate
        if operator.is_cached:
            return largest_eigenvalue(operator.matvec, operator.size, operator.like())

        # Where products are slow one of them is enough: Rayleigh's quotient uᵀAu of the first
        # eigenvector is below the eigenvalue, by the square of the error of u.
        vector = self._vectors[:, 0]
        quotient = float(vector @ operator.matvec(vector))
        return max(approximate, quotient)

    def precondition(self, right: Tensor) -> Tensor:
        """Return an approximate inverse whose part outside is as large as the smallest inside."""
        # Of its magnitudes, as a preconditioner must be positive definite.
        inverse = self._inverse.abs()
        return self._in_eigenbasis(right, inverse, float(inverse.max()))

    def solve(self, right: Tensor) -> Solution:
        """Return ``U(Λ + λ)⁻¹Uᵀb`` and what lies outside, with the residual of A itself."""
        outside = 0.0
        if self._complement:
            outside = 1 / self._system.damping
        value = self._in_eigenbasis(right, self._inverse, outside)
        return direct_solution(self._system, right, value)

    def _in_eigenbasis(self, right: Tensor, inverse: Tensor, outside: float) -> Tensor:
        """Return U(Λ + λ)⁻¹Uᵀb, and ``outside`` times what lies outside the span of U."""
        # b → Uᵀb → (Λ + λ)⁻¹Uᵀb → U(Λ + λ)⁻¹Uᵀb
        inside = self._vectors.T @ right
        value = self._vectors @ (inverse[:, None] * inside)
        if not outside:
            return value

        # (I − UUᵀ) b, twice: 1/λ would magnify what rounding left in the span the first time.
        rest = right - self._vectors @ inside
        rest = rest - self._vectors @ (self._vectors.T @ rest)
        return value + outside * rest
