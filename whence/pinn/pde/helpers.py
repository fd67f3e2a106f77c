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
from typing import Any, TypeAlias

import torch
from torch import Tensor

from whence import _checks

PROBE_POINTS = 2
"""Random values by which an equation is tried, to see which derivatives it asks for."""

Scalar: TypeAlias = "Field | Tensor | float"
"""What takes part in arithmetic: a field, values (n,), or a number."""
Components: TypeAlias = "Vector | Sequence[Scalar]"
"""A vector, or its components in order."""
Derived: TypeAlias = Any
"""Of a field values, a tensor (n,); of a vector a :class:`Vector` of them."""
Result: TypeAlias = "Tensor | Field | Vector | Sequence[Tensor | Field]"
"""What an equation may return."""


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
        return tuple(
            name for name in self.coordinates if name != self.time
        )  # the divergence is taken in space alone

    def value(self, name: str) -> Tensor:
        """Return a field's values, (n,)."""
        return self._values[name]


class _Probe(Derivatives):
    """Random values for any name, which notes what is asked for."""

    def __init__(self, coordinates: Sequence[str], time: str | None) -> None:
        super().__init__(coordinates, time, {})
        self._generator = torch.Generator().manual_seed(0)
        self.requested: dict[str, Tensor] = {}

    def value(self, name: str) -> Tensor:
        """Return the same random values each time a name is asked for, (PROBE_POINTS,)."""
        if name not in self.requested:
            # In (0, 1), where logarithms and roots are defined.
            self.requested[name] = torch.rand(
                PROBE_POINTS, generator=self._generator, dtype=torch.float64
            )
        return self.requested[name]


