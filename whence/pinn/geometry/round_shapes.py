"""Shapes with curved boundaries in closed form: ellipses, spheres and cylinders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, Piece, check_names, ends_of
from whence.pinn.geometry.charts import Chart
from whence.pinn.geometry.combinations import Product
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.shapes import Disk, Interval, coordinate_names
from whence.pinn.geometry.similarity import (
    Similarity,
    permutation,
    plane_rotation,
    vector,
)

TINY = float(np.finfo(float).tiny)
ARC_NODES = 4096
"""Intervals of the table from arc length to angle, refined by Newton's method."""


def _check_place(shape: Any, dimension: int, what: str) -> None:
    """Check a shape's names and its point of reference, and keep them as tuples."""
    names = coordinate_names(shape.names, dimension)
    point = vector(what, getattr(shape, what), names)
    # The shape is frozen for all but its own making.
    object.__setattr__(shape, "names", names)
    object.__setattr__(shape, what, tuple(point.tolist()))


def _check_length(shape: Any, what: str) -> None:
    """Check that an attribute of a shape is a positive number, and keep it as a float."""
    length = _checks.number(what, getattr(shape, what))
    _checks.positive(what, length)
    object.__setattr__(shape, what, length)


@dataclass(frozen=True)
class Sphere(Domain):
    """The ball around ``center`` in three coordinates; its surface is the part called ``name``.

    Raises
    ------
    ValueError
        For a radius that is not positive, or other than three coordinates.

    Examples
    --------
    >>> ball = Sphere(("x", "y", "z"), center=(0, 0, 1), radius=2)
    >>> round(ball.measure, 3), round(ball.part("sphere").measure, 3)
    (33.51, 50.265)
    >>> ball.part("sphere").normals(ball.part("sphere").sample(9)).norm(dim=1).max()
    tensor(1., dtype=torch.float64)
    """

    names: tuple[str, str, str]
    center: tuple[float, float, float]
    radius: float
    name: str = "sphere"

    def __post_init__(self) -> None:
        _check_place(self, 3, "center")
        _check_length(self, "radius")
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The three names."""
        return self.names

    @property
    def bounds(self) -> Array:
        """The enclosing cube, shape (2, 3)."""
        center = np.array(self.center)
        low = center - self.radius
        high = center + self.radius
        return np.stack([low, high])

    @property
    def measure(self) -> float:
        """The volume, 4/3·π·r³."""
        return 4 / 3 * math.pi * self.radius**3

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The surface."""
        area = 4 * math.pi * self.radius**2

        def place(unit: Array) -> Array:
            height, turn = unit.T
            return self._polar(np.ones(len(unit)), height, turn)

        piece = Piece(
            chart=Chart(2, 3, place, size=area),
            measure=area,
            off=lambda points: np.abs(self.level(points)),
            normals=self._outward,
        )
        return (Part(self.name, self.names, (piece,), rounding=self.rounding),)

    @property
    def chart(self) -> Chart:
        """Spherical coordinates, evenly over the volume."""

        def place(unit: Array) -> Array:
            # The volume within r grows as r³, so that uniform points have r = u^(1/3).
            height, turn, share = unit.T
            return self._polar(np.cbrt(share), height, turn)

        return Chart(3, 3, place, size=self.measure)

    def level(self, points: Array) -> Array:
        """Return ‖x − c‖ − r, (n,)."""
        away = points - self.center
        return np.asarray(np.linalg.norm(away, axis=1) - self.radius)

    def moved(self, move: Similarity) -> Domain:
        """Return the moved sphere."""
        center = np.array([self.center])
        x, y, z = move.forward(center)[0].tolist()
        radius = move.factor * self.radius
        return Sphere(self.names, (x, y, z), radius, self.name)

    def _outward(self, points: Array) -> Array:
        """Return (x − c)/‖x − c‖, (n, 3)."""
        away = points - self.center
        distances = np.linalg.norm(away, axis=1, keepdims=True)
        return np.asarray(away / np.maximum(distances, TINY))

    def _polar(self, r: Array, height: Array, turn: Array) -> Array:
        """Return points at a share r (n,) of the radius; height and turn are in [0, 1)."""
        # Slices of equal height have equal area (Archimedes).
        z = 2 * height - 1
        across = np.sqrt(1 - z**2)
        angle = 2 * math.pi * turn
        x = across * np.cos(angle)
        y = across * np.sin(angle)

        direction = np.stack([x, y, z], axis=1)  # unit, (n, 3)
        distance = self.radius * r[:, None]
        return np.asarray(self.center + distance * direction)


