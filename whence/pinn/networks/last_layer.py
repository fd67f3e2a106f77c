"""A last layer solved for: the weights with which features come nearest to given values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whence.triangular import Triangle

FIT_RIDGE = 1e-9
"""Weight of the last layer's own norm where it is fitted to values."""


def fit_last_layer(last: nn.Linear, features: Tensor, values: Tensor) -> None:
    """Set a linear layer to the least-squares fit of values (n, outputs) by features (n, width).

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.networks.last_layer import fit_last_layer
    >>> x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    >>> last = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> fit_last_layer(last, x, 3 * x - 2)
    >>> bool(torch.allclose(last(x), 3 * x - 2))
    True
    """
    # The bias is the weight of a feature that is 1 everywhere.
    one = torch.ones_like(features[:, :1])
    rows = torch.cat([features, one], dim=1)

    for k, column in enumerate(values.unbind(1)):
        # A triangle is of ‖Jδ + ρ‖: here J are the features and ρ the values' negative.
        triangle = Triangle.of_rows(rows, -column)
        solution = triangle.least_squares(FIT_RIDGE)
        with torch.no_grad():
            last.weight[k] = solution[:-1]
            last.bias[k] = solution[-1]
