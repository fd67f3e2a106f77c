"""Curvature of an objective as an operator ``v ↦ A v``: Gauss–Newton matrix and Hessian.

A solver sees a :class:`Curvature` and nothing else of an objective. :class:`Damped`,
:class:`DenseMatrix` and :class:`CachedRows` are made of another operator: ``A + λI``, and A with
its matrix or the rows of its root in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from whence.autodiff import differentiable_attention
from whence.curvature import layerwise
from whence.jacobian import Jacobian
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.points import are_samples
from whence.symmetric_products import add_self_product, mirror

HESSIAN_COLUMNS = 64
"""Most columns of a Hessian that are made at once."""
HESSIAN_VALUES = 16_000
"""Most columns times points of a Hessian at once: they stay in the processor's cache."""
LAYERWISE_OUTPUTS = 1024
"""Most outputs whose derivatives with respect to all layers are held at once."""
TRACE_PROBES = 32
"""Random vectors of Hutchinson's estimate of a trace."""


class Curvature(Protocol):
    """A symmetric P × P operator; nothing that uses one asks how it is made."""

    @property
    def size(self) -> int:
        """P, the number of parameters."""

    @property
    def semidefinite(self) -> bool:
        """Whether it is positive semi-definite by construction."""

    @property
    def objective(self) -> Objective:
        """Whose curvature it is."""

    @property
    def is_cached(self) -> bool:
        """Whether what products need is in memory, so that they are quick."""

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""

    def cached(self, memory_budget: int) -> Curvature:
        """Return the same operator with what products need in memory, if that fits."""

    def subset(self, indices: Mapping[str, Tensor]) -> Curvature:
        """Return the operator of the same objective with these training points only, by term."""

    def trace(self) -> float:
        """Return the sum of the eigenvalues, for a Hessian an estimate."""

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""

    def dense(self) -> Tensor:
        """Return A, shape (P, P)."""

    def root(self) -> Jacobian | None:
        """Return J with ``A = JᵀJ``, or None if A has no such root."""

    def kernel(self) -> TangentKernel | None:
        """Return ``JJᵀ`` of the root, or None if A has no root."""


