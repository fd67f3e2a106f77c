"""What every solver of ``(A + λI) x = b`` shares: damping, state, solution, residual.

A solver is a frozen dataclass of options; ``factor(operator, damping)`` returns a state, whose
``solve`` takes any number of right-hand sides and says how well it solved them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.curvature import failures
from whence.curvature.failures import SingularSystem
from whence.curvature.operators import Curvature
from whence.curvature.spectrum import Spectrum
from whence.streamed_kernel import Source

# Both predict leave-one-out retraining best: of PINNs (docs/exactness.md), and of networks on
# labelled images (docs/supervised.md).
DEFAULT_DAMPING = 1e-11
SAMPLES_DAMPING = 1e-3

MEMORY_BUDGET = 2 * 2**30
GOOD_RESIDUAL = 1e-3
"""Relative residual below which a system counts as solved."""
PROBES = 8
"""Random combinations of right-hand sides of which a residual is taken, instead of all."""


@dataclass(frozen=True)
class Damping:
    """λ in ``A + λI``: relative to the largest eigenvalue of A, or absolute.

    Parameters
    ----------
    value:
        λ, or λ divided by the largest eigenvalue. Not negative.
    relative:
        Which of the two.
    penalty:
        c of a penalty ``(c/2)‖θ‖²`` in the objective, which is added to λ;
        :class:`whence.Influence` sets it.

    Examples
    --------
    >>> import whence as wh
    >>> wh.Damping(0.25).resolve(largest=8.0)
    2.0
    """

    value: float = DEFAULT_DAMPING
    relative: bool = True
    penalty: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        _checks.positive("damping", self.value, zero=True)
        _checks.positive("penalty", self.penalty, zero=True)

    @property
    def is_positive(self) -> bool:
        """Whether anything is added to A."""
        return self.value > 0 or self.penalty > 0

    def with_penalty(self, penalty: float) -> Damping:
        """Return the same damping of an objective with the penalty ``(c/2)‖θ‖²``."""
        return replace(self, penalty=penalty)

    def resolve(self, largest: float) -> float:
        """Return the absolute λ, c included, for an operator with this largest eigenvalue."""
        absolute = self.value * largest if self.relative else self.value
        return absolute + self.penalty


def default_damping(dtype: torch.dtype, *, samples: bool = False) -> float:
    """Return the default relative λ: 1e-11, or a thousand machine precisions if that is more.

    For ``samples`` of supervised data 1e-3: networks trained on them are not at a minimum, and have
    many directions that no sample determines.

    Examples
    --------
    >>> from whence.curvature.solvers import default_damping
    >>> default_damping(torch.float64), default_damping(torch.float64, samples=True)
    (1e-11, 0.001)
    """
    damping = DEFAULT_DAMPING
    if samples:
        damping = SAMPLES_DAMPING

    # A is known to some machine precisions of its largest eigenvalue: a smaller λ would be lost.
    precision = torch.finfo(dtype).eps
    return max(damping, 1e3 * precision)


def default_tolerance(dtype: torch.dtype) -> float:
    """Return the relative residual that an iteration stops at: 1e-8, or what rounding allows.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.solvers import default_tolerance
    >>> default_tolerance(torch.float64), default_tolerance(torch.float32)
    (1e-08, 1e-05)
    """
    if dtype is torch.float64:
        return 1e-8
    return 1e-5 if dtype is torch.float32 else 1e-2


@dataclass(frozen=True)
class Solution:
    """The answer of a solver and how good it is.

    Parameters
    ----------
    value:
        x, shape (P, K).
    residual:
        Largest ``‖b − (A + λI)x‖ / ‖b‖`` over the K right-hand sides, or over a few random
        combinations of them where there are many.
    converged:
        Whether the solver reached what it promises.
    iterations:
        Steps taken, for the exact solver the refinements.
    message:
        What went wrong and what to do about it, empty where nothing did.
    """

    value: Tensor
    residual: float
    converged: bool
    iterations: int
    message: str = ""


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

    @property
    def spectrum(self) -> Spectrum:
        """What an attribution reports: λ, the spectrum as far as it is known, rank and the like."""

    def solve(self, right: Tensor) -> Solution:
        """Solve for the columns of ``right``, (P, K)."""


@runtime_checkable
class RowState(Protocol):
    """A factored operator whose solutions for all rows of its root are cheaper than one by one."""

    row_bytes: int
    """Memory that the solutions take, including that for making them."""

    def solve_rows(self) -> RowSolution:
        """Return ``(A + λI)⁻¹ Jᵀ`` for the rows of its root J, all at once."""


@runtime_checkable
class DualState(Protocol):
    """A factored operator ``JᵀJ`` that knows ``JJᵀ``, so that images under J are solved there."""

    def solve_images(self, vectors: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹V = (JJᵀ + λI)⁻¹JV``: (P, K) to (R, K)."""


