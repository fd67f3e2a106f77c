"""From the function that a user writes for a term to the term's residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from whence import _checks
from whence.coupling import CoupledPoints, check_uncoupled, moved
from whence.pinn.geometry.apportioned import apportioned
from whence.pinn.geometry.boundary import Part
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.equation import Component, Equation
from whence.pinn.pde.fields import Derived, FieldMap, as_tuple, check_kind, tried
from whence.pinn.pde.helpers import FieldEquation
from whence.pinn.pde.normals import normals_at
from whence.pinn.pde.place import Place, Region
from whence.points import Points, Pointwise, locations
from whence.shared_pass import FieldFunction, note_fields
from whence.term import Term

Count = int | Mapping[str, int]
"""A number of points, or of points by part of the boundary."""

NO_STORAGE = "doesn't have storage"
COORDINATE_TOLERANCE = 1e-6
"""Distance from a surface at which points count as on it, in units of the coordinates."""


@dataclass(frozen=True, eq=False)
class TermFunction:
    """A term's function of fields by name, and on which part of the domain it holds.

    Parameters
    ----------
    what:
        What messages call it.
    function:
        The user's function, as one of tensors (n,).
    names:
        Names of its arguments, in order.
    place:
        The domain, outputs and time of the problem.
    condition:
        The condition that it belongs to, if it is no equation.
    part:
        The part of the boundary, or the inner surface, of that condition.
    region:
        Where it holds if that is neither such a part nor the whole domain.
    carried:
        Names of what its points carry beside coordinates, which the function may take.
    rows:
        Its points with what they carry, (n, columns), where they are given once and for all.
    derived:
        Derived fields of its own.
    weight:
        The term's weight unless another is given.
    """

    what: str
    function: Callable[..., Any]
    names: tuple[str, ...]
    place: Place
    condition: Condition | None = None
    part: Part | None = None
    region: Region | None = None
    carried: tuple[str, ...] = ()
    rows: Tensor | None = None
    derived: Mapping[str, Derived] = field(default_factory=dict)
    weight: float = 1.0

    @classmethod
    def of_equation(
        cls, name: str, equation: Callable[..., object] | Equation, place: Place
    ) -> TermFunction:
        """Return the function of an equation."""
        what = f"equation {name!r}"
        region = None
        residual: Callable[..., Any]
        if isinstance(equation, Equation):
            region = equation.region(place.domain)
            residual = equation.residual
        else:
            residual = equation
        function, names = _bound(what, residual, (), place)
        return cls(what, function, names, place, region=region)

    @classmethod
    def of_condition(cls, condition: Condition, place: Place) -> TermFunction:
        """Return the function of a condition."""
        what = f"condition {condition.name!r}"
        function, names = _bound(what, condition.residual, condition.names, place)
        part = condition.part(place.domain, place.time)
        term = cls(what, function, names, place, condition, part)
        term.check_normals()
        return term

    @property
    def where(self) -> Region:
        """Where it holds."""
        return self.part or self.region or self.place.domain

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what a point of the term is made of: coordinates, and what it carries."""
        return self.place.coordinates + self.carried

    @property
    def size(self) -> int | None:
        """At how many points it holds if these are few or given, None otherwise."""
        if self.rows is not None:
            return len(self.rows)
        return None if self.part is None else self.part.size

    def check_count(self, term: str, count: Count) -> None:
        """Raise ``ValueError`` unless so many points can be drawn, in all or by part."""
        numbers = [count]
        if isinstance(count, Mapping):
            numbers = list(count.values())
        for number in numbers:
            _checks.count(f"the number of points of term {term!r}", number)

        if isinstance(count, Mapping):
            self._by_part(term, count)
        elif self.size is not None and count > self.size:
            raise ValueError(
                f"term {term!r} holds at {self.size} point(s) only: {count} points would repeat "
                f"them, give {term!r}: {self.size}"
            )

    def sample(self, term: str, count: Count, method: str, seed: int | None) -> Tensor:
        """Return points where it holds, float64 of shape (count, d)."""
        if not isinstance(count, Mapping):
            return self.where.sample(count, method, seed)
        part = self._by_part(term, count)
        return part.sample(sum(count.values()), method, seed)

    def _by_part(self, term: str, counts: Mapping[str, int]) -> Part:
        """Return the part of the boundary with shares in proportion to counts by part."""
        condition = self.condition
        if condition is None or condition.on is None or not counts:
            raise ValueError(
                f"term {term!r} has no parts of the boundary to give points to: give one number"
            )

        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()}
        return apportioned(self.what, self.place.domain, condition.on, shares)

    def check_names(self) -> None:
        """Raise ``ValueError`` for an argument that means nothing."""
        known = replace(self.place, symbols=(*self.place.symbols, *self.derived))
        for name in self.fields:
            known.parse(name)

    def check_normals(self) -> None:
        """Raise ``ValueError`` for a normal derivative that has no meaning."""
        slopes = [name for name in self.names if self.place.normal_of(name)]
        if not slopes or self.condition is None:
            return
        if "n" in self.place.coordinates:
            raise ValueError(
                f"{self.what} takes a normal derivative, which a coordinate "
                "called 'n' makes ambiguous: give the coordinate another name"
            )

        along = self.condition.along
        if along is not None:
            output = self.place.normal_of(slopes[0])
            raise ValueError(
                f"{self.what} compares {slopes[0]!r} at both ends of "
                f"{along!r}, where the normals are opposite: compare "
                f"'{output}_{along}'"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields to compute: the gradient in place of a normal derivative."""
        wanted: list[str] = []
        for name in self.names:
            output = self._normal_of(name)
            if output is not None:
                wanted += self.place.slopes(output)
            elif name not in self.carried:
                wanted.append(name)

        return tuple(dict.fromkeys(wanted))  # each once, in order

    def _normal_of(self, name: str) -> str | None:
        return self.place.normal_of(name) if self.part is not None else None

    def residual(self, field_map: FieldMap) -> Pointwise:
        """Return the term's residual as a function of the network's parameters and points."""
        condition = self.condition
        field_map = self._with_derived(field_map)

        def at(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            rows = locations(points)
            values = self.values(field_map, tensors, rows)
            return stacked(self.what, self._called(values), len(rows))

        def of_fields(fields: Mapping[str, Tensor], points: Tensor) -> Tensor:
            arguments = self._arguments(fields, points)
            return stacked(self.what, self._called(arguments), len(points))

        at.__qualname__ = self.what
        if not self.carried:
            # Terms of the same map share a pass where their points are the same.
            made_of = FieldFunction(self.what, field_map, self.fields, of_fields)
            note_fields(at, made_of)

        # A periodic condition compares two points, all others look at one.
        if condition is None or condition.along is None:
            return at

        def difference(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
            # u(low, ·) − u(high, ·): the points lie at the low end.
            partner = condition.partner(self.place.domain, locations(points))
            return at(tensors, points) - at(tensors, partner)

        return difference

    def _called(self, values: Mapping[str, Tensor]) -> Any:
        """Return what the function gives; where it leaves torch under a transform, say so."""
        try:
            return self.function(*(values[name] for name in self.names))
        except RuntimeError as error:
            # What NumPy is told of tensors that stand for others, as in a second derivative.
            if NO_STORAGE not in str(error):
                raise
            raise ValueError(
                f"{self.what} leaves torch, for NumPy or SciPy say, where second derivatives, "
                "moving points and compilation cannot follow: write it with functions of torch, "
                "such as torch.searchsorted for a table"
            ) from error

    def _with_derived(self, field_map: FieldMap) -> FieldMap:
        """Return the map with the term's own derived fields."""
        if not self.derived:
            return field_map
        return replace(field_map, derived={**field_map.derived, **self.derived})

    def values(
        self, field_map: FieldMap, tensors: Mapping[str, Tensor], points: Tensor
    ) -> dict[str, Tensor]:
        """Return the values (n,) of the function's arguments, and of the fields they need.

        Points are rows of coordinates, followed by what they carry.
        """
        places = self._places(points)
        fields = field_map.evaluate(tensors, places, self.fields)
        return self._arguments(fields, points)

    def _places(self, points: Tensor) -> Tensor:
        """Return the coordinates (..., d) of points, without what they carry."""
        if not self.carried:
            return points
        return points[..., : len(self.place.coordinates)]

    def _arguments(
        self, fields: Mapping[str, Tensor], points: Tensor
    ) -> dict[str, Tensor]:
        """Return the values (n,) of the function's arguments from those of the fields."""
        d = len(self.place.coordinates)
        places = self._places(points)
        values = dict(fields)
        for k, name in enumerate(self.carried):
            values[name] = points[..., d + k]

        normal_derivatives = {}

        for name in self.names:
            output = self._normal_of(name)
            if output is not None:
                normal_derivatives[name] = output

        if not normal_derivatives:
            return values

        assert self.part is not None
        tolerance = self.place.tolerance(COORDINATE_TOLERANCE, places)
        normals = normals_at(self.part, places, tolerance)  # (n, d)
        for name, output in normal_derivatives.items():
            # ∂u/∂n = n·∇u, both (n, d).
            slopes = [values[slope] for slope in self.place.slopes(output)]
            gradient = torch.stack(slopes, dim=1)
            values[name] = (normals * gradient).sum(dim=1)

        return values

    def try_at(
        self, field_map: FieldMap, tensors: Mapping[str, Tensor], points: Tensor
    ) -> None:
        """Call the function once; what it gets wrong is an error that names it."""
        field_map = self._with_derived(field_map)
        # Leaves, so that what is not differentiated shows: .detach(), no_grad, NumPy.
        leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}
        with torch.enable_grad():
            values = self.values(field_map, leaves, points)
            arguments = {name: values[name] for name in self.names}
            result = self._tried(arguments)
        residual = stacked(self.what, result, len(points))
        check_kind(self.what, as_tuple(result), points)
        if not residual.requires_grad:
            raise ValueError(
                f"{self.what} does not depend on the network: it takes no output, or leaves the "
                "graph by .detach(), torch.no_grad(), float() or NumPy; use functions of torch"
            )

    def _tried(self, arguments: Mapping[str, Tensor]) -> Any:
        """Return what the function gives when it is called for the first time."""
        if not isinstance(self.function, Component):
            return tried(self.what, self.function, arguments)
        # A number of components that is wrong is said as it is, not as a failure of the function.
        whole = tried(self.what, self.function.whole, arguments)
        return self.function.part_of(whole)


