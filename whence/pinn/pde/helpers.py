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
jets as those of arguments such as ``u_xx``, and an equation may mix both. What the helpers return
is differentiated again, to any order, and so are sums of fields and their multiples by numbers;
products and functions of fields are values, without derivatives:

>>> @field_equation
... def plate(w):
...     return laplacian(laplacian(w)) - 1
>>> problem = pinn.Problem(pinn.Rectangle(("x", "y"), (0, 0), (1, 1)), ("w",), {"pde": plate})
>>> problem.fields_of("pde")
('w_xxxx', 'w_xxyy', 'w_yyyy')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

from torch import Tensor

from whence import _checks
from whence.pinn.pde.field_algebra import (
    Components,
    Derivatives,
    Field,
    Partial,
    Probe,
    Scalar,
    Vector,
    value_of,
)

Result: TypeAlias = "Tensor | Field | Vector | Sequence[Tensor | Field]"
"""What an equation may return."""


def vector(*components: Scalar) -> Vector:
    """Return a vector of fields or values, one for each coordinate of space.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import field_equation, vector
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u, v: vector(u, v))
    >>> pinn.Problem(domain, ("u", "v"), {"pde": equation}).fields_of("pde")
    ('u', 'v')
    """
    return Vector(components)


def grad(of: Field) -> Vector:
    """Return the gradient of a field, ``(∂u/∂x, ∂u/∂y, …)``, a vector of fields.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import field_equation, grad
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u: grad(u))
    >>> pinn.Problem(domain, ("u",), {"pde": equation}).fields_of("pde")
    ('u_x', 'u_y')
    """
    return Vector(slopes_of("grad", of))


def slopes_of(what: str, of: Scalar | Vector) -> list[Field]:
    """Return a field's derivatives along the coordinates of space; errors begin with ``what``."""
    known = _field(what, of)
    return [known.derivative(c) for c in known.derivatives.space]


def div(of: Vector) -> Field:
    """Return the divergence of a vector of fields, ``Σ_i ∂w_i/∂x_i``, a field.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import div, field_equation, vector
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u, v: div(vector(u, v)))
    >>> pinn.Problem(domain, ("u", "v"), {"pde": equation}).fields_of("pde")
    ('u_x', 'v_y')
    """
    slopes = []
    for component, coordinate in _along_space("div", of):
        slopes.append(component.derivative(coordinate))
    return total_of(slopes)


def total_of(fields: Sequence[Field]) -> Field:
    """Return the sum of one field or more."""
    total = fields[0]
    for term in fields[1:]:
        total = total.plus(term)
    return total


@overload
def laplacian(of: Vector) -> Vector: ...


@overload
def laplacian(of: Field) -> Field: ...


def laplacian(of: Field | Vector) -> Field | Vector:
    """Return ``Σ_i ∂²u/∂x_i²`` of a field, a field, or of each component of a vector.

    Of a Laplacian, it is the biharmonic operator: ``laplacian(laplacian(u))`` is
    ``u_xxxx + 2 u_xxyy + u_yyyy`` in the plane.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import field_equation, laplacian
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u: laplacian(u) - 1)
    >>> pinn.Problem(domain, ("u",), {"pde": equation}).fields_of("pde")
    ('u_xx', 'u_yy')
    """
    if isinstance(of, Vector):
        return Vector(laplacian(_field("laplacian", part)) for part in of)

    slopes = slopes_of("laplacian", of)
    return div(Vector(slopes))


