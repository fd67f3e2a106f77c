"""Domains with named coordinates, the named parts of their boundary, and points in both.

Domains are made of intervals, rectangles and disks by product, ``a * b``, and difference,
``a - b``. A coordinate is known by its name: time is an interval like any other.

>>> channel = Rectangle(("x", "y"), (0, 0), (22, 4.1)) - Disk(("x", "y"), (2, 2), 0.5, "cylinder")
>>> domain = channel * Interval("t", 0, 1)
>>> [part.name for part in domain.boundary]
['x_min', 'x_max', 'y_min', 'y_max', 'cylinder', 't_min', 't_max']
>>> domain.sample(1000).shape
torch.Size([1000, 3])
>>> domain.part("t_min").sample(2)[:, 2]
tensor([0., 0.], dtype=torch.float64)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.boundary import (
    ON,
    Given,
    Part,
    Piece,
    check_names,
    ends_of,
    flipped,
    like,
    named,
    predicate,
    restricted,
    rows_of,
    union,
)
from whence.pinn.geometry.charts import Chart, Mask, product
from whence.pinn.geometry.samplings import Array, unit_points

__all__ = ["Difference", "Disk", "Domain", "Interval", "Part", "Product", "Rectangle"]
__all__ += ["unit_points"]


class Domain(ABC):
    """A bounded set of points with named coordinates.

    Use ``Interval``, ``Rectangle`` or ``Disk``, and combine them with ``*`` and ``-``.
    """

    @property
    @abstractmethod
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates, in the order of a point's columns."""

    @property
    @abstractmethod
    def bounds(self) -> Array:
        """Lowest and highest value of each coordinate, shape (2, d)."""

    @property
    @abstractmethod
    def measure(self) -> float:
        """Length, area or volume."""

    @property
    @abstractmethod
    def boundary(self) -> tuple[Part, ...]:
        """The named parts of the boundary; together they are all of it."""

    @property
    @abstractmethod
    def _chart(self) -> Chart:
        """Uniform points of the set."""

    @abstractmethod
    def _level(self, points: Array) -> Array:
        """Return a function (n,) of points (n, d): negative inside, zero on the boundary.

        Near the boundary of one factor its size is the distance.
        """

    @property
    def dimension(self) -> int:
        """Number of coordinates, d."""
        return len(self.coordinates)

    def contains(self, points: Given, tolerance: float = ON) -> Given:
        """Return which points, shape (n, d), are in the closed set, as booleans of shape (n,).

        ``tolerance`` is a distance in the units of the coordinates, for rounding; a negative
        one asks for points at least so far inside.

        Examples
        --------
        >>> Interval("x", 0, 1).contains(torch.tensor([[0.5], [1.0], [1.1]]))
        tensor([ True,  True, False])
        """
        return like(points, self._level(rows_of(points, self.coordinates)) <= tolerance)

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the set, float64 of shape (n, d).

        Methods and seeds are those of ``unit_points``; ``"grid"`` may return fewer than n.

        Examples
        --------
        >>> (Interval("x", -1, 1) * Interval("t", 0, 1)).sample(2)
        tensor([[-0.5000,  0.5000],
                [ 0.5000,  0.2500]], dtype=torch.float64)
        """
        _checks.count("n", n)
        return torch.from_numpy(self._chart.sample(n, method, seed))

    def part(self, on: str | Iterable[str] | Callable[..., Any]) -> Part:
        """Return a part of the boundary, or the union of several.

        Parameters
        ----------
        on
            The name of one of the parts in ``boundary``; the name of a coordinate, which means
            both of its ends; several such names, which means their union; or a function whose
            arguments are coordinate names. It is called with tensors of shape (n,) and returns
            which of these boundary points to take. Coordinates are exact where a part fixes
            them, so that ``lambda x: x == 1.0`` works if x ends at 1.0.

        Examples
        --------
        >>> square = Rectangle(("x", "y"), (0, 0), (1, 1))
        >>> square.part(("x_min", "y_max")).measure
        2.0
        >>> square.part(lambda x: x == 1.0)
        Part(name='x_max', coordinates=('x', 'y'))
        """
        if callable(on):
            return self._selected(on)
        if not isinstance(on, Iterable):
            raise TypeError(
                f"on must name parts of the boundary, or be a function of coordinates that "
                f"selects points of it, got {on!r}: choose {self._choices()}"
            )
        names = (on,) if isinstance(on, str) else tuple(on)
        if not names:
            raise ValueError(
                f"on must name a part of the boundary: choose {self._choices()}"
            )
        parts = {part.name: part for part in self.boundary}
        chosen: dict[str, Part] = {}
        for name in names:
            ends = [
                end
                for end in ends_of(name)
                if name in self.coordinates and end in parts
            ]
            if not ends:
                _checks.one_of("part of the boundary", name, self._choices())
            chosen.update({end: parts[end] for end in ends or [name]})
        return union(names, chosen.values())

    def __mul__(self, other: Domain) -> Product:
        if not isinstance(other, Domain):
            return NotImplemented
        return Product((self, other))

    def __sub__(self, other: Domain) -> Difference:
        if not isinstance(other, Domain):
            return NotImplemented
        return Difference(self, other)

    def _choices(self) -> list[str]:
        names = [part.name for part in self.boundary]
        return names + [c for c in self.coordinates if set(ends_of(c)) & set(names)]

    def _selected(self, on: Callable[..., Any]) -> Part:
        keep = predicate(on, self.coordinates)
        parts = [found for part in self.boundary if (found := restricted(part, keep))]
        if not parts:
            raise ValueError(
                f"the function given selects no point of the boundary, whose parts are "
                f"{', '.join(repr(part.name) for part in self.boundary)} and whose bounds are "
                f"{named(self.coordinates, self.bounds.T)}"
            )
        return union([part.name for part in parts], parts)


@dataclass(frozen=True)
class Interval(Domain):
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
        object.__setattr__(
            self, "low", _checks.number(f"low of {self.name!r}", self.low)
        )
        object.__setattr__(
            self, "high", _checks.number(f"high of {self.name!r}", self.high)
        )
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
        low, high = ends_of(self.name)
        return self._end(low, self.low, -1.0), self._end(high, self.high, 1.0)

    @property
    def _chart(self) -> Chart:
        return Chart(
            1, 1, lambda u: np.clip(self.low + self.measure * u, self.low, self.high)
        )

    def _level(self, points: Array) -> Array:
        return np.maximum(self.low - points[:, 0], points[:, 0] - self.high)

    def _end(self, name: str, value: float, sign: float) -> Part:
        piece = Piece(
            # The value itself, not a computed one: equal to the bound to the last bit.
            chart=Chart(0, 1, lambda u: np.full((len(u), 1), value)),
            measure=1.0,
            off=lambda points: np.abs(points[:, 0] - value),
            normals=lambda points: np.full_like(points, sign),
        )
        return Part(name, self.coordinates, (piece,))


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
        object.__setattr__(self, "names", _checks.pair("names", self.names))
        _checks.identifiers("coordinate", self.names)
        center = zip(self.names, _checks.pair("center", self.center), strict=True)
        object.__setattr__(
            self, "center", tuple(_checks.number(f"center {c!r}", v) for c, v in center)
        )
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
        return np.array(self.center) + self.radius * np.array([[-1.0], [1.0]])

    @property
    def measure(self) -> float:
        """The area."""
        return math.pi * self.radius**2

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The circle."""
        piece = Piece(
            chart=Chart(1, 2, lambda u: self._polar(np.ones(len(u)), u[:, 0])),
            measure=2 * math.pi * self.radius,
            off=lambda points: np.abs(self._level(points)),
            normals=self._outward,
        )
        return (Part(self.name, self.names, (piece,)),)

    @property
    def _chart(self) -> Chart:
        # The area within r grows as r², so that uniform points have r as the square root of u.
        return Chart(2, 2, lambda u: self._polar(np.sqrt(u[:, 0]), u[:, 1]))

    def _level(self, points: Array) -> Array:
        return np.asarray(np.linalg.norm(points - self.center, axis=1) - self.radius)

    def _outward(self, points: Array) -> Array:
        away = points - self.center
        return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))

    def _polar(self, r: Array, turn: Array) -> Array:
        direction = np.stack(
            [np.cos(2 * math.pi * turn), np.sin(2 * math.pi * turn)], axis=1
        )
        return np.asarray(self.center + self.radius * r[:, None] * direction)


