"""The domains made of two or more others: products, differences, unions, intersections."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import (
    NEAR,
    Keep,
    Part,
    Piece,
    check_coordinates,
    check_names,
    ends_of,
    flipped,
    restricted,
)
from whence.pinn.geometry.charts import Chart, Mask, mixture, product
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.similarity import Similarity

Normals = Callable[[Array], Array]
"""The function of points (n, d) that gives a surface's normals there."""


@dataclass(frozen=True)
class Product(Domain, made_by="*"):
    """The Cartesian product of domains, written ``a * b``.

    The coordinates are those of the factors in turn; so are the parts of the boundary, each one
    times the other factors. Products of products are flattened.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Interval
    >>> domain = Interval("x", -1, 1) * Interval("y", 0, 1) * Interval("t", 0, 3)
    >>> domain.coordinates, domain.measure, domain.part("t_min").measure
    (('x', 'y', 't'), 6.0, 2.0)
    """

    factors: tuple[Domain, ...]

    def __post_init__(self) -> None:
        # (a × b) × c is the product of three, so that columns are counted once.
        flat: list[Domain] = []
        for factor in self.factors:
            if isinstance(factor, Product):
                flat.extend(factor.factors)
            else:
                flat.append(factor)

        if not flat:
            raise ValueError("a product needs at least one factor, got none")

        object.__setattr__(self, "factors", tuple(flat))

        # Two factors with one coordinate would give a point two values of it.
        check_coordinates(self.coordinates)
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

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of each factor times the other factors."""
        # The rule of Leibniz, ∂(A × B) = ∂A × B ∪ A × ∂B.
        parts = []
        for k, factor in enumerate(self.factors):
            for part in factor.boundary:
                pieces = tuple(self._across(k, piece) for piece in part.pieces)
                whole = replace(
                    part,
                    coordinates=self.coordinates,
                    pieces=pieces,
                    rounding=self.rounding,
                )
                parts.append(whole)

        return tuple(parts)

    @property
    def chart(self) -> Chart:
        """The product of the factors' charts: uniform in each is uniform in all."""
        return product([factor.chart for factor in self.factors])

    def level(self, points: Array) -> Array:
        """Return the largest of the factors' levels: inside means inside every factor."""
        return np.asarray(np.max(self._levels(points), axis=0))

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return what the factor of that coordinate calls its ends."""
        for factor in self.factors:
            if coordinate in factor.coordinates:
                return factor.ends_along(coordinate)
        return ends_of(coordinate)

    def moved(self, move: Similarity) -> Domain:
        """Return the product of the moved factors, where nothing turns."""
        if move.is_turning:
            return super().moved(move)

        factors = []
        for factor, columns in zip(self.factors, self._slices(), strict=True):
            unturned = move.matrix[columns, columns]
            own = Similarity(unturned, move.factor, move.shift[columns])
            factors.append(factor.moved(own))
        return Product(tuple(factors))

    def _levels(self, points: Array) -> list[Array]:
        """Return the level of each factor at its own columns of the points, (n,) each."""
        pairs = zip(self.factors, self._slices(), strict=True)
        return [factor.level(points[:, columns]) for factor, columns in pairs]

    def _slices(self) -> list[slice]:
        """Return which columns of a point belong to each factor."""
        slices = []
        start = 0
        for factor in self.factors:
            slices.append(slice(start, start + factor.dimension))
            start += factor.dimension
        return slices

    def _across(self, k: int, piece: Piece) -> Piece:
        """Return a piece of factor k's boundary times the other factors."""
        columns = self._slices()[k]
        charts = [factor.chart for factor in self.factors]
        charts[k] = piece.chart

        def off(points: Array) -> Array:
            # Near the piece in factor k's columns, and inside every other factor.
            distances = self._levels(points)
            distances[k] = piece.off(points[:, columns])
            return np.asarray(np.max(distances, axis=0))

        def normals(points: Array) -> Array:
            # A normal has no component along the coordinates of the other factors.
            result = np.zeros_like(points)
            result[:, columns] = piece.normals(points[:, columns])
            return result

        others = [factor for j, factor in enumerate(self.factors) if j != k]
        measure = piece.measure * math.prod(factor.measure for factor in others)
        return Piece(product(charts), measure, off, normals)


