"""Multilayer perceptrons, with input scaling and random Fourier features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence._checks import count, number, one_of, positive
from whence._checks import seed as check_seed
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation, activation_of, name_of
from whence.pinn.networks.fourier import Fourier
from whence.pinn.networks.trainable_scale import TrainableScale

Adaptive = Literal["none", "layer", "neuron"]
"""What has a trainable slope of its activation."""
ADAPTIVE: tuple[Adaptive, ...] = ("none", "layer", "neuron")

Bounds = Sequence[Sequence[float]] | Tensor
"""Lowest and highest value of each input, shape (2, inputs)."""


MAX_PARAMETERS = 10**9
"""Parameters beyond which a network of this kind is a slip of the pen."""


@NETWORKS.named("mlp")
class MLP(nn.Module):
    """A fully connected network from (n, layers[0]) inputs to (n, layers[-1]) outputs.

    Inputs are first scaled, then mapped to Fourier features, where these are asked for.
    Weights are Glorot normal (variance 2 / (inputs + outputs)) and biases zero. What it returns
    is raw: the solution of a problem with an ansatz is ``result.solution(points)``.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers, outputs; at least two.
    activation
        Function between layers: the name of one of ``ACTIVATIONS``, or any function of a tensor,
        such as ``torch.relu``.
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
    adaptive
        Trainable slopes of the activation, ``σ(n a h)`` in place of ``σ(h)``: one a for each
        hidden layer or one for each of its neurons, 1/n at first (Jagtap, Kawaguchi &
        Karniadakis, arXiv 1906.01170 and 1909.12228), without the latter's slope recovery term.
    slope_factor
        n, at least 1: how fast slopes train.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn import MLP
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
        activation: str | Activation = "tanh",
        bounds: Bounds | None = None,
        fourier: Fourier | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
        scale_to: tuple[float, float] = (-1.0, 1.0),
        adaptive: Adaptive = "none",
        slope_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self._layers = checked_widths(layers)
        # The function for the network, the name for its folder.
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                f"dtype must be a floating-point torch.dtype, got {dtype!r}"
            )
        if fourier is not None and not isinstance(fourier, Fourier):
            raise TypeError(f"fourier must be a Fourier or None, got {fourier!r}")

        self._bounds: Tensor | None = None
        if bounds is not None:
            self._bounds = checked_bounds(bounds, self._layers[0])
        self._fourier = fourier
        self._scale_to = checked_range(scale_to)
        one_of("adaptive", adaptive, ADAPTIVE)
        positive("slope_factor", slope_factor)
        self._adaptive = adaptive
        self._slope_factor = float(slope_factor)

        generator: torch.Generator | None = None
        if seed is not None:
            check_seed("seed", seed)
            generator = torch.Generator().manual_seed(seed)

        slope, offset = input_scaling(self._bounds, self._scale_to, dtype)
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)
        widths = list(self._layers)
        frequencies = None
        if fourier is not None:
            frequencies = fourier.frequencies(widths[0], generator).to(dtype)
            widths[0] = 2 * fourier.features  # sines and cosines
        self.register_buffer("frequencies", frequencies)

        self.linears = nn.ModuleList()
        for inputs, outputs in itertools.pairwise(widths):
            self.linears.append(glorot(inputs, outputs, generator, dtype))

        self.slopes = nn.ModuleList()
        if adaptive != "none":
            n = self._slope_factor
            for width in self._layers[1:-1]:
                # n a is 1 at first: the network begins as it would without.
                features = width if adaptive == "neuron" else 1
                scale = TrainableScale(features, 1 / n, n, dtype)
                self.slopes.append(scale)

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
        # A copy: the scaling was computed from these numbers.
        return None if self._bounds is None else self._bounds.clone()

    @property
    def scale_to(self) -> tuple[float, float]:
        """The range that bounded inputs are scaled to."""
        return self._scale_to

    @property
    def fourier(self) -> Fourier | None:
        """The Fourier features, or ``None``."""
        return self._fourier

    @property
    def adaptive(self) -> Adaptive:
        """What has a trainable slope: none, each hidden layer, or each neuron."""
        return self._adaptive

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options: JsonObject = {
            "layers": list(self._layers),
            "activation": self._activation,
        }
        if self._bounds is not None:
            options["bounds"] = self._bounds.tolist()
            options["scale_to"] = list(self._scale_to)
        if self._fourier is not None:
            options["fourier"] = [self._fourier.features, self._fourier.scale]
        if self._adaptive != "none":
            options["adaptive"] = self._adaptive
            options["slope_factor"] = self._slope_factor
        return options

    @classmethod
    def from_options(cls, options: JsonObject) -> MLP:
        """Return a network of this architecture from what :meth:`options` returned.

        Raises
        ------
        ValueError
            If its activation is a function of the user's own, which has no name here.

        Examples
        --------
        >>> from whence.pinn import MLP
        >>> MLP.from_options(MLP([2, 8, 1], "sin").options())
        MLP([2, 8, 1], activation='sin', parameters=33)
        """
        arguments = dict(options)
        if arguments.get("fourier") is not None:
            features, scale = arguments["fourier"]
            arguments["fourier"] = Fourier(features, scale)
        return cls(**arguments)

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
            angles = F.linear(x, self.frequencies)  # 2πBx, (n, features)
            x = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

        for k, linear in enumerate(self.linears[:-1]):
            x = linear(x)
            if self.slopes:
                x = self.slopes[k](x)
            x = self._function(x)
        y: Tensor = self.linears[-1](x)
        return y

    def __repr__(self) -> str:
        parts = [str(list(self._layers)), f"activation={self._activation!r}"]
        if self._bounds is not None:
            parts.append(f"bounds={self._bounds.tolist()}")
            if self._scale_to != (-1.0, 1.0):
                parts.append(f"scale_to={self._scale_to}")
        if self._fourier is not None:
            parts.append(f"fourier={self._fourier}")
        if self._adaptive != "none":
            parts.append(f"adaptive={self._adaptive!r}")
            parts.append(f"slope_factor={self._slope_factor}")

        weight = next(self.parameters())
        if weight.dtype != torch.float64:
            parts.append(f"dtype={weight.dtype}")
        parts.append(f"parameters={sum(p.numel() for p in self.parameters())}")
        return f"MLP({', '.join(parts)})"


