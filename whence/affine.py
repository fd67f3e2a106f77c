"""A linear layer of jets: the weight on every channel, the bias on the value alone.

With channels c of an input A, the value (c = 0) and derivatives, ``H_c = A_c Wᵀ`` and
``H_0 = A_0 Wᵀ + b``. Composed of torch operations it can be differentiated any number of times;
where plain reverse mode alone is at work, one operation with a derivative written by hand adds the
bias in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whence.elementwise import plain_reverse


def linear(data: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the layer's channels (c, ..., out) from those of its input (c, ..., in)."""
    if bias is not None and plain_reverse(data):
        result: Tensor = _Linear.apply(data, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _composed(data, weight, bias)


def _composed(data: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the layer as operations that anything can differentiate, any number of times."""
    product = F.linear(data, weight)  # (c, ..., out)
    if bias is None:
        return product

    # The bias in the channel of the value, zeros in all others.
    n_channels = len(data)
    zeros = torch.zeros_like(bias).expand(n_channels - 1, *bias.shape)
    channels = torch.cat([bias.unsqueeze(0), zeros])
    between = [1] * (product.ndim - 2)
    return product + channels.reshape(n_channels, *between, -1)


class _Linear(torch.autograd.Function):
    """:func:`_composed` with the bias added in place, to the value alone."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(data, weight, bias)
        product = F.linear(data, weight)
        product[0] += bias
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        is_needed = ctx.needs_input_grad
        of_inputs: list[Tensor | None] = [None, None, None]

        # This derivative is to be differentiated again.
        if torch.is_grad_enabled():
            needed = [k for k in range(3) if is_needed[k]]
            composed = _composed(*inputs)
            gradients = torch.autograd.grad(
                composed,
                [inputs[k] for k in needed],
                grad,
                create_graph=True,
            )
            for k, gradient in zip(needed, gradients, strict=True):
                of_inputs[k] = gradient

            return tuple(of_inputs)

        # With G the gradient by h = A Wᵀ + b: G W, Gᵀ A, and for b the sum of G's value channel.
        data, weight, bias = inputs
        if is_needed[0]:
            of_inputs[0] = grad @ weight
        if is_needed[1]:
            of_inputs[1] = grad.flatten(0, -2).T @ data.flatten(0, -2)
        if is_needed[2]:
            of_value = grad[0].flatten(0, -2)
            of_inputs[2] = of_value.sum(0).expand(bias.shape)

        return tuple(of_inputs)
