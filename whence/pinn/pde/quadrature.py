"""Rules of quadrature: at which places a field is taken for each point, and with which weights.

A rule is called with points (..., d) and returns places (..., Q, d) with weights (..., Q), so that
``∫ f ≈ Σ_q w_q f(place_q)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.special import roots_jacobi
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.boundary import Part
from whence.pinn.geometry.domain import Domain, Product
from whence.pinn.pde.place import Place

NODES = {1: 40, 2: 20, 3: 10}
"""Nodes of Gauss' rule along each coordinate, by the number of coordinates."""
REGION_NODES = 2000
"""Quasi-random places in a region that is no box."""

Limit = float | str | Callable[..., Tensor]
"""A number, a coordinate of the point by name, or a function of coordinates by name."""
Limits = tuple[Limit, Limit]
Over = str | Iterable[str] | Mapping[str, Limits] | Domain | Part | None
"""Coordinates, coordinates with limits, a part of the boundary, or a region."""


class Rule(Protocol):
    """Places and weights of a quadrature."""

    @property
    def free(self) -> tuple[str, ...]:
        """Coordinates of the point on which the integral depends."""

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return places (..., Q, d) and weights (..., Q) for points (..., d)."""

    def normals(self, places: Tensor) -> Tensor | None:
        """Return outward normals at the places, (..., Q, d), where the region is a surface."""


@dataclass(frozen=True, eq=False)
class BoxRule:
    """Gauss' rule along some coordinates, between limits that may depend on the point.

    ``singularity`` is α of a factor (high − s)^(−α) in the integrand along the only coordinate.
    """

    place: Place
    limits: Mapping[str, Limits]
    nodes: int
    singularity: float = 0.0

    @property
    def free(self) -> tuple[str, ...]:
        """The other coordinates, and those that the limits depend on."""
        dependent = set()
        for pair in self.limits.values():
            for limit in pair:
                dependent |= set(names_of(limit))
        names = self.place.coordinates
        return tuple(n for n in names if n not in self.limits or n in dependent)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return places (..., Q, d) and weights (..., Q) for points (..., d)."""
        places = points.unsqueeze(-2)  # (..., 1, d)
        weights = torch.ones_like(places[..., 0])  # (..., 1)
        # Gauss' nodes on (−1, 1) for the weight (1 − x)^(−α), which is Legendre's for α = 0.
        unit_nodes, unit_weights = roots_jacobi(self.nodes, -self.singularity, 0.0)
        nodes = torch.as_tensor(unit_nodes).to(points)
        shares = torch.as_tensor(unit_weights).to(points)

        # A product of rules: each coordinate multiplies the number of places.
        for name, pair in self.limits.items():
            low = self._limit(pair[0], points)[..., None, None]
            high = self._limit(pair[1], points)[..., None, None]
            half = (high - low) / 2
            # s = (low + high)/2 + half · x, and ds (high − s)^(−α) = half^(1 − α) (1 − x)^(−α) dx
            along = (low + high) / 2 + half * nodes  # (..., 1, nodes)
            scale = half ** (1.0 - self.singularity)
            places = self._with(places, name, along)
            weights = (weights.unsqueeze(-1) * scale * shares).flatten(-2)

        return places, weights

    def _with(self, places: Tensor, name: str, values: Tensor) -> Tensor:
        """Return each of the places (..., Q, d) with each of some values of a coordinate."""
        n_values = values.shape[-1]
        column = self.place.coordinates.index(name)
        *outer, n_places, d = places.shape
        table = places.unsqueeze(-2).expand(*outer, n_places, n_values, d)
        along = values.expand(*outer, n_places, n_values).unsqueeze(-1)
        parts = [table[..., :column], along, table[..., column + 1 :]]
        return torch.cat(parts, dim=-1).flatten(-3, -2)

    def _limit(self, limit: Limit, points: Tensor) -> Tensor:
        """Return a limit at points (..., d): (...,)."""
        return value_at(limit, points, self.place.coordinates)

    def normals(self, places: Tensor) -> Tensor | None:
        """Return nothing: a box has an inside."""


@dataclass(frozen=True, eq=False)
class RegionRule:
    """The same quasi-random places in a region for every point, of equal weight.

    The region may be one of some coordinates only; the point keeps the others.
    """

    place: Place
    names: tuple[str, ...]
    places: Tensor
    measure: float
    outward: Tensor | None

    @property
    def free(self) -> tuple[str, ...]:
        """The coordinates that the region has not."""
        return tuple(n for n in self.place.coordinates if n not in self.names)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return places (..., Q, d) and weights (..., Q) for points (..., d)."""
        n_places = len(self.places)
        own = self.places.to(points)
        outer = points.shape[:-1]
        columns = []
        for k, name in enumerate(self.place.coordinates):
            column = points[..., k].unsqueeze(-1)  # (..., 1)
            if name in self.names:
                column = own[:, self.names.index(name)]  # (Q,)
            columns.append(column.expand(*outer, n_places))

        places = torch.stack(columns, dim=-1)
        weights = torch.full_like(places[..., 0], self.measure / n_places)
        return places, weights

    def normals(self, places: Tensor) -> Tensor | None:
        """Return the outward normals at the places, of a part of the boundary."""
        if self.outward is None:
            return None
        return self.outward.to(places).expand(places.shape)


@dataclass(frozen=True, eq=False)
class PlaceRule:
    """One other place for each point: some of its coordinates are replaced."""

    place: Place
    at: Mapping[str, Limit]

    @property
    def free(self) -> tuple[str, ...]:
        """The other coordinates, and those that the replaced ones depend on."""
        dependent = {n for value in self.at.values() for n in names_of(value)}
        names = self.place.coordinates
        return tuple(n for n in names if n not in self.at or n in dependent)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return places (..., 1, d) and weights of one (..., 1) for points (..., d)."""
        columns = list(points.unbind(-1))
        for name, value in self.at.items():
            k = self.place.coordinates.index(name)
            columns[k] = value_at(value, points, self.place.coordinates)
        places = torch.stack(columns, dim=-1).unsqueeze(-2)
        return places, torch.ones_like(places[..., 0])

    def normals(self, places: Tensor) -> Tensor | None:
        """Return nothing: a place is not a surface."""


