"""Dense curvature of networks of linear layers, from each layer's own small second derivatives.

Of a point, with δ_l the derivative with respect to the output h_l of layer l and a_l its input, a
block of the Gauss–Newton matrix is ``(Σ_k δ_lk δ_l'kᵀ) ⊗ a_l a_l'ᵀ`` over the rows k of the point,
and of the Hessian ``∂²ℓ/∂h_l∂h_l' ⊗ a_l a_l'ᵀ`` plus, for l' before l,
``δ_l ⊗ (∂a_l/∂h_l') ⊗ a_l'`` (as in Botev et al. 2017, arXiv 1706.03662, but for whole blocks and
every point). Summed over points each block is one matrix product, where rows take m times as much,
and Hessian-vector products P passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from whence.jacobian import Jacobian, Rows, linearized_blocks
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
        if total is None:
            total = _Sums(layers, jacobian.parameters)

        deltas = _deltas(rows, layers)
        for a, b in total.pairs():
            # Σ_k δ_ak δ_bkᵀ of every point, (n, out_a, out_b)
            left = deltas[a].mT @ deltas[b]
            first = layers[a].input
            second = layers[b].input
            total.add(a, b, left, first, second)

    if total is None:
        return None
    return total.dense()


def _deltas(rows: Rows, layers: Sequence[_Layer]) -> list[Tensor]:
    """Return by layer the δ of all rows of a point, (n, rows, out)."""
    assert isinstance(rows.linear, LayerLinearization)
    by_row = [rows.linear.deltas(cotangent) for cotangent in rows.cotangents]

    stacked = []
    for place, layer in enumerate(layers):
        zero = layer.input.new_zeros(len(layer.input), layer.out)
        parts = []
        for deltas in by_row:
            # None where a row does not depend on the layer.
            delta = deltas[place]
            parts.append(zero if delta is None else delta)
        stacked.append(torch.stack(parts, dim=1))

    return stacked


def hessian(objective: Objective) -> Tensor | None:
    """Return ``∂²L/∂θ²`` (P, P) of a network of linear layers; None for any other."""
    parameters = objective.parameters
    total = None
    for term in objective.terms.values():
        for block, linear in linearized_blocks(term.residual, parameters, term.points):
            points = block.points
            layers = _layers(linear)
            if layers is None:
                return None
            if total is None:
                total = _Sums(layers, parameters)

            # A point's loss depends on its own outputs alone, so that the sum's derivatives are
            # those of every point.
            assert isinstance(linear, LayerLinearization)
            scales = term.scales(block.part)
            with torch.enable_grad():
                losses = term.value(linear.graph, points)
                loss = (losses * scales).sum()
            _add_hessian(total, layers, loss)

    if total is None:
        return None
    return total.dense()


@dataclass(frozen=True)
class _Layer:
    """A layer whose weight or bias is selected, and used once by one input of each point."""

    call: Call
    input: Tensor
    """a_l where the weight is selected, then a column of ones where the bias is; (n, in)."""
    out: int

    @property
    def inputs(self) -> int:
        """Length of the input, 1 for the bias included."""
        return self.input.shape[1]

    @classmethod
    def of(cls, call: Call) -> _Layer:
        """Return the layer of a call."""
        source = call.source
        parts = []
        if call.weight:
            parts.append(source)
        if call.bias:
            parts.append(source.new_ones(len(source), 1))

        outputs = call.shape[0]
        return cls(call, torch.cat(parts, dim=1), outputs)


def _layers(linear: Linearization) -> list[_Layer] | None:
    """Return the layers of a network that has linear layers alone, each used once; else None."""
    if not isinstance(linear, LayerLinearization) or not linear.graph.requires_grad:
        return None

    seen: set[str | None] = set()
    for call in linear.calls:
        # One input vector for each point: no jet, no positions, no other kind of layer.
        points_first = call.points_axis == 0
        is_vector = points_first and call.source.ndim == 2
        if not call.outer or not is_vector:
            return None

        names = {call.weight, call.bias} - {None}
        if names & seen:
            return None
        seen |= names

    return [_Layer.of(call) for call in linear.calls]


def _add_hessian(total: _Sums, layers: Sequence[_Layer], loss: Tensor) -> None:
    """Add ``∂²loss/∂θ²``, block by block: of layers a and b, a not after b."""
    edges = [layer.call.output.edge for layer in layers]

    # δ_b = ∂ℓ/∂h_b with its graph, (n, out_b)
    slopes = torch.autograd.grad(
        loss, edges, create_graph=True, allow_unused=True, materialize_grads=True
    )
    for b, layer in enumerate(layers):
        # The weight of layer b enters by h_b = W_b a_b, so its gradient is δ_b ⊗ a_b. What it
        # depends on h_a through δ_b gives ∂²ℓ/∂h_a∂h_b ⊗ a_a a_bᵀ ...
        slope = slopes[b]
        seconds = _derivatives(slope, slope, edges[: b + 1], layers)
        for a, second in enumerate(seconds):
            first_input = layers[a].input
            total.add(a, b, second.mT, first_input, layer.input)

        # ... and through a_b, of earlier layers, δ_b ⊗ (∂a_b/∂h_a) ⊗ a_a. The input of the network
        # has no such part, and neither has the bias.
        origin = layer.call.origin
        if b == 0 or not layer.call.weight or not origin:
            continue
        delta = slope.detach().unsqueeze(1)  # (n, 1, out_b)
        source = layer.call.source
        moved = _derivatives(origin, source, edges[:b], layers)
        for a, input_slope in enumerate(moved):
            first_input = layers[a].input.unsqueeze(2)  # (n, in_a, 1)
            outer = first_input * delta
            total.add_cross(a, b, outer, input_slope.mT)


def _derivatives(
    values: Tensor | GradientEdge,
    like: Tensor,
    edges: Sequence[GradientEdge],
    layers: Sequence[_Layer],
) -> list[Tensor]:
    """Return the derivative of every column of values (n, k) by layers' outputs, (n, k, out)."""
    n, width = like.shape
    derivatives = []
    for layer in layers[: len(edges)]:
        derivative = like.new_zeros(n, width, layer.out)
        derivatives.append(derivative)
    if isinstance(values, Tensor) and not values.requires_grad:
        return derivatives

    for k in range(width):
        cotangent = torch.zeros_like(like, requires_grad=False)
        cotangent[:, k] = 1.0
        columns = torch.autograd.grad(
            values,
            list(edges),
            grad_outputs=cotangent,
            retain_graph=True,
            allow_unused=True,
        )
        for derivative, column in zip(derivatives, columns, strict=True):
            if column is not None:
                derivative[:, k] = column

    return derivatives


