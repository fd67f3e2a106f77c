"""Products with a Gauss–Newton matrix through the network's outputs, for terms of many of them.

Where a point has m outputs, J has m rows for it, and products by rows take a backward pass for each
of the m. Through the outputs a product takes one pass forward and one backward, whatever m is:
``v → (∂z/∂θ)v → Λ(∂z/∂θ)v → (∂z/∂θ)ᵀΛ(∂z/∂θ)v`` (Schraudolph 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from whence.autodiff import differentiable_attention
from whence.linearization import LayerLinearization, linearize
from whence.parameters import Parameters
from whence.points import Block, Points, Pointwise
from whence.term import Term

MANY_OUTPUTS = 64
"""Outputs of a point above which products go through the outputs, not by rows."""


class OutputDerivative:
    """∂z/∂θ of a function's outputs z (n, m) at some points: products with it and its transpose."""

    def __init__(
        self, function: Pointwise, parameters: Parameters, points: Points
    ) -> None:
        self._function = function
        self._parameters = parameters
        self._points = points
        # A leaf for each parameter: of one flat vector the gradient of each part would be as long
        # as the vector, zero but there.
        tensors = parameters.tensors()
        self._leaves = {name: tensors[name].detach() for name in parameters.names}
        for leaf in self._leaves.values():
            leaf.requires_grad_()
        with torch.enable_grad():
            self._graph = self._at(self._leaves)
        self.value = self._graph.detach()
        """z, (n, m)."""

    def _at(self, selected: Mapping[str, Tensor]) -> Tensor:
        tensors = {**self._parameters.tensors(), **selected}
        with differentiable_attention():
            return self._function(tensors, self._points)

    def push(self, vector: Tensor) -> Tensor:
        """Return ``(∂z/∂θ) v``, (P,) to (n, m), by forward mode where there is one."""
        here = {name: leaf.detach() for name, leaf in self._leaves.items()}
        along = self._parameters.unflatten(vector)
        try:
            pushed = torch.func.jvp(self._at, (here,), (along,))
        except (NotImplementedError, RuntimeError):
            return self._push_by_reverse_mode(vector)
        tangent: Tensor = pushed[1]
        return tangent.detach()

    def _push_by_reverse_mode(self, vector: Tensor) -> Tensor:
        """Return the same as the derivative of ``u ↦ vᵀ(∂z/∂θ)ᵀu``, which is linear in u."""
        if not self._graph.requires_grad:
            return torch.zeros_like(self.value)

        cotangent = torch.zeros_like(self.value, requires_grad=True)
        with torch.enable_grad():
            pulled = self._gradients(cotangent, create_graph=True)
            (tangent,) = torch.autograd.grad(
                self._parameters.flatten(pulled),
                cotangent,
                grad_outputs=vector,
                allow_unused=True,
                materialize_grads=True,
            )
        return tangent.detach()

    def pull(self, cotangent: Tensor) -> Tensor:
        """Return ``(∂z/∂θ)ᵀ u``, (n, m) to (P,)."""
        if not self._graph.requires_grad:
            return torch.zeros_like(self._parameters.vector())
        return self._parameters.flatten(self._gradients(cotangent))

    def _gradients(
        self, cotangent: Tensor, *, create_graph: bool = False
    ) -> dict[str, Tensor]:
        """Return the parts of ``(∂z/∂θ)ᵀ u`` by name."""
        gradients = torch.autograd.grad(
            self._graph,
            list(self._leaves.values()),
            grad_outputs=cotangent,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(self._leaves, gradients, strict=True))


def are_by_layers(terms: Iterable[Term], parameters: Parameters) -> bool:
    """Whether the derivatives of all terms consist of layers of known kinds."""
    for term in terms:
        linear = linearize(term.residual, parameters, term.points[:1])
        if not isinstance(linear, LayerLinearization):
            return False
    return True


def normal_product(
    term: Term,
    parameters: Parameters,
    vectors: Tensor,
    *,
    scaled: bool,
    size: int | None = None,
) -> Tensor:
    """Return ``JᵀJ V`` (P, K) of one term, with the rows as in :class:`whence.Jacobian`.

    ``size`` points go through the network at once, by default as many as are evaluated.
    """
    total = torch.zeros_like(vectors)
    for block in term.blocks(size):
        derivative = OutputDerivative(term.residual, parameters, block.points)
        product = _curvature(term, block, derivative.value) if scaled else None

        for k, vector in enumerate(vectors.unbind(1)):
            image = derivative.push(vector)
            if product is not None:
                image = product(image)
            total[:, k] += derivative.pull(image)

    return total


def _curvature(term: Term, block: Block, value: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``u ↦ (w/N)·m_i·Λ_i u_i`` of the points of a block, (n, m) to (n, m)."""
    product = term.curvature_product(value, block.points)
    scale = term.scales(block.part)
    if isinstance(scale, Tensor):
        scale = scale.unsqueeze(1)
    return lambda image: scale * product(image)