class GaussNewtonMatrix:
    """The Gauss–Newton matrix ``Σ_k w_k/N_k Σ_i Jᵢᵀ Λᵢ Jᵢ`` with Λ = ∂²ℓ/∂r².

    It equals the Hessian where residuals vanish and is never indefinite. For the squared loss
    Λ = 2I, because ℓ = ‖r‖² carries no factor ½ (Schraudolph 2002; Martens, arXiv 1412.1193). A
    penalty ``(c/2)‖θ‖²`` of the objective adds cI, and the operator then has no root.

    Parameters
    ----------
    objective:
        Whose curvature, at its network's current parameters.
    chunk:
        Points differentiated at a time; by default about 1000, fewer for large networks.

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
    is_cached = False

    def __init__(self, objective: Objective, *, chunk: int | None = None) -> None:
        self.objective = objective
        self.size = objective.parameters.size
        self._jacobian = Jacobian(objective, scaled=True, chunk=chunk)
        self._penalty = objective.weight_decay

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""
        column = vector.unsqueeze(1)
        return self.matmat(column).squeeze(1)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""
        # Of ∂²ℓ(r(θ))/∂θ² = (∂r/∂θ)ᵀ Λ (∂r/∂θ) + Σ_m ∂ℓ/∂r_m · ∂²r_m/∂θ² Gauss and Newton take
        # the first part. With Λ = S Sᵀ the scaled Jacobian stacks the rows √(w/N) Sᵀ ∂r/∂θ, so
        #     A = JᵀJ:  V → JV → JᵀJV,
        # chunk by chunk of the points.
        product = self._jacobian.normal_product(vectors)
        if not self._penalty:
            return product
        return product + self._penalty * vectors

    def cached(self, memory_budget: int) -> Curvature:
        """Return the same operator with its rows in memory, if they fit."""
        # Of many outputs products go through them, and are quick without the rows.
        if self._jacobian.has_many_outputs:
            return self
        n_rows, size = self._jacobian.shape
        needed = n_rows * size * self.like().itemsize
        if needed > memory_budget:
            return self

        rows = self._jacobian.dense()
        if not self._penalty:
            return CachedRows(self, rows)
        terms_alone = GaussNewtonMatrix(
            self.objective.with_weight_decay(0.0), chunk=self._jacobian.chunk
        )
        return Damped(CachedRows(terms_alone, rows), self._penalty)

    def subset(self, indices: Mapping[str, Tensor]) -> GaussNewtonMatrix:
        """Return the operator of the same objective with these training points only, by term."""
        objective = self.objective.subset(indices)
        return GaussNewtonMatrix(objective, chunk=self._jacobian.chunk)

    def trace(self) -> float:
        """Return the sum of the eigenvalues, estimated where points have many outputs."""
        if self._jacobian.has_many_outputs:
            return _estimated_trace(self)
        # Tr JᵀJ is the sum of the squared entries of J, and a row's norm needs no row.
        norms = self._jacobian.row_norms()
        return float(norms.square().sum()) + self._penalty * self.size

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""
        parameters = self.objective.parameters
        return torch.empty(0, dtype=parameters.dtype, device=parameters.device)

    def dense(self) -> Tensor:
        """Return A, shape (P, P), summed chunk by chunk; of linear layers block by block."""
        matrix = self._dense_of_terms()
        matrix.diagonal().add_(self._penalty)
        return matrix

    def _dense_of_terms(self) -> Tensor:
        like = self.like()
        most_outputs = 0
        if self._jacobian.has_many_outputs:
            most_outputs = max(self._jacobian.components().values())
        # A column takes about three passes through the outputs, rows two for each output.
        if 3 * self.size <= 2 * most_outputs:
            eye = torch.eye(self.size, dtype=like.dtype, device=like.device)
            columns = self._jacobian.normal_product(eye)
            return 0.5 * (columns + columns.T)

        if most_outputs <= LAYERWISE_OUTPUTS:
            matrix = layerwise.gauss_newton(self._jacobian)
            if matrix is not None:
                return matrix

        total = like.new_zeros(self.size, self.size)
        for block, _ in self._jacobian.blocks():
            # JᵀJ = Σ JᵣᵀJᵣ over blocks of r rows, (r, P).
            add_self_product(total, block.dense())

        mirror(total)
        return total

    def root(self) -> Jacobian | None:
        """Return the scaled Jacobian J with ``A = JᵀJ``, or None where A is ``JᵀJ + cI``."""
        return None if self._penalty else self._jacobian

    def kernel(self) -> TangentKernel | None:
        """Return ``JJᵀ`` and the products that go with it, or None where there is no root."""
        return None if self._penalty else TangentKernel(self.objective)


class Hessian:
    """The Hessian ∂²L/∂θ² of the whole objective, any penalty included.

    It is indefinite away from a minimum.

    Parameters
    ----------
    objective:
        Whose curvature, at its network's current parameters.

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
        for term in objective.terms.values():
            if are_samples(term.points):
                # Features of frozen layers are evaluated before torch.func is at work.
                term.points.kept_features()

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,), forward over reverse."""
        return self._derivative(vector).detach()

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K), a few columns at a time."""
        # A column carries tangents through every point at once.
        fits = HESSIAN_VALUES // self.objective.n_points
        columns = max(1, min(HESSIAN_COLUMNS, fits))

        product = torch.func.vmap(
            self._derivative, in_dims=1, out_dims=1, chunk_size=columns
        )
        image: Tensor = product(vectors)
        return image.detach()

    def _gradient(self, theta: Tensor) -> Tensor:
        """Return ∇L(θ), (P,)."""

        def loss(vector: Tensor) -> Tensor:
            parameters = self.objective.parameters
            tensors = parameters.substituted(vector)
            with differentiable_attention():
                return self.objective.loss(tensors)

        gradient: Tensor = torch.func.grad(loss)(theta)
        return gradient

    def _derivative(self, vector: Tensor) -> Tensor:
        """Return the derivative of ∇L along v, which is ``A v``."""
        # Forward mode through the gradient, which reverse mode makes: v → d/dε ∇L(θ + ε v).
        try:
            result = torch.func.jvp(self._gradient, (self._theta,), (vector,))
        except NotImplementedError as error:
            raise ValueError(
                "the network has an operation without second derivatives, so there is no Hessian "
                f"({str(error).splitlines()[0]}): use curvature='gauss_newton'"
            ) from error
        derivative: Tensor = result[1]
        return derivative

    def cached(self, memory_budget: int) -> Hessian:
        """Return the operator itself: it keeps nothing."""
        return self

    def subset(self, indices: Mapping[str, Tensor]) -> Hessian:
        """Return the operator of the same objective with these training points only, by term."""
        objective = self.objective.subset(indices)
        return Hessian(objective)

    def trace(self) -> float:
        """Return Hutchinson's estimate of the sum of the eigenvalues, from fixed probes."""
        return _estimated_trace(self)

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""
        return self._theta

    def dense(self) -> Tensor:
        """Return A, shape (P, P), a few columns at a time; of linear layers block by block."""
        matrix = layerwise.hessian(self.objective)
        if matrix is not None:
            matrix.diagonal().add_(self.objective.weight_decay)
            return matrix

        like = self._theta
        eye = torch.eye(self.size, dtype=like.dtype, device=like.device)
        columns = self.matmat(eye)

        # Rounding differs from column to column; factorisations want symmetry to the last bit.
        return 0.5 * (columns + columns.T)

    def root(self) -> None:
        """Return ``None``: a Hessian has no real root in general."""

    def kernel(self) -> None:
        """Return ``None``, as there is no root."""


