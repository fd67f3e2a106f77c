"""What networks of the catalogue share: inputs scaled from a box, a seed, options for a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from whence import _checks
from whence._files import JsonObject
from whence.pinn.networks.mlp import (
    Bounds,
    checked_bounds,
    checked_widths,
    input_scaling,
)

Network = TypeVar("Network", bound="BoxedNetwork")

SCALED_TO = (-1.0, 1.0)
"""The range that bounded inputs are scaled to."""


class BoxedNetwork(nn.Module):
    """A network whose inputs are scaled from their bounds to [−1, 1].

    A subclass makes its layers, and says in :meth:`options` what else its constructor takes.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers, outputs.
    bounds
        Lowest and highest value of each input, shape (2, inputs); ``None`` leaves inputs as they
        are.
    dtype
        Floating-point type.

    Raises
    ------
    ValueError
        For widths, bounds or a type that cannot be.
    """

    slope: Tensor | None
    offset: Tensor | None

    def __init__(
        self, layers: Sequence[int], bounds: Bounds | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._layers = checked_widths(layers)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                f"dtype must be a floating-point torch.dtype, got {dtype!r}"
            )

        # A tensor of its own, as the scaling is computed from these numbers.
        table = None
        if bounds is not None:
            inputs = self._layers[0]
            table = checked_bounds(bounds, inputs)
        self._bounds = table

        # ẑ = a z + b with a = 2/(high − low) and b = −1 − a low.
        slope, offset = input_scaling(
            table,
            SCALED_TO,
            dtype,
        )
        # Buffers, so that they move with the network and stand in its checkpoint.
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of inputs, hidden layers and outputs."""
        return self._layers

    @property
    def bounds(self) -> Tensor | None:
        """Input bounds, shape (2, inputs), or ``None``."""
        bounds = self._bounds
        if bounds is None:
            return None
        # A copy: the scaling was computed from these numbers.
        return bounds.clone()

    def scaled(self, x: Tensor) -> Tensor:
        """Return inputs (n, inputs) as the first layer sees them.

        Raises
        ------
        ValueError
            If there are more or fewer of them.
        """
        # Checked here because a single column would broadcast through the scaling.
        inputs = self._layers[0]
        if x.shape[-1] != inputs:
            shape = tuple(x.shape)
            raise ValueError(f"x must have shape (n, {inputs}), got {shape}")

        slope = self.slope
        offset = self.offset
        if slope is None or offset is None:
            return x
        return x * slope + offset

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options: JsonObject = {"layers": list(self._layers)}
        if self._bounds is not None:
            options["bounds"] = self._bounds.tolist()
        return options

    @classmethod
    def from_options(cls: type[Network], options: JsonObject) -> Network:
        """Return a network of this architecture from what :meth:`options` returned."""
        return cls(**options)

    def __repr__(self) -> str:
        options = self.options()
        widths = options.pop("layers")
        parts = [str(widths)]
        for name, value in options.items():
            part = f"{name}={value!r}"
            parts.append(part)

        # Two networks that differ in this alone would otherwise look the same.
        parameters = list(self.parameters())
        dtype = parameters[0].dtype
        if dtype != torch.float64:
            parts.append(f"dtype={dtype}")

        # What its budget is, which widths alone do not tell of all kinds.
        sizes = [parameter.numel() for parameter in parameters]
        parts.append(f"parameters={sum(sizes)}")

        kind = type(self).__name__
        inside = ", ".join(parts)
        return f"{kind}({inside})"


def generator_of(seed: int | None) -> torch.Generator | None:
    """Return what draws the parameters: of a seed its own, None for the global random state."""
    if seed is None:
        return None

    _checks.seed("seed", seed)
    # Its own, so that the global random state stays as it was.
    generator = torch.Generator()
    return generator.manual_seed(seed)


def hidden_width(layers: Sequence[int], what: str) -> int:
    """Return the one width of all hidden layers.

    Raises
    ------
    ValueError
        If there is no hidden layer, or two of different widths.
    """
    # Inputs and outputs are no hidden layers.
    hidden = layers[1:-1]
    widths = set(hidden)
    if len(widths) != 1:
        raise ValueError(
            f"{what} has hidden layers of one width, as in [2, 32, 32, 1], got {list(layers)}"
        )
    return widths.pop()
