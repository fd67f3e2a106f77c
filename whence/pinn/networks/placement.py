"""Where random features go, and how steep they are, by a solution that is known roughly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks

WIDEST = 0.6
"""Least slope of a Gaussian, in units of the steepest."""


@dataclass(frozen=True)
class Placement:
    """How features and points follow the steep places of a solution.

    In units of the half box, the gradient over the range of the solution is its steepness m.
    Features are drawn at places of density ``share · mᵖ/mean(mᵖ) + (1 − share)``, each with a slope
    log-uniform between 1 and the larger of ``steepness · m`` and the network's own scale, along the
    gradient where m is large and any way where it is small. So a front gets features of every
    scale from its own width to that of the domain, all of them near it, as a sum of few features
    needs to follow one (compare Bolager et al., arXiv 2306.16830).

    Points are drawn by the same formula with a share and a power of their own, which are less: the
    residual must be seen as far from a front as its features reach, or it is left to itself there.

    Parameters
    ----------
    share:
        Share of features that follow the steepness.
    power:
        p, of features.
    point_share, point_power:
        The same of points.
    steepness:
        Steepest slope of a feature, in units of m.
    reach:
        Greatest distance of a feature from its place, in units of its own width.
    drift:
        Greatest slope along time, in units of half a slab.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> points = torch.linspace(-1, 1, 20001, dtype=torch.float64)[:, None]
    >>> gradients = 50 * torch.cosh(100 * points) ** -2       # of tanh(100 x) / 2
    >>> rows = pinn.Placement().rows(gradients, 100, torch.Generator().manual_seed(0))
    >>> bool((points[rows].abs() < 0.02).double().mean() > 0.5)
    True
    """

    share: float = 0.8
    power: float = 1.5
    point_share: float = 0.5
    point_power: float = 1.0
    steepness: float = 20.0
    reach: float = 1.0
    drift: float = 0.3

    def __post_init__(self) -> None:
        for name in ("power", "point_power", "steepness", "reach", "drift"):
            _checks.positive(name, getattr(self, name))
        for name in ("share", "point_share"):
            share = getattr(self, name)
            if not 0 <= _checks.number(name, share) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share!r}")

    def rows(self, gradients: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Return places for n features by the gradients at all of them (N, s): (n,).

        The same place comes as often as may be.
        """
        density = steep_density(gradients, self.share, self.power)
        return torch.multinomial(density, n, replacement=True, generator=generator)

    def points(
        self,
        places: Tensor,
        gradients: Tensor,
        n: int,
        half: Tensor,
        time: int | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Return n points drawn by density, each moved a little, so that none comes twice: (n, d).

        A point moves at most as far as places are apart, and as a feature there reaches.

        Parameters
        ----------
        places, gradients:
            Places in the domain, (N, d), and the gradients there.
        n:
            How many.
        half:
            Half the sides of the domain's box, (d,).
        time:
            Which column is time, along which points do not move.
        generator:
            What draws.
        """
        density = steep_density(gradients, self.point_share, self.point_power)
        # A front is narrow: without replacement the few places in it would soon be used up.
        rows = torch.multinomial(density, n, replacement=True, generator=generator)
        n_places, d = places.shape
        # Of N places in a cube of side 2 each has a cube of side 2 N^(−1/d) to itself.
        apart = 2 * n_places ** (-1 / d)

        # The steepest feature there reaches as many of its widths, 1/(steepness · m).
        steep = gradients[rows].norm(dim=1, keepdim=True)  # m, (n, 1)
        slope = self.steepness * steep
        of_feature = self.reach / slope.clamp_min(1e-12)
        distance = of_feature.clamp_max(apart)

        uniform = torch.rand(n, d, generator=generator, dtype=torch.float64)
        symmetric = 2 * uniform - 1
        shift = distance * symmetric * half
        if time is not None:
            shift[:, time] = 0
        return places[rows] + shift

    def features(
        self,
        places: Tensor,
        gradients: Tensor,
        scale: float,
        time: int | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return weights (n, d) and biases (n,) of a feature at each place.

        Parameters
        ----------
        places:
            In the box [−1, 1]ᵈ, (n, d).
        gradients:
            Of the solution there along all inputs but time, (n, s).
        scale:
            Slope up to which features go wherever they are.
        time:
            Which input is time, along which features are nearly flat.
        generator:
            What draws.
        """
        n, d = places.shape

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        steep = gradients.norm(dim=1, keepdim=True)  # m, (n, 1)
        along = gradients / steep.clamp_min(1e-300)
        n_space = gradients.shape[1]
        noise = torch.randn(n, n_space, generator=generator, dtype=torch.float64)
        noise = noise / noise.norm(dim=1, keepdim=True)

        # Along the gradient where that is large, any way where it is not.
        trust = steep / (1 + steep)
        direction = trust * along + (1 - trust) * noise
        direction = direction / direction.norm(dim=1, keepdim=True)

        # |w| = largest^U with U uniform in [0, 1] is log-uniform from 1 to the largest slope.
        largest = (self.steepness * steep).clamp_min(scale)
        exponent = uniform(n, 1) * largest.log()
        slope = torch.exp(exponent)
        is_falling = uniform(n, 1) < 0.5
        sign = torch.where(is_falling, -1.0, 1.0)
        in_space = sign * slope * direction

        space = [k for k in range(d) if k != time]
        weight = torch.zeros(n, d, dtype=torch.float64)
        weight[:, space] = in_space

        # σ(w·(z − c) + shift): a shift of 1 is one width of the feature.
        shift = self.reach * (2 * uniform(n) - 1)
        at_place = (in_space * places[:, space]).sum(dim=1)
        bias = shift - at_place
        if time is not None:
            weight[:, time] = self.drift * (2 * uniform(n) - 1)
        return weight, bias

    def slopes(
        self,
        n: int,
        inputs: int,
        scale: float,
        time: int | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the slopes of n Gaussians along each input, one over their widths: (n, inputs).

        Alike along all of space, log-uniform from ``0.6 scale`` to ``scale``, and from 0 to 1 along
        time, over which a slab's solution changes little.
        """
        exponent = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        slopes = (scale * WIDEST**exponent).repeat(1, inputs)
        if time is not None:
            slopes[:, time] = torch.rand(n, generator=generator, dtype=torch.float64)
        return slopes


def steep_density(gradients: Tensor, share: float, power: float) -> Tensor:
    """Return ``share · mᵖ/mean(mᵖ) + (1 − share)`` by the gradients (n, s), m their norms: (n,)."""
    steep = gradients.norm(dim=1) ** power
    mean = steep.mean()
    if not bool(mean > 0):
        return torch.ones_like(steep)

    return share * steep / mean + (1 - share)
