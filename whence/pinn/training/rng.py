"""The state of torch's random numbers, which dropout and its like draw from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from ``seed`` inside, on the CPU and on ``device``; leave the caller's state alone."""
    with kept(device):
        torch.default_generator.manual_seed(int(seed))  # NumPy's integers are none
        if device.type == "cuda":
            # A device has a generator of its own, which manual_seed above does not reach alone.
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)

        yield


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Put the state at the entry back at the exit."""
    before = states(device)
    try:
        yield
    finally:
        put_back(before, device)


def states(device: torch.device) -> dict[str, Tensor]:
    """Return the state of each generator in use, by the kind of its device."""
    by_device = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        by_device["cuda"] = torch.cuda.get_rng_state(device)
    return by_device


def put_back(by_device: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on from states that :func:`states` returned; one of another device stays unused."""
    torch.set_rng_state(by_device["cpu"])
    # A run that began on the CPU has no state of a GPU to go on from.
    if device.type == "cuda" and "cuda" in by_device:
        torch.cuda.set_rng_state(by_device["cuda"], device)
