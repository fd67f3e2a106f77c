"""What networks of features have in common: a hidden layer, and a last layer solved for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from whence import _checks
from whence.pinn.networks.boxed import BoxedNetwork
from whence.pinn.networks.last_layer import fit_last_layer
from whence.pinn.networks.mlp import Bounds
from whence.pinn.networks.placement import Placement


class Features(BoxedNetwork):
    """One hidden layer of features that can be placed, and a last layer.

    A subclass draws its features, and says in :meth:`features` what they are at scaled inputs and
    in :meth:`place` where they go by a solution that is known roughly.

    Parameters
    ----------
    layers
        Widths: inputs, features, outputs.
    scale
        Of the features, in units of the half box.
    bounds
        Lowest and highest value of each input, shape (2, inputs); ``None`` leaves inputs as they
        are.
    columns
        Inputs of the hidden layer, which may be more than the network's own.
    dtype
        Floating-point type.

    Raises
    ------
    ValueError
        If there are not three widths, or the scale is not positive.
    """

    def __init__(
        self,
        layers: Sequence[int],
        scale: float,
        bounds: Bounds | None,
        columns: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(layers, bounds, dtype)
        if len(self.layers) != 3:
            raise ValueError(
                "layers must be three widths, inputs, features and outputs, as in [2, 300, 1], got "
                f"{list(self.layers)}"
            )
        _checks.positive("scale", scale)
        self._scale = float(scale)
        _, features, outputs = self.layers

        # Without torch's own initialization, which draws from the global random state.
        self.hidden = skip_init(nn.Linear, columns, features, dtype=dtype)
        self.last = skip_init(nn.Linear, features, outputs, dtype=dtype)
        with torch.no_grad():
            # Zero is as good a start as any where the last layer is solved for.
            self.last.weight.zero_()
            self.last.bias.zero_()

    @property
    def scale(self) -> float:
        """Of the features, in units of the half box."""
        return self._scale

    @abstractmethod
    def features(self, scaled: Tensor) -> Tensor:
        """Return all features at scaled inputs (n, inputs): (n, features)."""

    @abstractmethod
    def place(
        self,
        placement: Placement,
        points: Tensor,
        gradients: Tensor,
        time: int | None,
        generator: torch.Generator,
    ) -> None:
        """Draw the features again, one at each of as many points.

        Parameters
        ----------
        placement:
            How features follow the steep places of a solution.
        points:
            Where, (features, inputs).
        gradients:
            Of the solution there along all inputs but time, (features, s).
        time:
            Which input is time, None for none.
        generator:
            What draws.
        """

    def set_features(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the hidden layer's weights (features, columns) and biases (features,)."""
        with torch.no_grad():
            self.hidden.weight.copy_(weight)
            self.hidden.bias.copy_(bias)

    def fit(self, points: Tensor, values: Tensor) -> None:
        """Solve the last layer so that outputs at points (n, inputs) are values (n, outputs)."""
        with torch.no_grad():
            features = self.features(self.scaled(points))
        fit_last_layer(self.last, features, values)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        outputs: Tensor = self.last(self.features(self.scaled(x)))
        return outputs
