"""Soft conditions: what must hold on part of the domain, each a loss term of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from whence import _checks
from whence.pinn.geometry.apportioned import apportioned
from whence.pinn.geometry.boundary import Part
from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.helpers import FieldEquation

On = str | Iterable[str] | Callable[..., Tensor]
"""Where on the boundary, see :meth:`whence.pinn.Domain.part`."""
Shares = Mapping[str, float] | None
"""Shares of the points by part, see :class:`Condition`."""
Value = float | Callable[..., Tensor]
"""A number, or a function of coordinates by argument name."""
ResidualFunction = Callable[..., Tensor | Sequence[Tensor]]
"""A function of fields by argument name that returns a tensor (n,), or several."""


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
    shares:
        Shares of the points by name of a part, of a coordinate (both its ends) or a shape (all its
        parts), such as ``{"cylinder": 0.5}``; other parts have what is left, in proportion to their
        length or area, as all parts do by default. The loss is the mean over the points: what has
        more of them weighs more.

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
    residual: ResidualFunction | FieldEquation
    names: tuple[str, ...] = ()
    along: str | None = None
    shares: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        has_shares = self.shares is not None
        if has_shares and not isinstance(self.shares, Mapping):
            raise TypeError(
                f"shares of condition {self.name!r} must be given by part, such as "
                f"{{'cylinder': 0.5}}, got {_checks.describe(self.shares)}"
            )
        if has_shares and self.on is None:
            raise ValueError(
                f"condition {self.name!r} holds at one end of a coordinate, which has no parts "
                "to share points: leave shares out"
            )
        # What an equation of fields needs is known when the domain is.
        if not self.names and not isinstance(self.residual, FieldEquation):
            what = f"the residual of condition {self.name!r}"
            object.__setattr__(self, "names", _checks.arguments(what, self.residual))

    def part(self, domain: Domain, time: str | None) -> Part:
        """Return the part of the boundary on which the condition's points lie."""
        if self.along is not None:
            what = f"coordinate of condition {self.name!r}"
            _checks.one_of(what, self.along, domain.coordinates)
            return domain.part(f"{self.along}_min")
        # Where it is neither at an end of a coordinate nor on a part, it is at the start of time.
        if self.on is not None and self.shares:
            what = f"condition {self.name!r}"
            return apportioned(what, domain, self.on, self.shares)
        if self.on is not None:
            return domain.part(self.on)
        if time is None:
            raise ValueError(
                f"condition {self.name!r} needs a time coordinate, but the domain has "
                f"{', '.join(domain.coordinates)}: name one 't', or pass time= to Problem"
            )

        return domain.part(f"{time}_min")

    def partner(self, domain: Domain, points: Tensor) -> Tensor:
        """Return the points at the other end of the coordinate ``along``."""
        assert self.along is not None
        column = domain.coordinates.index(self.along)
        partner = points.clone()
        # The ellipsis: under vmap a point has lost its axis.
        partner[..., column] = float(domain.bounds[1, column])
        return partner


def Initial(*, name: str | None = None, **value: Value) -> Condition:
    """Prescribe an output, or a derivative of it, at the start of time: residual field − value.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> pinn.Initial(u=lambda x: -torch.sin(x)).name, pinn.Initial(u_t=0.0).name
    ('initial_u', 'initial_u_t')
    """
    return _prescribed("initial", None, name, value, itself)


def Dirichlet(
    *, on: On, name: str | None = None, shares: Shares = None, **value: Value
) -> Condition:
    """Prescribe an output on part of the boundary: residual u − value.

    ``shares`` as of :class:`Condition`.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Dirichlet(u=0.0, on="x").name
    'dirichlet_u'
    """
    return _prescribed("dirichlet", on, name, value, itself, shares=shares)


def Neumann(
    *, on: On, name: str | None = None, shares: Shares = None, **value: Value
) -> Condition:
    """Prescribe an output's outward normal derivative: residual ∂u/∂n − value.

    ``shares`` as of :class:`Condition`.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Neumann(u=0.0, on="x_max").names
    ('u_n',)
    """
    suffixes = ("_n",)
    return _prescribed("neumann", on, name, value, itself, suffixes, shares)


def Robin(
    *,
    on: On,
    value_factor: float,
    normal_factor: float,
    name: str | None = None,
    shares: Shares = None,
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

    suffixes = ("", "_n")
    return _prescribed("robin", on, name, value, left, suffixes, shares)


def Periodic(field: str, *, along: str, name: str | None = None) -> Condition:
    """Ask for equal values of a field at both ends of a coordinate: residual u(low) − u(high).

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Periodic("u", along="x").name
    'periodic_u'
    """
    return Condition(name or f"periodic_{field}", None, itself, (field,), along)


def itself(field: Tensor) -> Tensor:
    """Return the field: the left-hand side of a condition that prescribes it."""
    return field


def _prescribed(
    kind: str,
    on: On | None,
    name: str | None,
    value: dict[str, Value],
    left: Callable[..., Tensor],
    suffixes: tuple[str, ...] = ("",),
    shares: Shares = None,
) -> Condition:
    """Return the condition ``left(fields) − value(coordinates)``."""
    maker = kind.capitalize()
    # One condition, one field: several are several terms of the loss.
    if len(value) != 1:
        raise TypeError(
            f"{maker} takes one field by keyword, such as {maker}(u=0.0), "
            f"got {', '.join(value) or 'none'}"
        )

    ((field, right),) = value.items()
    fields = tuple(field + suffix for suffix in suffixes)  # u, u_n, or both

    what = f"the value of {maker}({field}=...)"
    coordinates: tuple[str, ...] = ()
    if callable(right):
        coordinates = _checks.arguments(what, right)
    else:
        _checks.number(what, right)

    def residual(*arguments: Tensor) -> Tensor:
        # First the fields of the left-hand side, then the coordinates of the right one.
        combination = left(*arguments[: len(fields)])
        if callable(right):
            return combination - right(*arguments[len(fields) :])
        return combination - right

    full_name = name or f"{kind}_{field}"
    arguments = fields + coordinates
    return Condition(full_name, on, residual, arguments, shares=shares)