@dataclass(frozen=True)
class Difference(Domain, made_by="-"):
    """The points of ``outer`` that are not inside ``hole``, written ``outer - hole``.

    The boundary is that of ``outer`` outside ``hole``, then that of ``hole`` inside ``outer``
    with its normals turned round, so that they point out of the difference. An end of ``hole``
    called as one of ``outer`` is prefixed, as in ``"inner_x_min"``.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.geometry.domain import Disk, Rectangle
    >>> plate = Rectangle(("x", "y"), (-1, -1), (1, 1)) - Disk(("x", "y"), (0, 0), 0.5, "hole")
    >>> plate.contains(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]]))
    tensor([False,  True,  True])
    >>> plate.part("hole").normals(torch.tensor([[0.5, 0.0]]))
    tensor([[-1.,  0.]])
    """

    outer: Domain
    hole: Domain

    def __post_init__(self) -> None:
        check_same("a difference", self.outer, self.hole)
        if not self.outer.chart.fraction(self._outside_inner):
            raise ValueError(
                f"the difference is empty: {self.hole} covers {self.outer}"
            )
        if not self._overlap:
            raise ValueError(
                f"nothing to subtract: {self.hole} lies outside {self.outer}"
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
    def rounding(self) -> float:
        """The smaller of the two distances that count as none."""
        return min(self.outer.rounding, self.hole.rounding)

    @cached_property
    def measure(self) -> float:
        """The area; where ``hole`` is partly outside ``outer``, estimated by 4096 points."""
        # A hole that lies wholly inside is exact: |A ∖ B| = |A| − |B|.
        if self._overlap == 1:
            return self.outer.measure - self.hole.measure

        # Partly outside: there is no formula for any two domains.
        share_left = self.outer.chart.fraction(self._outside_inner)
        return self.outer.measure * share_left

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of ``outer`` and of ``hole``, cut to what bounds the difference."""

        def outer_stays(points: Array, normals: Normals) -> Mask:
            # Where both boundaries run together, by whether the inside there is left.
            return side_of(self.hole, points, normals, -1.0) > self.rounding

        def inner_counts(points: Array, normals: Normals) -> Mask:
            return self._inside_outer(points)

        # Of the outer boundary what is not inside the hole,
        # of the hole's what is not outside, turned round to point into it.
        outer = cut(self.outer.boundary, outer_stays)
        inner = cut(self.hole.boundary, inner_counts)
        return joined(outer, [flipped(part) for part in inner], "inner_", self)

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return what ``outer`` calls the ends of a coordinate."""
        return self.outer.ends_along(coordinate)

    @property
    def chart(self) -> Chart:
        """The chart of ``outer``, its points inside ``hole`` rejected."""
        return self.outer.chart.restricted(self._outside_inner)

    def level(self, points: Array) -> Array:
        """Return max(a, −b) of the levels a, b: inside ``outer`` and outside ``hole``."""
        return np.maximum(self.outer.level(points), -self.hole.level(points))

    def moved(self, move: Similarity) -> Domain:
        """Return the difference of the moved domains."""
        return Difference(self.outer.moved(move), self.hole.moved(move))

    def _outside_inner(self, points: Array) -> Mask:
        """Return where points lie outside the closed ``hole``, (n,)."""
        return np.asarray(self.hole.level(points) > self.rounding)

    def _inside_outer(self, points: Array) -> Mask:
        """Return where points lie in the interior of ``outer``, (n,)."""
        return np.asarray(self.outer.level(points) < -self.rounding)

    @cached_property
    def _overlap(self) -> float:
        """The share of ``hole`` that lies inside ``outer``, in [0, 1]."""
        return self.hole.chart.fraction(self._inside_outer)


@dataclass(frozen=True)
class Union(Domain, made_by="|"):
    """The points of one domain or another, written ``a | b``.

    The boundary is that of ``first`` outside ``second``, then that of ``second`` outside
    ``first``; where both run together it is taken once. An end of ``second`` called as one of
    ``first`` is prefixed, as in ``"other_x_min"``; the name of a coordinate means the ends of
    both. The measure is exact where they do not overlap, or one holds the other.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Rectangle
    >>> foot = Rectangle(("x", "y"), (0, 0), (2, 1))
    >>> angle = foot | Rectangle(("x", "y"), (0, 0), (1, 2))
    >>> round(angle.measure, 2)
    3.0
    >>> [(part.name, round(part.measure, 2)) for part in angle.boundary][:3]
    [('x_min', 1.0), ('x_max', 1.0), ('y_min', 2.0)]
    """

    first: Domain
    second: Domain

    def __post_init__(self) -> None:
        check_same("a union", self.first, self.second)
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates, the same in both."""
        return self.first.coordinates

    @property
    def bounds(self) -> Array:
        """The bounds that hold both, shape (2, d)."""
        low = np.minimum(self.first.bounds[0], self.second.bounds[0])
        high = np.maximum(self.first.bounds[1], self.second.bounds[1])
        return np.stack([low, high])

    @property
    def rounding(self) -> float:
        """The smaller of the two distances that count as none."""
        return min(self.first.rounding, self.second.rounding)

    @cached_property
    def measure(self) -> float:
        """The area; where they overlap in part, estimated by 4096 points."""
        # |A ∪ B| = |A| + |B ∖ A|.
        share = self.second.chart.fraction(self._outside_first)
        return self.first.measure + self.second.measure * share

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of both, cut to what bounds the union."""

        def first_stays(points: Array, normals: Normals) -> Mask:
            # Where both boundaries run together, by whether it is outside of both just there.
            return side_of(self.second, points, normals, 1.0) > self.rounding

        def second_stays(points: Array, normals: Normals) -> Mask:
            return self._outside_first(points)

        first = cut(self.first.boundary, first_stays)
        second = cut(self.second.boundary, second_stays)
        return joined(first, second, "other_", self)

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return what the ends of a coordinate are called in both."""
        ends = set(self.first.ends_along(coordinate))
        ends |= set(self.second.ends_along(coordinate))
        names = [part.name for part in self.boundary]
        return tuple(name for name in names if name.rsplit("other_", 1)[-1] in ends)

    @property
    def chart(self) -> Chart:
        """The charts of both, of the second one without what is in the first."""
        rest = self.second.chart.restricted(self._outside_first)
        return mixture([self.first.chart, rest])

    def level(self, points: Array) -> Array:
        """Return the smaller of both levels: inside one is inside the union."""
        return np.minimum(self.first.level(points), self.second.level(points))

    def moved(self, move: Similarity) -> Domain:
        """Return the union of the moved domains."""
        return Union(self.first.moved(move), self.second.moved(move))

    def _outside_first(self, points: Array) -> Mask:
        """Return where points lie outside the closed ``first``, (n,)."""
        return np.asarray(self.first.level(points) > self.rounding)


@dataclass(frozen=True)
class Intersection(Domain, made_by="&"):
    """The points of both of two domains, written ``a & b``.

    The boundary is that of ``first`` inside ``second``, then that of ``second`` inside
    ``first``. An end of ``second`` called as one of ``first`` is prefixed, as in
    ``"other_x_min"``. The measure is estimated by 4096 points, unless one holds the other.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Disk, Rectangle
    >>> right = Rectangle(("x", "y"), (0, -2), (2, 2))
    >>> half = Disk(("x", "y"), (0, 0), 1) & right
    >>> [part.name for part in half.boundary], round(half.measure, 2)
    (['disk', 'x_min'], 1.57)
    """

    first: Domain
    second: Domain

    def __post_init__(self) -> None:
        check_same("an intersection", self.first, self.second)
        low, high = self.bounds
        if not (low < high).all() or not self._share:
            raise ValueError(
                f"the intersection is empty: {self.first} and {self.second} do not overlap"
            )

        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates, the same in both."""
        return self.first.coordinates

    @property
    def bounds(self) -> Array:
        """The bounds within those of both, shape (2, d)."""
        low = np.maximum(self.first.bounds[0], self.second.bounds[0])
        high = np.minimum(self.first.bounds[1], self.second.bounds[1])
        return np.stack([low, high])

    @property
    def rounding(self) -> float:
        """The smaller of the two distances that count as none."""
        return min(self.first.rounding, self.second.rounding)

    @property
    def measure(self) -> float:
        """The area: exact where one domain holds the other."""
        smaller, _ = self._by_size
        return smaller.measure * self._share

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of both, cut to what bounds the intersection."""

        def first_stays(points: Array, normals: Normals) -> Mask:
            # Where both boundaries run together, by whether both are inside just there.
            return side_of(self.second, points, normals, -1.0) < -self.rounding

        def second_stays(points: Array, normals: Normals) -> Mask:
            return np.asarray(self.first.level(points) < -self.rounding)

        first = cut(self.first.boundary, first_stays)
        second = cut(self.second.boundary, second_stays)
        return joined(first, second, "other_", self)

    @property
    def chart(self) -> Chart:
        """The chart of the smaller domain, its points outside the other rejected."""
        smaller, larger = self._by_size
        return smaller.chart.restricted(functools.partial(self._inside, larger))

    def level(self, points: Array) -> Array:
        """Return the larger of both levels: inside means inside both."""
        return np.maximum(self.first.level(points), self.second.level(points))

    def moved(self, move: Similarity) -> Domain:
        """Return the intersection of the moved domains."""
        return Intersection(self.first.moved(move), self.second.moved(move))

    @property
    def _by_size(self) -> tuple[Domain, Domain]:
        """The smaller domain, of which fewer points are rejected, and the larger one."""
        if self.first.measure <= self.second.measure:
            return self.first, self.second
        return self.second, self.first

    def _inside(self, domain: Domain, points: Array) -> Mask:
        """Return where points lie in the closed domain, (n,)."""
        return np.asarray(domain.level(points) <= self.rounding)

    @cached_property
    def _share(self) -> float:
        """The share of the smaller domain that lies in the larger one."""
        smaller, larger = self._by_size
        return smaller.chart.fraction(functools.partial(self._inside, larger))


def check_same(what: str, first: Domain, second: Domain) -> None:
    """Raise ``ValueError`` unless points of one domain are points of the other."""
    if second.coordinates != first.coordinates:
        raise ValueError(
            f"{what} needs the same coordinates in the same order, got "
            f"{first.coordinates} and {second.coordinates}: "
            f"a factor such as time multiplies the whole, (a - b) * t"
        )


def side_of(domain: Domain, points: Array, normals: Normals, direction: float) -> Array:
    """Return the level (n,) of a domain at boundary points of another.

    On its own boundary too, the level a step along the normals times ``direction``, which tells
    on what side of the surface the domain lies.
    """
    level = domain.level(points)
    together = np.abs(level) <= domain.rounding
    if together.any():
        shared = points[together]
        step = direction * NEAR * domain.rounding
        level = level.copy()
        level[together] = domain.level(shared + step * normals(shared))
    return level


def cut(parts: Iterable[Part], keep: Keep) -> list[Part]:
    """Return what ``keep`` holds on of each part, those left out of which nothing remains."""
    cuts = [restricted(part, keep) for part in parts]
    return [part for part in cuts if part is not None]


def joined(
    first: Iterable[Part], second: Iterable[Part], prefix: str, domain: Domain
) -> tuple[Part, ...]:
    """Return the parts of two boundaries, with a prefix for ends whose names are taken."""
    ends = {end for c in domain.coordinates for end in ends_of(c)}
    parts = [replace(part, rounding=domain.rounding) for part in first]
    taken = {part.name for part in parts}

    for part in second:
        name = part.name
        is_end = re.sub("^((inner|other)_)+", "", name) in ends
        # Only ends are renamed: a name that the user chose twice is an error, see check_names.
        while is_end and name in taken:
            name = prefix + name
        taken.add(name)
        parts.append(replace(part, name=name, rounding=domain.rounding))

    return tuple(parts)