def _estimated_trace(operator: Curvature) -> float:
    """Return Hutchinson's estimate of the sum of the eigenvalues, from fixed probes."""
    # E[zᵀAz] = Tr A for independent z_i = ±1, because E[zzᵀ] = I.
    generator = np.random.default_rng(0)
    signs = generator.choice((-1.0, 1.0), (operator.size, TRACE_PROBES))
    probes = torch.as_tensor(signs).to(operator.like())

    images = operator.matmat(probes)
    estimates = probes * images
    return float(estimates.sum() / TRACE_PROBES)


class _Derived:
    """An operator made of another one, which answers where the two do not differ."""

    def __init__(self, operator: Curvature) -> None:
        self._operator = operator

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self._operator.size

    @property
    def semidefinite(self) -> bool:
        """Whether it is positive semi-definite by construction."""
        return self._operator.semidefinite

    @property
    def objective(self) -> Objective:
        """Whose curvature it is."""
        return self._operator.objective

    @property
    def is_cached(self) -> bool:
        """Whether what products need is in memory, so that they are quick."""
        return self._operator.is_cached

    def subset(self, indices: Mapping[str, Tensor]) -> Curvature:
        """Return the operator of the same objective with these training points only, by term."""
        return self._operator.subset(indices)

    def trace(self) -> float:
        """Return the sum of the eigenvalues, for a Hessian an estimate."""
        return self._operator.trace()

    def like(self) -> Tensor:
        """Return a tensor of the dtype and on the device of the vectors it takes."""
        return self._operator.like()

    def dense(self) -> Tensor:
        """Return the matrix, shape (P, P)."""
        return self._operator.dense()

    def root(self) -> Jacobian | None:
        """Return the root of the operator, or None if it has none."""
        return self._operator.root()

    def kernel(self) -> TangentKernel | None:
        """Return ``JJᵀ`` of the root, or None if there is none."""
        return self._operator.kernel()


