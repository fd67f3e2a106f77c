"""Products of gradients of targets and of points, layer by layer where that is cheaper.

A linear layer's part of a gradient is ``Σ_c δ_c ⊗ a_c``, so its part of a product of two gradients
is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products of the sizes of the layer's output and input
in place of one of the size of its weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from whence.attribution.arguments import PointsByTerm
from whence.attribution.labels import Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Linearized, Quantity
from whence.attribution.tiles import PointBlock, Stage, Tile
from whence.jacobian import point_gradients
from whence.linearization import Factor, LayerLinearization, Linearization


class Gradients:
    """Gradients of n scalars: the rows of a linearization with a cotangent."""

    def __init__(self, linear: Linearization, cotangent: Tensor) -> None:
        self._linear = linear
        self._cotangent = cotangent

        # By the first column of a layer's weight in θ.
        self._layers: dict[int, LayerGradients] = {}
        if isinstance(linear, LayerLinearization):
            for factor in linear.factors(cotangent):
                layer = self._layers.setdefault(factor.columns.start, LayerGradients())
                layer.factors.append(factor)

    def __len__(self) -> int:
        return len(self._cotangent)

    def rows(self) -> Tensor:
        """Return the gradients themselves, (n, P)."""
        return self._linear.rows(self._cotangent)

    def times(self, other: Gradients) -> Tensor:
        """Return the products with other gradients, (n, m)."""
        if not (self._layers and other._layers):
            return self.rows() @ other.rows().T

        # Layers are disjoint parts of θ, so that their products add up.
        total = self._cotangent.new_zeros(len(self), len(other))
        for start in self._layers.keys() & other._layers.keys():
            total += self._layers[start].times(other._layers[start])
        return total


class LayerGradients:
    """One layer's part of n gradients: a factor for each use of the layer."""

    def __init__(self) -> None:
        self.factors: list[Factor] = []
        self._rows: Tensor | None = None

    def times(self, other: LayerGradients) -> Tensor:
        """Return this layer's part of the products with other gradients, (n, m)."""
        if not self._is_thin_with(other):
            return self.rows() @ other.rows().T

        total: Tensor | None = None
        for delta, a in self._channels():
            for other_delta, other_a in other._channels():
                # (δ_c·δ′_c′)(a_c·a′_c′), (n, m)
                part = (delta @ other_delta.T).mul_(a @ other_a.T)
                total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _is_thin_with(self, other: LayerGradients) -> bool:
        """Whether products by channels take fewer operations than one over the whole weight."""
        if len(self.factors) > 1 or len(other.factors) > 1:
            return False
        left = self.factors[0].left
        right = self.factors[0].right
        other_left = other.factors[0].left
        if right is None or other.factors[0].right is None:  # of a bias
            return False

        channels, _, outputs = left.shape
        inputs = right.shape[2]
        n_products = channels * len(other_left)
        return n_products * (outputs + inputs) < outputs * inputs

    def _channels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield δ_c (n, outputs) and a_c (n, inputs) of each channel."""
        (factor,) = self.factors
        assert factor.right is not None
        yield from zip(factor.left, factor.right, strict=True)

    def rows(self) -> Tensor:
        """Return the gradients with respect to the layer's weight, (n, outputs · inputs)."""
        # Those of targets meet every block of points, and are made once.
        if self._rows is None:
            rows = [factor.rows() for factor in self.factors]
            self._rows = rows[0] if len(rows) == 1 else torch.stack(rows).sum(dim=0)
        return self._rows


StagedGradients = list[tuple[Stage, Gradients]]
"""Gradients of some targets in each stage."""


def product_tiles(
    method: Method, quantity: Quantity, points: PointsByTerm | None, effect: Effect
) -> Iterator[Tile] | None:
    """Return tiles of ``Σ_t η_t ∇fᵀ∇ℓ(z)`` over a method's stages, made layer by layer.

    None if the quantity does not expose its linearization.
    """
    if not isinstance(quantity, Linearized):
        return None

    products = LayerProducts(method, points, effect)
    targets = products.staged_gradients(quantity)
    first = next(targets, None)
    if first is None:
        return None
    return products.tiles(chain([first], targets))


class LayerProducts:
    """Products of a method's gradients, summed over its stages."""

    def __init__(
        self, method: Method, points: PointsByTerm | None, effect: Effect
    ) -> None:
        self._method = method
        self._points = method.prepare_points(points)
        self._sign = -1.0 if effect == "add" else 1.0

    def staged_gradients(self, quantity: Linearized) -> Iterator[StagedGradients]:
        """Yield the gradients of some targets at a time in every stage."""
        stages = self._method.stages()
        linearized = [quantity.linearized(self._method.objective) for _ in stages]
        while True:
            of_targets = []
            for stage, of_stage in zip(stages, linearized, strict=True):
                # The generator linearizes the network in the state in which it runs on.
                with stage.at():
                    block = next(of_stage, None)
                    if block is None:
                        return
                    of_targets.append((stage, Gradients(*block)))
            yield of_targets

    def tiles(self, targets: Iterator[StagedGradients]) -> Iterator[Tile]:
        """Yield the products of targets with points, ``Σ_t η_t ∇fᵀ∇ℓ(z)``."""
        first = 0
        for of_targets in targets:
            _, gradients = of_targets[0]
            rows = slice(first, first + len(gradients))
            for block in self._method.blocks_of(self._points):
                products = self._summed(of_targets, block)
                values = products * (self._sign * block.scale)
                yield Tile(rows, block.part, values)
            first = rows.stop

    def _summed(self, of_targets: StagedGradients, block: PointBlock) -> Tensor:
        parameters = self._method.objective.parameters
        total: Tensor | None = None
        for stage, gradients in of_targets:
            with stage.at():
                ((_, linear, cotangent),) = point_gradients(
                    block.term, parameters, block.points, len(block)
                )
                products = gradients.times(Gradients(linear, cotangent))
            products.mul_(stage.factor)
            total = products if total is None else products.add_(total)
        assert total is not None
        return total
