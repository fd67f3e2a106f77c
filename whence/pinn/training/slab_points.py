"""Points of a slab: crowded where the solution is steep, and towards both ends of its time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whence.pinn.geometry.domain import Domain
from whence.pinn.networks import Placement


def steep_points(
    placement: Placement,
    places: Tensor,
    gradients: Tensor,
    n: int,
    domain: Domain,
    time: int,
    generator: torch.Generator,
) -> Tensor:
    """Return n points of the domain that follow the steepness known at some places, (n, d)."""
    low, high = torch.as_tensor(domain.bounds)
    half = (high - low) / 2
    points = placement.points(places, gradients, n, half, time, generator)

    # What a move takes out of the box is reflected; where the domain is none, another of its
    # places serves as well.
    points = low + (points - low).abs()
    points = high - (high - points).abs()
    outside = ~domain.contains(points)
    others = torch.randperm(len(places), generator=generator)
    points[outside] = places[others[: int(outside.sum())]]
    return points


def arcsine_times(
    low: float, high: float, n: int, generator: torch.Generator
) -> Tensor:
    """Return n times of the arcsine density between two times, (n,).

    It is that of Chebyshev nodes, which a polynomial in time needs at the ends of a slab not to
    leave them.
    """
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    share = 0.5 - 0.5 * torch.cos(math.pi * uniform)
    return low + (high - low) * share
