"""Fields made of others: values at other places, integrals and averages.

Equations take them by name, as in ``Problem(derived={"past": pinn.At("y", t=lambda t: t - 1)})``.
Each is a function of its own point, so that rows of the Jacobian stay exact: what is taken at
several places is summed within the point's row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whence import _checks
from whence.pinn.pde.fields import FieldMap
from whence.pinn.pde.place import Place
from whence.pinn.pde.quadrature import (
    Limit,
    Over,
    PlaceRule,
    Rule,
    check_limit,
    rule_over,
)

HERE = "_here"
"""What follows a coordinate's name where that of the point is meant, not of the place."""

Of = str | Callable[..., Tensor]
"""A field by name, or a function of fields by argument name."""


@dataclass(frozen=True, eq=False)
class NamedFunction:
    """A function whose arguments have names that its signature does not say."""

    function: Callable[..., Tensor]
    names: tuple[str, ...]

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Return what the function gives."""
        return self.function(*arguments)


@dataclass(frozen=True, eq=False)
class PlacesField:
    """A weighted sum of a function of fields over places that a rule names for each point."""

    what: str
    function: Callable[..., Tensor]
    names: tuple[str, ...]
    place: Place
    rule: Rule
    divided_by: float = 1.0

    def check(self) -> None:
        """Raise ``ValueError`` for an argument that means nothing."""
        for name in self.fields:
            self.place.parse(name)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are taken at the places."""
        wanted: list[str] = []
        for name in self.names:
            output = self._normal_of(name)
            if output is not None:
                wanted += self.place.slopes(output)
            elif self._here(name) is None:
                wanted.append(name)
        return tuple(dict.fromkeys(wanted))

    def _normal_of(self, name: str) -> str | None:
        return self.place.normal_of(name)

    def _here(self, name: str) -> int | None:
        """Return which coordinate of the point a name stands for, None if it does for none."""
        coordinate = name.removesuffix(HERE)
        if coordinate == name or coordinate not in self.place.coordinates:
            return None
        return self.place.coordinates.index(coordinate)

    def evaluate(
        self, field_map: FieldMap, tensors: Mapping[str, Tensor], points: Tensor
    ) -> Tensor:
        """Return ``Σ_q w_q f(place_q)`` at points (..., d): (...,)."""
        places, weights = self.rule(points)
        values = field_map.at_places(tensors, places, self.fields)
        shape = places.shape[:-1]  # (..., Q)

        arguments = []
        for name in self.names:
            value = self._argument(name, values, points, places)
            # Flat, as every function of a user sees its fields.
            arguments.append(value.expand(shape).reshape(-1))

        result = self.function(*arguments)
        if not isinstance(result, Tensor) or result.shape != (math.prod(shape),):
            raise ValueError(
                f"{self.what} must return a tensor of shape ({math.prod(shape)},) for as many "
                f"places, got {_checks.shape_of(result)}"
            )
        return (result.reshape(shape) * weights).sum(dim=-1) / self.divided_by

    def _argument(
        self, name: str, values: Mapping[str, Tensor], points: Tensor, places: Tensor
    ) -> Tensor:
        column = self._here(name)
        if column is not None:
            return points[..., column].unsqueeze(-1)  # (..., 1)

        output = self._normal_of(name)
        if output is None:
            return values[name]

        normals = self.rule.normals(places)  # (..., Q, d)
        if normals is None:
            raise ValueError(
                f"{self.what} takes {name!r}, which has a meaning on a part of the boundary only: "
                'pass that part, such as over="x_max"'
            )
        slopes = torch.stack(
            [values[slope] for slope in self.place.slopes(output)], dim=-1
        )
        return (slopes * normals).sum(dim=-1)  # ∂u/∂n = n·∇u


class DerivedField(Protocol):
    """What a problem takes as a derived field."""

    def bind(self, name: str, place: Place) -> PlacesField:
        """Return the field on a problem's domain; what means nothing there is an error."""


def bound_function(what: str, of: Of) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    """Return a field by name, or a function, as a function and the names of its arguments."""
    if isinstance(of, str):
        return _itself, (of,)
    if isinstance(of, NamedFunction):
        return of.function, of.names
    return of, _checks.arguments(what, of)


def _itself(field: Tensor) -> Tensor:
    return field


