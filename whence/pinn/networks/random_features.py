"""One hidden layer of random features that stay, and a last layer that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation, activation_of, name_of
from whence.pinn.networks.boxed import generator_of
from whence.pinn.networks.features import Features
from whence.pinn.networks.mlp import Bounds
from whence.pinn.networks.placement import Placement

PERIODIC = ("sin",)
"""Activations of which a phase, not a center, places a feature."""


@NETWORKS.named("random_features")
class RandomFeatures(Features):
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
        super().__init__(layers, scale, bounds, layers[0], dtype)
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        if self._activation not in PERIODIC and not scale > 1:
            raise ValueError(
                f"scale must be above 1, the least slope of a {self._activation} feature, got "
                f"{scale!r}"
            )
        self._trainable = trainable

        # Drawn in float64 whatever the dtype, so that one seed means one network.
        inputs, features, _ = self.layers
        weight, bias = self._drawn(inputs, features, generator_of(seed))
        self.set_features(weight, bias)
        self.hidden.requires_grad_(trainable)

    def features(self, scaled: Tensor) -> Tensor:
        """Return σ(w_j·ẑ + b_j) at scaled inputs (n, inputs): (n, features)."""
        return self._function(self.hidden(scaled))

    def place(
        self,
        placement: Placement,
        points: Tensor,
        gradients: Tensor,
        time: int | None,
        generator: torch.Generator,
    ) -> None:
        """Draw the features again, one at each of as many points."""
        weight, bias = placement.features(
            self.scaled(points), gradients, self.scale, time, generator
        )
        self.set_features(weight, bias)

    def _drawn(
        self, inputs: int, features: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return weights (features, inputs) and biases (features,) of the features."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        if self._activation in PERIODIC:
            weight = self.scale * (2 * uniform(features, inputs) - 1)
            phase = math.pi * (2 * uniform(features) - 1)
            return weight, phase

        direction = torch.randn(
            features, inputs, generator=generator, dtype=torch.float64
        )
        direction /= direction.norm(dim=1, keepdim=True)
        # Log-uniform: as many features of any size between 1 and the scale.
        slope = torch.exp(math.log(self.scale) * uniform(features, 1))
        weight = slope * direction
        center = 2 * uniform(features, inputs) - 1
        return weight, -(weight * center).sum(dim=1)

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["activation"] = self._activation
        options["scale"] = self.scale
        options["trainable"] = self._trainable
        return options

    def __repr__(self) -> str:
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return (
            f"RandomFeatures({list(self.layers)}, activation={self._activation!r}, "
            f"scale={self.scale}, trained={trained})"
        )
