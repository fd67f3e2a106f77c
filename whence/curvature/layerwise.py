"""Dense curvature of networks of linear layers, from each layer's own small second derivatives.

Of a point, with δ_l the derivative by the output h_l of layer l and a_l its input, a block of the
Gauss–Newton matrix is ``(Σ_k δ_lk δ_l'kᵀ) ⊗ a_l a_l'ᵀ`` over the rows k of the point, and of the
Hessian ``∂²ℓ/∂h_l∂h_l' ⊗ a_l a_l'ᵀ`` plus, for l' before l, ``δ_l ⊗ (∂a_l/∂h_l') ⊗ a_l'`` (as in
Botev et al. 2017, arXiv 1706.03662, but for whole blocks and every point). Summed over points each
block is one matrix product, where rows take m times as much, and Hessian-vector products P passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from whence.jacobian import Jacobian, linearized_blocks
from whence.layers import Call
from whence.linearization import LayerLinearization, Linearization
from whence.objective import Objective
from whence.parameters import Parameters

BLOCK_NUMBERS = 16 * 2**20
"""Numbers that the factors of some points may take."""


def gauss_newton(jacobian: Jacobian) -> Tensor | None:
    """Return ``JᵀJ`` (P, P) of a network of linear layers with several rows for each point.

    None for any other: there rows are as cheap, or the only way.
    """
    total = None
    for rows, _ in jacobian.blocks():
        layers = _layers(rows.linear)
        if layers is None or len(rows.cotangents) < 2:
            return None
        assert isinstance(rows.linear, LayerLinearization)
        deltas = zip(
            *(rows.linear.deltas(seed) for seed in rows.cotangents), strict=True
        )
        stacked = [
            _stacked(same, layer) for same, layer in zip(deltas, layers, strict=True)
        ]
        total = total or _Sums(layers, jacobian.parameters)
        for a, b in total.pairs():
            total.add(
                a, b, stacked[a].mT @ stacked[b], layers[a].input, layers[b].input
            )
    return None if total is None else total.dense()


def _stacked(deltas: Sequence[Tensor | None], layer: _Layer) -> Tensor:
    """Return the δ of each row, (n, rows, out), zero where a row does not depend on the layer."""
    zero = layer.input.new_zeros(len(layer.input), layer.out)
    return torch.stack([zero if delta is None else delta for delta in deltas], dim=1)


def hessian(objective: Objective) -> Tensor | None:
    """Return ``∂²L/∂θ²`` (P, P) of a network of linear layers; None for any other."""
    parameters, total = objective.parameters, None
    for term in objective.terms.values():
        for block, linear in linearized_blocks(term.residual, parameters, term.points):
            part = block.part
            points = block.points
            layers = _layers(linear)
            if layers is None:
                return None
            assert isinstance(linear, LayerLinearization)
            total = total or _Sums(layers, parameters)
            with torch.enable_grad():
                loss = (term.value(linear.graph, points) * term.scales(part)).sum()
            _add_hessian(total, layers, loss)
    return None if total is None else total.dense()


@dataclass(frozen=True)
class _Layer:
    """A layer whose weight or bias is selected, and used once by one input of each point."""

    call: Call
    input: Tensor
    """a_l where the weight is selected, then a column of ones where the bias is; (n, in)."""
    out: int


def _layers(linear: Linearization) -> list[_Layer] | None:
    """Return the layers of a network that has linear layers alone, each used once; else None."""
    if not isinstance(linear, LayerLinearization) or not linear.graph.requires_grad:
        return None
    names = [name for call in linear.calls for name in (call.weight, call.bias) if name]
    plain = all(
        c.outer and c.points_axis == 0 and c.source.ndim == 2 for c in linear.calls
    )
    if not plain or len(set(names)) < len(names):
        return None
    found = []
    for call in linear.calls:
        ones = call.source.new_ones(len(call.source), 1)
        parts = [
            *([call.source] if call.weight else []),
            *([ones] if call.bias else []),
        ]
        found.append(_Layer(call, torch.cat(parts, dim=1), call.shape[0]))
    return found


def _add_hessian(total: _Sums, layers: Sequence[_Layer], loss: Tensor) -> None:
    edges = [layer.call.output.edge for layer in layers]
    slopes = torch.autograd.grad(
        loss, edges, create_graph=True, allow_unused=True, materialize_grads=True
    )
    for b, layer in enumerate(layers):
        seconds = _derivatives(slopes[b], slopes[b], edges[: b + 1], layers)
        for a, second in enumerate(seconds):
            total.add(a, b, second.mT, layers[a].input, layer.input)
        origin = layer.call.origin
        if not (b and layer.call.weight and origin):
            continue
        for a, moved in enumerate(
            _derivatives(origin, layer.call.source, edges[:b], layers)
        ):
            outer = layers[a].input.unsqueeze(2) * slopes[b].detach().unsqueeze(1)
            total.add_cross(a, b, outer, moved.mT)


def _derivatives(
    values: Tensor | GradientEdge,
    like: Tensor,
    edges: Sequence[GradientEdge],
    layers: Sequence[_Layer],
) -> list[Tensor]:
    """Return the derivative of every column of values (n, k) by layers' outputs, (n, k, out)."""
    n, width = like.shape
    found = [
        like.new_zeros(n, width, layer.out)
        for layer, _ in zip(layers, edges, strict=False)
    ]
    if isinstance(values, Tensor) and not values.requires_grad:
        return found
    for k in range(width):
        seed = torch.zeros_like(like, requires_grad=False)
        seed[:, k] = 1.0
        by = torch.autograd.grad(
            values, list(edges), grad_outputs=seed, retain_graph=True, allow_unused=True
        )
        for whole, derivative in zip(found, by, strict=True):
            if derivative is not None:
                whole[:, k] = derivative
    return found


