"""A model called as training calls it: in the mode it is in, with random numbers of a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whence.autodiff import differentiable_attention
from whence.losses import Loss
from whence.samples import Samples


def call(model: nn.Module, samples: Samples) -> Tensor:
    """Return the model's output for samples, (n, ...)."""
    inputs = samples.inputs
    with differentiable_attention():
        if isinstance(inputs, Mapping):
            output: Tensor = model(**inputs)
        else:
            output = model(*inputs)
    return output


def batch_loss(
    model: nn.Module, loss: Loss, samples: Samples, weights: Tensor | None = None
) -> Tensor:
    """Return ``(1/B) Σ_i w_i ℓ(f(x_i), y_i)`` of a batch of B samples, w (B,) by default 1."""
    output = call(model, samples).reshape(len(samples), -1)
    values = loss.value(output, samples.target)  # (B,)
    if weights is not None:
        values = values * weights
    return values.mean()


@contextmanager
def random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw the random numbers of a seed for a while."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
