"""One hidden layer of Gaussians that stay, and a last layer that trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.networks.boxed import generator_of
from whence.pinn.networks.features import Features
from whence.pinn.networks.mlp import Bounds
from whence.pinn.networks.placement import Placement

WIDEST = 0.6
"""Least slope of a Gaussian, in units of the steepest."""


@NETWORKS.named("radial_features")
class RadialFeatures(Features):
    """Gaussians and a last layer: ``N(z) = Σ_j c_j exp(−½ Σ_k a_jk² (ẑ_k − p_jk)²) + c_0``.

    ẑ are the inputs scaled to [−1, 1]; the centers p and the slopes a, one over the widths, stay as
    they are drawn, and only c trains, which :class:`whence.pinn.VarPro` does exactly (Kansa,
    Comput. Math. Appl. 19, 1990, collocates such functions). What is humped in two or three
    dimensions takes far fewer of them than of functions of one direction
    (:class:`whence.pinn.RandomFeatures`), whose ridges reach from end to end of the box.

    A center is uniform in the box, which is taken a little larger, as features beyond its edge
    serve what is within. A feature is as wide along all inputs, with a slope log-uniform from
    ``0.6 scale`` to ``scale``: of one width they are the most accurate, until rounding.

    Parameters
    ----------
    layers
        Widths: inputs, features, outputs.
    scale
        Steepest slope a, one over the width, in units of the half box.
    bounds
        Lowest and highest value of each input, shape (2, inputs); ``None`` leaves inputs as they
        are.
    seed
        Equal seeds draw equal features; ``None`` draws from the global random state.
    dtype
        Floating-point type.

    Raises
    ------
    ValueError
        If there are not three widths, or the scale is not positive.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.RadialFeatures([3, 500, 1], scale=8.0, seed=0)
    RadialFeatures([3, 500, 1], scale=8.0, trained=501)
    """

    def __init__(
        self,
        layers: Sequence[int],
        scale: float = 4.0,
        bounds: Bounds | None = None,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        # Each Gaussian is a function of the inputs and of their squares, in which it is linear.
        super().__init__(layers, scale, bounds, 2 * layers[0], dtype)
        generator = generator_of(seed)
        inputs, features, _ = self.layers

        # Drawn in float64 whatever the dtype, so that one seed means one network.
        uniform = torch.rand(features, inputs, generator=generator, dtype=torch.float64)
        beyond = 1 + 1 / self.scale
        centers = beyond * (2 * uniform - 1)
        self.set_gaussians(centers, self._slopes(generator))
        self.hidden.requires_grad_(False)

    def features(self, scaled: Tensor) -> Tensor:
        """Return the Gaussians at scaled inputs (n, inputs): (n, features)."""
        columns = torch.cat([scaled, scaled * scaled], dim=-1)
        return torch.exp(self.hidden(columns))

    def place(
        self,
        placement: Placement,
        points: Tensor,
        gradients: Tensor,
        time: int | None,
        generator: torch.Generator,
    ) -> None:
        """Draw the features again, one at each of as many points, nearly flat along time.

        The slope along time is uniform in [0, 1], as a slab's solution changes little over it.
        """
        slopes = self._slopes(generator)
        if time is not None:
            n_features = len(slopes)
            slopes[:, time] = torch.rand(
                n_features, generator=generator, dtype=torch.float64
            )
        self.set_gaussians(self.scaled(points), slopes)

    def _slopes(self, generator: torch.Generator | None) -> Tensor:
        """Return slopes (features, inputs), alike along all inputs and log-uniform."""
        inputs, features, _ = self.layers
        exponent = torch.rand(features, 1, generator=generator, dtype=torch.float64)
        slopes = self.scale * WIDEST**exponent
        return slopes.repeat(1, inputs)

    def set_at(self, places: Tensor, widths: Tensor) -> None:
        """Replace the Gaussians by ``exp(−½ ‖z − z_j‖²/b_j²)`` in the units of the inputs.

        Parameters
        ----------
        places:
            z, where they are, (features, inputs).
        widths:
            b, (features,): two or three distances to the next make them overlap.

        Raises
        ------
        ValueError
            If there is not one of each for every feature, or a width is not positive.

        Examples
        --------
        >>> import torch
        >>> from whence import pinn
        >>> network = pinn.RadialFeatures([1, 2, 1], bounds=[[0.0], [10.0]], seed=0)
        >>> places = torch.tensor([[2.0], [8.0]], dtype=torch.float64)
        >>> network.set_at(places, torch.ones(2, dtype=torch.float64))
        >>> network.features(network.scaled(places)).round(decimals=3)
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
        """
        inputs, features, _ = self.layers
        if places.shape != (features, inputs) or widths.shape != (features,):
            raise ValueError(
                f"a place and a width are needed for each of {features} features, got "
                f"{tuple(places.shape)} and {tuple(widths.shape)}"
            )
        if not bool((widths > 0).all()):
            raise ValueError(
                f"widths must be positive, the least is {float(widths.min()):.3g}"
            )

        # Scaling is affine: a step of one along an input is one over half its side.
        origin = torch.zeros(1, inputs, dtype=torch.float64)
        steps = torch.eye(inputs, dtype=torch.float64)
        stretch = (self.scaled(steps) - self.scaled(origin)).diagonal()
        slopes = 1 / (widths[:, None] * stretch)
        self.set_gaussians(self.scaled(places), slopes)

    def set_gaussians(self, centers: Tensor, slopes: Tensor) -> None:
        """Replace the Gaussians by ``exp(−½ Σ_k a_jk² (ẑ_k − p_jk)²)``.

        Parameters
        ----------
        centers, slopes:
            p and a, one over the widths, of inputs scaled to [−1, 1]; both (features, inputs).

        Raises
        ------
        ValueError
            If one of them is of another shape.

        Examples
        --------
        >>> import torch
        >>> from whence import pinn
        >>> network = pinn.RadialFeatures([1, 2, 1], seed=0)
        >>> centers = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
        >>> network.set_gaussians(centers, torch.full_like(centers, 4.0))
        >>> network.features(torch.tensor([[0.5]], dtype=torch.float64)).round(decimals=3)
        tensor([[0.1350, 1.0000]], dtype=torch.float64)
        """
        inputs, features, _ = self.layers
        for name, table in (("centers", centers), ("slopes", slopes)):
            if table.shape != (features, inputs):
                raise ValueError(
                    f"{name} must have shape ({features}, {inputs}), a row for each feature, got "
                    f"{tuple(table.shape)}"
                )

        # −½ a² (ẑ − p)² = a² p ẑ − ½ a² ẑ² − ½ a² p².
        square = slopes**2
        linear = square * centers
        weight = torch.cat([linear, -square / 2], dim=1)
        bias = -(linear * centers).sum(dim=1) / 2
        self.set_features(weight, bias)

    def options(self) -> JsonObject:
        """Return the arguments that make a network of this architecture, as JSON can hold them."""
        options = super().options()
        options["scale"] = self.scale
        return options

    def __repr__(self) -> str:
        trained = sum(p.numel() for p in self.last.parameters())
        return f"RadialFeatures({list(self.layers)}, scale={self.scale}, trained={trained})"