@dataclass(frozen=True)
class Ellipse(Domain):
    """The ellipse with two radii around ``center``, turned by ``rotation`` degrees.

    Before it is turned, the first radius lies along the first coordinate. Its boundary is the
    part called ``name``. Distances, such as a tolerance, are right to first order in the
    distance from the boundary.

    Examples
    --------
    >>> ellipse = Ellipse(("x", "y"), center=(0, 0), radii=(2, 1), rotation=90)
    >>> ellipse.bounds.round(12).tolist()
    [[-1.0, -2.0], [1.0, 2.0]]
    >>> round(ellipse.part("ellipse").measure, 6)
    9.688448
    """

    names: tuple[str, str]
    center: tuple[float, float]
    radii: tuple[float, float]
    rotation: float = 0.0
    name: str = "ellipse"

    def __post_init__(self) -> None:
        _check_place(self, 2, "center")
        radii = vector("radii", self.radii, self.names).tolist()
        for radius in radii:
            _checks.positive("a radius", radius)
        object.__setattr__(self, "radii", tuple(radii))

        rotation = _checks.number("rotation", self.rotation)
        object.__setattr__(self, "rotation", rotation)
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The two names."""
        return self.names

    @property
    def bounds(self) -> Array:
        """The enclosing rectangle, shape (2, 2)."""
        # The support of Q·diag(a) times the unit disk along each coordinate.
        axes = self._move.matrix * self.radii
        extent = np.linalg.norm(axes, axis=1)
        center = np.array(self.center)
        low = center - extent
        high = center + extent
        return np.stack([low, high])

    @property
    def measure(self) -> float:
        """The area, π·a·b."""
        return math.pi * self.radii[0] * self.radii[1]

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The curve, evenly by its length."""
        length, angle_at = self._arc_length()

        def place(unit: Array) -> Array:
            angle = angle_at(unit[:, 0])
            return self._at(np.cos(angle), np.sin(angle))

        piece = Piece(
            chart=Chart(1, 2, place, size=length),
            measure=length,
            off=lambda points: np.abs(self.level(points)),
            normals=self._outward,
        )
        return (Part(self.name, self.names, (piece,), rounding=self.rounding),)

    @property
    def chart(self) -> Chart:
        """The image of the even points of a unit disk, as a linear map keeps them even."""

        def place(unit: Array) -> Array:
            angle = 2 * math.pi * unit[:, 1]
            r = np.sqrt(unit[:, 0])  # see Disk
            return self._at(r * np.cos(angle), r * np.sin(angle))

        return Chart(2, 2, place, size=self.measure)

    def level(self, points: Array) -> Array:
        """Return f/‖∇f‖ with f = ‖(x/a, y/b)‖ − 1, (n,): the distance to first order."""
        scaled = self._move.back(points) / self.radii
        norm = np.linalg.norm(scaled, axis=1)
        # ∇f = (x/a², y/b²)/‖(x/a, y/b)‖, nowhere less than 1/max(a, b).
        slope = np.linalg.norm(scaled / self.radii, axis=1)
        slope = slope / np.maximum(norm, TINY)
        slope = np.maximum(slope, 1 / max(self.radii))
        return np.asarray((norm - 1) / slope)

    def moved(self, move: Similarity) -> Domain:
        """Return the moved ellipse, unless it was reflected."""
        if np.linalg.det(move.matrix) < 0:
            return super().moved(move)

        center = np.array([self.center])
        x, y = move.forward(center)[0].tolist()
        a, b = self.radii
        radii = (move.factor * a, move.factor * b)

        cosine, sine = move.matrix[:, 0].tolist()
        turn = math.degrees(math.atan2(sine, cosine))
        return Ellipse(self.names, (x, y), radii, self.rotation + turn, self.name)

    @property
    def _move(self) -> Similarity:
        """The map from the ellipse at the origin along the axes."""
        return Similarity(plane_rotation(self.rotation), 1.0, np.array(self.center))

    def _at(self, x: Array, y: Array) -> Array:
        """Return the images (n, 2) of points of the unit disk."""
        stretched = np.stack([x, y], axis=1) * self.radii
        return self._move.forward(stretched)

    def _outward(self, points: Array) -> Array:
        """Return ∇f/‖∇f‖, (n, 2), which is along (x/a², y/b²) before the turn."""
        gradient = self._move.back(points) / np.square(self.radii)
        norm = np.linalg.norm(gradient, axis=1, keepdims=True)
        return self._move.turn(gradient / np.maximum(norm, TINY))

    def _arc_length(self) -> tuple[float, Callable[[Array], Array]]:
        """Return the circumference, and the angle after a share of it."""
        from scipy.special import ellipe, ellipeinc  # slow to import

        a, b = self.radii
        # ds/dφ = √(a² sin²φ + b² cos²φ) = b·√(1 − m sin²φ), whose integral is b·E(φ | m).
        m = 1 - (a / b) ** 2
        length = 4 * b * float(ellipe(m))
        nodes = np.linspace(0.0, 2 * math.pi, ARC_NODES + 1)
        arcs = b * ellipeinc(nodes, m)

        def angle_at(share: Array) -> Array:
            arc = length * share
            angle = np.interp(arc, arcs, nodes)
            for _ in range(3):
                sine = np.sin(angle)
                speed = b * np.sqrt(1 - m * sine**2)
                excess = b * ellipeinc(angle, m) - arc
                angle = angle - excess / speed
            return np.asarray(angle)

        return length, angle_at


