"""What every domain is and can do; the domains made of others register by what makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import ClassVar, SupportsFloat

import torch
from torch import Tensor

from whence import _checks
from whence.pinn.geometry import surfaces
from whence.pinn.geometry.boundary import (
    Part,
    PointsT,
    ends_of,
    like,
    named,
    predicate,
    restricted,
    rounding_of,
    rows_of,
    tolerance_at,
    union,
)
from whence.pinn.geometry.charts import Chart, Mask
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.similarity import Similarity, rotation, vector

MadeBy = Callable[..., "Domain"]


class Domain(ABC):
    """A bounded set of points with named coordinates.

    Use a shape, such as ``Interval``, ``Polygon`` or ``Sphere``, and combine shapes by ``*``
    (product, as with time), ``-`` (difference), ``|`` (union) and ``&`` (intersection).
    """

    makers: ClassVar[dict[str, MadeBy]] = {}
    """Classes of the domains made of others: they build on this one, which cannot import them."""

    def __init_subclass__(cls, made_by: str | None = None) -> None:
        if made_by is not None:
            Domain.makers[made_by] = cls

    def __getstate__(self) -> dict[str, object]:
        # What is computed once, such as a boundary, is computed again: it holds functions.
        state = {}
        for name, value in self.__dict__.items():
            if not isinstance(getattr(type(self), name, None), cached_property):
                state[name] = value
        return state

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

    @property
    def rounding(self) -> float:
        """Distance at which points count as on the boundary: a billionth of the extent."""
        return rounding_of(self.bounds)

    def contains(self, points: PointsT, tolerance: float | None = None) -> PointsT:
        """Return which points, shape (n, d), are in the closed set, as booleans of shape (n,).

        ``tolerance`` is a distance in the units of the coordinates, for rounding, by default a
        billionth of the least extent; a negative one asks for points at least so far inside.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Interval
        >>> Interval("x", 0, 1).contains(torch.tensor([[0.5], [1.0], [1.1]]))
        tensor([ True,  True, False])
        """
        distance = tolerance_at(points, tolerance, self.rounding)
        rows = rows_of(points, self.coordinates)
        return like(points, self.level(rows) <= distance)

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the set, float64 of shape (n, d).

        Methods and seeds are those of ``unit_points``; ``"grid"`` may return fewer than n.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Interval
        >>> (Interval("x", -1, 1) * Interval("t", 0, 1)).sample(2)
        tensor([[-0.5000,  0.5000],
                [ 0.5000,  0.2500]], dtype=torch.float64)
        """
        _checks.count("n", n)
        # In float64, whatever the network will be: training points are rounded once, later.
        return torch.from_numpy(self.chart.sample(n, method, seed))

    # --- parts of the boundary, and surfaces inside ---

    def part(self, on: object) -> Part:
        """Return a part of the boundary or a surface inside, or the union of several.

        Parameters
        ----------
        on
            - The name of one of the parts in ``boundary``; the name of a coordinate, which
              means both of its ends; or the name of a shape, which means all its parts.
            - A function whose arguments are coordinate names. It is called with tensors of
              shape (n,) and returns which of these boundary points to take. Coordinates are
              exact where a part fixes them, so that ``lambda x: x == 1.0`` works if x ends at 1.
            - Values by coordinate, such as ``{"y": 0.5}``: that ``section`` of the domain.
            - Another domain: its boundary ``inner`` to this one.
            - A part itself; and several of all these, which means their union.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Rectangle
        >>> square = Rectangle(("x", "y"), (0, 0), (1, 1))
        >>> square.part(("x_min", "y_max")).measure
        2.0
        >>> square.part(lambda x: x == 1.0)
        Part(name='x_max', coordinates=('x', 'y'))
        >>> square.part({"y": 0.5}).measure
        1.0
        """
        if isinstance(on, str):
            return union([on], self._members(on))
        if not isinstance(on, Iterable) or isinstance(on, Mapping):
            return union_of(self._members(on))

        entries = list(on)
        chosen = self.parts(entries)
        names = [entry for entry in entries if isinstance(entry, str)]
        if len(names) < len(entries):
            names = [part.name for part in chosen]
        return union(names, chosen)

    def parts(self, on: object) -> list[Part]:
        """Return the parts that ``on`` of :meth:`part` means, each once and under its own name."""
        if isinstance(on, str) or not isinstance(on, Iterable):
            return self._members(on)
        if isinstance(on, Mapping):
            return self._members(on)

        entries = list(on)
        if not entries:
            raise ValueError(
                f"on must name a part of the boundary: choose {self._choices()}"
            )

        chosen: dict[tuple[str, int], Part] = {}
        for entry in entries:
            for part in self._members(entry):
                # A part that two of the names mean is taken once.
                is_named = isinstance(entry, str)
                chosen.setdefault((part.name, 0 if is_named else id(part)), part)
        return list(chosen.values())

    def _members(self, on: object) -> list[Part]:
        """Return the parts that one entry of ``on`` means."""
        if isinstance(on, str):
            parts = {part.name: part for part in self.boundary}
            return [parts[name] for name in self._part_names(on)]
        if isinstance(on, Mapping):
            return [self.section(**on)]
        if isinstance(on, Domain):
            return [self.inner(on)]
        if callable(on):
            return self._selected(on)

        if not isinstance(on, Part):
            raise TypeError(
                f"on must name parts of the boundary, be a function of coordinates that selects "
                f"points of it, values by coordinate, a domain or a part, got {on!r}: choose "
                f"{self._choices()}"
            )
        if on.coordinates != self.coordinates:
            raise ValueError(
                f"part {on.name!r} has coordinates {on.coordinates}, the domain "
                f"{self.coordinates}: take the part from the domain that the points lie in"
            )
        return [on]

    def _part_names(self, name: str) -> list[str]:
        """Return the parts meant by the name of a part, a coordinate or a shape."""
        parts = [part.name for part in self.boundary]
        if name in self.coordinates:
            ends = [end for end in self.ends_along(name) if end in parts]
            if ends:
                return ends

        members = [part.name for part in self.boundary if part.group == name]
        if members:
            return members

        _checks.one_of("part of the boundary", name, self._choices())
        return [name]

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return what the ends of a coordinate are called, whether the domain has them or not."""
        return ends_of(coordinate)

    def _choices(self) -> list[str]:
        """Return what ``on`` may name: parts, coordinates that have ends, and shapes."""
        names = [part.name for part in self.boundary]
        with_ends = [
            c for c in self.coordinates if set(self.ends_along(c)) & set(names)
        ]
        groups = [part.group for part in self.boundary if part.group is not None]
        return names + with_ends + list(dict.fromkeys(groups))

    def _selected(self, on: Callable[..., Tensor]) -> list[Part]:
        """Return the parts of the boundary where a function of coordinates holds."""
        chosen = predicate(on, self.coordinates)

        def keep(points: Array, normals: object) -> Mask:
            return chosen(points)

        # Part by part, so that what is left of each keeps its name and its normals.
        cuts = [restricted(part, keep) for part in self.boundary]
        parts = [cut for cut in cuts if cut is not None]
        if not parts:
            names = ", ".join(repr(part.name) for part in self.boundary)
            raise ValueError(
                f"the function given selects no point of the boundary, whose parts are "
                f"{names} and whose bounds are {named(self.coordinates, self.bounds.T)}"
            )

        return parts

    def section(self, **values: SupportsFloat) -> Part:
        """Return the points of the domain whose coordinates have these values, as a part.

        Its normal points along the fixed coordinate where that is one; its measure is a length,
        area, … in the others. Conditions at an interface, or measured values, hold on it.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Disk
        >>> line = Disk(("x", "y"), (0, 0), 1).section(y=0.6)
        >>> line
        Part(name='y=0.6', coordinates=('x', 'y'))
        >>> round(line.measure, 2), line.normals(line.sample(1))
        (1.6, tensor([[0., 1.]], dtype=torch.float64))
        """
        return surfaces.section(self, values)

    def inner(self, other: Domain) -> Part:
        """Return the boundary of another domain within this one, as a part.

        Its normals point out of the other domain. Where that has no time, it stands still.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Disk, Rectangle
        >>> plate = Rectangle(("x", "y"), (-1, -1), (1, 1))
        >>> round(plate.inner(Disk(("x", "y"), (0, 0), 0.5)).measure, 6)
        3.141593
        """
        if not isinstance(other, Domain):
            raise TypeError(
                f"inner takes the domain whose boundary is meant, such as pinn.Disk(...), got "
                f"{other!r}"
            )

        return surfaces.inner(self, self._extended(other))

    def _extended(self, other: Domain) -> Domain:
        """Return another domain times the extent of the coordinates that it has not got."""
        if other.coordinates == self.coordinates:
            return other

        factors: list[Domain] = []
        for column, name in enumerate(self.coordinates):
            low, high = self.bounds[:, column].tolist()
            if name not in other.coordinates:
                factors.append(Domain.makers["interval"](name, low, high))
            elif other not in factors:
                factors.append(other)

        extended = Domain.makers["*"](tuple(factors)) if factors else other
        if extended.coordinates != self.coordinates:
            raise ValueError(
                f"a domain within another needs the same coordinates in the same order, or some "
                f"that follow each other, got {other.coordinates} in {self.coordinates}"
            )

        return extended

    # --- domains made of this one ---

    def __mul__(self, other: Domain) -> Domain:
        return Domain.makers["*"]((self, _domain("*", "multiplied by", other)))

    def __rmul__(self, other: object) -> Domain:
        return Domain.makers["*"]((_domain("*", "multiplied by", other), self))

    def __sub__(self, other: Domain) -> Domain:
        return Domain.makers["-"](self, _domain("-", "reduced by", other))

    def __or__(self, other: Domain) -> Domain:
        return Domain.makers["|"](self, _domain("|", "united with", other))

    def __and__(self, other: Domain) -> Domain:
        return Domain.makers["&"](self, _domain("&", "intersected with", other))

    def translated(self, by: object) -> Domain:
        """Return the domain moved by a vector, one entry per coordinate; parts keep their names.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Disk
        >>> Disk(("x", "y"), (0, 0), 1).translated((3, 0)).bounds
        array([[ 2., -1.],
               [ 4.,  1.]])
        """
        shift = vector("the vector to translate by", by, self.coordinates)
        return self.moved(
            Similarity(torch.eye(self.dimension).double().numpy(), 1.0, shift)
        )

    def rotated(self, angle: object, about: object = None) -> Domain:
        """Return the domain turned about a point, by default the middle of its bounds.

        ``angle`` is in degrees, from the first coordinate towards the second, where there are
        two; otherwise an orthogonal matrix (d, d). An end such as ``x_min``, which then is no
        end any more, becomes ``rotated_x_min``; other parts keep their names.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Rectangle
        >>> bar = Rectangle(("x", "y"), (0, 0), (4, 2)).rotated(90)
        >>> bar.bounds
        array([[ 1., -1.],
               [ 3.,  3.]])
        >>> bar.part("rotated_x_max").normals(bar.part("rotated_x_max").sample(1))
        tensor([[0., 1.]], dtype=torch.float64)
        """
        matrix = rotation(angle, self.dimension)
        # x ↦ Q(x − c) + c: the point c stays.
        center = self._center(about)
        return self.moved(Similarity(matrix, 1.0, center - matrix @ center))

    def scaled(self, factor: float, about: object = None) -> Domain:
        """Return the domain enlarged about a point, by default the middle of its bounds.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Interval
        >>> Interval("x", 0, 2).scaled(2).bounds.T
        array([[-1.,  3.]])
        """
        _checks.positive("the factor to scale by", factor)
        center = self._center(about)
        unturned = torch.eye(self.dimension).double().numpy()
        return self.moved(Similarity(unturned, float(factor), (1 - factor) * center))

    def _center(self, about: object) -> Array:
        if about is None:
            return self.bounds.mean(axis=0)
        return vector("the point about=", about, self.coordinates)

    def moved(self, move: Similarity) -> Domain:
        """Return the image of the domain under a similarity."""
        return Domain.makers["moved"](self, move)

    def where(
        self, predicate: Callable[..., Tensor], name: str | None = None
    ) -> Domain:
        """Return the part of the domain where a function of coordinates holds.

        It takes coordinates by argument name, tensors (n,), and returns booleans (n,). Its
        measure is estimated from points, and points are drawn by rejection. Its boundary is what
        is left of that of the domain: the cut is no part of it.

        Examples
        --------
        >>> from whence.pinn.geometry.domain import Rectangle
        >>> square = Rectangle(("x", "y"), (0, 0), (1, 1))
        >>> round(square.where(lambda x, y: x + y < 1).measure, 3)
        0.5
        """
        return Domain.makers["where"](self, predicate, name)


def union_of(parts: list[Part]) -> Part:
    """Return the union of parts under their own names; one part is itself."""
    if len(parts) == 1:
        return parts[0]
    return union([part.name for part in parts], parts)


def _domain(sign: str, verb: str, other: object) -> Domain:
    """Return the other operand if it is a domain."""
    if not isinstance(other, Domain):
        raise TypeError(
            f"a domain can only be {verb} another domain, such as domain {sign} "
            f'pinn.Interval("t", 0, 1), got {other!r}; to enlarge or move one there are '
            "domain.scaled(factor) and domain.translated(vector)"
        )

    return other
