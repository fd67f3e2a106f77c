"""Low-rank solvers: the largest eigenvalues by Lanczos, or by a random sketch; the rest damped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.curvature.failures import check_finite, check_memory, undamped
from whence.curvature.lanczos import (
    Eigenpairs,
    dominant_eigenpairs,
    largest_eigenvalue,
)
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    relative_residual,
    singular,
)
from whence.curvature.spectrum import Spectrum

DEFAULT_RANK, FIRST_RANK = 300, 50
"""The rank by default, and the first tried where it may grow."""


@dataclass(frozen=True, kw_only=True)
class LowRankSpectrum(Spectrum):
    """What the r eigenpairs of a low-rank approximation say.

    ``trace_share`` is their part of the trace of A; smallest and negative eigenvalues are counted
    among the r only.
    """

    rank: int
    trace_share: float
    smallest_held_eigenvalue: float
    negative_eigenvalues_held: int


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
        If rank is above the number of parameters, the damping is zero while the complement is
        damped, or ``A + λI`` is singular.

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
        _check_options(self.rank, self.tolerance, self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find the eigenpairs."""
        held = operator.cached(self.memory_budget)
        pairs, share = _grown(
            held,
            self.rank,
            self.tolerance,
            self.memory_budget,
            lambda r: _lanczos(held, r),
        )
        return _LowRank(self, held, pairs, damping, share)


@dataclass(frozen=True)
class Nystrom:
    """The Nyström approximation ``AΩ(ΩᵀAΩ)⁻¹ΩᵀA`` of A for r random directions Ω.

    One product of A with r vectors; damped as in :class:`Arnoldi`. Stable form of Frangella, Tropp
    & Udell 2021 (arXiv 2110.02820, algorithm 2.1). Also a good preconditioner of
    :class:`whence.ConjugateGradient`.

    Parameters
    ----------
    rank, tolerance, complement, memory_budget:
        As for :class:`Arnoldi`.
    seed:
        Of Ω.

    Raises
    ------
    ValueError
        As for :class:`Arnoldi`, and for operators that may be indefinite, such as a Hessian.

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
        _check_options(self.rank, self.tolerance, self.memory_budget)
        _checks.count("seed", self.seed, zero=True)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Multiply A by random directions."""
        if not operator.semidefinite:
            raise ValueError(
                "Nystrom needs an operator without negative eigenvalues: use "
                "curvature='gauss_newton', or wh.Arnoldi or wh.Exact for a Hessian"
            )
        held = operator.cached(self.memory_budget)
        pairs, share = _grown(
            held,
            self.rank,
            self.tolerance,
            self.memory_budget,
            lambda r: nystrom(held, r, self.seed),
        )
        return _LowRank(self, held, pairs, damping, share)


def _check_options(
    rank: int | None, tolerance: float | None, memory_budget: int
) -> None:
    if rank is not None:
        _checks.count("rank", rank)
    if tolerance is not None:
        _checks.positive("tolerance", tolerance)
        if tolerance >= 1:
            raise ValueError(
                f"tolerance is a share of the trace, below 1, got {tolerance}"
            )
    _checks.positive("memory_budget", memory_budget)


def _grown(
    operator: Curvature,
    rank: int | None,
    tolerance: float | None,
    memory_budget: int,
    pairs_of: Callable[[int], Eigenpairs],
) -> tuple[Eigenpairs, float]:
    """Return the eigenpairs of the rank asked for, or of one that leaves out no more than allowed.

    With them the share of the trace that they hold.
    """
    size = operator.size
    if rank is not None and rank > size:
        raise ValueError(f"rank is {rank}, above the number of parameters, {size}")
    fits = memory_budget // (3 * size * operator.like().itemsize)
    most = rank or min(size, max(1, fits), size if tolerance else DEFAULT_RANK)
    if most > max(1, fits):
        needed = 3 * most * size * operator.like().itemsize
        check_memory(
            f"rank {most}",
            needed,
            memory_budget,
            "lower the rank or raise memory_budget",
        )
    root = operator.root()
    most = most if root is None else max(1, min(most, root.shape[0]))
    trace = operator.trace()
    tried = most if tolerance is None else min(most, FIRST_RANK)
    while True:
        vectors, values = pairs_of(tried)
        share = float(values.sum()) / trace if trace else 1.0
        if tolerance is None or tried == most or share >= 1 - tolerance:
            return (vectors, values), share
        tried = min(most, 2 * tried)