@dataclass(frozen=True)
class Cylinder(Domain):
    """The round cylinder that stands on the disk around ``base``, along one coordinate.

    Its parts are ``side``, ``bottom`` and ``top``, where it is lowest and highest along
    ``axis``; ``cylinder`` means all three. With a ``name`` of its own they are called after
    that: ``pipe_side``, … and ``pipe``.

    Examples
    --------
    >>> can = Cylinder(("x", "y", "z"), base=(0, 0, 0), radius=1, height=2)
    >>> [(part.name, round(part.measure, 4)) for part in can.boundary]
    [('side', 12.5664), ('bottom', 3.1416), ('top', 3.1416)]
    >>> Cylinder(("x", "y", "z"), (0, 0, 0), 1, 2, axis="x").bounds.tolist()
    [[0.0, -1.0, -1.0], [2.0, 1.0, 1.0]]
    """

    names: tuple[str, str, str]
    base: tuple[float, float, float]
    radius: float
    height: float
    axis: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check_place(self, 3, "base")
        _check_length(self, "radius")
        _check_length(self, "height")

        if self.axis is None:
            object.__setattr__(self, "axis", self.names[-1])
        _checks.one_of("coordinate for axis=", str(self.axis), self.names)
        if self.name is not None:
            _checks.identifiers("cylinder", (self.name,))
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The three names."""
        return self.names

    @property
    def bounds(self) -> Array:
        """The enclosing box, shape (2, 3)."""
        return self._move.forward(self._product.bounds)

    @property
    def measure(self) -> float:
        """The volume, π·r²·h."""
        return self._product.measure

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The side, the bottom and the top."""
        low, high = ends_of(str(self.axis))
        labels = {"side": "side", low: "bottom", high: "top"}
        prefix = "" if self.name is None else f"{self.name}_"
        group = "cylinder" if self.name is None else self.name

        parts = []
        for part in self._product.boundary:
            pieces = tuple(piece.moved(self._move) for piece in part.pieces)
            label = prefix + labels[part.name]
            parts.append(Part(label, self.names, pieces, group, self.rounding))
        return tuple(parts)

    @property
    def chart(self) -> Chart:
        """That of a disk times an interval."""
        return self._product.chart.moved(self._move)

    def level(self, points: Array) -> Array:
        """Return the larger of the distances to the side and to the ends, (n,)."""
        return self._product.level(self._move.back(points))

    @cached_property
    def _product(self) -> Product:
        """A disk times an interval: the cylinder with its axis as the last coordinate."""
        axis = str(self.axis)
        base = dict(zip(self.names, self.base, strict=True))
        bottom = base.pop(axis)
        x, y = base

        disk = Disk((x, y), (base[x], base[y]), self.radius, "side")
        height = Interval(axis, bottom, bottom + self.height)
        return Product((disk, height))

    @cached_property
    def _move(self) -> Similarity:
        """The order of the columns."""
        inside = self._product.coordinates
        return permutation([self.names.index(name) for name in inside])
