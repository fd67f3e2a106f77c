"""Random Fourier features, put before the first layer of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whence._checks import count, positive


@dataclass(frozen=True)
class Fourier:
    """Random Fourier features x ↦ (sin 2πBx, cos 2πBx), fixed while the network trains.

    Tancik et al., *Fourier features let networks learn high frequency functions in low
    dimensional domains* (2020).

    Parameters
    ----------
    features
        Rows of B: the map has twice as many outputs.
    scale
        Standard deviation of the entries of B, which are normal with mean zero.

    Examples
    --------
    >>> Fourier(64, scale=2.0)
    Fourier(features=64, scale=2.0)
    """

    features: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        count("features", self.features)
        positive("scale", self.scale)

    def frequencies(self, inputs: int, generator: torch.Generator | None) -> Tensor:
        """Draw 2πB, float64 of shape (features, inputs)."""
        # In float64 whatever the network's dtype, so that one seed means one network.
        normal = torch.randn(
            self.features,
            inputs,
            generator=generator,
            dtype=torch.float64,
            device="cpu",
        )
        return 2 * math.pi * self.scale * normal