def _elementwise(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return the operator of a field or vector that applies an operation to values."""

    def operator(self: Field | Vector, other: Scalar | Vector) -> Any:
        if isinstance(self, Vector):
            return self._with(other, operation)
        if isinstance(other, Vector):
            # A field times a vector, as p * n.
            return Vector(operation(self.value, value_of(part)) for part in other)

        return operation(self.value, value_of(other))

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
        # As arguments of equations are called, so that both ways share one field.
        if not self.along:
            return self.output
        return f"{self.output}_{''.join(self.along)}"

    @property
    def value(self) -> Tensor:
        """Its values, (n,)."""
        return self.derivatives.value(self.name)

    def derivative(self, coordinate: str) -> Field:
        """Return its derivative along a coordinate, a field again."""
        # In the order of the coordinates, as derivatives commute: one name for u_xt and u_tx.
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
        # torch.sin(u) and the like: functions of the values, which know no derivatives.
        return function(*map(value_of, args), **dict(kwargs or {}))

    def __repr__(self) -> str:
        return f"Field({self.name!r})"


class Vector:
    """Components along the coordinates of space; arithmetic goes component by component."""

    def __init__(self, components: Iterable[Scalar]) -> None:
        self.components = tuple(components)

    def __len__(self) -> int:
        return len(self.components)

    def __iter__(self) -> Iterator[Scalar]:
        return iter(self.components)

    def __getitem__(self, k: int) -> Scalar:
        return self.components[k]

    def __repr__(self) -> str:
        return f"Vector({', '.join(map(repr, self.components))})"

    def _with(
        self, other: Scalar | Vector, operation: Callable[[Any, Any], Any]
    ) -> Vector:
        """Return the vector of an operation, component by component."""
        if not isinstance(other, Vector):
            value = value_of(other)
            return Vector(operation(value_of(a), value) for a in self)

        self._check_length(other)
        pairs = zip(self, other, strict=True)
        return Vector(operation(value_of(a), value_of(b)) for a, b in pairs)

    def _check_length(self, other: Components) -> None:
        if len(other) != len(self):
            raise ValueError(
                f"vectors of {len(self)} and {len(other)} components do not fit each other"
            )

    __add__ = _elementwise(lambda a, b: a + b)
    __radd__ = _elementwise(lambda a, b: b + a)
    __sub__ = _elementwise(lambda a, b: a - b)
    __rsub__ = _elementwise(lambda a, b: b - a)
    __mul__ = _elementwise(lambda a, b: a * b)
    __rmul__ = _elementwise(lambda a, b: b * a)
    __truediv__ = _elementwise(lambda a, b: a / b)

    def __neg__(self) -> Vector:
        return Vector(-value_of(part) for part in self)

    def dot(self, other: Components) -> Tensor:
        """Return the scalar product with another vector, ``Σ_i a_i b_i``, (n,)."""
        self._check_length(other)
        total: Any = 0.0
        for a, b in zip(self, other, strict=True):
            total = total + value_of(a) * value_of(b)
        return total


def vector(*components: Scalar) -> Vector:
    """Return a vector of fields or values, one for each coordinate of space."""
    return Vector(components)


def grad(of: Field) -> Vector:
    """Return the gradient of a field, ``(∂u/∂x, ∂u/∂y, …)``, a vector of fields."""
    return Vector(slopes_of("grad", of))


def slopes_of(what: str, of: Scalar | Vector) -> list[Field]:
    """Return a field's derivatives along the coordinates of space; errors begin with ``what``."""
    known = _field(what, of)
    return [known.derivative(c) for c in known.derivatives.space]


def div(of: Vector) -> Tensor:
    """Return the divergence of a vector of fields, ``Σ_i ∂w_i/∂x_i``, (n,)."""
    total: Any = 0.0
    for component, coordinate in _along_space("div", of):
        total = total + component.derivative(coordinate).value
    return total


def laplacian(of: Field | Vector) -> Derived:
    """Return ``Σ_i ∂²u/∂x_i²`` of a field, (n,), or of each component of a vector."""
    if isinstance(of, Vector):
        return Vector(laplacian(_field("laplacian", part)) for part in of)

    total: Any = 0.0
    for slope, coordinate in zip(
        slopes_of("laplacian", of), of.derivatives.space, strict=True
    ):
        total = total + slope.derivative(coordinate).value

    return total


def curl(of: Field | Vector) -> Derived:
    """Return the curl: of a vector in 3-D a vector, in 2-D ``∂v/∂x − ∂u/∂y``, (n,).

    Of a field in 2-D, a stream function, ``(∂ψ/∂y, −∂ψ/∂x)``.
    """
    if not isinstance(of, Vector):
        slopes = slopes_of("curl", of)
        if len(slopes) != 2:
            raise ValueError(
                f"the curl of a field needs 2 coordinates of space, got {len(slopes)}"
            )

        d_x, d_y = slopes
        return Vector((d_y.value, -d_x.value))  # ∇ × (0, 0, ψ)

    # Rows of the Jacobian matrix ∂w_i/∂x_j.
    rows = [slopes_of("curl", part) for part, _ in _along_space("curl", of)]
    if len(rows) == 2:
        (_, u_y), (v_x, _) = rows
        return v_x.value - u_y.value  # the component of ∇ × w out of the plane
    if len(rows) == 3:
        (_, u_y, u_z), (v_x, _, v_z), (w_x, w_y, _) = rows
        return Vector((w_y - v_z, u_z - w_x, v_x - u_y))  # ∇ × w

    raise ValueError(f"curl needs 2 or 3 coordinates of space, got {len(rows)}")


def advect(velocity: Components, of: Field | Vector) -> Derived:
    """Return ``(w·∇)u = Σ_i w_i ∂u/∂x_i`` of a field, (n,), or of each component of a vector."""
    if isinstance(of, Vector):
        return Vector(advect(velocity, _field("advect", part)) for part in of)
    slopes = slopes_of("advect", of)
    return Vector(velocity).dot(slopes)


def dt(of: Field | Vector) -> Derived:
    """Return the derivative with respect to time of a field, (n,), or of each component."""
    if isinstance(of, Vector):
        return Vector(dt(_field("dt", part)) for part in of)

    of = _field("dt", of)
    if of.derivatives.time is None:
        raise ValueError(
            "dt needs a coordinate of time: name one 't', or pass time= to Problem"
        )

    return of.derivative(of.derivatives.time).value


def value_of(of: Any) -> Any:
    """Return the values of a field, (n,); anything else as it is."""
    return of.value if isinstance(of, Field) else of


def values_in(result: Result) -> Tensor | tuple[Tensor, ...]:
    """Return what an equation gave as tensors (n,): one, or a tuple of several."""
    if isinstance(result, (tuple, list, Vector)):
        return tuple(map(value_of, result))
    value: Tensor = value_of(result)
    return value


def _field(what: str, of: object) -> Field:
    """Return a field; anything else is a ``TypeError`` that begins with ``what``."""
    if not isinstance(of, Field):
        raise TypeError(
            f"{what} needs a field, such as the argument u of an equation under "
            f"@field_equation, or its gradient's components, got {_checks.describe(of)}: "
            "products and sums of fields have no derivatives here"
        )

    return of


def _along_space(what: str, of: object) -> list[tuple[Field, str]]:
    """Return the components of a vector of fields, each with the coordinate it lies along."""
    if not isinstance(of, Vector):
        raise TypeError(
            f"{what} needs a vector, such as vector(u, v), got {_checks.describe(of)}"
        )

    components = [_field(what, part) for part in of]
    if not components:
        raise ValueError(f"{what} needs a vector of at least one component, got none")

    space = components[0].derivatives.space
    if len(components) != len(space):
        raise ValueError(
            f"{what} needs a component for each coordinate of space ({', '.join(space)}), got "
            f"{len(components)}"
        )

    return list(zip(components, space, strict=True))


@dataclass(frozen=True)
class FieldEquation:
    """An equation whose arguments that are outputs are fields; see :func:`field_equation`."""

    function: Callable[..., Result]
    arguments: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = _checks.arguments("an equation of fields", self.function)
        object.__setattr__(self, "arguments", names)

    def __call__(self, *arguments: Field | Tensor) -> Result:
        """Return what the function gives for fields."""
        return self.function(*arguments)

    def bind(
        self, outputs: Sequence[str], coordinates: Sequence[str], time: str | None
    ) -> tuple[tuple[str, ...], Callable[..., Tensor | tuple[Tensor, ...]]]:
        """Return the names of what it needs, and it as a plain function of these, in order.

        It is called once with random values, to see which derivatives it asks for.
        """
        probe = _Probe(coordinates, time)
        # Its values too: what it returns may be fields that nothing has asked for so far.
        values_in(self._call(outputs, probe))
        names = tuple(probe.requested)  # in the order in which they were asked for

        def plain(*columns: Tensor) -> Tensor | tuple[Tensor, ...]:
            values = dict(zip(names, columns, strict=True))
            derivatives = Derivatives(coordinates, time, values)
            return values_in(self._call(outputs, derivatives))

        return names, plain

    def _call(self, outputs: Sequence[str], derivatives: Derivatives) -> Result:
        arguments: list[Field | Tensor] = []
        for name in self.arguments:
            # Derivatives and coordinates among the arguments are values already.
            if name in outputs:
                arguments.append(Field(name, (), derivatives))
            else:
                arguments.append(derivatives.value(name))
        return self.function(*arguments)


def field_equation(function: Callable[..., Result]) -> FieldEquation:
    """Give an equation fields, which know their derivatives, for its arguments that are outputs.

    Other arguments, such as ``u_t`` or ``x``, are plain tensors (n,) as ever. The result is a
    tensor (n,), a :class:`Vector` or a tuple of such tensors.

    Raises
    ------
    ValueError
        If the arguments' names cannot be read.
    """
    return FieldEquation(function)
