"""The sum of another quantity's targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from whence.attribution.quantities.base import Quantity, aggregate_gradient
from whence.objective import Objective


@dataclass(frozen=True, eq=False)
class Total:
    """The sum of a quantity's targets, as one target.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.quantities.total import Total
    >>> Total(wh.Output(torch.rand(5, 2))).label()
    'sum of output'
    """

    quantity: Quantity

    def label(self) -> str:
        """Return ``sum of`` and the quantity."""
        return f"sum of {self.quantity.label()}"

    def values(self, objective: Objective) -> Tensor:
        """Return the sum, (1,)."""
        values = self.quantity.values(objective)
        return values.sum().unsqueeze(0)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the sum's gradient, (1, P), without keeping those of the targets."""
        gradient = aggregate_gradient(self.quantity, objective)
        yield gradient.unsqueeze(0)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the sum's name."""
        return {"quantity": np.asarray([self.label()])}