def curl(of: Field | Vector) -> Field | Vector:
    """Return the curl: of a vector in 3-D a vector, in 2-D ``∂v/∂x − ∂u/∂y``, a field.

    Of a field in 2-D, a stream function, ``(∂ψ/∂y, −∂ψ/∂x)``.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import curl, field_equation, vector
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u, v: curl(vector(u, v)))
    >>> pinn.Problem(domain, ("u", "v"), {"pde": equation}).fields_of("pde")
    ('v_x', 'u_y')
    """
    if not isinstance(of, Vector):
        slopes = slopes_of("curl", of)
        if len(slopes) != 2:
            raise ValueError(
                f"the curl of a field needs 2 coordinates of space, got {len(slopes)}"
            )

        d_x, d_y = slopes
        # Free of divergence: ∂²ψ/∂x∂y − ∂²ψ/∂y∂x = 0.
        return Vector((d_y, -d_x))

    # Rows of the Jacobian matrix ∂w_i/∂x_j.
    rows = [slopes_of("curl", part) for part, _ in _along_space("curl", of)]
    if len(rows) == 2:
        (_, u_y), (v_x, _) = rows
        return v_x.minus(u_y)  # the component of ∇ × w out of the plane
    if len(rows) == 3:
        (_, u_y, u_z), (v_x, _, v_z), (w_x, w_y, _) = rows
        return Vector((w_y - v_z, u_z - w_x, v_x - u_y))  # ∇ × w

    raise ValueError(f"curl needs 2 or 3 coordinates of space, got {len(rows)}")


@overload
def advect(velocity: Components, of: Vector) -> Vector: ...


@overload
def advect(velocity: Components, of: Field) -> Tensor | Field: ...


def advect(velocity: Components, of: Field | Vector) -> Tensor | Field | Vector:
    """Return ``(w·∇)u = Σ_i w_i ∂u/∂x_i`` of a field, or of each component of a vector.

    Values (n,); where the velocity is of numbers, a field.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import advect, field_equation
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u: advect((1.0, 2.0), u))
    >>> pinn.Problem(domain, ("u",), {"pde": equation}).fields_of("pde")
    ('u_x', 'u_y')
    """
    if isinstance(of, Vector):
        return Vector(advect(velocity, _field("advect", part)) for part in of)
    slopes = slopes_of("advect", of)
    return Vector(velocity).dot(slopes)


@overload
def dt(of: Vector) -> Vector: ...


@overload
def dt(of: Field) -> Field: ...


def dt(of: Field | Vector) -> Field | Vector:
    """Return the derivative with respect to time of a field, or of each component of a vector.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import dt, field_equation
    >>> domain = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
    >>> equation = field_equation(lambda u: dt(u))
    >>> pinn.Problem(domain, ("u",), {"pde": equation}).fields_of("pde")
    ('u_t',)
    """
    if isinstance(of, Vector):
        return Vector(dt(_field("dt", part)) for part in of)

    known = _field("dt", of)
    time = known.derivatives.time
    if time is None:
        raise ValueError(
            "dt needs a coordinate of time: name one 't', or pass time= to Problem"
        )

    return known.derivative(time)


def values_in(result: Result) -> Tensor | tuple[Tensor, ...]:
    """Return what an equation gave as tensors (n,): one, or a tuple of several."""
    if isinstance(result, (tuple, list, Vector)):
        return tuple(map(value_of, result))

    single: Any = value_of(result)
    value: Tensor = single
    return value


def _field(what: str, of: object) -> Field:
    """Return a field; anything else is a ``TypeError`` that begins with ``what``."""
    if not isinstance(of, Field):
        raise TypeError(
            f"{what} needs a field, such as the argument u of an equation under "
            "@field_equation, its derivatives, or their sums and multiples by numbers, got "
            f"{_checks.describe(of)}: products and functions of fields have no derivatives here, "
            "write these out, as ∇·(u∇u) = u∇²u + |∇u|²"
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
        probe = Probe(coordinates, time)
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
                arguments.append(Field({Partial(name): 1.0}, derivatives))
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

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.helpers import field_equation, grad
    >>> domain = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> equation = field_equation(lambda u: grad(grad(u)[0]))
    >>> pinn.Problem(domain, ("u",), {"pde": equation}).fields_of("pde")
    ('u_xx', 'u_xy')
    """
    return FieldEquation(function)