def _bound(
    what: str,
    function: Callable[..., Any],
    names: tuple[str, ...],
    place: Place,
) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return a user's function as one of tensors, and the names of its arguments."""
    if isinstance(function, Component):
        whole, bound_names = _bound(what, function.whole, names, place)
        return replace(function, whole=whole), bound_names
    if isinstance(function, FieldEquation):
        bound_names, plain = function.bind(place.outputs, place.coordinates, place.time)
        return plain, bound_names
    return function, names or _checks.arguments(what, function)


def stacked(what: str, result: Tensor | Sequence[Tensor], n: int) -> Tensor:
    """Return a residual's result, one tensor (n,) or a tuple of them, as (n, m)."""
    parts = as_tuple(result)
    if not parts:
        raise ValueError(f"{what} returns an empty tuple: it must return a residual")
    for part in parts:
        if not isinstance(part, Tensor) or part.shape != (n,):
            raise ValueError(
                f"{what} must return a tensor of shape ({n},), or a tuple of such tensors, for "
                f"{n} points, got {_checks.shape_of(part)}"
            )
        if part.layout != torch.strided:
            raise ValueError(
                f"{what} must return plain tensors, got layout {part.layout}: use .to_dense()"
            )

    return torch.stack(list(parts), dim=1)  # (n, m)


