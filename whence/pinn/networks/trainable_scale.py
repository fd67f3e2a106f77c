"""A trainable factor, made as a layer so that rows of the Jacobian stay as cheap as any."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TrainableScale(nn.Module):
    """``x ↦ n a · x`` with trainable a, one number for all features or one for each.

    Parameters
    ----------
    features
        How many numbers: 1, or the width of x.
    initial
        What a is at first.
    factor
        n, which a step of a is multiplied by.
    dtype
        Floating-point type.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.networks.trainable_scale import TrainableScale
    >>> TrainableScale(1, initial=0.5, factor=3.0)(torch.ones(1, 2, dtype=torch.float64))
    tensor([[1.5000, 1.5000]], dtype=torch.float64, grad_fn=<MulBackward0>)
    """

    def __init__(
        self,
        features: int,
        initial: float = 1.0,
        factor: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self._factor = factor
        table = torch.full((features, 1), initial, dtype=dtype)
        self.weight = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (n, width) times the factors."""
        # A jet's value alone: the factor does not depend on the coordinates.
        value = getattr(x, "value", x)
        column = value[..., :1]
        # As a linear layer of the constant 1, for which rows of J need no transform of torch.func.
        one = torch.ones_like(column)
        trained = F.linear(one, self.weight)  # (n, features)

        # n is no parameter: it makes the gradient by a, and so a step of it, n times as large.
        scale = self._factor * trained
        return x * scale
