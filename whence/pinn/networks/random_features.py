"""One hidden layer of random features that stay, and a last layer that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation, activation_of, name_of
from whence.pinn.networks.mlp import (
    Bounds,
    checked_bounds,
    checked_widths,
    input_scaling,
)
from whence.triangular import Triangle

FIT_RIDGE = 1e-12
"""Weight of the last layer's own norm where it is fitted to values."""
PERIODIC = ("sin",)
"""Activations of which a phase, not a center, places a feature."""


@NETWORKS.named("random_features")
class RandomFeatures(nn.Module):
    """Random features and a last layer: ``N(z) = Σ_j c_j σ(w_j·ẑ + b_j) + c_0``, w and b fixed.

    ẑ are the inputs scaled to [−1, 1]. Only c trains (Rahimi & Recht 2007; of PDEs: Dwivedi &
    Srinivasan, arXiv 1907.03507; Dong & Li, arXiv 2012.02895), which :class:`whence.pinn.VarPro`
    does exactly. For a linear equation training is then one linear least-squares problem, and
    influence on it is exact too: nothing else depends on the training points.

    With ``sin`` the entries of w_j are uniform in [−scale, scale] and phases uniform. With other
    activations a feature has a center, uniform in the box, a direction, uniform, and a slope
    ``|w_j|``, log-uniform from 1 to ``scale``. Both suit a solution that varies over 1/scale of
    the box.

    Parameters
    ----------
    layers
        Widths: inputs, features, outputs.
    activation
        σ, as in :class:`whence.pinn.MLP`.
    scale
        Of the features, in units of the half box.
    bounds
        Lowest and highest value of each input, shape (2, inputs); ``None`` leaves inputs as they
        are.
    trainable
        Whether w and b train too.
    seed
        Equal seeds draw equal features; ``None`` draws from the global random state.
    dtype
        Floating-point type.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.RandomFeatures([2, 300, 1], "sin", scale=12.0, seed=0)
    >>> network
    RandomFeatures([2, 300, 1], activation='sin', scale=12.0, trained=301)
    """

    slope: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        layers: Sequence[int],
        activation: str | Activation = "tanh",
        scale: float = 3.0,
        bounds: Bounds | None = None,
        trainable: bool = False,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        widths = checked_widths(layers)
        if len(widths) != 3:
            raise ValueError(
                "layers must be three widths, inputs, features and outputs, as in [2, 300, 1], got "
                f"{list(widths)}"
            )
        inputs, features, outputs = widths
        _checks.positive("scale", scale)
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        if self._activation not in PERIODIC and not scale > 1:
            raise ValueError(
                f"scale must be above 1, the least slope of a {self._activation} feature, got "
                f"{scale!r}"
            )
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(
                f"dtype must be a floating-point torch.dtype, got {dtype!r}"
            )
        self._scale = float(scale)
        self._trainable = trainable
        self._bounds: Tensor | None = None
        if bounds is not None:
            self._bounds = checked_bounds(bounds, inputs)
        slope, offset = input_scaling(self._bounds, (-1.0, 1.0), dtype)
        self.register_buffer("slope", slope)
        self.register_buffer("offset", offset)

        generator: torch.Generator | None = None
        if seed is not None:
            _checks.seed("seed", seed)
            generator = torch.Generator().manual_seed(seed)
        # Drawn in float64 whatever the dtype, so that one seed means one network.
        weight, bias = self._drawn(inputs, features, generator)
        # Without torch's own initialization, which draws from the global random state.
        self.hidden = skip_init(nn.Linear, inputs, features, dtype=dtype)
        self.last = skip_init(nn.Linear, features, outputs, dtype=dtype)
        with torch.no_grad():
            self.hidden.weight.copy_(weight)
            self.hidden.bias.copy_(bias)
            # Zero is as good a start as any where the last layer is solved for.
            self.last.weight.zero_()
            self.last.bias.zero_()
        self.hidden.requires_grad_(trainable)

    @property
    def layers(self) -> tuple[int, int, int]:
        """Numbers of inputs, features and outputs."""
        hidden = self.hidden
        return hidden.in_features, hidden.out_features, self.last.out_features

    @property
    def scale(self) -> float:
        """Of the features, in units of the half box."""
        return self._scale

    def set_features(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the features by others of weights (features, inputs) and biases (features,)."""
        with torch.no_grad():
            self.hidden.weight.copy_(weight)
            self.hidden.bias.copy_(bias)

    def scaled(self, points: Tensor) -> Tensor:
        """Return points (n, inputs) as the features see them."""
        if self.slope is None or self.offset is None:
            return points
        return points * self.slope + self.offset

    def fit(self, points: Tensor, values: Tensor) -> None:
        """Solve the last layer so that outputs at points (n, inputs) are values (n, outputs)."""
        with torch.no_grad():
            features = self._function(self.hidden(self.scaled(points)))
        one = torch.ones_like(features[:, :1])
        rows = torch.cat([features, one], dim=1)
        for k, column in enumerate(values.unbind(1)):
            solution = Triangle.of_rows(rows, -column).least_squares(FIT_RIDGE)
            with torch.no_grad():
                self.last.weight[k] = solution[:-1]
                self.last.bias[k] = solution[-1]

    def _drawn(
        self, inputs: int, features: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return weights (features, inputs) and biases (features,) of the features."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        if self._activation in PERIODIC:
            weight = self._scale * (2 * uniform(features, inputs) - 1)
            phase = math.pi * (2 * uniform(features) - 1)
            return weight, phase

        direction = torch.randn(
            features, inputs, generator=generator, dtype=torch.float64
        )
        direction /= direction.norm(dim=1, keepdim=True)
        # Log-uniform: as many features of any size between 1 and the scale.
        slope = torch.exp(math.log(self._scale) * uniform(features, 1))
        weight = slope * direction
        center = 2 * uniform(features, inputs) - 1
        return weight, -(weight * center).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        if x.shape[-1] != self.hidden.in_features:
            raise ValueError(
                f"x must have shape (n, {self.hidden.in_features}), got {tuple(x.shape)}"
            )
        y: Tensor = self.last(self._function(self.hidden(self.scaled(x))))
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options: JsonObject = {
            "layers": list(self.layers),
            "activation": self._activation,
            "scale": self._scale,
            "trainable": self._trainable,
        }
        if self._bounds is not None:
            options["bounds"] = self._bounds.tolist()
        return options

    @classmethod
    def from_options(cls, options: JsonObject) -> RandomFeatures:
        """Return a network of this architecture from what :meth:`options` returned."""
        return cls(**options)

    def __repr__(self) -> str:
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return (
            f"RandomFeatures({list(self.layers)}, activation={self._activation!r}, "
            f"scale={self._scale}, trained={trained})"
        )