def _lanczos(operator: Curvature, rank: int) -> Eigenpairs:
    """Return the ``rank`` eigenpairs of largest magnitude, that first."""
    # All, or all but one, of the eigenvalues: no iteration has anything to gain.
    if rank + 1 >= operator.size:
        values, vectors = torch.linalg.eigh(operator.dense())
        order = values.abs().argsort(descending=True)[:rank]
        return vectors[:, order], values[order]

    return dominant_eigenpairs(operator.matvec, operator.size, operator.like(), rank)


def nystrom(operator: Curvature, rank: int, seed: int) -> Eigenpairs:
    """Return eigenpairs of the Nyström approximation of a positive semi-definite operator."""
    like = operator.like()
    drawn = np.random.default_rng(seed).standard_normal((operator.size, rank))
    directions, _ = torch.linalg.qr(torch.as_tensor(drawn).to(like))
    image = operator.matmat(directions)
    check_finite(image)
    shift = float(image.norm()) * torch.finfo(image.dtype).eps
    if not shift:
        return directions, image.new_zeros(rank)
    image = image + shift * directions
    core = directions.T @ image
    values, vectors = torch.linalg.eigh(0.5 * (core + core.T))
    root = (
        vectors / values.clamp_min(shift).sqrt()
    )  # values is all but never below the shift
    left, singular_values, _ = torch.linalg.svd(image @ root, full_matrices=False)
    return left, (singular_values**2 - shift).clamp_min(0)


def _largest(operator: Curvature, vector: Tensor, found: float) -> float:
    """Return the largest eigenvalue of A, of which that of a sketch falls a little short.

    By Lanczos, or by the Rayleigh quotient of the first eigenvector where products are slow.
    """
    if not operator.semidefinite:
        return found
    if operator.is_cached:
        return largest_eigenvalue(operator.matvec, operator.size, operator.like())
    return max(found, float(vector @ operator.matvec(vector)))


class _LowRank:
    """``U diag(values) Uᵀ + λI``, inverted by Woodbury's formula."""

    def __init__(
        self,
        solver: Arnoldi | Nystrom,
        operator: Curvature,
        pairs: Eigenpairs,
        damping: Damping,
        trace_share: float,
    ) -> None:
        self._vectors, self._values = pairs
        largest = _largest(
            operator, self._vectors[:, 0], float(self._values.abs().max())
        )
        self.damping = damping.resolve(largest)
        self._system = Damped(operator, self.damping)
        shifted = self._values + self.damping
        if solver.complement and self.damping == 0:
            raise undamped(
                "a low-rank solver",
                "without it, directions outside its rank have no answer; or drop them with "
                "complement=False",
            )
        eps = torch.finfo(shifted.dtype).eps
        if not float(shifted.abs().min()) > largest * eps:
            raise singular(self.damping, operator.size, shifted.dtype)
        self._inverse = 1 / shifted
        self._complement = solver.complement
        self.spectrum = LowRankSpectrum(
            solver=solver.name,
            damping=self.damping,
            largest_eigenvalue=largest,
            rank=len(self._values),
            trace_share=trace_share,
            smallest_held_eigenvalue=float(self._values.min()),
            negative_eigenvalues_held=int((self._values < 0).sum()),
        )

    def _applied(self, right: Tensor, outside: float) -> Tensor:
        """Return U(Λ + λ)⁻¹Uᵀb, and ``outside`` times what lies outside the span of U."""
        inside = self._vectors.T @ right
        value = self._vectors @ (self._inverse[:, None] * inside)
        if not outside:
            return value
        rest = right - self._vectors @ inside
        rest = rest - self._vectors @ (
            self._vectors.T @ rest
        )  # what rounding left in the span
        return value + outside * rest

    def precondition(self, right: Tensor) -> Tensor:
        """Return an approximate inverse whose part outside is as large as the smallest inside."""
        return self._applied(right, float(self._inverse.abs().max()))

    def solve(self, right: Tensor) -> Solution:
        value = self._applied(right, 1 / self.damping if self._complement else 0.0)
        residual = relative_residual(self._system, right, value)
        return Solution(value, residual, bool(np.isfinite(residual)), 0)