@dataclass(frozen=True, eq=False)
class At:
    """A field, or a function of fields, at another place: some coordinates are replaced.

    Parameters
    ----------
    of:
        A field by name, or a function of fields by argument name.
    coordinates:
        New values by coordinate: numbers, or functions of the point's coordinates by name. Those
        that are not named stay as they are.

    Examples
    --------
    The delay in y′(t) = −y(t − 1), and a value at the wall:

    >>> from whence import pinn
    >>> past = pinn.At("y", t=lambda t: t - 1)
    >>> wall = pinn.At("u_x", x=0.0)
    >>> sorted(wall.coordinates)
    ['x']
    """

    of: Of
    coordinates: Mapping[str, Limit]

    def __init__(self, of: Of, **coordinates: Limit) -> None:
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "coordinates", coordinates)
        if not coordinates:
            raise TypeError(
                "pinn.At needs the coordinates that are replaced, such as pinn.At('u', x=0.0)"
            )

    def bind(self, name: str, place: Place) -> PlacesField:
        """Return the field on a problem's domain."""
        what = f"derived field {name!r}"
        for coordinate, value in self.coordinates.items():
            _checks.one_of(f"coordinate of {what}", coordinate, place.coordinates)
            check_limit(what, value, place.coordinates)
        function, names = bound_function(what, self.of)
        rule = PlaceRule(place, self.coordinates)
        return PlacesField(what, function, names, place, rule)


@dataclass(frozen=True, eq=False)
class Integrated:
    """The integral of a function of fields, as a field: ∫ f over some coordinates.

    Parameters
    ----------
    of:
        A field by name, or a function of fields by argument name: coordinates are those of the
        place, with ``_here`` after the name those of the point (``t_here``).
    over:
        A coordinate or several, over their whole length, or with limits by coordinate, which may
        be numbers, coordinates of the point (``{"t": (0, "t")}``) or functions of them; a part of
        the boundary by name, or any region of all coordinates. By default all but the time.
    nodes:
        Nodes of Gauss' rule along each coordinate (40, 20 or 10 for one, two or three of them), or
        quasi-random places in a region (2000).
    singularity:
        α of a factor ``(high − s)^(−α)`` by which the integrand is multiplied, α < 1, in one
        coordinate; the rule is then exact for polynomials times that.

    Raises
    ------
    ValueError
        When a problem is made of it: for an argument, coordinate or limit that means nothing.

    Examples
    --------
    The memory ∫₀ᵗ exp(s − t) y(s) ds:

    >>> import torch
    >>> from whence import pinn
    >>> memory = pinn.Integrated(
    ...     lambda y, t, t_here: torch.exp(t - t_here) * y, over={"t": (0.0, "t")})
    >>> memory.singularity
    0.0
    """

    of: Of
    over: Over = None
    nodes: int | None = None
    singularity: float = 0.0

    def __post_init__(self) -> None:
        alpha = _checks.number("singularity", self.singularity)
        if not alpha < 1:
            raise ValueError(
                f"the integral of (high − s)^(−α) exists for α < 1, got {alpha}"
            )

    def bind(self, name: str, place: Place) -> PlacesField:
        """Return the field on a problem's domain."""
        what = f"derived field {name!r}"
        function, names = bound_function(what, self.of)
        rule = rule_over(what, self.over, place, self.nodes, self.singularity)
        return PlacesField(what, function, names, place, rule)


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of a function of fields over some coordinates, a part or a region, as a field.

    Parameters
    ----------
    of, over, nodes:
        As of :class:`Integrated`; limits must be numbers.

    Examples
    --------
    >>> from whence import pinn
    >>> mean = pinn.Average("u", over="x")
    >>> mean.over
    'x'
    """

    of: Of
    over: Over = None
    nodes: int | None = None

    def bind(self, name: str, place: Place) -> PlacesField:
        """Return the field on a problem's domain."""
        what = f"derived field {name!r}"
        function, names = bound_function(what, self.of)
        rule = rule_over(what, self.over, place, self.nodes)
        # The same rule integrates 1, whatever the region.
        middle = torch.tensor(place.domain.bounds.mean(axis=0)).unsqueeze(0)
        _, weights = rule(middle)
        return PlacesField(what, function, names, place, rule, float(weights.sum()))


def CaputoDerivative(
    field: str, *, along: str, order: float, start: float = 0.0, nodes: int = 40
) -> Integrated:
    """Return Caputo's fractional derivative of a field, of an order between 0 and 1.

    ``D^α u(t) = 1/Γ(1 − α) ∫_start^t u′(s) (t − s)^(−α) ds`` (Podlubny, Fractional Differential
    Equations, 1999, eq. 2.138), by Gauss–Jacobi quadrature.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.CaputoDerivative("u", along="t", order=0.5).singularity
    0.5
    """
    alpha = _checks.number("order", order)
    if not 0 < alpha < 1:
        raise ValueError(f"order must lie between 0 and 1, got {order!r}")

    def integrand(slope: Tensor) -> Tensor:
        return slope / math.gamma(1 - alpha)

    of = NamedFunction(integrand, (f"{field}_{along}",))
    return Integrated(of, {along: (start, along)}, nodes, alpha)
