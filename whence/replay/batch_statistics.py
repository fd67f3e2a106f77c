"""Batch normalization in replays: running statistics that can be differentiated.

In training a layer normalizes by the mean and variance of its batch, and moves its running
statistics towards them, ``s ← (1 − m)s + m·s(batch)``. The network is asked with the running
statistics, so that these carry derivatives from the answers to the batches; torch updates them in
place, where no derivative passes, and has none of its normalization with respect to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whence.model_checks import BATCH_NORMALIZATIONS

STATISTICS = ("running_mean", "running_var")
# What has this class and these attributes differs by the number of axes alone.
Layer = Any


def normalizations(model: nn.Module) -> dict[str, Layer]:
    """Return the batch normalizations that keep running statistics and train, by name."""
    layers: dict[str, Layer] = {}
    for name, module in model.named_modules():
        if not isinstance(module, BATCH_NORMALIZATIONS) or not module.training:
            continue
        if getattr(module, "running_mean", None) is not None:
            layers[name] = module
    return layers


def statistics_names(model: nn.Module) -> list[str]:
    """Return the names of the running statistics that training moves."""
    names = []
    for name in normalizations(model):
        prefix = f"{name}." if name else ""
        names += [prefix + statistic for statistic in STATISTICS]
    return names


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Yield the inputs of each batch normalization by name, as the model is called meanwhile."""
    inputs: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in normalizations(model).items():
        keep = keeping_input(inputs.setdefault(name, []))
        handles.append(module.register_forward_pre_hook(keep))
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def keeping_input(
    seen: list[Tensor],
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that adds the input of a module to a list."""

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    return keep


def renewed(
    model: nn.Module,
    inputs: Mapping[str, list[Tensor]],
    before: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the running statistics after a step, as functions of before and the layers' inputs.

    Parameters
    ----------
    model:
        Whose layers saw the inputs.
    inputs:
        What :func:`watched` collected.
    before:
        The running statistics before the step, and ``num_batches_tracked``, by name.
    """
    after = {}
    for name, module in normalizations(model).items():
        prefix = f"{name}." if name else ""
        mean = before[f"{prefix}running_mean"]
        variance = before[f"{prefix}running_var"]
        count = int(before[f"{prefix}num_batches_tracked"])

        # A layer that is called several times moves its statistics as often.
        for batch in inputs[name]:
            count += 1
            momentum = module.momentum
            if momentum is None:  # the mean over all batches so far
                momentum = 1 / count
            # Over samples and places, for each channel; torch's running variance is unbiased.
            axes = [axis for axis in range(batch.ndim) if axis != 1]
            of_batch = torch.var_mean(batch, dim=axes, correction=1)
            variance = (1 - momentum) * variance + momentum * of_batch[0]
            mean = (1 - momentum) * mean + momentum * of_batch[1]

        after[f"{prefix}running_mean"] = mean
        after[f"{prefix}running_var"] = variance
    return after


class RunningNormalization(nn.Module):
    """Normalization by running statistics that are parameters, so that it has derivatives by them.

    ``y = (x − μ)/√(σ² + ε) · γ + β``, as the layer that it stands for gives in evaluation mode.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.eps = layer.eps
        self.weight = layer.weight
        self.bias = layer.bias
        self.running_mean = nn.Parameter(layer.running_mean.detach().clone())
        self.running_var = nn.Parameter(layer.running_var.detach().clone())
        self.register_buffer("num_batches_tracked", layer.num_batches_tracked.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized input."""
        # Along the channels, the second axis.
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean = self.running_mean.view(shape)
        width = (self.running_var + self.eps).sqrt().view(shape)
        normalized = (x - mean) / width
        if self.weight is None:
            return normalized
        return normalized * self.weight.view(shape) + self.bias.view(shape)


def replace_layers(model: nn.Module) -> None:
    """Put a :class:`RunningNormalization` in the place of each layer, under the same names.

    Raises
    ------
    ValueError
        If the model itself is one, so that nothing holds it.
    """
    for name, layer in normalizations(model).items():
        if not name:
            raise ValueError(
                "a model that is a batch normalization alone cannot be replayed: put it into "
                "torch.nn.Sequential"
            )
        parent, _, last_name = name.rpartition(".")
        setattr(model.get_submodule(parent), last_name, RunningNormalization(layer))
