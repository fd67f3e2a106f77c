"""Surfaces inside a domain: sections at fixed coordinates, boundaries of other domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, SupportsFloat

import numpy as np

from whence import _checks
from whence.pinn.geometry.boundary import (
    Part,
    Piece,
    named,
    restricted,
    union,
)
from whence.pinn.geometry.charts import Chart, Mask, box
from whence.pinn.geometry.samplings import Array


class Region(Protocol):
    """What a surface must know of the domain that it lies in."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""

    @property
    def bounds(self) -> Array:
        """Lowest and highest values, (2, d)."""

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of the boundary."""

    @property
    def rounding(self) -> float:
        """Distance at which points count as on the boundary."""

    def level(self, points: Array) -> Array:
        """Return a function (n,) of points that is negative inside."""


def section(region: Region, values: Mapping[str, SupportsFloat]) -> Part:
    """Return the points of a region whose coordinates have these values."""
    coordinates = region.coordinates
    if not values:
        raise ValueError(
            f"a section fixes one or more coordinates of {', '.join(coordinates)}, such as "
            f"section({coordinates[0]}=0.5), got none"
        )

    fixed = {}
    for name, value in values.items():
        _checks.one_of("coordinate", name, coordinates)
        number = _checks.number(f"the value of {name!r}", value)
        fixed[coordinates.index(name)] = number

    label = ", ".join(f"{coordinates[k]}={value:g}" for k, value in fixed.items())
    piece = _slice(region, fixed, label)
    return Part(label, coordinates, (piece,), rounding=region.rounding)


def _slice(region: Region, fixed: Mapping[int, float], label: str) -> Piece:
    """Return the points of a region that have fixed values in some columns."""
    low, high = region.bounds
    d = len(low)
    columns = list(fixed)
    numbers = np.array([fixed[k] for k in columns])
    free = [k for k in range(d) if k not in fixed]
    rounding = region.rounding
    # The box of the other coordinates: what it has outside of the region is rejected.
    flat = box(low[free], high[free])

    def place(unit: Array) -> Array:
        points = np.empty((len(unit), d))
        points[:, columns] = numbers
        points[:, free] = flat.place(unit)
        return points

    def inside(points: Array) -> Mask:
        return np.asarray(region.level(points) <= rounding)

    def off(points: Array) -> Array:
        distances = np.abs(points[:, columns] - numbers).max(axis=1)
        # Above and below the section itself, the point that is in it decides.
        on_plane = points.copy()
        on_plane[:, columns] = numbers
        return np.where(inside(on_plane), distances, np.inf)

    def normals(points: Array) -> Array:
        if len(columns) > 1:
            raise ValueError(
                f"a section of {len(columns)} fixed coordinates, {label}, has no normal: take "
                "the derivative along a coordinate instead"
            )
        result = np.zeros_like(points)
        result[:, columns[0]] = 1.0
        return result

    whole = Chart(len(free), d, place, size=flat.size)
    share = whole.fraction(inside)
    if share == 0:
        bounds = named(region.coordinates, region.bounds.T)
        raise ValueError(
            f"the section {label} is empty: no point of the domain, whose bounds are {bounds}, "
            "has these coordinates"
        )

    chart = whole if share == 1 else whole.restricted(inside)
    return Piece(chart, flat.size * share, off, normals)


def inner(region: Region, other: Region) -> Part:
    """Return the boundary of another region of the same coordinates within this one."""
    # What runs along the boundary of both is the boundary of this one, not inside.
    rounding = min(region.rounding, other.rounding)

    def keep(points: Array, normals: object) -> Mask:
        return np.asarray(region.level(points) < -rounding)

    parts = [restricted(part, keep) for part in other.boundary]
    within = [part for part in parts if part is not None]
    if not within:
        raise ValueError(
            f"no part of the boundary of {other} lies inside of {region}: what is meant by on= "
            "must cross the domain"
        )

    names = [part.name for part in within]
    return replace(union(names, within), rounding=rounding)
