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

    # What a move takes out of the box is reflected at the side that it passed.
    above = (points - low).abs()
    points = low + above
    below = (high - points).abs()
    points = high - below

    # Where the box is no part of the domain, another of its places serves as well.
    outside = ~domain.contains(points)
    n_outside = int(outside.sum())
    others = torch.randperm(len(places), generator=generator)
    chosen = others[:n_outside]
    points[outside] = places[chosen]
    return points


def arcsine_times(
    low: float, high: float, n: int, generator: torch.Generator
) -> Tensor:
    """Return n times of the arcsine density between two times, (n,).

    It is that of Chebyshev nodes, which a polynomial in time needs at the ends of a slab not to
    leave them.
    """
    # (1 − cos πU)/2 with U uniform in [0, 1] has the density 1/(π √(s(1 − s))) over s in [0, 1].
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    angle = math.pi * uniform
    share = 0.5 - 0.5 * torch.cos(angle)
    length = high - low
    return low + length * share
