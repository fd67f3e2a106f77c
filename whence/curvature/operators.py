"""Curvature of an objective as an operator ``v ↦ A v``: Gauss–Newton matrix and Hessian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from whence.curvature import layerwise
from whence.jacobian import Jacobian
from whence.ntk import TangentKernel
from whence.objective import Objective

HESSIAN_COLUMNS, HESSIAN_VALUES = 64, 16_000
"""Columns of a Hessian made at once: so many at most, and times points no more than this."""
TRACE_PROBES = 32


class Curvature(Protocol):
    """A symmetric P × P operator; nothing that uses one asks how it is made."""

    size: int
    semidefinite: bool
    """Whether it is positive semi-definite by construction."""
    objective: Objective
    """Whose curvature it is."""

    @property
    def is_cached(self) -> bool:
        """Whether products are quick, since what they need is in memory."""

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""

    def cached(self, memory_budget: int) -> Curvature:
        """Return the same operator, quick to apply again and again where that fits in memory."""

    def subset(self, indices: Mapping[str, Tensor]) -> Curvature:
        """Return the operator of the same objective with these training points only, by term."""

    def trace(self) -> float:
        """Return the sum of the eigenvalues, for a Hessian an estimate."""

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""

    def dense(self) -> Tensor:
        """Return A, shape (P, P)."""

    def root(self) -> Jacobian | None:
        """Return the J with ``A = JᵀJ`` where there is one."""

    def kernel(self) -> TangentKernel | None:
        """Return ``JJᵀ`` of the root, where there is one."""


class GaussNewtonMatrix:
    """The Gauss–Newton matrix ``Σ_k w_k/N_k Σ_i Jᵢᵀ Λᵢ Jᵢ`` with Λ = ∂²ℓ/∂r².

    It equals the Hessian where residuals vanish and is never indefinite. For the squared loss
    Λ = 2I, because ℓ = ‖r‖² carries no factor ½ (Schraudolph 2002; Martens, arXiv 1412.1193).

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, points)])
    >>> wh.GaussNewtonMatrix(objective).dense().round(decimals=9)        # 2 · (1² + 3²) / 2
    tensor([[10.]], dtype=torch.float64)
    """

    semidefinite = True

    @property
    def is_cached(self) -> bool:
        """Whether the rows are in memory."""
        return self._rows is not None

    def __init__(self, objective: Objective, *, chunk: int | None = None) -> None:
        self.objective = objective
        self.size = objective.parameters.size
        self._jacobian = Jacobian(objective, scaled=True, chunk=chunk)
        self._rows: Tensor | None = None

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""
        return self.matmat(vector.unsqueeze(1)).squeeze(1)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""
        if self._rows is not None:
            return self._rows.T @ (self._rows @ vectors)
        return self._jacobian.normal_product(vectors)

    def cached(self, memory_budget: int) -> GaussNewtonMatrix:
        """Return the same operator with its rows in memory, where they fit."""
        rows, size = self._jacobian.shape
        if self._rows is not None or rows * size * self.like().itemsize > memory_budget:
            return self
        held = GaussNewtonMatrix(self.objective, chunk=self._jacobian.chunk)
        held._rows = self._jacobian.dense()
        return held

    def subset(self, indices: Mapping[str, Tensor]) -> GaussNewtonMatrix:
        """Return the operator of the same objective with these training points only, by term."""
        return GaussNewtonMatrix(
            self.objective.at_points(indices), chunk=self._jacobian.chunk
        )

    def trace(self) -> float:
        """Return the sum of the eigenvalues, that is of the squared entries of the root."""
        if self._rows is not None:
            return float(self._rows.square().sum())
        return float(self._jacobian.row_norms().square().sum())

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""
        parameters = self.objective.parameters
        return torch.empty(0, dtype=parameters.dtype, device=parameters.device)

    def dense(self) -> Tensor:
        """Return A, shape (P, P), summed chunk by chunk; of linear layers block by block."""
        found = layerwise.gauss_newton(self._jacobian)
        if found is not None:
            return found
        total = self.like().new_zeros(self.size, self.size)
        for rows, _ in self._jacobian.blocks():
            dense = rows.dense()
            total.addmm_(dense.T, dense)
        return total

    def root(self) -> Jacobian:
        """Return the scaled Jacobian J, with ``A = JᵀJ``."""
        return self._jacobian

    def kernel(self) -> TangentKernel:
        """Return ``JJᵀ`` and the products that go with it."""
        return TangentKernel(self.objective)


class Hessian:
    """The Hessian ∂²L/∂θ² of the whole objective; indefinite away from a minimum.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,)) ** 2
    >>> points = torch.tensor([[1.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, points)])
    >>> objective.parameters.assign(torch.tensor([2.0], dtype=torch.float64))
    >>> wh.Hessian(objective).dense()              # (θ⁴)″ = 12 θ²
    tensor([[48.]], dtype=torch.float64)
    """

    semidefinite = False
    is_cached = False

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.size = objective.parameters.size
        self._theta = objective.parameters.vector()

    def _gradient(self, theta: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(
            lambda t: self.objective.loss(self.objective.parameters.substituted(t))
        )(theta)
        return gradient

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,), forward over reverse."""
        product: Tensor = torch.func.jvp(self._gradient, (self._theta,), (vector,))[1]
        return product.detach()

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K), a few columns at a time."""
        many = torch.func.vmap(
            lambda v: torch.func.jvp(self._gradient, (self._theta,), (v,))[1],
            in_dims=1,
            out_dims=1,
            chunk_size=max(
                1, min(HESSIAN_COLUMNS, HESSIAN_VALUES // self.objective.n_points)
            ),
        )
        product: Tensor = many(vectors).detach()
        return product

    def cached(self, memory_budget: int) -> Hessian:
        """Return the operator itself: it keeps nothing."""
        return self

    def subset(self, indices: Mapping[str, Tensor]) -> Hessian:
        """Return the operator of the same objective with these training points only, by term."""
        return Hessian(self.objective.at_points(indices))

    def trace(self) -> float:
        """Return Hutchinson's estimate of the sum of the eigenvalues, from fixed probes."""
        drawn = np.random.default_rng(0).choice((-1.0, 1.0), (self.size, TRACE_PROBES))
        probes = torch.as_tensor(drawn).to(self._theta)
        return float((probes * self.matmat(probes)).sum() / TRACE_PROBES)

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""
        return self._theta

    def dense(self) -> Tensor:
        """Return A, shape (P, P), a few columns at a time; of linear layers block by block."""
        found = layerwise.hessian(self.objective)
        if found is not None:
            return found
        matrix = self.matmat(
            torch.eye(self.size, dtype=self._theta.dtype, device=self._theta.device)
        )
        return 0.5 * (matrix + matrix.T)

    def root(self) -> None:
        """Return ``None``: a Hessian has no real root in general."""

    def kernel(self) -> None:
        """Return ``None``, as there is no root."""
