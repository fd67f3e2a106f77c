"""Checkpoints of a training: states of a network, in memory or in safetensors' files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from whence import _checks

Checkpoint = Mapping[str, Tensor] | str | Path
"""A state of the network: its ``state_dict()``, or a file of one in safetensors' format."""


def check_checkpoints(checkpoints: Sequence[Checkpoint], network: nn.Module) -> None:
    """Raise ``ValueError`` unless these are one or more states of this network."""
    received = "none"
    is_single = isinstance(checkpoints, (str, Path, Mapping))
    if isinstance(checkpoints, Mapping):
        received = "a single state_dict"
    elif is_single:
        received = _checks.describe(checkpoints)
    if is_single or not len(checkpoints):
        raise ValueError(
            "checkpoints must be a sequence of at least one state_dict or file, got "
            f"{received}"
        )

    # Each is read here too, so that a wrong one is found before any work.
    for k, checkpoint in enumerate(checkpoints):
        state = read_state(checkpoint)
        for name, tensor in network.state_dict().items():
            if name not in state:
                raise ValueError(
                    f"checkpoint {k} has no {name!r}{_checks.nearest(name, state)}: it is not of "
                    "this network"
                )
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"checkpoint {k} has {name!r} of shape {tuple(state[name].shape)}, the network "
                    f"of {tuple(tensor.shape)}"
                )


def check_rates(rates: float | Sequence[float], n: int) -> tuple[float, ...]:
    """Return n learning rates from as many, or from one for all."""
    values = tuple(rates) if isinstance(rates, Sequence) else (rates,) * n
    for rate in values:
        _checks.positive("a learning rate", rate)
    if len(values) != n:
        raise ValueError(
            f"{n} checkpoints need as many learning rates, got {len(values)}"
        )
    return values


def read_state(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Return the tensors of a checkpoint by name."""
    if isinstance(checkpoint, Mapping):
        return checkpoint

    path = Path(checkpoint)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"a checkpoint file must be .safetensors, which holds numbers and no code, got {path}: "
            "save one with safetensors.torch.save_file(model.state_dict(), ...), or give "
            "state_dicts"
        )
    from safetensors.torch import load_file  # slow to import

    loaded: dict[str, Tensor] = load_file(path)
    return loaded


@contextmanager
def visiting(network: nn.Module, checkpoint: Checkpoint) -> Iterator[None]:
    """Let the network have another state for a while."""
    live = network.state_dict()  # the network's own tensors
    before = {name: tensor.detach().clone() for name, tensor in live.items()}
    _write(live, read_state(checkpoint))
    try:
        yield
    finally:
        _write(live, before)


def _write(live: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(state[name])