ADVICE = (
    "Write what it takes from other places as a field: an integral or mean as "
    "derived={'mean': pinn.Average('u', over='x')}, a value elsewhere as pinn.At('u', x=1.0), a "
    "condition on an integral as pinn.Integral(...); in a network, use LayerNorm in place of batch "
    "normalization, or network.eval()"
)
"""What to do about a term that couples points."""


BATCH_NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)


def check_batch_normalization(network: nn.Module) -> None:
    """Raise :class:`whence.coupling.CoupledPoints` if a network normalizes by the batch."""
    for name, module in network.named_modules():
        by_batch = isinstance(module, BATCH_NORMALIZATIONS)
        if by_batch and (module.training or not module.track_running_stats):
            raise CoupledPoints(
                f"the network's layer {name!r} normalizes by the batch, which couples its points: "
                "no point has a residual of its own. Use nn.LayerNorm, or network.eval() with "
                "running statistics"
            )


def check_term_uncoupled(term: Term, tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise :class:`whence.coupling.CoupledPoints` if a term's residual couples its points."""
    points = locations(term.points)

    def values(at: Mapping[str, Tensor], rows: Sequence[int]) -> Tensor:
        with torch.no_grad():
            return term.residual(at, points[list(rows)])

    for parameters in (moved(tensors), tensors):
        check_uncoupled(what, values, parameters, len(points), ADVICE)
        # Where moved parameters leave the function's domain, its own will do.
        if bool(torch.isfinite(values(parameters, [0])).all()):
            return
