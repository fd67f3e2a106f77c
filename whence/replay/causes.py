"""Why a training cannot be replayed: the part of a model whose output differs from call to call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whence.replay.calls import call, random_numbers
from whence.samples import Samples
from whence.supervised import ModelFunction


def outputs_by_module(
    function: ModelFunction, samples: Samples, seed: int
) -> list[tuple[str, Tensor]]:
    """Return the outputs of the modules that the model calls, in the order in which they end."""
    outputs: list[tuple[str, Tensor]] = []
    handles = []
    for name, module in function.model.named_modules():

        def keep(_: nn.Module, __: object, output: object, name: str = name) -> None:
            # What returns several tensors holds modules that return one each.
            if isinstance(output, Tensor):
                outputs.append((name, output.detach().clone()))

        handles.append(module.register_forward_hook(keep))
    try:
        with torch.no_grad(), random_numbers(seed, samples.device):
            call(function, samples)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def check_same_output(function: ModelFunction, samples: Samples, seed: int) -> None:
    """Raise ``ValueError`` if the model gives something else when it is called again.

    The error names the first module that does, which those that contain it follow.
    """
    first = outputs_by_module(function, samples, seed)
    second = outputs_by_module(function, samples, seed)
    # Modules that end first come first, so the first that differs is the cause, not what holds it.
    for (name, before), (_, after) in zip(first, second, strict=False):
        if before.shape == after.shape and torch.equal(before, after):
            continue
        kind = type(function.model.get_submodule(name)).__name__
        where = f"its part {name!r}, a {kind}," if name else f"{kind}"
        raise ValueError(
            f"the training cannot be replayed: {where} gives another output each time, for the "
            "same input and the same seed of torch. It draws random numbers from elsewhere, as "
            "from NumPy or random, or uses an operation that is not deterministic: draw them "
            "from torch, or see torch.use_deterministic_algorithms"
        )
