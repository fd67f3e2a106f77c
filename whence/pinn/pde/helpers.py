"""Vector calculus in equations: ``grad``, ``div``, ``laplacian``, ``curl``, ``advect``, ``dt``.

An equation under :func:`field_equation` is given fields, which know their derivatives, in place of
plain tensors for its arguments that are outputs. Navier–Stokes reads as on paper:

>>> from whence import pinn
>>> from whence.pinn.helpers import advect, div, dt, field_equation, grad, laplacian, vector
>>> nu = 0.01
>>> @field_equation
... def momentum(u, v, p):
...     w = vector(u, v)
...     return dt(w) + advect(w, w) - nu * laplacian(w) + grad(p)
>>> @field_equation
... def continuity(u, v):
...     return div(vector(u, v))
>>> problem = pinn.Problem(
...     domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)) * pinn.Interval("t", 0, 1),
...     outputs=("u", "v", "p"),
...     equations={"momentum": momentum, "continuity": continuity},
... )
>>> problem.fields_of("continuity")
('u_x', 'v_y')

Derivatives are taken along the coordinates of space, all but the time. They come from the same
jets as those of arguments such as ``u_xx``, and an equation may mix both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whence import _checks

PROBE_POINTS = 2
"""Random values by which an equation is tried, to see which derivatives it asks for."""


class Derivatives:
    """Values of fields by name, and along which coordinates they can be differentiated."""

    def __init__(
        self, coordinates: Sequence[str], time: str | None, values: Mapping[str, Tensor]
    ) -> None:
        self.coordinates = tuple(coordinates)
        self.time = time
        self._values = values

    @property
    def space(self) -> tuple[str, ...]:
        """The coordinates other than the time."""
        return tuple(name for name in self.coordinates if name != self.time)

    def value(self, name: str) -> Tensor:
        """Return a field's values, (n,)."""
        return self._values[name]


class _Probe(Derivatives):
    """Random values for any name, which notes what is asked for."""

    def __init__(self, coordinates: Sequence[str], time: str | None) -> None:
        super().__init__(coordinates, time, {})
        self._generator = torch.Generator().manual_seed(0)
        self.asked: dict[str, Tensor] = {}

    def value(self, name: str) -> Tensor:
        if name not in self.asked:
            self.asked[name] = torch.rand(
                PROBE_POINTS, generator=self._generator, dtype=torch.float64
            )
        return self.asked[name]


