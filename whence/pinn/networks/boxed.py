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

        self._bounds: Tensor | None = None
        if bounds is not None:
            self._bounds = checked_bounds(bounds, self._layers[0])

        slope, offset = input_scaling(self._bounds, (-1.0, 1.0), dtype)
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of inputs, hidden layers and outputs."""
        return self._layers

    @property
    def bounds(self) -> Tensor | None:
        """Input bounds, shape (2, inputs), or ``None``."""
        # A copy: the scaling was computed from these numbers.
        return None if self._bounds is None else self._bounds.clone()

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
            raise ValueError(f"x must have shape (n, {inputs}), got {tuple(x.shape)}")

        if self.slope is None or self.offset is None:
            return x
        return x * self.slope + self.offset

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
        parts = [str(options.pop("layers"))]
        for name, value in options.items():
            parts.append(f"{name}={value!r}")

        # Two networks that differ in this alone would otherwise look the same.
        dtype = next(self.parameters()).dtype
        if dtype != torch.float64:
            parts.append(f"dtype={dtype}")

        count = sum(parameter.numel() for parameter in self.parameters())
        parts.append(f"parameters={count}")
        return f"{type(self).__name__}({', '.join(parts)})"


def generator_of(seed: int | None) -> torch.Generator | None:
    """Return what draws the parameters: of a seed its own, None for the global random state."""
    if seed is None:
        return None
    _checks.seed("seed", seed)
    return torch.Generator().manual_seed(seed)


def hidden_width(layers: Sequence[int], what: str) -> int:
    """Return the one width of all hidden layers.

    Raises
    ------
    ValueError
        If there is no hidden layer, or two of different widths.
    """
    widths = set(layers[1:-1])
    if len(widths) != 1:
        raise ValueError(
            f"{what} has hidden layers of one width, as in [2, 32, 32, 1], got {list(layers)}"
        )
    return widths.pop()