class DenseMatrix(_Derived):
    """An operator with its matrix (P, P) in memory."""

    is_cached = True

    def __init__(self, operator: Curvature) -> None:
        super().__init__(operator)
        self.matrix = operator.dense()

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""
        return self.matrix @ vector

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""
        return self.matrix @ vectors

    def cached(self, memory_budget: int) -> DenseMatrix:
        """Return the operator itself."""
        return self

    def dense(self) -> Tensor:
        """Return A, shape (P, P)."""
        return self.matrix

    def trace(self) -> float:
        """Return the sum of the eigenvalues."""
        return float(self.matrix.trace())


class CachedRows(_Derived):
    """A Gauss–Newton operator with the rows J (R, P) of its root in memory."""

    is_cached = True

    def __init__(self, operator: Curvature, rows: Tensor) -> None:
        super().__init__(operator)
        self.rows = rows

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``A v``, shape (P,)."""
        column = vector.unsqueeze(1)
        return self.matmat(column).squeeze(1)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``A V``: (P, K) to (P, K)."""
        # V → JV → JᵀJV
        images = self.rows @ vectors
        return self.rows.T @ images

    def cached(self, memory_budget: int) -> CachedRows:
        """Return the operator itself."""
        return self

    def trace(self) -> float:
        """Return the sum of the eigenvalues."""
        # Tr JᵀJ
        return float(self.rows.square().sum())


class Damped(_Derived):
    """``A + λI``, the operator of the system that every solver solves.

    The true residual ``b − (A + λI)x`` of a solution comes from its products, whatever the solver
    approximates.

    Parameters
    ----------
    operator:
        A.
    damping:
        λ, absolute; see :meth:`whence.Damping.resolve`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.curvature.operators import Damped
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, points)])
    >>> operator = Damped(wh.GaussNewtonMatrix(objective), 0.5)         # A = 10
    >>> operator.matvec(torch.tensor([2.0], dtype=torch.float64)).round(decimals=9)
    tensor([21.], dtype=torch.float64)
    """

    def __init__(self, operator: Curvature, damping: float) -> None:
        super().__init__(operator)
        self.damping = damping

    @property
    def semidefinite(self) -> bool:
        """Whether A is positive semi-definite by construction, and λ not below zero."""
        return self._operator.semidefinite and self.damping >= 0

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``(A + λI) v``, shape (P,)."""
        image = self._operator.matvec(vector)
        return image + self.damping * vector

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``(A + λI) V``: (P, K) to (P, K)."""
        images = self._operator.matmat(vectors)
        return images + self.damping * vectors

    def redamped(self, damping: float) -> Damped:
        """Return ``A + μI`` with another damping μ."""
        return Damped(self._operator, damping)

    def cached(self, memory_budget: int) -> Damped:
        """Return the same operator with what products need in memory, if that fits."""
        operator = self._operator.cached(memory_budget)
        return Damped(operator, self.damping)

    def subset(self, indices: Mapping[str, Tensor]) -> Damped:
        """Return ``A + λI`` of these training points only, by term."""
        operator = self._operator.subset(indices)
        return Damped(operator, self.damping)

    def trace(self) -> float:
        """Return the sum of the eigenvalues, ``Tr A + λP``."""
        added = self.damping * self.size
        return self._operator.trace() + added

    def dense(self) -> Tensor:
        """Return ``A + λI``, shape (P, P)."""
        # The operator may keep its matrix, so λ is added to a copy.
        matrix = self._operator.dense()
        shifted = matrix.clone()
        shifted.diagonal().add_(self.damping)
        return shifted

    def root(self) -> None:
        """Return ``None``: rows of J alone do not make ``A + λI``."""

    def kernel(self) -> None:
        """Return ``None``, as there is no root."""
