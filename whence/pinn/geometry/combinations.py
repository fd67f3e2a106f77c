"""What every domain is, and the domains made of others: products and differences."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.boundary import (
    ON,
    Part,
    Piece,
    PointsT,
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
from whence.pinn.geometry.samplings import Array


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
    def chart(self) -> Chart:
        """A map from the unit cube whose images of uniform points are uniform in the set."""

    @abstractmethod
    def level(self, points: Array) -> Array:
        """Return a function (n,) of points (n, d): negative inside, zero on the boundary.

        Near the boundary of one factor its size is the distance.
        """

    @property
    def dimension(self) -> int:
        """Number of coordinates, d."""
        return len(self.coordinates)

    def contains(self, points: PointsT, tolerance: float = ON) -> PointsT:
        """Return which points, shape (n, d), are in the closed set, as booleans of shape (n,).

        ``tolerance`` is a distance in the units of the coordinates, for rounding; a negative
        one asks for points at least so far inside.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Interval
        >>> Interval("x", 0, 1).contains(torch.tensor([[0.5], [1.0], [1.1]]))
        tensor([ True,  True, False])
        """
        rows = rows_of(points, self.coordinates)
        return like(points, self.level(rows) <= tolerance)

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the set, float64 of shape (n, d).

        Methods and seeds are those of ``unit_points``; ``"grid"`` may return fewer than n.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Interval
        >>> from whence.pinn.geometry.domain import Interval
        >>> (Interval("x", -1, 1) * Interval("t", 0, 1)).sample(2)
        tensor([[-0.5000,  0.5000],
                [ 0.5000,  0.2500]], dtype=torch.float64)
        """
        _checks.count("n", n)
        # In float64, whatever the network will be: training points are rounded once, later.
        return torch.from_numpy(self.chart.sample(n, method, seed))

    def part(self, on: str | Iterable[str] | Callable[..., Tensor]) -> Part:
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
        >>> from whence.pinn.geometry.domain import Rectangle
        >>> from whence.pinn.geometry.domain import Rectangle
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
            for part_name in self._part_names(name):
                # By name: a part that two of the names mean is taken once.
                chosen[part_name] = parts[part_name]

        return union(names, chosen.values())

    def _part_names(self, name: str) -> list[str]:
        """Return the parts meant by the name of a part, or by that of a coordinate."""
        parts = [part.name for part in self.boundary]
        if name in self.coordinates:
            ends = [end for end in ends_of(name) if end in parts]
            if ends:
                return ends

        _checks.one_of("part of the boundary", name, self._choices())
        return [name]

    def __mul__(self, other: Domain) -> Product:
        if not isinstance(other, Domain):
            return NotImplemented
        return Product((self, other))

    def __sub__(self, other: Domain) -> Difference:
        if not isinstance(other, Domain):
            return NotImplemented
        return Difference(self, other)

    def _choices(self) -> list[str]:
        """Return what ``on`` may name: parts, and coordinates that have ends."""
        names = [part.name for part in self.boundary]
        with_ends = [c for c in self.coordinates if set(ends_of(c)) & set(names)]
        return names + with_ends

    def _selected(self, on: Callable[..., Tensor]) -> Part:
        """Return the points of the boundary on which a function of coordinates holds."""
        keep = predicate(on, self.coordinates)
        # Part by part, so that what is left of each keeps its name and its normals.
        cuts = [restricted(part, keep) for part in self.boundary]
        parts = [cut for cut in cuts if cut is not None]
        if not parts:
            names = ", ".join(repr(part.name) for part in self.boundary)
            raise ValueError(
                f"the function given selects no point of the boundary, whose parts are "
                f"{names} and whose bounds are {named(self.coordinates, self.bounds.T)}"
            )

        return union([part.name for part in parts], parts)