class _Sums:
    """Blocks of a symmetric matrix while they are summed, each (out · out', in · in')."""

    def __init__(self, layers: Sequence[_Layer], parameters: Parameters) -> None:
        self._layers, self._parameters = layers, parameters
        self._blocks = {
            (a, b): layers[a].input.new_zeros(
                layers[a].out * layers[b].out,
                layers[a].input.shape[1] * layers[b].input.shape[1],
            )
            for a, b in self.pairs()
        }

    def pairs(self) -> list[tuple[int, int]]:
        """Return the places of two layers, the first not after the second."""
        n = len(self._layers)
        return [(a, b) for a in range(n) for b in range(a, n)]

    def add(self, a: int, b: int, left: Tensor, first: Tensor, second: Tensor) -> None:
        """Add ``Σ_n left[n] ⊗ first[n] second[n]ᵀ``: left (n, out_a, out_b), inputs (n, in)."""
        step = max(
            1, BLOCK_NUMBERS // max(left[0].numel(), first.shape[1] * second.shape[1])
        )
        for i in range(0, len(left), step):
            part = slice(i, i + step)
            right = first[part].unsqueeze(2) * second[part].unsqueeze(1)
            self._blocks[a, b].addmm_(left[part].flatten(1).T, right.flatten(1))

    def add_cross(self, a: int, b: int, outer: Tensor, slope: Tensor) -> None:
        """Add ``Σ_n outer[n] ⊗ slope[n]``: outer (n, in_a, out_b), slope (n, out_a, in_b)."""
        block = self._block(a, b)
        step = max(1, BLOCK_NUMBERS // max(outer[0].numel(), slope[0].numel()))
        for i in range(0, len(outer), step):
            part = slice(i, i + step)
            product = outer[part].flatten(1).T @ slope[part].flatten(1)
            shaped = product.view(*outer.shape[1:], *slope.shape[1:]).permute(
                2, 1, 0, 3
            )
            block[..., : slope.shape[2]] += shaped

    def _block(self, a: int, b: int) -> Tensor:
        """Return a block as (out_a, out_b, in_a, in_b)."""
        first, second = self._layers[a], self._layers[b]
        sizes = first.out, second.out, first.input.shape[1], second.input.shape[1]
        return self._blocks[a, b].view(*sizes)

    def dense(self) -> Tensor:
        """Return the whole matrix, (P, P); parameters of no layer have zeros."""
        total = self._blocks[0, 0].new_zeros(
            self._parameters.size, self._parameters.size
        )
        for a, b in self.pairs():
            block = self._block(a, b)
            for rows, i in self._columns(self._layers[a]):
                for columns, j in self._columns(self._layers[b]):
                    part = block[:, :, i, j].permute(0, 2, 1, 3)
                    flat = part.reshape(rows.stop - rows.start, -1)
                    total[rows, columns] = flat
                    total[columns, rows] = flat.T
        return total

    def _columns(self, layer: _Layer) -> Iterator[tuple[slice, slice]]:
        """Yield where a weight and a bias are in θ, and which inputs they meet."""
        slices, inputs = self._parameters.slices, layer.input.shape[1]
        if layer.call.weight:
            yield slices[layer.call.weight], slice(0, layer.call.shape[1])
        if layer.call.bias:
            yield slices[layer.call.bias], slice(inputs - 1, inputs)
