"""Networks that begin as a linear map of Fourier features and grow deep as they train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation, activation_of, name_of
from whence.pinn.networks.boxed import BoxedNetwork, generator_of, hidden_width
from whence.pinn.networks.last_layer import fit_last_layer
from whence.pinn.networks.mlp import Bounds, glorot
from whence.pinn.networks.modified_mlp import Gates
from whence.pinn.networks.trainable_scale import TrainableScale


@NETWORKS.named("pirate_net")
class PirateNet(BoxedNetwork):
    """Gated residual blocks whose share α is trained from zero.

    The embedding is ``Φ(x) = (cos Bx, sin Bx)``, B normal and fixed, its gates
    ``U = σ(W_u Φ + b_u)`` and ``V = σ(W_v Φ + b_v)``. A block takes h to ``α H + (1 − α) h``, where
    H is three layers of h, of which the first two are gated as in
    :class:`whence.pinn.ModifiedMLP`. As α is 0 at first, the network begins as a linear map
    of Φ, whatever its depth (Wang, Li, Chen & Perdikaris, arXiv 2402.00326).

    Parameters
    ----------
    layers
        Widths: inputs, one even width for each block, outputs.
    activation
        σ, as in :class:`whence.pinn.MLP`.
    scale
        Standard deviation of the entries of B, in radians over the half box.
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
    >>> pinn.PirateNet([2, 32, 32, 1], seed=0)
    PirateNet([2, 32, 32, 1], activation='tanh', scale=2.0, parameters=8483)
    """

    frequencies: Tensor

    def __init__(
        self,
        layers: Sequence[int],
        activation: str | Activation = "tanh",
        scale: float = 2.0,
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(layers, bounds, dtype)
        inputs, *hidden, outputs = self.layers
        # Blocks add to what comes in, which is as wide as what they make.
        width = hidden_width(self.layers, "a PirateNet")
        if width % 2:
            even = width + 1
            raise ValueError(
                f"hidden layers of a PirateNet hold as many cosines as sines: {width} is odd, take "
                f"{even}"
            )

        _checks.positive("scale", scale)
        # The function for the network, the name for its folder.
        self._function = activation_of(activation)
        self._activation = name_of(activation)
        self._scale = float(scale)
        generator = generator_of(seed)

        # Drawn in float64 whatever the dtype, so that one seed means one network.
        normal = torch.randn(
            width // 2,
            inputs,
            generator=generator,
            dtype=torch.float64,
        )
        frequencies = self._scale * normal
        self.register_buffer("frequencies", frequencies.to(dtype))

        # Gates take the embedding, which is as wide as every block.
        self.gates = Gates(
            width,
            width,
            self._function,
            generator,
            dtype,
        )
        self.blocks = nn.ModuleList()
        for _ in hidden:
            block = Block(
                width,
                self._function,
                generator,
                dtype,
            )
            self.blocks.append(block)
        self.last = glorot(
            width,
            outputs,
            generator,
            dtype,
        )

    @property
    def scale(self) -> float:
        """Standard deviation of the frequencies of the embedding."""
        return self._scale

    def embedding(self, x: Tensor) -> Tensor:
        """Return ``Φ = (cos Bx, sin Bx)``, (n, width), at inputs (n, inputs)."""
        scaled = self.scaled(x)
        angles = F.linear(scaled, self.frequencies)  # Bx, (n, width/2)
        waves = [
            torch.cos(angles),
            torch.sin(angles),
        ]
        return torch.cat(waves, dim=-1)

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer takes, (n, width), at inputs (n, inputs)."""
        h = self.embedding(x)
        gates = self.gates(h)
        for block in self.blocks:
            h = block(h, gates)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        h = self.features(x)
        y: Tensor = self.last(h)
        return y

    def fit(self, points: Tensor, values: Tensor) -> None:
        """Solve the last layer so that outputs at points (n, inputs) are values (n, outputs).

        The physics-informed start of the paper (its section 4.3): with every α at zero the outputs
        are linear in the embedding, and values may be an initial condition or measurements.
        """
        with torch.no_grad():
            h = self.features(points)
        fit_last_layer(self.last, h, values)

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["activation"] = self._activation
        options["scale"] = self._scale
        return options


class Block(nn.Module):
    """``h ↦ α H(h) + (1 − α) h``, α zero at first."""

    def __init__(
        self,
        width: int,
        function: Activation,
        generator: torch.Generator | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._function = function
        square = (width, width)
        self.first = glorot(*square, generator, dtype)
        self.second = glorot(*square, generator, dtype)
        self.third = glorot(*square, generator, dtype)
        # α: at zero a block is the identity, and a network of blocks as deep as it needs to be.
        self.share = TrainableScale(
            1,
            initial=0.0,
            dtype=dtype,
        )

    def forward(self, h: Tensor, gates: tuple[Tensor, Tensor]) -> Tensor:
        """Return what comes of features (n, width), given U and V − U."""
        u, difference = gates
        f = self._function(self.first(h))
        # f U + (1 − f) V in the paper; with U and V exchanged, which are drawn alike, as here.
        mixed = u + f * difference

        g = self._function(self.second(mixed))
        mixed = u + g * difference
        full = self._function(self.third(mixed))

        # α H + (1 − α) h = h + α (H − h)
        change = full - h
        out: Tensor = h + self.share(change)
        return out
