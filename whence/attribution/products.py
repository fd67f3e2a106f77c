"""Products of gradients of targets and of points, layer by layer where that is cheaper.

A linear layer's part of a gradient is ``Σ_c δ_c ⊗ a_c``, so its part of a product of two gradients
is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products of the sizes of the layer's output and input
in place of one of the size of its weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whence.linearization import Factor, LayerLinearization, Linearization


class Gradients:
    """Gradients of n scalars: the rows of a linearization with a seed."""

    def __init__(self, linear: Linearization, seed: Tensor) -> None:
        self._linear, self._seed = linear, seed
        self._factors: dict[int, list[Factor]] = {}
        if isinstance(linear, LayerLinearization):
            for factor in linear.factors(seed):
                self._factors.setdefault(factor.columns.start, []).append(factor)

    def __len__(self) -> int:
        return len(self._seed)

    def times(self, other: Gradients) -> Tensor:
        """Return the products with other gradients, (n, m)."""
        if not (self._factors and other._factors):
            return self._linear.rows(self._seed) @ other._linear.rows(other._seed).T
        total = self._seed.new_zeros(len(self), len(other))
        for start in self._factors.keys() & other._factors.keys():
            total += _product(self._factors[start], other._factors[start])
        return total


def _product(a: Sequence[Factor], b: Sequence[Factor]) -> Tensor:
    if len(a) == len(b) == 1 and _is_thin(a[0], b[0]):
        total: Tensor | None = None
        for left, right in _channels(a[0]):
            for other_left, other_right in _channels(b[0]):
                part = (left @ other_left.T).mul_(right @ other_right.T)
                total = part if total is None else total.add_(part)
        assert total is not None
        return total
    return _rows(a) @ _rows(b).T


def _is_thin(a: Factor, b: Factor) -> bool:
    if a.right is None or b.right is None:
        return False
    channels, _, out = a.left.shape
    inputs = a.right.shape[2]
    return channels * len(b.left) * (out + inputs) < out * inputs


def _channels(factor: Factor) -> Iterator[tuple[Tensor, Tensor]]:
    assert factor.right is not None
    yield from zip(factor.left, factor.right, strict=True)


def _rows(factors: Sequence[Factor]) -> Tensor:
    rows = [factor.rows() for factor in factors]
    return rows[0] if len(rows) == 1 else torch.stack(rows).sum(dim=0)
