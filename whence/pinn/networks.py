"""Multilayer perceptrons, with input scaling and random Fourier features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence._checks import count, number, one_of, positive

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "sin": torch.sin,
    "silu": F.silu,
}


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


class MLP(nn.Module):
    """A fully connected network from (n, layers[0]) inputs to (n, layers[-1]) outputs.

    Inputs are first scaled, then mapped to Fourier features, where these are asked for.
    Weights are Glorot normal (variance 2 / (inputs + outputs)) and biases zero.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers, outputs; at least two.
    activation
        Name of the function between layers, one of ``ACTIVATIONS``.
    bounds
        Lowest and highest value of each input, shape (2, layers[0]): inputs are scaled from
        these to ``scale_to``. ``None`` leaves them as they are.
    scale_to
        The range that bounded inputs are scaled to.
    fourier
        Random features put before the first layer.
    seed
        Equal seeds draw equal parameters, up to rounding in any dtype, and leave the global
        random state alone; ``None`` draws from the global one.
    dtype
        Floating-point type of parameters and buffers.

    Examples
    --------
    >>> network = MLP([2, 32, 32, 1], bounds=[[-1, 0], [1, 2]], seed=0)
    >>> network
    MLP([2, 32, 32, 1], activation='tanh', bounds=[[-1.0, 0.0], [1.0, 2.0]], parameters=1185)
    >>> network(torch.zeros(5, 2, dtype=torch.float64)).shape
    torch.Size([5, 1])
    """

    slope: Tensor | None
    offset: Tensor | None
    frequencies: Tensor | None

    def __init__(
        self,
        layers: Sequence[int],
        activation: str = "tanh",
        bounds: Any = None,
        fourier: Fourier | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
        scale_to: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self._layers = _widths(layers)
        one_of("activation", activation, ACTIVATIONS)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                f"dtype must be a floating-point torch.dtype, got {dtype!r}"
            )
        if fourier is not None and not isinstance(fourier, Fourier):
            raise TypeError(f"fourier must be a Fourier or None, got {fourier!r}")
        self._activation = activation
        self._bounds = None if bounds is None else _bounds(bounds, self._layers[0])
        self._fourier = fourier
        self._scale_to = _range(scale_to)

        slope, offset = self._scaling()
        self.register_buffer("slope", None if slope is None else slope.to(dtype))
        self.register_buffer("offset", None if offset is None else offset.to(dtype))
        generator = _generator(seed)
        widths = list(self._layers)
        frequencies = None
        if fourier is not None:
            frequencies = (
                2
                * math.pi
                * fourier.scale
                * _normal(fourier.features, widths[0], generator)
            )
            frequencies = frequencies.to(dtype)
            widths[0] = 2 * fourier.features
        self.register_buffer("frequencies", frequencies)
        self.linears = nn.ModuleList(
            _glorot(inputs, outputs, generator, dtype)
            for inputs, outputs in itertools.pairwise(widths)
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of inputs, hidden layers and outputs."""
        return self._layers

    @property
    def activation(self) -> str:
        """Name of the activation."""
        return self._activation

    @property
    def bounds(self) -> Tensor | None:
        """Input bounds, shape (2, layers[0]), or ``None``."""
        return None if self._bounds is None else self._bounds.clone()

    @property
    def scale_to(self) -> tuple[float, float]:
        """The range that bounded inputs are scaled to."""
        return self._scale_to

    @property
    def fourier(self) -> Fourier | None:
        """The Fourier features, or ``None``."""
        return self._fourier

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, layers[-1]), at inputs of shape (n, layers[0])."""
        # Checked here because a single column would broadcast through the scaling.
        if x.shape[-1] != self._layers[0]:
            raise ValueError(
                f"x must have shape (n, {self._layers[0]}), got {tuple(x.shape)}"
            )
        if self.slope is not None and self.offset is not None:
            x = x * self.slope + self.offset
        if self.frequencies is not None:
            angles = F.linear(x, self.frequencies)
            x = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
        activation = ACTIVATIONS[self._activation]
        for linear in self.linears[:-1]:
            x = activation(linear(x))
        y: Tensor = self.linears[-1](x)
        return y

    def __repr__(self) -> str:
        said = [str(list(self._layers)), f"activation={self._activation!r}"]
        if self._bounds is not None:
            said.append(f"bounds={self._bounds.tolist()}")
            if self._scale_to != (-1.0, 1.0):
                said.append(f"scale_to={self._scale_to}")
        if self._fourier is not None:
            said.append(f"fourier={self._fourier}")
        weight = next(self.parameters())
        if weight.dtype != torch.float64:
            said.append(f"dtype={weight.dtype}")
        said.append(f"parameters={sum(p.numel() for p in self.parameters())}")
        return f"MLP({', '.join(said)})"

    def _scaling(self) -> tuple[Tensor | None, Tensor | None]:
        if self._bounds is None:
            return None, None
        low, high = self._scale_to
        slope = (high - low) / (self._bounds[1] - self._bounds[0])
        return slope, low - self._bounds[0] * slope


def _widths(layers: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(layers, (list, tuple)) or len(layers) < 2:
        raise ValueError(
            f"layers must be at least two widths, as in [2, 32, 32, 1], got {layers!r}"
        )
    for k, width in enumerate(layers):
        count(f"layers[{k}]", width)
    return tuple(layers)


def _range(scale_to: tuple[float, float]) -> tuple[float, float]:
    ends = tuple(scale_to) if isinstance(scale_to, Sequence) else ()
    if len(ends) != 2:
        raise ValueError(f"scale_to must be two finite numbers, got {scale_to!r}")
    low, high = (number(f"scale_to[{k}]", end) for k, end in enumerate(ends))
    if not low < high:
        raise ValueError(
            f"scale_to must be (low, high) with low < high, got {scale_to!r}"
        )
    return low, high


def _bounds(bounds: Any, inputs: int) -> Tensor:
    given = torch.as_tensor(bounds, dtype=torch.float64, device="cpu").detach().clone()
    if given.shape != (2, inputs):
        raise ValueError(
            f"bounds must have shape (2, {inputs}), lowest and highest value of each of the "
            f"{inputs} inputs, got {tuple(given.shape)}"
        )
    bad = ~(torch.isfinite(given).all(dim=0) & (given[0] < given[1]))
    if bool(bad.any()):
        k = int(bad.nonzero()[0])
        raise ValueError(
            f"bounds must be finite with low < high: input {k} has {given[:, k].tolist()}"
        )
    return given


def _generator(seed: int | None) -> torch.Generator | None:
    if seed is None:
        return None
    count("seed", seed, zero=True)
    return torch.Generator().manual_seed(seed)


def _normal(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    # Drawn in float64 whatever the network's dtype, so that one seed means one network.
    return torch.randn(
        rows, columns, generator=generator, dtype=torch.float64, device="cpu"
    )


def _glorot(
    inputs: int, outputs: int, generator: torch.Generator | None, dtype: torch.dtype
) -> nn.Linear:
    # nn.Linear's own initialisation would draw from the global random state.
    linear = nn.Linear(inputs, outputs, dtype=dtype, device="meta").to_empty(
        device="cpu"
    )
    with torch.no_grad():
        linear.weight.copy_(
            math.sqrt(2 / (inputs + outputs)) * _normal(outputs, inputs, generator)
        )
        linear.bias.zero_()
    return linear
