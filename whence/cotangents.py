"""Cotangents of a point's rows: columns of a root of the loss's curvature, scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from whence.losses import WithRootProduct
from whence.points import Block, target_of
from whence.term import Term


class ManyCotangents(Sequence[Tensor]):
    """The cotangents (n, m) of points of many outputs, each made when it is asked for."""

    def __init__(self, term: Term, block: Block, value: Tensor, scaled: bool) -> None:
        self._term = term
        self._block = block
        self._value = value
        self._column: Callable[[int], Tensor] | None = None
        if scaled:
            self._column = term.curvature_column(value, block.points)
            self._scale = term.scales(block.part)

    def __len__(self) -> int:
        return self._value.shape[1]

    def __getitem__(self, k: Any) -> Any:
        if not 0 <= k < len(self):
            raise IndexError(k)
        if self._column is not None:
            return times_root(self._column(k), self._scale)

        unit = torch.zeros_like(self._value)
        unit[:, k] = 1.0
        return unit

    def combined(self, weights: Tensor) -> Tensor:
        """Return ``Σ_k weights[:, k] · cotangent_k`` of each point, (n, m)."""
        if self._column is None:
            return weights
        if isinstance(self._term.loss, WithRootProduct):
            # Columns of S with weights v are S v.
            target = target_of(self._block.points)
            product = self._term.loss.root_product(self._value, target)
            return times_root(product(weights), self._scale)

        # One by one: the root itself may not fit.
        total = torch.zeros_like(self._value)
        for k, weight in enumerate(weights.unbind(1)):
            total.addcmul_(weight.unsqueeze(1), self[k])
        return total


def times_root(values: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``√scale`` times the values of each point; a scale for all, or one for each (n,)."""
    if not isinstance(scale, Tensor):
        return values * scale**0.5

    # (n,) becomes (n, 1, …), to go along the first axis of the values.
    trailing = [1] * (values.ndim - 1)
    return values * scale.sqrt().view(-1, *trailing)