@dataclass(frozen=True)
class Product(Domain):
    """The Cartesian product of domains, written ``a * b``.

    The coordinates are those of the factors in turn; so are the parts of the boundary, each one
    times the other factors. Products of products are flattened.

    Examples
    --------
    >>> domain = Interval("x", -1, 1) * Interval("y", 0, 1) * Interval("t", 0, 3)
    >>> domain.coordinates, domain.measure, domain.part("t_min").measure
    (('x', 'y', 't'), 6.0, 2.0)
    """

    factors: tuple[Domain, ...]

    def __post_init__(self) -> None:
        flat: list[Domain] = []
        for factor in self.factors:
            flat.extend(factor.factors if isinstance(factor, Product) else (factor,))
        if not flat:
            raise ValueError("a product needs at least one factor, got none")
        object.__setattr__(self, "factors", tuple(flat))
        twice = [c for c, k in Counter(self.coordinates).items() if k > 1]
        if twice:
            raise ValueError(
                f"the factors of a product must have different coordinates, got "
                f"{', '.join(repr(c) for c in twice)} more than once in {self.coordinates}"
            )
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates of all factors."""
        return tuple(c for factor in self.factors for c in factor.coordinates)

    @property
    def bounds(self) -> Array:
        """The bounds of all factors, shape (2, d)."""
        return np.concatenate([factor.bounds for factor in self.factors], axis=1)

    @property
    def measure(self) -> float:
        """The product of the factors' measures."""
        return math.prod(factor.measure for factor in self.factors)

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of each factor times the other factors."""
        return tuple(
            Part(
                part.name,
                self.coordinates,
                tuple(self._across(k, p) for p in part.pieces),
            )
            for k, factor in enumerate(self.factors)
            for part in factor.boundary
        )

    @property
    def _chart(self) -> Chart:
        return product([factor._chart for factor in self.factors])

    def _level(self, points: Array) -> Array:
        return np.asarray(np.max(self._levels(points), axis=0))

    def _levels(self, points: Array) -> list[Array]:
        return [
            f._level(points[:, s])
            for f, s in zip(self.factors, self._slices(), strict=True)
        ]

    def _slices(self) -> list[slice]:
        ends = np.cumsum([factor.dimension for factor in self.factors]).tolist()
        return [
            slice(e - f.dimension, e) for e, f in zip(ends, self.factors, strict=True)
        ]

    def _across(self, k: int, piece: Piece) -> Piece:
        """Return a piece of factor k's boundary times the other factors."""
        columns = self._slices()[k]
        charts = [
            piece.chart if j == k else f._chart for j, f in enumerate(self.factors)
        ]

        def off(points: Array) -> Array:
            outside = [level for j, level in enumerate(self._levels(points)) if j != k]
            return np.asarray(np.max([piece.off(points[:, columns]), *outside], axis=0))

        def normals(points: Array) -> Array:
            result = np.zeros_like(points)
            result[:, columns] = piece.normals(points[:, columns])
            return result

        others = math.prod(f.measure for j, f in enumerate(self.factors) if j != k)
        return Piece(product(charts), piece.measure * others, off, normals)


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
    pairs = (
        _checks.pair("names", names),
        _checks.pair("low", low),
        _checks.pair("high", high),
    )
    return Product(tuple(Interval(*each) for each in zip(*pairs, strict=True)))


