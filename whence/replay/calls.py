"""A model called as training calls it: in the mode it is in, with random numbers of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from whence.autodiff import differentiable_attention
from whence.losses import Loss
from whence.samples import Samples
from whence.supervised import ModelFunction, in_their_modes


def call(function: ModelFunction, samples: Samples) -> Tensor:
    """Return a model's outputs for samples, (n, m), with derivatives by its own parameters."""
    # Its own, which are leaves: derivatives by them are what a step needs.
    parameters = dict(function.model.named_parameters())
    with in_their_modes(), differentiable_attention():
        return function(parameters, samples)


def batch_loss(
    function: ModelFunction,
    loss: Loss,
    samples: Samples,
    weights: Tensor | None = None,
) -> Tensor:
    """Return ``(1/B) Σ_i w_i ℓ(f(x_i), y_i)`` of a batch of B samples, w (B,) by default 1."""
    values = loss.value(call(function, samples), samples.target)  # (B,)
    if weights is not None:
        values = values * weights
    return values.mean()


@contextmanager
def random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw the random numbers of a seed for a while."""
    # Random states of devices that are not used need not be kept.
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