@dataclass(frozen=True)
class Product(Domain):
    """The Cartesian product of domains, written ``a * b``.

    The coordinates are those of the factors in turn; so are the parts of the boundary, each one
    times the other factors. Products of products are flattened.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Interval
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
        counts = Counter(self.coordinates)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            listed = ", ".join(map(repr, twice))
            raise ValueError(
                f"the factors of a product must have different coordinates, got "
                f"{listed} more than once in {self.coordinates}"
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
        # The rule of Leibniz, ∂(A × B) = ∂A × B ∪ A × ∂B.
        parts = []
        for k, factor in enumerate(self.factors):
            for part in factor.boundary:
                pieces = tuple(self._across(k, piece) for piece in part.pieces)
                parts.append(Part(part.name, self.coordinates, pieces))

        return tuple(parts)

    @property
    def chart(self) -> Chart:
        """The product of the factors' charts: uniform in each is uniform in all."""
        return product([factor.chart for factor in self.factors])

    def level(self, points: Array) -> Array:
        """Return the largest of the factors' levels: inside means inside every factor."""
        return np.asarray(np.max(self._levels(points), axis=0))

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
class Difference(Domain):
    """The points of ``outer`` that are not inside ``inner``, written ``outer - inner``.

    The boundary is that of ``outer`` outside ``inner``, then that of ``inner`` inside ``outer``
    with its normals turned round, so that they point out of the difference. An end of ``inner``
    called as one of ``outer`` is prefixed, as in ``"inner_x_min"``.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Disk, Rectangle
    >>> from whence.pinn.geometry.domain import Disk, Rectangle
    >>> plate = Rectangle(("x", "y"), (-1, -1), (1, 1)) - Disk(("x", "y"), (0, 0), 0.5, "hole")
    >>> plate.contains(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]]))
    tensor([False,  True,  True])
    >>> plate.part("hole").normals(torch.tensor([[0.5, 0.0]]))
    tensor([[-1.,  0.]])
    """

    outer: Domain
    inner: Domain

    def __post_init__(self) -> None:
        # Points of one must be points of the other, column by column.
        if self.inner.coordinates != self.outer.coordinates:
            raise ValueError(
                f"a difference needs the same coordinates in the same order, got "
                f"{self.outer.coordinates} less {self.inner.coordinates}: "
                f"a factor such as time multiplies the difference, (a - b) * t"
            )

        if not self.outer.chart.fraction(self._outside_inner):
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
        # A hole that lies wholly inside is exact: |A ∖ B| = |A| − |B|.
        if self._overlap() == 1:
            return self.outer.measure - self.inner.measure

        # Partly outside: there is no formula for any two domains.
        share_left = self.outer.chart.fraction(self._outside_inner)
        return self.outer.measure * share_left

    @property
    def boundary(self) -> tuple[Part, ...]:
        """The parts of ``outer`` and of ``inner``, cut to what bounds the difference."""
        parts = []
        taken = set()

        # Of the outer boundary what is not inside the hole,
        # of the hole's what is not outside, turned round to point into it.
        for part in self.outer.boundary:
            taken.add(part.name)
            cut = restricted(part, self._outside_inner)
            if cut is not None:
                parts.append(cut)

        for part in self.inner.boundary:
            cut = restricted(part, self._inside_outer)
            if cut is not None:
                name = self._inner_name(part.name, taken)
                taken.add(name)
                parts.append(flipped(cut, name))

        return tuple(parts)

    def _inner_name(self, name: str, taken: set[str]) -> str:
        """Return the name of a part of ``inner``, prefixed where an end's is taken."""
        ends = {end for c in self.coordinates for end in ends_of(c)}
        is_end = name.rsplit("inner_", 1)[-1] in ends
        # Only ends are renamed: a name that the user chose twice is an error, see check_names.
        while is_end and name in taken:
            name = f"inner_{name}"
        return name

    @property
    def chart(self) -> Chart:
        """The chart of ``outer``, its points inside ``inner`` rejected."""
        return self.outer.chart.restricted(self._outside_inner)

    def level(self, points: Array) -> Array:
        """Return max(a, −b) of the levels a, b: inside ``outer`` and outside ``inner``."""
        return np.maximum(self.outer.level(points), -self.inner.level(points))

    def _outside_inner(self, points: Array) -> Mask:
        """Return where points lie outside the closed ``inner``, (n,)."""
        return np.asarray(self.inner.level(points) > ON)

    def _inside_outer(self, points: Array) -> Mask:
        """Return where points lie in the interior of ``outer``, (n,)."""
        return np.asarray(self.outer.level(points) < -ON)

    def _overlap(self) -> float:
        """Return the share of ``inner`` that lies inside ``outer``, in [0, 1]."""
        return self.inner.chart.fraction(self._inside_outer)
