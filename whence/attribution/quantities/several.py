"""The targets of several quantities, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.attribution.quantities.base import (
    Multiplied,
    Quantity,
    aggregate_gradient,
    check_quantity,
)
from whence.objective import Objective

NUMBERS = frozenset("biuf")
"""Kinds of NumPy's types that are numbers."""

Quantities = Quantity | Sequence[Quantity]
"""What to explain: a quantity, or several at once."""


@dataclass(frozen=True, eq=False)
class Several:
    """Several quantities as one: their targets follow each other.

    ``attribute([…])`` makes one of a list, so that they share what is solved for.

    Parameters
    ----------
    quantities:
        In the order of their targets.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.quantities.several import Several
    >>> points = torch.rand(5, 2)
    >>> Several([wh.Output(points, "u"), wh.Derivative(points, "u_x")]).label()
    'u, u_x'
    """

    quantities: Sequence[Quantity]

    def label(self) -> str:
        """Return the labels of the quantities."""
        return ", ".join(quantity.label() for quantity in self.quantities)

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,)."""
        parts = [quantity.values(objective) for quantity in self.quantities]
        return torch.cat(parts)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients in blocks, each (block, P)."""
        for quantity in self.quantities:
            yield from quantity.gradients(objective)

    def products(self, objective: Objective, vectors: Tensor) -> Iterator[Tensor]:
        """Yield ``∇fᵀV`` in blocks of targets, (block, K), for a few vectors (P, K)."""
        for quantity in self.quantities:
            if isinstance(quantity, Multiplied):
                yield from quantity.products(objective, vectors)
                continue

            # A functional, say, has one gradient, which is no dearer than a product.
            for gradients in quantity.gradients(objective):
                yield gradients @ vectors

    def sum_gradient(self, objective: Objective) -> Tensor:
        """Return ``∇ Σ_t f_t``, (P,)."""
        total = torch.zeros_like(objective.parameters.vector())
        # The gradient of a sum is the sum of gradients.
        for quantity in self.quantities:
            total += aggregate_gradient(quantity, objective)
        return total

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return what is known of the targets; NaN or an empty text where one does not say."""
        tables = [quantity.targets(objective) for quantity in self.quantities]
        names: dict[str, None] = {}  # in the order in which they come
        for table in tables:
            names.update(dict.fromkeys(table))
        return {name: _column(name, tables) for name in names}


def _column(name: str, tables: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Return a column of tables that follow each other, of which some may lack it."""
    kinds = set()
    for table in tables:
        if name in table:
            kinds.add(table[name].dtype.kind)

    # A functional has no coordinates, for example: numbers that nobody has are NaN.
    is_number = kinds <= NUMBERS
    missing = np.nan if is_number else ""

    parts = []
    for table in tables:
        first_column = next(iter(table.values()))
        nothing = np.full(len(first_column), missing)
        column = table.get(name, nothing)
        parts.append(column)
    return np.concatenate(parts)


def as_quantity(quantities: object) -> Quantity:
    """Return a quantity as it is, and several as one.

    Raises
    ------
    TypeError
        If it is no quantity, or no list of them.
    ValueError
        If the list is empty.
    """
    if not isinstance(quantities, (list, tuple)):
        check_quantity(quantities)
        assert isinstance(quantities, Quantity)  # as the type checker cannot know
        return quantities

    if not quantities:
        raise ValueError(
            "there is no quantity to explain: name at least one, such as [wh.Output(points)]"
        )
    for quantity in quantities:
        check_quantity(quantity)

    # A list of one is the one: its label and its fast paths are its own.
    if len(quantities) == 1:
        (alone,) = quantities
        assert isinstance(alone, Quantity)
        return alone
    return Several(tuple(quantities))
