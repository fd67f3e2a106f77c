"""Sinusoidal representation networks: sines between layers, and the start that keeps them even."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.boxed import BoxedNetwork, generator_of
from whence.pinn.networks.mlp import Bounds


@NETWORKS.named("siren")
class SIREN(BoxedNetwork):
    """A network with sines between its layers, ``h ↦ sin ω₀(W h + b)`` (SIREN).

    Weights of a layer of n inputs are uniform between ±√(6/n)/ω₀, of the first between ±1/n,
    biases between ±1/√n: so the arguments of all sines have the same spread at the start
    (Sitzmann et al., arXiv 2006.09661, section 3.2). Derivatives are networks of the same kind.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers, outputs.
    omega
        ω₀, the highest frequency at the start, in radians over the half box. The paper takes 30,
        of images; solutions that vary over 1/ω₀ of the half box want ω₀.
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
    >>> pinn.SIREN([2, 32, 32, 1], omega=8.0, seed=0)
    SIREN([2, 32, 32, 1], omega=8.0, parameters=1185)
    """

    def __init__(
        self,
        layers: Sequence[int],
        omega: float = 30.0,
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(layers, bounds, dtype)
        _checks.positive("omega", omega)
        self._omega = float(omega)
        generator = generator_of(seed)

        self.linears = nn.ModuleList()
        for inputs, outputs in itertools.pairwise(self.layers):
            # sin² is 1/2 on average and w² is limit²/3, so that n terms ω₀ w sin add up to
            # variance ω₀² n limit²/6: one with this limit.
            limit = math.sqrt(6 / inputs) / self._omega
            if not self.linears:
                # Of the first layer the argument is ω₀ W x, x in [−1, 1]: waves of up to ω₀.
                limit = 1 / inputs
            linear = _uniform(
                inputs,
                outputs,
                limit,
                generator,
                dtype,
            )
            self.linears.append(linear)

    @property
    def omega(self) -> float:
        """ω₀."""
        return self._omega

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        *hidden, last = self.linears
        h = self.scaled(x)
        for linear in hidden:
            argument = self._omega * linear(h)
            h = torch.sin(argument)

        y: Tensor = last(h)
        return y

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["omega"] = self._omega
        return options


def _uniform(
    inputs: int,
    outputs: int,
    limit: float,
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> nn.Linear:
    """Return a linear layer with weights uniform between ±limit and biases between ±1/√inputs."""
    # Drawn in float64 whatever the dtype, so that one seed means one network.
    uniform = torch.rand(
        outputs,
        inputs + 1,
        generator=generator,
        dtype=torch.float64,
    )
    # Uniform between −1 and 1: a column for each input, and one for the bias.
    symmetric = 2 * uniform - 1
    of_weight = symmetric[:, :-1]
    of_bias = symmetric[:, -1]

    # Without torch's own initialization, which draws from the global random state.
    linear = skip_init(nn.Linear, inputs, outputs, dtype=dtype)
    with torch.no_grad():
        weight = limit * of_weight
        linear.weight.copy_(weight)
        bias = of_bias / math.sqrt(inputs)
        linear.bias.copy_(bias)
    return linear