class _Sums:
    """Blocks of a symmetric matrix while they are summed, each (out · out', in · in')."""

    def __init__(self, layers: Sequence[_Layer], parameters: Parameters) -> None:
        self._layers = layers
        self._parameters = parameters
        self._blocks = {}
        for a, b in self.pairs():
            first = layers[a]
            second = layers[b]
            outputs = first.out * second.out
            inputs = first.inputs * second.inputs
            block = first.input.new_zeros(outputs, inputs)
            self._blocks[a, b] = block

    def pairs(self) -> list[tuple[int, int]]:
        """Return the places of two layers, the first not after the second."""
        places = range(len(self._layers))
        return list(itertools.combinations_with_replacement(places, 2))

    def add(self, a: int, b: int, left: Tensor, first: Tensor, second: Tensor) -> None:
        """Add ``Σ_n left[n] ⊗ first[n] second[n]ᵀ``: left (n, out_a, out_b), inputs (n, in)."""
        block = self._blocks[a, b]
        _, out_a, out_b = left.shape
        _, in_a = first.shape
        _, in_b = second.shape
        step = _step(out_a * out_b, in_a * in_b)
        for i in range(0, len(left), step):
            part = slice(i, i + step)
            first_inputs = first[part].unsqueeze(2)
            second_inputs = second[part].unsqueeze(1)
            inputs = first_inputs * second_inputs  # (n, in_a, in_b)

            # The sum over points is a matrix product, (out_a · out_b, n) (n, in_a · in_b).
            outputs = left[part].flatten(1)
            block.addmm_(outputs.T, inputs.flatten(1))

    def add_cross(self, a: int, b: int, outer: Tensor, slope: Tensor) -> None:
        """Add ``Σ_n outer[n] ⊗ slope[n]``: outer (n, in_a, out_b), slope (n, out_a, in_b)."""
        block = self._block(a, b)
        _, in_a, out_b = outer.shape
        _, out_a, in_b = slope.shape
        step = _step(in_a * out_b, out_a * in_b)
        for i in range(0, len(outer), step):
            part = slice(i, i + step)
            outer_part = outer[part].flatten(1)
            slope_part = slope[part].flatten(1)
            product = outer_part.T @ slope_part

            # (in_a, out_b, out_a, in_b) → (out_a, out_b, in_a, in_b); the bias of b has no slope.
            product = product.view(in_a, out_b, out_a, in_b)
            product = product.permute(2, 1, 0, 3)
            block[..., :in_b] += product

    def _block(self, a: int, b: int) -> Tensor:
        """Return a block as (out_a, out_b, in_a, in_b)."""
        first = self._layers[a]
        second = self._layers[b]
        block = self._blocks[a, b]
        return block.view(first.out, second.out, first.inputs, second.inputs)

    def dense(self) -> Tensor:
        """Return the whole matrix, (P, P); parameters of no layer have zeros."""
        size = self._parameters.size
        total = self._blocks[0, 0].new_zeros(size, size)
        for a, b in self.pairs():
            block = self._block(a, b)
            first = self._layers[a]
            second = self._layers[b]
            for rows, i in self._columns(first):
                for columns, j in self._columns(second):
                    # (out_a, out_b, in_a, in_b) → (out_a · in_a, out_b · in_b)
                    part = block[:, :, i, j]
                    part = part.permute(0, 2, 1, 3)
                    flat = part.flatten(0, 1).flatten(1)
                    total[rows, columns] = flat
                    total[columns, rows] = flat.T
        return total

    def _columns(self, layer: _Layer) -> Iterator[tuple[slice, slice]]:
        """Yield where a weight and a bias are in θ, and which inputs they meet."""
        slices = self._parameters.slices
        call = layer.call
        if call.weight:
            width = call.shape[1]
            yield slices[call.weight], slice(0, width)

        # The bias is the column of ones, the last.
        if call.bias:
            last = layer.inputs - 1
            yield slices[call.bias], slice(last, layer.inputs)


def _step(left_numbers: int, right_numbers: int) -> int:
    """Return how many points to take at once for factors of so many numbers each."""
    numbers = max(left_numbers, right_numbers)
    return max(1, BLOCK_NUMBERS // numbers)