def _elementwise(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator of a field or vector that applies an operation to values."""

    def operator(self: Any, other: Any) -> Any:
        if isinstance(other, Vector) and not isinstance(self, Vector):
            return Vector(operation(self.value, _value(part)) for part in other)
        if not isinstance(self, Vector):
            return operation(self.value, _value(other))
        return self._with(other, operation)

    return operator


class Field:
    """An output of the network, or a derivative of one, in an equation.

    It takes part in arithmetic and in functions of torch as the tensor of its values, (n,).
    """

    def __init__(
        self, output: str, along: tuple[str, ...], derivatives: Derivatives
    ) -> None:
        self.output = output
        self.along = along
        self.derivatives = derivatives

    @property
    def name(self) -> str:
        """Its name in equations: ``u``, ``u_x``, ``u_xt``."""
        if not self.along:
            return self.output
        return f"{self.output}_{''.join(self.along)}"

    @property
    def value(self) -> Tensor:
        """Its values, (n,)."""
        return self.derivatives.value(self.name)

    def derivative(self, coordinate: str) -> Field:
        """Return its derivative along a coordinate, a field again."""
        order = self.derivatives.coordinates
        along = sorted((*self.along, coordinate), key=order.index)
        return Field(self.output, tuple(along), self.derivatives)

    __add__ = _elementwise(lambda a, b: a + b)
    __radd__ = _elementwise(lambda a, b: b + a)
    __sub__ = _elementwise(lambda a, b: a - b)
    __rsub__ = _elementwise(lambda a, b: b - a)
    __mul__ = _elementwise(lambda a, b: a * b)
    __rmul__ = _elementwise(lambda a, b: b * a)
    __truediv__ = _elementwise(lambda a, b: a / b)
    __rtruediv__ = _elementwise(lambda a, b: b / a)
    __pow__ = _elementwise(lambda a, b: a**b)

    def __neg__(self) -> Tensor:
        return -self.value

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*map(_value, args), **dict(kwargs or {}))

    def __repr__(self) -> str:
        return f"Field({self.name!r})"


class Vector:
    """Components along the coordinates of space; arithmetic goes component by component."""

    def __init__(self, components: Iterable[Any]) -> None:
        self.components = tuple(components)

    def __len__(self) -> int:
        return len(self.components)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.components)

    def __getitem__(self, k: int) -> Any:
        return self.components[k]

    def __repr__(self) -> str:
        return f"Vector({', '.join(map(repr, self.components))})"

    def _with(self, other: Any, operation: Callable[..., Any]) -> Vector:
        if isinstance(other, Vector):
            if len(other) != len(self):
                raise ValueError(
                    f"vectors of {len(self)} and {len(other)} components do not fit each other"
                )
            pairs = zip(self, other, strict=True)
            return Vector(operation(_value(a), _value(b)) for a, b in pairs)
        return Vector(operation(_value(a), _value(other)) for a in self)

    __add__ = _elementwise(lambda a, b: a + b)
    __radd__ = _elementwise(lambda a, b: b + a)
    __sub__ = _elementwise(lambda a, b: a - b)
    __rsub__ = _elementwise(lambda a, b: b - a)
    __mul__ = _elementwise(lambda a, b: a * b)
    __rmul__ = _elementwise(lambda a, b: b * a)
    __truediv__ = _elementwise(lambda a, b: a / b)

    def __neg__(self) -> Vector:
        return Vector(-_value(part) for part in self)

    def dot(self, other: Iterable[Any]) -> Any:
        """Return the scalar product with another vector, (n,)."""
        total: Any = 0.0
        for a, b in zip(self, other, strict=True):
            total = total + _value(a) * _value(b)
        return total


def vector(*components: Any) -> Vector:
    """Return a vector of fields or values, one for each coordinate of space."""
    return Vector(components)


def grad(of: Field) -> Vector:
    """Return the gradient of a field, ``(∂u/∂x, ∂u/∂y, …)``, a vector of fields."""
    _check_field("grad", of)
    return Vector(of.derivative(c) for c in of.derivatives.space)


def div(of: Vector) -> Any:
    """Return the divergence of a vector of fields, ``Σ_i ∂w_i/∂x_i``, (n,)."""
    total: Any = 0.0
    for component, coordinate in _along_space("div", of):
        total = total + component.derivative(coordinate).value
    return total


def laplacian(of: Field | Vector) -> Any:
    """Return ``Σ_i ∂²u/∂x_i²`` of a field, (n,), or of each component of a vector."""
    if isinstance(of, Vector):
        return Vector(laplacian(component) for component in of)

    _check_field("laplacian", of)
    total: Any = 0.0
    for coordinate in of.derivatives.space:
        total = total + of.derivative(coordinate).derivative(coordinate).value
    return total


def curl(of: Field | Vector) -> Any:
    """Return the curl: of a vector in 3-D a vector, in 2-D ``∂v/∂x − ∂u/∂y``, (n,).

    Of a field in 2-D, a stream function, ``(∂ψ/∂y, −∂ψ/∂x)``.
    """
    if not isinstance(of, Vector):
        d_x, d_y = _planar("the curl of a field", grad(of))
        return Vector((d_y.value, -d_x.value))

    slopes = []
    for component, _ in _along_space("curl", of):
        slopes.append(grad(component))
    if len(of) == 2:
        (_, u_y), (v_x, _) = slopes
        return v_x.value - u_y.value
    if len(of) == 3:
        (_, u_y, u_z), (v_x, _, v_z), (w_x, w_y, _) = slopes
        return Vector((w_y - v_z, u_z - w_x, v_x - u_y))
    raise ValueError(f"curl needs 2 or 3 coordinates of space, got {len(of)}")


def advect(velocity: Iterable[Any], of: Field | Vector) -> Any:
    """Return ``(w·∇)u = Σ_i w_i ∂u/∂x_i`` of a field, (n,), or of each component of a vector."""
    if isinstance(of, Vector):
        return Vector(advect(velocity, component) for component in of)
    return Vector(velocity).dot(grad(of))


def dt(of: Field | Vector) -> Any:
    """Return the derivative with respect to time of a field, (n,), or of each component."""
    if isinstance(of, Vector):
        return Vector(dt(component) for component in of)

    _check_field("dt", of)
    if of.derivatives.time is None:
        raise ValueError(
            "dt needs a coordinate of time: name one 't', or pass time= to Problem"
        )
    return of.derivative(of.derivatives.time).value


def _value(of: Any) -> Any:
    return of.value if isinstance(of, Field) else of


def _check_field(what: str, of: object) -> None:
    if not isinstance(of, Field):
        raise TypeError(
            f"{what} needs a field, such as the argument u of an equation under "
            f"@field_equation, or its gradient's components, got {_checks.describe(of)}: "
            "products and sums of fields have no derivatives here"
        )


def _along_space(what: str, of: object) -> list[tuple[Field, str]]:
    """Return the components of a vector of fields, each with the coordinate it lies along."""
    if not isinstance(of, Vector):
        raise TypeError(
            f"{what} needs a vector, such as vector(u, v), got {_checks.describe(of)}"
        )
    for component in of:
        _check_field(what, component)
    space = of[0].derivatives.space
    if len(of) != len(space):
        raise ValueError(
            f"{what} needs a component for each coordinate of space ({', '.join(space)}), got "
            f"{len(of)}"
        )
    return list(zip(of, space, strict=True))


def _planar(what: str, of: Vector) -> tuple[Field, Field]:
    if len(of) != 2:
        raise ValueError(f"{what} needs 2 coordinates of space, got {len(of)}")
    return of[0], of[1]


@dataclass(frozen=True)
class FieldEquation:
    """An equation whose arguments that are outputs are fields; see :func:`field_equation`."""

    function: Callable[..., Any]
    arguments: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = _checks.arguments("an equation of fields", self.function)
        object.__setattr__(self, "arguments", names)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function gives for fields."""
        return self.function(*arguments)

    def bind(
        self, outputs: Sequence[str], coordinates: Sequence[str], time: str | None
    ) -> tuple[tuple[str, ...], Callable[..., Any]]:
        """Return the names of what it needs, and it as a plain function of these, in order.

        It is called once with random values, to see which derivatives it asks for.
        """
        probe = _Probe(coordinates, time)
        self._call(outputs, probe)
        names = tuple(probe.asked)

        def plain(*columns: Tensor) -> Any:
            values = dict(zip(names, columns, strict=True))
            result = self._call(outputs, Derivatives(coordinates, time, values))
            if isinstance(result, (tuple, list, Vector)):
                return tuple(map(_value, result))
            return _value(result)

        return names, plain

    def _call(self, outputs: Sequence[str], derivatives: Derivatives) -> Any:
        arguments: list[Any] = []
        for name in self.arguments:
            if name in outputs:
                arguments.append(Field(name, (), derivatives))
            else:
                arguments.append(derivatives.value(name))
        return self.function(*arguments)


def field_equation(function: Callable[..., Any]) -> FieldEquation:
    """Give an equation fields, which know their derivatives, for its arguments that are outputs.

    Other arguments, such as ``u_t`` or ``x``, are plain tensors (n,) as ever. The result is a
    tensor (n,), a :class:`Vector` or a tuple of such tensors.

    Raises
    ------
    ValueError
        If the arguments' names cannot be read.
    """
    return FieldEquation(function)
