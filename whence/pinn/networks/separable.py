"""Separable networks: products of functions of one coordinate each, summed over a rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whence import _checks
from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.activations import Activation
from whence.pinn.networks.boxed import BoxedNetwork
from whence.pinn.networks.mlp import MLP, Bounds


@NETWORKS.named("separable")
class Separable(BoxedNetwork):
    """Products of one-dimensional networks, ``N(z) = Σ_j Π_k f_kj(z_k)``, over a rank of terms j.

    Each coordinate has a network of its own (SPINN; Cho et al., arXiv 2306.15969). On the points
    of a grid it costs the sum of its sides and not their product (:meth:`grid`); at scattered
    points, as in training here, it costs what any network does.

    Parameters
    ----------
    layers
        Widths: inputs, hidden layers of each coordinate's network, outputs.
    rank
        Terms of the sum.
    activation
        As in :class:`whence.pinn.MLP`.
    bounds
        Lowest and highest value of each input, shape (2, inputs), which are scaled to [−1, 1];
        ``None`` leaves inputs as they are.
    seed
        The network of coordinate k is drawn from ``seed + k``.
    dtype
        Floating-point type.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.Separable([2, 16, 16, 1], rank=8, seed=0)
    >>> network
    Separable([2, 16, 16, 1], rank=8, activation='tanh', parameters=880)
    >>> import torch
    >>> sides = [torch.linspace(0, 1, n, dtype=torch.float64) for n in (5, 7)]
    >>> network.grid(sides).shape
    torch.Size([5, 7, 1])
    """

    def __init__(
        self,
        layers: Sequence[int],
        rank: int = 16,
        activation: str | Activation = "tanh",
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(layers, bounds, dtype)
        _checks.count("rank", rank)
        inputs, *hidden, outputs = self.layers
        self._rank = int(rank)

        # A factor of each term and output; the inputs are scaled once, here, and not by factors.
        terms = outputs * self._rank
        widths = [1, *hidden, terms]
        self.factors = nn.ModuleList()
        for k in range(inputs):
            # Equal seeds would make all factors equal.
            factor_seed = seed
            if seed is not None:
                factor_seed = seed + k
            factor = MLP(
                widths,
                activation,
                seed=factor_seed,
                dtype=dtype,
            )
            self.factors.append(factor)
        self._activation = factor.activation

    @property
    def rank(self) -> int:
        """Terms of the sum."""
        return self._rank

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), at inputs of shape (n, inputs)."""
        scaled = self.scaled(x)
        product = None
        for k, factor in enumerate(self.factors):
            column = scaled[..., k : k + 1]
            values = factor(column)  # (n, outputs · rank)
            product = values if product is None else product * values

        # There is at least one input.
        assert product is not None
        *points, _ = x.shape
        outputs = self.layers[-1]
        terms = product.reshape(*points, outputs, self._rank)
        return terms.sum(-1)

    def grid(self, sides: Sequence[Tensor]) -> Tensor:
        """Return the outputs, (n_1, …, n_d, outputs), on the grid of these coordinates (n_k,).

        Raises
        ------
        ValueError
            If there is not one side for each input.
        """
        inputs = self.layers[0]
        if len(sides) != inputs:
            raise ValueError(
                f"a grid in {inputs} inputs needs {inputs} sides, got {len(sides)}"
            )

        product: Tensor | None = None
        for k, side in enumerate(sides):
            column = side.unsqueeze(1)
            # As in scaled(), which takes all inputs of a point together.
            if self.slope is not None and self.offset is not None:
                slope = self.slope[k]
                offset = self.offset[k]
                column = column * slope + offset

            factor = self.factors[k]
            values = factor(column)  # (n_k, outputs · rank)
            if product is None:
                product = values
                continue
            # Each side is a further axis before the last.
            product = product.unsqueeze(-2) * values

        # There is at least one input.
        assert product is not None
        outputs = self.layers[-1]
        terms = product.unflatten(-1, (outputs, self._rank))
        return terms.sum(-1)

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["rank"] = self._rank
        options["activation"] = self._activation
        return options