def rule_over(
    what: str, over: Over, place: Place, nodes: int | None, singularity: float = 0.0
) -> Rule:
    """Return the rule for an integral over coordinates, a part of the boundary, or a region.

    Raises
    ------
    ValueError
        If it names neither, or limits are not two.
    """
    if nodes is not None:
        _checks.count(f"nodes of {what}", nodes)
    if isinstance(over, (Domain, Part)):
        return region_rule(what, over, place, nodes)
    if isinstance(over, str) and over not in place.coordinates:
        # Anything else that is a name must be that of a part of the boundary.
        return region_rule(what, place.domain.part(over), place, nodes)
    if over is None:
        # Space, at each time; a domain that is no box is taken as the region it is.
        over = tuple(name for name in place.coordinates if name != place.time)

    limits = limits_of(what, over, place)
    if not _is_box(limits, place):
        factor = factor_of(place.domain, tuple(limits))
        if factor is None or isinstance(over, Mapping):
            raise ValueError(
                f"{what} runs over {', '.join(limits)}, but the domain is no box in these: pass "
                "the region itself, such as over=pinn.Disk(...)"
            )
        return region_rule(what, factor, place, nodes)

    per_axis = nodes or NODES.get(len(limits), NODES[3])
    return BoxRule(place, limits, per_axis, singularity)


def limits_of(what: str, over: object, place: Place) -> dict[str, Limits]:
    """Return lower and upper limit by coordinate; those of the domain unless given."""
    names = (over,) if isinstance(over, str) else tuple(over)  # type: ignore[arg-type]
    limits: dict[str, Limits] = {}
    for name in names:
        _checks.one_of(f"coordinate of {what}", name, place.coordinates)
        column = place.coordinates.index(name)
        low, high = place.domain.bounds[:, column]
        limits[name] = (float(low), float(high))
        if isinstance(over, Mapping):
            low_limit, high_limit = _checks.pair(f"limits of {what}", over[name], "end")
            limits[name] = (low_limit, high_limit)
            for limit in limits[name]:
                check_limit(what, limit, place.coordinates)

    return limits


def region_rule(
    what: str, region: Domain | Part, place: Place, nodes: int | None
) -> RegionRule:
    """Return the rule of quasi-random places in a region of some or all coordinates."""
    names = region.coordinates
    for name in names:
        _checks.one_of(f"coordinate of {what}", name, place.coordinates)
    is_surface = isinstance(region, Part)
    if is_surface and names != place.coordinates:
        raise ValueError(
            f"{what} runs over a surface of coordinates {', '.join(names)}, the problem has "
            f"{', '.join(place.coordinates)}: give a surface of all of them"
        )

    n = nodes or REGION_NODES
    if isinstance(region, Part) and region.size is not None:
        n = region.size  # at few points, such as an end, each once
    places = region.sample(n)
    outward = region.normals(places) if isinstance(region, Part) else None
    return RegionRule(place, names, places, region.measure, outward)


def factor_of(domain: Domain, names: tuple[str, ...]) -> Domain | None:
    """Return the factor of a product, or the domain itself, that has these coordinates."""
    if set(domain.coordinates) == set(names):
        return domain
    if not isinstance(domain, Product):
        return None
    for factor in domain.factors:
        found = factor_of(factor, names)
        if found is not None:
            return found
    return None


def _is_box(limits: Mapping[str, Limits], place: Place) -> bool:
    """Whether the corners of the limits that are numbers lie in the domain."""
    # At the other coordinates' middle.
    bounds = place.domain.bounds
    middle = bounds.mean(axis=0)
    corners = [middle]
    for name, pair in limits.items():
        column = place.coordinates.index(name)
        moved = []
        for limit in pair:
            if not isinstance(limit, (int, float)):
                continue
            for corner in corners:
                other = np.array(corner)
                other[column] = limit
                moved.append(other)
        corners = moved or corners

    inside = place.domain.contains(torch.tensor(np.stack(corners)), 1e-6)
    return bool(inside.all())


def check_limit(what: str, limit: object, coordinates: tuple[str, ...]) -> None:
    """Raise unless this is a number, a coordinate, or a function of coordinates."""
    if isinstance(limit, str):
        _checks.one_of(f"coordinate of {what}", limit, coordinates)
    elif callable(limit):
        for name in _checks.arguments(f"a limit of {what}", limit):
            _checks.one_of(f"coordinate of {what}", name, coordinates)
    else:
        _checks.number(f"a limit of {what}", limit)  # type: ignore[arg-type]


def names_of(limit: Limit) -> tuple[str, ...]:
    """Return the coordinates that a limit depends on."""
    if isinstance(limit, str):
        return (limit,)
    if callable(limit):
        return _checks.arguments("a limit", limit)
    return ()


def value_at(limit: Limit, points: Tensor, coordinates: tuple[str, ...]) -> Tensor:
    """Return a limit's value at points (..., d): (...,)."""
    if isinstance(limit, str):
        return points[..., coordinates.index(limit)]
    if callable(limit):
        arguments = []
        for name in _checks.arguments("a limit", limit):
            arguments.append(points[..., coordinates.index(name)])
        return limit(*arguments)
    return torch.full_like(points[..., 0], float(limit))
