"""Soft conditions: what must hold on part of the domain, each a loss term of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence import _checks
from whence.pinn.boundary import Part
from whence.pinn.domain import Domain

On = str | Iterable[str] | Callable[..., Any]
Value = float | Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Condition:
    """A residual that must vanish on part of the boundary.

    Parameters
    ----------
    name:
        The term's name.
    on:
        A boundary part, a coordinate (both its ends), several of them, or a function of
        coordinates that selects boundary points; see ``Domain.part``. ``None``: the start of
        time.
    residual:
        Function of fields, coordinates and normal derivatives (``u_n`` is ∂u/∂n, n outward) by
        argument name. It returns a tensor (n,), or a tuple of them.
    names:
        The arguments' names where the signature does not say them.
    along:
        A coordinate: the residual is then the difference of ``residual`` between both ends.

    Examples
    --------
    >>> from whence import pinn
    >>> outflow = pinn.Condition(
    ...     "outflow", on="x_max", residual=lambda u_x, p: 0.05 * u_x - p)
    >>> outflow.names
    ('u_x', 'p')
    """

    name: str
    on: On | None
    residual: Callable[..., Any]
    names: tuple[str, ...] = ()
    along: str | None = None

    def __post_init__(self) -> None:
        if not self.names:
            what = f"the residual of condition {self.name!r}"
            object.__setattr__(self, "names", _checks.arguments(what, self.residual))

    def part(self, domain: Domain, time: str | None) -> Part:
        """Return the part of the boundary on which the condition's points lie."""
        if self.along is not None:
            _checks.one_of(
                f"coordinate of condition {self.name!r}", self.along, domain.coordinates
            )
            return domain.part(f"{self.along}_min")
        if self.on is not None:
            return domain.part(self.on)
        if time is None:
            raise ValueError(
                f"condition {self.name!r} needs a time coordinate, but the domain has "
                f"{', '.join(domain.coordinates)}: name one 't', or pass time= to Problem"
            )
        return domain.part(f"{time}_min")

    def places(self, domain: Domain, points: Tensor) -> tuple[Tensor, ...]:
        """Return where the residual is evaluated: the points, and their partners if periodic."""
        if self.along is None:
            return (points,)
        column = domain.coordinates.index(self.along)
        partner = points.clone()
        partner[..., column] = float(domain.bounds[1, column])
        return points, partner


def Initial(*, name: str | None = None, **value: Value) -> Condition:
    """Prescribe an output, or a derivative of it, at the start of time: residual field − value.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Initial(u=lambda x: -torch.sin(x)).name, pinn.Initial(u_t=0.0).name
    ('initial_u', 'initial_u_t')
    """
    return _prescribed("initial", None, name, value, lambda field: field)


def Dirichlet(*, on: On, name: str | None = None, **value: Value) -> Condition:
    """Prescribe an output on part of the boundary: residual u − value.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Dirichlet(u=0.0, on="x").name
    'dirichlet_u'
    """
    return _prescribed("dirichlet", on, name, value, lambda field: field)


def Neumann(*, on: On, name: str | None = None, **value: Value) -> Condition:
    """Prescribe an output's outward normal derivative: residual ∂u/∂n − value.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Neumann(u=0.0, on="x_max").names
    ('u_n',)
    """
    return _prescribed(
        "neumann", on, name, value, lambda slope: slope, suffixes=("_n",)
    )


def Robin(
    *,
    on: On,
    value_factor: float,
    normal_factor: float,
    name: str | None = None,
    **value: Value,
) -> Condition:
    """Prescribe a·u + b·∂u/∂n on part of the boundary, a and b the two factors, n outward.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Robin(u=1.0, on="x_max", value_factor=2.0, normal_factor=0.5).names
    ('u', 'u_n')
    """
    _checks.number("value_factor", value_factor)
    _checks.number("normal_factor", normal_factor)

    def left(field: Tensor, slope: Tensor) -> Tensor:
        return value_factor * field + normal_factor * slope

    return _prescribed("robin", on, name, value, left, suffixes=("", "_n"))


def Periodic(field: str, *, along: str, name: str | None = None) -> Condition:
    """Ask for equal values of a field at both ends of a coordinate: residual u(low) − u(high).

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Periodic("u", along="x").name
    'periodic_u'
    """
    return Condition(name or f"periodic_{field}", None, lambda u: u, (field,), along)


def _prescribed(
    kind: str,
    on: On | None,
    name: str | None,
    value: dict[str, Value],
    left: Callable[..., Tensor],
    suffixes: tuple[str, ...] = ("",),
) -> Condition:
    """Return the condition ``left(fields) − value(coordinates)``."""
    if len(value) != 1:
        raise TypeError(
            f"{kind.capitalize()} takes one field by keyword, such as {kind.capitalize()}(u=0.0), "
            f"got {', '.join(value) or 'none'}"
        )
    ((field, right),) = value.items()
    fields = tuple(field + suffix for suffix in suffixes)
    what = f"the value of {kind.capitalize()}({field}=...)"
    if not callable(right):
        _checks.number(what, right)
    coordinates = _checks.arguments(what, right) if callable(right) else ()

    def residual(*arguments: Tensor) -> Tensor:
        given = right(*arguments[len(fields) :]) if callable(right) else right
        return left(*arguments[: len(fields)]) - given

    return Condition(name or f"{kind}_{field}", on, residual, fields + coordinates)


class _Normals(torch.autograd.Function):
    """Normals as constants of the points, found by NumPy also inside ``vmap``."""

    @staticmethod
    def forward(points: Tensor, part: Part, tolerance: float) -> Tensor:
        return part.normals(points, tolerance)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        points: Tensor,
        part: Part,
        tolerance: float,
    ) -> tuple[Tensor, int]:
        batch = points.movedim(in_dims[0], 0)
        flat = normals_at(part, batch.reshape(-1, batch.shape[-1]), tolerance)
        return flat.reshape(batch.shape), 0


def normals_at(part: Part, points: Tensor, tolerance: float) -> Tensor:
    """Return ``part.normals(points, tolerance)``, shape (n, d), under torch's transforms too."""
    normals: Tensor = _Normals.apply(points, part, tolerance)  # type: ignore[no-untyped-call]
    return normals


def stacked(what: str, result: Any, n: int) -> Tensor:
    """Return a residual's result, one tensor (n,) or a tuple of them, as (n, m)."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    for part in parts:
        if not isinstance(part, Tensor) or part.shape != (n,):
            given = (
                tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            )
            raise ValueError(
                f"{what} must return a tensor of shape ({n},), or a tuple of such tensors, for "
                f"{n} points, got {given}"
            )
    return torch.stack(list(parts), dim=1)
