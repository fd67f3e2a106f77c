"""Where random features go, and how steep they are, by a solution that is known roughly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks

POSITIVE = ("power", "point_power", "steepness", "reach", "drift")
"""Options that must be positive."""
SHARES = ("share", "point_share")
"""Options that are a share, from 0 to 1."""
MIN_SLOPE = 1e-12
"""Least slope by which a distance is divided."""
MIN_NORM = 1e-300
"""Least norm of a gradient by which it is divided: one of zero stays zero."""


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
        for name in POSITIVE:
            value = getattr(self, name)
            _checks.positive(name, value)

        for name in SHARES:
            share = getattr(self, name)
            number = _checks.number(name, share)
            if not 0 <= number <= 1:
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
        at = places[rows]
        distance = self._distance(gradients[rows], places)

        # Uniform in [−1, 1] along each coordinate, times the distance in units of the half box.
        uniform = _uniform(generator, *at.shape)
        symmetric = 2 * uniform - 1
        shift = distance * symmetric * half
        if time is not None:
            shift[:, time] = 0
        return at + shift

    def _distance(self, gradients: Tensor, places: Tensor) -> Tensor:
        """Return how far points at these gradients (n, s) may move, in units of the half box."""
        # Of N places in a cube of side 2 each has a cube of side 2 N^(−1/d) to itself.
        n_places, d = places.shape
        side = n_places ** (-1 / d)
        apart = 2 * side

        # The steepest feature there reaches as many of its widths, 1/(steepness · m).
        steep = gradients.norm(dim=1, keepdim=True)  # m, (n, 1)
        slope = self.steepness * steep
        slope = slope.clamp_min(MIN_SLOPE)
        of_feature = self.reach / slope
        return of_feature.clamp_max(apart)

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
        inputs = list(range(d))
        if time is not None:
            inputs.remove(time)

        in_space = self._slopes(gradients, scale, generator)
        weight = torch.zeros(n, d, dtype=torch.float64)
        weight[:, inputs] = in_space

        # σ(w·(z − c) + shift): a shift of 1 is one width of the feature.
        symmetric = _symmetric(n, generator)
        shift = self.reach * symmetric
        products = in_space * places[:, inputs]
        at_place = products.sum(dim=1)  # w·c
        bias = shift - at_place

        # Along time the slope is uniform from −drift to drift.
        if time is not None:
            symmetric = _symmetric(n, generator)
            weight[:, time] = self.drift * symmetric
        return weight, bias

    def _slopes(
        self, gradients: Tensor, scale: float, generator: torch.Generator
    ) -> Tensor:
        """Return the weights of features along all inputs but time, (n, s)."""
        n = len(gradients)
        steep = gradients.norm(dim=1, keepdim=True)  # m, (n, 1)
        direction = _directions(gradients, steep, generator)

        # |w| = largest^U with U uniform in [0, 1] is log-uniform from 1 to the largest slope.
        of_solution = self.steepness * steep
        largest = of_solution.clamp_min(scale)
        uniform = _uniform(generator, n, 1)
        exponent = uniform * largest.log()
        slope = torch.exp(exponent)

        # Half of the features fall along the gradient.
        uniform = _uniform(generator, n, 1)
        sign = torch.where(uniform < 0.5, -1.0, 1.0)
        return sign * slope * direction


def _directions(gradients: Tensor, steep: Tensor, generator: torch.Generator) -> Tensor:
    """Return unit vectors (n, s) along gradients where these are large, any way where not."""
    along = gradients / steep.clamp_min(MIN_NORM)
    normal = torch.randn(gradients.shape, generator=generator, dtype=torch.float64)
    noise = _normalized(normal)

    # Half of each at a steepness of one.
    trust = steep / (1 + steep)
    rest = 1 - trust
    direction = trust * along + rest * noise
    return _normalized(direction)


def _normalized(vectors: Tensor) -> Tensor:
    """Return the vectors (n, s) with norms of one."""
    norms = vectors.norm(dim=1, keepdim=True)
    return vectors / norms


def _symmetric(n: int, generator: torch.Generator) -> Tensor:
    """Return numbers (n,) uniform in [−1, 1]."""
    uniform = _uniform(generator, n)
    return 2 * uniform - 1


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Return numbers uniform in [0, 1)."""
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def steep_density(gradients: Tensor, share: float, power: float) -> Tensor:
    """Return ``share · mᵖ/mean(mᵖ) + (1 − share)`` by the gradients (n, s), m their norms: (n,)."""
    norms = gradients.norm(dim=1)
    steep = norms**power
    mean = steep.mean()
    # Of a constant solution no place is steeper than another.
    if not bool(mean > 0):
        return torch.ones_like(steep)

    follows = share * steep / mean
    return follows + (1 - share)
