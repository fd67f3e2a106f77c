"""Fields and vectors of an equation: what can be added, multiplied and differentiated.

A :class:`Field` is a sum of derivatives of outputs with constant coefficients. Such sums can be
differentiated again, to any order: ``∂_x Σ_k c_k ∂_{α_k} u_k = Σ_k c_k ∂_{α_k + x} u_k``. Any other
operation, a product of two fields or a function of one, gives the tensor of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

PROBE_POINTS = 2
"""Random values by which an equation is tried, to see which derivatives it asks for."""

Other = TypeVar("Other")
Scalar: TypeAlias = "Field | Tensor | float"
"""What takes part in arithmetic: a field, values (n,), or a number."""
Components: TypeAlias = "Vector | Sequence[Scalar]"
"""A vector, or its components in order."""
Linear: TypeAlias = "Callable[[Field, Any], Field]"
"""An operation of a field and a number, or another field, that gives a field."""


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
        # The divergence is taken in space alone.
        names = []
        for name in self.coordinates:
            if name != self.time:
                names.append(name)
        return tuple(names)

    def value(self, name: str) -> Tensor:
        """Return a field's values, (n,)."""
        return self._values[name]


class Probe(Derivatives):
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


class Partial(NamedTuple):
    """A derivative of an output, or the output itself."""

    output: str
    along: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in equations: ``u``, ``u_x``, ``u_xt``."""
        # As arguments of equations are called, so that both ways share one field.
        if not self.along:
            return self.output
        return f"{self.output}_{''.join(self.along)}"


def _operator(
    operation: Callable[[Any, Any], Any],
    linear: Linear | None = None,
    takes: Callable[[object], bool] | None = None,
) -> Callable[..., Any]:
    """Return the operator of a field or vector that applies an operation.

    ``linear`` is the same operation where it gives a field, which is with others that ``takes``
    holds for; elsewhere it is one of values.
    """

    def operator(self: Field | Vector, other: Scalar | Vector) -> Any:
        if isinstance(self, Vector):
            return self._with(other, operation)
        if isinstance(other, Vector):
            # A field times a vector, as p * n.
            return Vector(operation(self, part) for part in other)
        if linear is not None and takes is not None and takes(other):
            return linear(self, other)

        return operation(self.value, value_of(other))

    return operator


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number))


def _is_divisor(value: object) -> bool:
    # What is divided by zero is infinite, as that of tensors is.
    return _is_number(value) and value != 0


def _is_addend(value: object) -> bool:
    return isinstance(value, Field) or _is_number(value)


class Field:
    """An output of the network, a derivative of one, or a sum of these, in an equation.

    ``Σ_k c_k ∂_{α_k} u_k + c`` with numbers c_k and c. It takes part in arithmetic and in functions
    of torch as the tensor of its values, (n,), and has the methods of a tensor.
    """

    # NumPy's numbers leave operations with fields to the field.
    __array_ufunc__ = None

    def __init__(
        self,
        coefficients: Mapping[Partial, float],
        derivatives: Derivatives,
        constant: float = 0.0,
    ) -> None:
        self.coefficients = dict(coefficients)
        self.derivatives = derivatives
        self.constant = constant

    @property
    def name(self) -> str:
        """Its name in equations, ``u_x``, or the sum of several, ``u_xx + 2.0*u_y``."""
        parts = []
        for partial, coefficient in self.coefficients.items():
            if coefficient == 1:
                parts.append(partial.name)
            else:
                parts.append(f"{coefficient}*{partial.name}")

        if self.constant:
            parts.append(str(self.constant))
        return " + ".join(parts)

    @cached_property
    def value(self) -> Tensor:
        """Its values, (n,)."""
        terms: list[Any] = []
        for partial, coefficient in self.coefficients.items():
            values = self.derivatives.value(partial.name)
            if coefficient != 1:
                values = coefficient * values
            terms.append(values)

        if self.constant:
            terms.append(self.constant)
        total: Tensor = sum(terms[1:], start=terms[0])
        return total

    def derivative(self, coordinate: str) -> Field:
        """Return its derivative along a coordinate, a field again."""
        order = self.derivatives.coordinates
        slopes: dict[Partial, float] = {}
        for partial, coefficient in self.coefficients.items():
            # In the order of the coordinates, as derivatives commute: one name for u_xt and u_tx.
            along = [*partial.along, coordinate]
            along.sort(key=order.index)
            slope = Partial(partial.output, tuple(along))
            slopes[slope] = coefficient

        return Field(slopes, self.derivatives)

    def times(self, factor: float) -> Field:
        """Return the field times a number."""
        number = float(factor)
        scaled = {}
        for partial, coefficient in self.coefficients.items():
            scaled[partial] = number * coefficient

        constant = number * self.constant
        return Field(scaled, self.derivatives, constant)

    def plus(self, other: Field | float) -> Field:
        """Return the sum with another field or a number."""
        if not isinstance(other, Field):
            constant = self.constant + float(other)
            return Field(self.coefficients, self.derivatives, constant)

        total = dict(self.coefficients)
        for partial, coefficient in other.coefficients.items():
            before = total.get(partial, 0.0)
            total[partial] = before + coefficient

        constant = self.constant + other.constant
        return Field(total, self.derivatives, constant)

    def minus(self, other: Field | float) -> Field:
        """Return the difference to another field or a number."""
        return self.plus(-other)

    __add__ = _operator(lambda a, b: a + b, plus, _is_addend)
    __radd__ = _operator(lambda a, b: b + a, plus, _is_addend)
    __sub__ = _operator(lambda a, b: a - b, minus, _is_addend)
    __rsub__ = _operator(
        lambda a, b: b - a, lambda a, b: a.times(-1.0).plus(b), _is_addend
    )
    __mul__ = _operator(lambda a, b: a * b, times, _is_number)
    __rmul__ = _operator(lambda a, b: b * a, times, _is_number)
    __truediv__ = _operator(
        lambda a, b: a / b, lambda a, b: a.times(1.0 / b), _is_divisor
    )
    __rtruediv__ = _operator(lambda a, b: b / a)
    __pow__ = _operator(lambda a, b: a**b)
    __rpow__ = _operator(lambda a, b: b**a)
    __lt__ = _operator(lambda a, b: a < b)
    __le__ = _operator(lambda a, b: a <= b)
    __gt__ = _operator(lambda a, b: a > b)
    __ge__ = _operator(lambda a, b: a >= b)

    def __neg__(self) -> Field:
        return self.times(-1.0)

    def __abs__(self) -> Tensor:
        return self.value.abs()

    def __getattr__(self, name: str) -> Any:
        # Methods of tensors; but not protocols, by which others ask what this is.
        if name.startswith("_") or name == "value":
            raise AttributeError(name)
        return getattr(self.value, name)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # torch.sin(u) and the like: functions of the values, which know no derivatives.
        values = [_values(argument) for argument in args]
        options = {}
        for name, option in (kwargs or {}).items():
            options[name] = _values(option)
        return function(*values, **options)

    def __repr__(self) -> str:
        return f"Field({self.name!r})"


class Vector:
    """Components along the coordinates of space; arithmetic goes component by component."""

    __array_ufunc__ = None

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
            return Vector(operation(part, other) for part in self)

        self._check_length(other)
        pairs = zip(self, other, strict=True)
        return Vector(operation(a, b) for a, b in pairs)

    def _check_length(self, other: Components) -> None:
        if len(other) != len(self):
            raise ValueError(
                f"vectors of {len(self)} and {len(other)} components do not fit each other"
            )

    __add__ = _operator(lambda a, b: a + b)
    __radd__ = _operator(lambda a, b: b + a)
    __sub__ = _operator(lambda a, b: a - b)
    __rsub__ = _operator(lambda a, b: b - a)
    __mul__ = _operator(lambda a, b: a * b)
    __rmul__ = _operator(lambda a, b: b * a)
    __truediv__ = _operator(lambda a, b: a / b)

    def __neg__(self) -> Vector:
        return Vector(-part for part in self)

    def dot(self, other: Components) -> Tensor | Field:
        """Return the scalar product with another vector, ``Σ_i a_i b_i``.

        Values (n,); of numbers and fields a field.
        """
        self._check_length(other)
        total: Any = 0.0
        for a, b in zip(self, other, strict=True):
            product = a * b
            total = total + product

        return total


@overload
def value_of(of: Field) -> Tensor: ...


@overload
def value_of(of: Other) -> Other: ...


def value_of(of: Field | Other) -> Tensor | Other:
    """Return the values of a field, (n,); anything else as it is."""
    return of.value if isinstance(of, Field) else of


def _values(argument: object) -> object:
    """Return an argument of a function of torch with values in place of fields."""
    if isinstance(argument, (list, tuple)):
        return [_values(part) for part in argument]
    return value_of(argument)
