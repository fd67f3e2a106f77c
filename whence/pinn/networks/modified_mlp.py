"""Multilayer perceptrons whose hidden layers choose between two encodings of the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation, activation_of, name_of
from whence.pinn.networks.boxed import BoxedNetwork, generator_of, hidden_width
from whence.pinn.networks.mlp import Bounds, glorot


@NETWORKS.named("modified_mlp")
class ModifiedMLP(BoxedNetwork):
    """A multilayer perceptron whose hidden layers mix two encodings of the inputs.

    With ``U = σ(W_u x + b_u)`` and ``V = σ(W_v x + b_v)`` a layer takes h to
    ``(1 − Z) U + Z V``, ``Z = σ(W h + b)``: inputs reach every layer, and gradients the inputs
    (Wang, Teng & Perdikaris, arXiv 2001.04536, section 2.6).

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers of one width, outputs.
    activation
        σ, as in :class:`whence.pinn.MLP`.
    bounds
        Lowest and highest value of each input, shape (2, inputs), which are scaled to [−1, 1];
        ``None`` leaves inputs as they are.
    seed
        Equal seeds draw equal parameters; ``None`` draws from the global random state.
    dtype
        Floating-point type.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.ModifiedMLP([2, 32, 32, 1], seed=0)
    ModifiedMLP([2, 32, 32, 1], activation='tanh', parameters=1377)
    """

    def __init__(
        self,
        layers: Sequence[int],
        activation: str | Activation = "tanh",
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(layers, bounds, dtype)
        inputs, *hidden, outputs = self.layers
        width = hidden_width(self.layers, "a modified MLP")
        # The function for the network, the name for its folder.
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        generator = generator_of(seed)

        self.gates = Gates(
            inputs,
            width,
            self._function,
            generator,
            dtype,
        )
        self.linears = nn.ModuleList()
        # The first takes the inputs, each other what comes of the one before.
        incoming = inputs
        for outgoing in hidden:
            linear = glorot(
                incoming,
                outgoing,
                generator,
                dtype,
            )
            self.linears.append(linear)
            incoming = outgoing
        self.last = glorot(width, outputs, generator, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        h = self.scaled(x)
        # U and V are of the inputs, whatever the layer.
        first, difference = self.gates(h)
        for linear in self.linears:
            z = self._function(linear(h))
            # (1 − Z) U + Z V = U + Z (V − U): one product in place of two.
            h = first + z * difference

        y: Tensor = self.last(h)
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["activation"] = self._activation
        return options


class Gates(nn.Module):
    """Two encodings U and V of the inputs, of which layers choose; given as U and V − U."""

    def __init__(
        self,
        inputs: int,
        width: int,
        function: Activation,
        generator: torch.Generator | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._function = function
        # Drawn alike and apart: equal ones would leave nothing to choose.
        self.first = glorot(inputs, width, generator, dtype)
        self.second = glorot(inputs, width, generator, dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return U and V − U, each (n, width), at inputs (n, inputs)."""
        to_first = self.first(x)
        to_second = self.second(x)
        u = self._function(to_first)
        v = self._function(to_second)
        # What layers multiply by, made once for all of them.
        difference = v - u
        return u, difference
