"""Linearizations of any pointwise function by automatic differentiation of the whole of it.

:func:`whence.linearization.linearize` takes these where layers of known kinds are not all that a
function consists of. Both are exact; both evaluate the function again for each product.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from whence import _checks
from whence.parameters import Parameters
from whence.points import Points, Pointwise

logger = logging.getLogger("whence")

_WITHOUT_VMAP: WeakSet[Pointwise] = WeakSet()
"""Functions that ``torch.func.vmap`` cannot follow, found when it was tried."""


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Let attention be made of functions that have all derivatives, which fused ones lack."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def needs_reverse_mode(function: Pointwise) -> bool:
    """Whether a function is known to go point by point, by reverse mode, alone."""
    return _is_rememberable(function) and function in _WITHOUT_VMAP


def _is_rememberable(function: Pointwise) -> bool:
    try:
        hash(function)
    except TypeError:
        return False
    return hasattr(function, "__weakref__")


class FunctionLinearization:
    """Exact derivative of any pointwise function through ``torch.func``, point by point."""

    def __init__(
        self,
        function: Pointwise,
        parameters: Parameters,
        points: Points,
        value: Tensor,
        outside: Sequence[str] = (),
    ) -> None:
        self.value = value.detach()
        self.outside = outside
        """Selected parameters that are used elsewhere than in layers of known kinds."""
        self.parameters = parameters
        self._points = points
        self._theta = parameters.vector()
        self._function = function
        self._reverse: ReverseLinearization | None = None
        """What takes its place where vmap fails."""

    def _at(self, theta: Tensor, points: Points) -> Tensor:
        return self._function(self.parameters.substituted(theta), points)

    def rows(self, cotangent: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the gradient of each point's own ``Σ_m u_m r_m``, one reverse pass each."""

        def weighted(theta: Tensor, point: Points, weights: Tensor) -> Tensor:
            # Functions take points (n, d); here n is one.
            value = self._at(theta, point.unsqueeze(0))
            return (value.squeeze(0) * weights).sum()

        if self._reverse is not None:
            return self._reverse.rows(cotangent, out)
        gradient = torch.func.grad(weighted)
        by_point = torch.func.vmap(gradient, in_dims=(None, 0, 0))
        try:
            with warnings.catch_warnings():
                # Of functions that vmap takes point by point, which is as good.
                warnings.filterwarnings("ignore", "There is a performance drop")
                rows: Tensor = by_point(self._theta, self._points, cotangent)
        except RuntimeError as error:
            return self._without_vmap(error).rows(cotangent, out)
        rows = rows.detach()
        if out is None:
            return rows
        return out.copy_(rows)

    def _without_vmap(self, error: RuntimeError) -> ReverseLinearization:
        """Return the derivative by reverse mode point by point, and keep that choice."""
        if "random" in str(error):
            raise ValueError(
                "the network draws random numbers, so that it has no derivative of its own: turn "
                "them off in evaluation mode, as F.dropout(x, training=self.training) does"
            ) from error

        reverse = ReverseLinearization(
            self._function, self.parameters, self._points, self.outside
        )
        self._reverse = reverse
        # Another linearization of the same function may have said so.
        if needs_reverse_mode(self._function):
            return reverse
        if _is_rememberable(self._function):
            _WITHOUT_VMAP.add(self._function)
        logger.warning(
            "the network asks for values of its inputs (an `if` on a tensor, .item()) or does what "
            "torch.func cannot follow (%s): its gradients are taken by reverse mode, one sample "
            "after the other, which is exact and slower",
            str(error).splitlines()[0][:80],
        )
        return reverse

    def by_parameter(self, cotangent: Tensor) -> list[Tensor]:
        """Return :meth:`rows` cut into those of each parameter, (n, its size)."""
        rows = self.rows(cotangent)
        return [rows[:, columns] for columns in self.parameters.slices.values()]

    def squared_norms(self, cotangent: Tensor) -> Tensor:
        """Return ``‖rows(cotangent)‖²`` of each point, (n,)."""
        return self.rows(cotangent).square().sum(dim=1)

    def matvec(self, vectors: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``Σ_m u[i, m] · (J v)[i, m]`` for each column v of ``vectors``, (n, K)."""

        def evaluate(theta: Tensor) -> Tensor:
            return self._at(theta, self._points)

        columns = []
        for vector in vectors.unbind(1):
            try:
                # Forward mode: v ↦ J v (n, m) in one pass, whatever n and m are.
                with differentiable_attention():
                    pushed = torch.func.jvp(evaluate, (self._theta,), (vector,))
            except (NotImplementedError, RuntimeError):
                # An operation without forward mode, or one that torch.func cannot follow.
                return self.rows(cotangent) @ vectors

            tangent: Tensor = pushed[1]
            column = (tangent * cotangent).sum(dim=1)
            columns.append(column.detach())
        return torch.stack(columns, dim=1)

    def rmatvec(self, cotangent: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m u[i, m] · J[i, m, :]``, shape (P,)."""
        return self._pull([cotangent])[0]

    def rmatmat(self, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent).T @ weights``, a reverse pass for each column: (P, K)."""
        cotangents = []
        for weight in weights.unbind(1):
            cotangents.append(cotangent * weight[:, None])
        return torch.stack(self._pull(cotangents), dim=1)

    def _pull(self, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """Return ``Jᵀu`` (P,) of each cotangent u, after one evaluation for all."""

        def evaluate(theta: Tensor) -> Tensor:
            return self._at(theta, self._points)

        try:
            evaluated = torch.func.vjp(evaluate, self._theta)
        except RuntimeError as error:
            reverse = self._without_vmap(error)
            return [reverse.rmatvec(cotangent) for cotangent in cotangents]
        pull = evaluated[1]
        products = []
        for cotangent in cotangents:
            (product,) = pull(cotangent)
            products.append(product.detach())
        return products


class ReverseLinearization:
    """Exact derivative of a function that ``torch.func`` cannot follow: reverse mode alone."""

    def __init__(
        self,
        function: Pointwise,
        parameters: Parameters,
        points: Points,
        outside: Sequence[str] = (),
    ) -> None:
        self.outside = outside
        self._function = function
        self.parameters = parameters
        self._points = points
        self._theta = parameters.vector()

        self.value = self._at(self._theta, points).detach()
        value_at_one = self._at(self._theta, points[:1])
        _checks.pointwise(self.value, value_at_one, len(points))

    def _at(self, theta: Tensor, points: Points) -> Tensor:
        with torch.enable_grad():
            return self._function(self.parameters.substituted(theta), points)

    def _pull(self, cotangent: Tensor, points: Points) -> Tensor:
        """Return ``Jᵀu`` (P,) at some points by one evaluation and one reverse pass."""
        theta = self._theta.clone().requires_grad_()
        value = self._at(theta, points)
        if not value.requires_grad:  # of no selected parameter
            return torch.zeros_like(theta)

        (gradient,) = torch.autograd.grad(
            value,
            theta,
            grad_outputs=cotangent,
            allow_unused=True,
            materialize_grads=True,
        )
        return gradient

    def rows(self, cotangent: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Jᵢᵀuᵢ`` of each point i, alone: shape (n, P)."""
        rows = []
        for i in range(len(cotangent)):
            alone = slice(i, i + 1)
            row = self._pull(cotangent[alone], self._points[alone])
            rows.append(row)

        stacked = torch.stack(rows)
        if out is None:
            return stacked
        return out.copy_(stacked)

    def by_parameter(self, cotangent: Tensor) -> list[Tensor]:
        """Return :meth:`rows` cut into those of each parameter, (n, its size)."""
        rows = self.rows(cotangent)
        return [rows[:, columns] for columns in self.parameters.slices.values()]

    def squared_norms(self, cotangent: Tensor) -> Tensor:
        """Return ``‖rows(cotangent)‖²`` of each point, (n,)."""
        return self.rows(cotangent).square().sum(dim=1)

    def matvec(self, vectors: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent) @ vectors``, (n, K)."""
        return self.rows(cotangent) @ vectors

    def rmatvec(self, cotangent: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m u[i, m] · J[i, m, :]``, shape (P,)."""
        return self._pull(cotangent, self._points)

    def rmatmat(self, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent).T @ weights``, an evaluation for each column: (P, K)."""
        columns = []
        for weight in weights.unbind(1):
            weighted = cotangent * weight[:, None]
            columns.append(self._pull(weighted, self._points))
        return torch.stack(columns, dim=1)
