"""Products of gradients of targets and of points, layer by layer where that is cheaper.

A linear layer's part of a gradient is ``Σ_c δ_c ⊗ a_c``, so its part of a product of two gradients
is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products of the sizes of the layer's output and input
in place of one of the size of its weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

from whence.attribution.arguments import PointsByTerm
from whence.attribution.labels import Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Linearized, Quantity
from whence.attribution.tiles import Stage, Tile
from whence.jacobian import point_gradients
from whence.linearization import Factor, LayerLinearization, Linearization


class Gradients:
    """Gradients of n scalars: the rows of a linearization with a cotangent."""

    def __init__(self, linear: Linearization, cotangent: Tensor) -> None:
        self._linear = linear
        self._cotangent = cotangent

        # By the first column of a layer's weight; a layer that is used twice has two factors.
        self._factors: dict[int, list[Factor]] = {}
        if isinstance(linear, LayerLinearization):
            for factor in linear.factors(cotangent):
                self._factors.setdefault(factor.columns.start, []).append(factor)

    def __len__(self) -> int:
        return len(self._cotangent)

    def rows(self) -> Tensor:
        """Return the gradients themselves, (n, P)."""
        return self._linear.rows(self._cotangent)

    def times(self, other: Gradients) -> Tensor:
        """Return the products with other gradients, (n, m)."""
        if not (self._factors and other._factors):
            return self.rows() @ other.rows().T

        # Layers are disjoint parts of θ, so that their products add up.
        total = self._cotangent.new_zeros(len(self), len(other))
        for start in self._factors.keys() & other._factors.keys():
            total += _layer_product(self._factors[start], other._factors[start])
        return total


def _layer_product(a: Sequence[Factor], b: Sequence[Factor]) -> Tensor:
    """Return one layer's part of the products, (n, m)."""
    if len(a) == len(b) == 1 and _is_thin(a[0], b[0]):
        total: Tensor | None = None
        for left, right in _channels(a[0]):
            for other_left, other_right in _channels(b[0]):
                # (δ_c·δ′_c′)(a_c·a′_c′), (n, m)
                part = (left @ other_left.T).mul_(right @ other_right.T)
                total = part if total is None else total.add_(part)
        assert total is not None
        return total

    return _summed_rows(a) @ _summed_rows(b).T


def _is_thin(a: Factor, b: Factor) -> bool:
    """Whether products by channels take fewer operations than one over the whole weight."""
    if a.right is None or b.right is None:  # a bias, whose gradient has one factor
        return False
    channels, _, out = a.left.shape
    inputs = a.right.shape[2]
    return channels * len(b.left) * (out + inputs) < out * inputs


def _channels(factor: Factor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield δ_c (n, outputs) and a_c (n, inputs) of each channel."""
    assert factor.right is not None
    yield from zip(factor.left, factor.right, strict=True)


def _summed_rows(factors: Sequence[Factor]) -> Tensor:
    rows = [factor.rows() for factor in factors]
    return rows[0] if len(rows) == 1 else torch.stack(rows).sum(dim=0)


def product_tiles(
    method: Method, quantity: Quantity, points: PointsByTerm | None, effect: Effect
) -> Iterator[Tile] | None:
    """Return tiles of ``Σ_t η_t ∇fᵀ∇ℓ(z)`` over a method's stages, made layer by layer.

    None if the quantity does not expose its linearization.
    """
    if not isinstance(quantity, Linearized):
        return None

    targets = _staged_gradients(method, quantity)
    first = next(targets, None)
    if first is None:
        return None
    return _multiplied(method, chain([first], targets), points, effect)


StagedGradients = list[tuple[Stage, Gradients]]
"""Gradients of some targets in each stage."""


def _staged_gradients(
    method: Method, quantity: Linearized
) -> Iterator[StagedGradients]:
    stages = method.stages()
    linearized = [quantity.linearized(method.objective) for _ in stages]
    while True:
        of_targets = []
        for stage, of_stage in zip(stages, linearized, strict=True):
            # The generator linearizes the network in the state in which it runs on.
            with stage.at():
                block = next(of_stage, None)
                if block is None:
                    return
                linear, cotangent = block
                of_targets.append((stage, Gradients(linear, cotangent)))
        yield of_targets


def _multiplied(
    method: Method,
    targets: Iterator[StagedGradients],
    points: PointsByTerm | None,
    effect: Effect,
) -> Iterator[Tile]:
    sign = -1.0 if effect == "add" else 1.0
    prepared = method.prepare_points(points)
    parameters = method.objective.parameters
    first = 0
    for of_targets in targets:
        _, gradients = of_targets[0]
        rows = slice(first, first + len(gradients))

        for block in method.blocks_of(prepared):
            total: Tensor | float = 0.0
            for stage, of_stage in of_targets:
                with stage.at():
                    ((_, linear, cotangent),) = point_gradients(
                        block.term, parameters, block.points, len(block)
                    )
                    of_points = Gradients(linear, cotangent)
                    products = of_stage.times(of_points).mul_(stage.factor)
                    total = products.add_(total)
            assert isinstance(total, Tensor)
            yield Tile(rows, block.part, total * (sign * block.scale))

        first = rows.stop