def input_scaling(
    bounds: Tensor | None, scale_to: tuple[float, float], dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Return a and b of x ↦ a·x + b, which maps bounds (2, d) to ``scale_to``; None for none."""
    if bounds is None:
        return None, None

    lowest, highest = bounds
    low, high = scale_to
    slope = (high - low) / (highest - lowest)
    offset = low - lowest * slope
    # Computed in float64, rounded once.
    return slope.to(dtype), offset.to(dtype)


def checked_widths(layers: Sequence[int]) -> tuple[int, ...]:
    """Return the widths of layers as a tuple, two or more positive integers."""
    layers = layers.tolist() if hasattr(layers, "tolist") else layers
    if not isinstance(layers, (list, tuple)) or len(layers) < 2:
        raise ValueError(
            f"layers must be at least two widths, as in [2, 32, 32, 1], got {layers!r}"
        )

    for k, width in enumerate(layers):
        count(f"layers[{k}]", width)

    widths = tuple(int(width) for width in layers)
    size = sum((n + 1) * m for n, m in itertools.pairwise(widths))
    if size > MAX_PARAMETERS:
        raise ValueError(
            f"layers {list(widths)} make {size} parameters, more than {MAX_PARAMETERS}: choose "
            "smaller widths"
        )
    return widths


def checked_range(scale_to: tuple[float, float]) -> tuple[float, float]:
    """Return (low, high), two finite numbers in rising order."""
    ends = tuple(scale_to) if isinstance(scale_to, Sequence) else ()
    if len(ends) != 2:
        raise ValueError(f"scale_to must be two finite numbers, got {scale_to!r}")

    low = number("scale_to[0]", ends[0])
    high = number("scale_to[1]", ends[1])
    if not low < high:
        raise ValueError(
            f"scale_to must be (low, high) with low < high, got {scale_to!r}"
        )

    return low, high


def checked_bounds(bounds: Bounds, inputs: int) -> Tensor:
    """Return bounds as a float64 tensor (2, inputs) of its own, low below high."""
    try:
        table = torch.as_tensor(bounds, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"bounds must be two rows of {inputs} numbers, lowest and highest value of each input, "
            f"got {bounds!r}"
        ) from None
    table = table.detach().clone()
    if table.shape != (2, inputs):
        raise ValueError(
            f"bounds must have shape (2, {inputs}), lowest and highest value of each of the "
            f"{inputs} inputs, got {tuple(table.shape)}"
        )

    lowest, highest = table
    bad = ~(torch.isfinite(table).all(dim=0) & (lowest < highest))
    if bool(bad.any()):
        k = int(bad.nonzero()[0])
        raise ValueError(
            f"bounds must be finite with low < high: input {k} has {table[:, k].tolist()}"
        )

    return table


def glorot(
    inputs: int, outputs: int, generator: torch.Generator | None, dtype: torch.dtype
) -> nn.Linear:
    """Return a linear layer with Glorot normal weights and no bias."""
    # nn.Linear's own initialization would draw from the global random state; memory by to_empty
    # would import torch's symbolic shapes, which takes longer than a small training.
    linear = nn.Linear(inputs, outputs, dtype=dtype, device="meta")

    # Drawn in float64 whatever the network's dtype, so that one seed means one network.
    weight = torch.randn(
        outputs, inputs, generator=generator, dtype=torch.float64, device="cpu"
    )
    # Variance 2/(inputs + outputs) keeps both activations and gradients of order one.
    deviation = math.sqrt(2 / (inputs + outputs))
    linear.weight = nn.Parameter((deviation * weight).to(dtype))
    linear.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype, device="cpu"))
    return linear
