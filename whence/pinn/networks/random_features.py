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
from whence.pinn.networks.boxed import BoxedNetwork, generator_of
from whence.pinn.networks.last_layer import fit_last_layer
from whence.pinn.networks.mlp import Bounds

PERIODIC = ("sin",)
"""Activations of which a phase, not a center, places a feature."""


@NETWORKS.named("random_features")
class RandomFeatures(BoxedNetwork):
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
        super().__init__(layers, bounds, dtype)
        if len(self.layers) != 3:
            raise ValueError(
                "layers must be three widths, inputs, features and outputs, as in [2, 300, 1], got "
                f"{list(self.layers)}"
            )
        inputs, features, outputs = self.layers
        _checks.positive("scale", scale)
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        if self._activation not in PERIODIC and not scale > 1:
            raise ValueError(
                f"scale must be above 1, the least slope of a {self._activation} feature, got "
                f"{scale!r}"
            )
        self._scale = float(scale)
        self._trainable = trainable

        # Drawn in float64 whatever the dtype, so that one seed means one network.
        weight, bias = self._drawn(inputs, features, generator_of(seed))
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
    def scale(self) -> float:
        """Of the features, in units of the half box."""
        return self._scale

    def set_features(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the features by others of weights (features, inputs) and biases (features,)."""
        with torch.no_grad():
            self.hidden.weight.copy_(weight)
            self.hidden.bias.copy_(bias)

    def fit(self, points: Tensor, values: Tensor) -> None:
        """Solve the last layer so that outputs at points (n, inputs) are values (n, outputs)."""
        with torch.no_grad():
            features = self._function(self.hidden(self.scaled(points)))
        fit_last_layer(self.last, features, values)

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
        y: Tensor = self.last(self._function(self.hidden(self.scaled(x))))
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["activation"] = self._activation
        options["scale"] = self._scale
        options["trainable"] = self._trainable
        return options

    def __repr__(self) -> str:
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return (
            f"RandomFeatures({list(self.layers)}, activation={self._activation!r}, "
            f"scale={self._scale}, trained={trained})"
        )
