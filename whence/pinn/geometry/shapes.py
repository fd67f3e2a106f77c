"""The domains that others are made of: intervals, disks and rectangles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import (
    Part,
    Piece,
    check_coordinates,
    check_names,
    ends_of,
)
from whence.pinn.geometry.charts import Chart
from whence.pinn.geometry.combinations import Product
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.similarity import Similarity, vector


@dataclass(frozen=True)
class Interval(Domain, made_by="interval"):
    """The interval from ``low`` to ``high`` of one coordinate, with its ends.

    For a coordinate ``"x"`` the parts of the boundary are ``"x_min"`` and ``"x_max"``.

    Examples
    --------
    >>> Interval("x", -1, 1).sample(4).T
    tensor([[-0.7500, -0.2500,  0.2500,  0.7500]], dtype=torch.float64)
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        _checks.identifiers("coordinate", (self.name,))
        low = _checks.number(f"low of {self.name!r}", self.low)
        high = _checks.number(f"high of {self.name!r}", self.high)
        # Frozen: a field can only be set in this way, here in its own making.
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

        if not self.low < self.high:
            raise ValueError(
                f"the interval of {self.name!r} must have low < high, "
                f"got low={self.low:g} and high={self.high:g}"
            )

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    @property
    def bounds(self) -> Array:
        """The ends, shape (2, 1)."""
        return np.array([[self.low], [self.high]])

    @property
    def measure(self) -> float:
        """The length."""
        return self.high - self.low

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The two ends."""
        # Outward normals: −1 at the lower end, 1 at the upper one.
        low_name, high_name = ends_of(self.name)
        low = self._end(low_name, self.low, sign=-1.0)
        high = self._end(high_name, self.high, sign=1.0)
        return low, high

    @property
    def chart(self) -> Chart:
        """The map u ↦ low + (high − low)·u."""

        def place(unit: Array) -> Array:
            # Clipped, as rounding may put a point past an end.
            x = self.low + self.measure * unit
            return np.clip(x, self.low, self.high)

        return Chart(1, 1, place, size=self.measure)

    def moved(self, move: Similarity) -> Domain:
        """Return the interval between the moved ends; a turn is not one of a single coordinate."""
        if move.is_turning:
            return super().moved(move)
        low, high = move.forward(self.bounds)[:, 0].tolist()
        return Interval(self.name, low, high)

    def level(self, points: Array) -> Array:
        """Return the distance (n,) to the nearer end, negative inside."""
        # Negative inside: both differences are.
        x = points[:, 0]
        return np.maximum(self.low - x, x - self.high)

    def _end(self, name: str, value: float, sign: float) -> Part:
        """Return the end at ``value``, whose outward normal is ``sign``."""
        piece = Piece(
            # The value itself, not a computed one: equal to the bound to the last bit.
            chart=Chart(0, 1, lambda unit: np.full((len(unit), 1), value)),
            # One point counts 1, so that its product with a factor measures as the factor.
            measure=1.0,
            off=lambda points: np.abs(points[:, 0] - value),
            normals=lambda points: np.full_like(points, sign),
        )
        return Part(name, self.coordinates, (piece,), rounding=self.rounding)


@dataclass(frozen=True)
class Disk(Domain):
    """The disk around ``center``; its circle is the part called ``name``.

    Examples
    --------
    >>> disk = Disk(("x", "y"), center=(0, 0), radius=2, name="cylinder")
    >>> disk.part("cylinder").sample(100).norm(dim=1).max()
    tensor(2., dtype=torch.float64)
    """

    names: tuple[str, str]
    center: tuple[float, float]
    radius: float
    name: str = "disk"

    def __post_init__(self) -> None:
        names = _checks.pair("names", self.names)
        check_coordinates(names)
        object.__setattr__(self, "names", names)

        pairs = zip(names, _checks.pair("center", self.center), strict=True)
        center = tuple(_checks.number(f"center {c!r}", value) for c, value in pairs)
        object.__setattr__(self, "center", center)

        object.__setattr__(self, "radius", _checks.number("radius", self.radius))
        _checks.positive("radius", self.radius)
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The two names."""
        return self.names

    @property
    def bounds(self) -> Array:
        """The enclosing square, shape (2, 2)."""
        # Lowest and highest corner of the square around the circle, (2, 2).
        center = np.array(self.center)
        return np.stack([center - self.radius, center + self.radius])

    @property
    def measure(self) -> float:
        """The area."""
        return math.pi * self.radius**2

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The circle."""

        def place(unit: Array) -> Array:
            return self._polar(np.ones(len(unit)), unit[:, 0])

        piece = Piece(
            # Even along the circle, as the arc length is 2πr·u.
            chart=Chart(1, 2, place, size=2 * math.pi * self.radius),
            measure=2 * math.pi * self.radius,
            off=lambda points: np.abs(self.level(points)),
            normals=self._outward,
        )
        return (Part(self.name, self.names, (piece,), rounding=self.rounding),)

    @property
    def chart(self) -> Chart:
        """Polar coordinates, evenly over the area."""

        def place(unit: Array) -> Array:
            # The area within r grows as r², so that uniform points have r = √u.
            return self._polar(np.sqrt(unit[:, 0]), unit[:, 1])

        return Chart(2, 2, place, size=self.measure)

    def moved(self, move: Similarity) -> Domain:
        """Return the moved disk."""
        center = np.array([self.center])
        x, y = move.forward(center)[0].tolist()
        radius = move.factor * self.radius
        return Disk(self.names, (x, y), radius, self.name)

    def level(self, points: Array) -> Array:
        """Return ‖x − c‖ − r, (n,)."""
        away = points - self.center
        return np.asarray(np.linalg.norm(away, axis=1) - self.radius)

    def _outward(self, points: Array) -> Array:
        """Return (x − c)/‖x − c‖, (n, 2)."""
        away = points - self.center
        distances = np.linalg.norm(away, axis=1, keepdims=True)
        # At the centre there is no direction, and no boundary near.
        return np.asarray(away / np.maximum(distances, np.finfo(float).tiny))

    def _polar(self, r: Array, turn: Array) -> Array:
        """Return the points at a share r (n,) of the radius, after a part of a turn (n,)."""
        angle = 2 * math.pi * turn
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # unit, (n, 2)
        return np.asarray(self.center + self.radius * r[:, None] * direction)


def Rectangle(
    names: Sequence[str], low: Sequence[float], high: Sequence[float]
) -> Product:
    """Return the rectangle between two corners, the product of two intervals.

    Examples
    --------
    >>> Rectangle(("x", "y"), low=(0, 0), high=(2, 1)).bounds
    array([[0., 0.],
           [2., 1.]])
    """
    # A rectangle is the product of its sides.
    x, y = _checks.pair("names", names)
    x_low, y_low = _checks.pair("low", low)
    x_high, y_high = _checks.pair("high", high)
    return Product((Interval(x, x_low, x_high), Interval(y, y_low, y_high)))


def Box(names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> Product:
    """Return the box between two corners in any number of coordinates.

    Its sides are the ends of the coordinates, ``x_min``, ``x_max``, …

    Examples
    --------
    >>> box = Box(("x", "y", "z"), low=(0, 0, 0), high=(1, 2, 3))
    >>> box.measure, box.part("z_max").measure
    (6.0, 2.0)
    """
    names = coordinate_names(names)
    lows = vector("low", low, names)
    highs = vector("high", high, names)

    sides = []
    for name, a, b in zip(names, lows.tolist(), highs.tolist(), strict=True):
        sides.append(Interval(name, a, b))
    return Product(tuple(sides))


def coordinate_names(names: object, dimension: int | None = None) -> tuple[str, ...]:
    """Return checked names of coordinates as a tuple, of the number wanted if there is one."""
    if not isinstance(names, tuple | list) or not names:
        raise ValueError(
            f"names must be a tuple of coordinate names, such as ('x', 'y'), got {names!r}"
        )
    if dimension is not None and len(names) != dimension:
        raise ValueError(
            f"names must be those of {dimension} coordinates, got {names!r}"
        )

    check_coordinates(tuple(names))
    return tuple(names)