@dataclass(frozen=True)
class Difference(Domain):
    """The points of ``outer`` that are not inside ``inner``, written ``outer - inner``.

    The boundary is that of ``outer`` outside ``inner``, then that of ``inner`` inside ``outer``
    with its normals turned round, so that they point out of the difference. An end of ``inner``
    called as one of ``outer`` is prefixed, as in ``"inner_x_min"``.

    Examples
    --------
    >>> plate = Rectangle(("x", "y"), (-1, -1), (1, 1)) - Disk(("x", "y"), (0, 0), 0.5, "hole")
    >>> plate.contains(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]]))
    tensor([False,  True,  True])
    >>> plate.part("hole").normals(torch.tensor([[0.5, 0.0]]))
    tensor([[-1.,  0.]])
    """

    outer: Domain
    inner: Domain

    def __post_init__(self) -> None:
        if self.inner.coordinates != self.outer.coordinates:
            raise ValueError(
                f"a difference needs the same coordinates in the same order, got "
                f"{self.outer.coordinates} less {self.inner.coordinates}: "
                f"a factor such as time multiplies the difference, (a - b) * t"
            )
        if not self.outer._chart.fraction(self._outside_inner):
            raise ValueError(
                f"the difference is empty: {self.inner} covers {self.outer}"
            )
        if not self._overlap():
            raise ValueError(
                f"nothing to subtract: {self.inner} lies outside {self.outer}"
            )
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates, the same in both."""
        return self.outer.coordinates

    @property
    def bounds(self) -> Array:
        """The bounds of ``outer``, shape (2, d)."""
        return self.outer.bounds

    @property
    def measure(self) -> float:
        """The area; where ``inner`` is partly outside ``outer``, estimated by 4096 points."""
        if self._overlap() == 1:
            return self.outer.measure - self.inner.measure
        return self.outer.measure * self.outer._chart.fraction(self._outside_inner)

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of ``outer`` and of ``inner``, cut to what bounds the difference."""
        outer = self.outer.boundary
        taken = {part.name for part in outer}
        ends = {end for c in self.coordinates for end in ends_of(c)}
        parts = [
            cut for part in outer if (cut := restricted(part, self._outside_inner))
        ]
        for part in self.inner.boundary:
            if cut := restricted(part, self._inside_outer):
                name = part.name
                while name in taken and part.name.rsplit("inner_", 1)[-1] in ends:
                    name = f"inner_{name}"
                taken.add(name)
                parts.append(flipped(cut, name))
        return tuple(parts)

    @property
    def _chart(self) -> Chart:
        return self.outer._chart.restricted(self._outside_inner)

    def _level(self, points: Array) -> Array:
        return np.maximum(self.outer._level(points), -self.inner._level(points))

    def _outside_inner(self, points: Array) -> Mask:
        return np.asarray(self.inner._level(points) > ON)

    def _inside_outer(self, points: Array) -> Mask:
        return np.asarray(self.outer._level(points) < -ON)

    def _overlap(self) -> float:
        return self.inner._chart.fraction(self._inside_outer)