@runtime_checkable
class KernelState(Protocol):
    """A factored operator ``JᵀJ`` that has ``JJᵀ`` in memory, but not J."""

    product_passes: float
    """Passes through the network that :meth:`solve_products` takes."""

    def solve_images(self, vectors: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹V = (JJᵀ + λI)⁻¹JV``: (P, K) to (R, K)."""

    def solve_sums(self, weights: Tensor) -> Solution:
        """Return ``J(A + λI)⁻¹JᵀW`` for sums of rows with weights (R, K), (R, K)."""

    def solve_products(
        self, source: Source, count: int, vector: Callable[[Tensor], Tensor]
    ) -> Solution:
        """Return ``J(A + λI)⁻¹Gᵀ`` for rows G that a source gives, (R, count).

        ``vector`` returns ``Gᵀc``, (P, 1), for c (count, 1).
        """

    def combination(self, weights: Tensor) -> Tensor:
        """Return ``(A + λI)⁻¹Jᵀw``, (R,) to (P,)."""

    def squared_length(self, weights: Tensor) -> float:
        """Return ``wᵀJ(A + λI)⁻¹Jᵀw`` of a sum of rows with weights (R,)."""


@runtime_checkable
class Redamped(Protocol):
    """A factored operator that takes another λ at less than the cost of factoring it again."""

    def redamped(self, damping: float) -> State:
        """Return the same operator's state with this absolute λ."""


@runtime_checkable
class Solver(Protocol):
    """Turns an operator into a :class:`State`."""

    name: str
    """How results refer to it."""

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Factor ``A + λI`` once."""


def direct_solution(system: Curvature, right: Tensor, value: Tensor) -> Solution:
    """Return the answer of a solver that takes no steps, with its true residual.

    ``converged`` says that it could be applied, not that it is exact.
    """
    probes = PROBES
    if not system.is_cached and system.objective.has_samples:
        # Each product is passes of all samples through the network: one combination of all
        # columns tells.
        probes = 1
    residual = relative_residual(system, right, value, probes)
    applied = bool(np.isfinite(residual))
    return Solution(value, residual, applied, iterations=0)


class LinearSystem(Protocol):
    """A matrix by its products with columns."""

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return the product with columns, (n, K) to (n, K)."""


def relative_residual(
    system: LinearSystem, right: Tensor, value: Tensor, probes: int = PROBES
) -> float:
    """Return the largest ``‖b − (A + λI)x‖ / ‖b‖`` over columns, with ``A + λI`` as ``system``.

    Of more than ``probes`` columns it is that of as many random combinations.
    """
    right, value = few_columns(right, value, probes)
    error = right - system.matmat(value)
    return worst(error, norms(right))


def few_columns(
    right: Tensor, value: Tensor, probes: int = PROBES
) -> tuple[Tensor, Tensor]:
    """Return right-hand sides and solutions, of many columns a few random combinations."""
    columns = right.shape[1]
    if columns <= probes:
        return right, value

    # The residual is linear in the columns: BW − (A + λI)XW = (B − (A + λI)X)W.
    weights = random_weights(right, columns)[:, :probes]
    return right @ weights, value @ weights


def random_weights(like: Tensor, columns: int) -> Tensor:
    """Return normal numbers (columns, PROBES), the same at every call, for combining columns."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((columns, PROBES))
    return torch.as_tensor(weights).to(like)


def norms(columns: Tensor) -> Tensor:
    """Return the norm of each column, never zero, so that one may divide by it."""
    smallest = torch.finfo(columns.dtype).tiny
    lengths = torch.linalg.vector_norm(columns, dim=0)
    return lengths.clamp_min(smallest)


def worst(error: Tensor, norm: Tensor) -> float:
    """Return the largest norm of a column relative to ``norm``; 0 without columns."""
    if len(norm) == 0:
        return 0.0

    lengths = torch.linalg.vector_norm(error, dim=0)
    relative = lengths / norm
    return float(relative.max())


def singular(damping: float, size: int, dtype: torch.dtype) -> SingularSystem:
    """Return the error of a system of this size that λ = ``damping`` leaves singular."""
    # Factoring a matrix of n rows makes an error of about n machine precisions of its norm.
    precision = torch.finfo(dtype).eps
    enough = max(DEFAULT_DAMPING, 10 * size * precision)
    return failures.singular(damping, enough)
