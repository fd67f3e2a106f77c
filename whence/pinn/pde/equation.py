"""Equations that hold in a part of the domain, and equations that are split into components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whence import _checks
from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.fields import as_tuple

Where = Domain | Callable[..., Tensor]
"""A region of the same coordinates, or a function of coordinates that tells what is in it."""


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation that holds in a part of the domain only.

    Parameters
    ----------
    residual:
        Function of fields by argument name, as of any equation.
    where:
        A domain of the same coordinates, or a function of coordinates by argument name that
        returns which points (n,) are in it.

    Raises
    ------
    TypeError
        If one of them is of another kind.

    Examples
    --------
    Two materials, with an output each:

    >>> from whence import pinn
    >>> below = pinn.Equation(lambda a_yy: 1.38 * a_yy, where=lambda y: y < 0.5)
    >>> square = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
    >>> bool((below.region(square).sample(100)[:, 1] < 0.5).all())
    True
    """

    residual: Any
    where: Where

    def __post_init__(self) -> None:
        if not callable(self.where) and not isinstance(self.where, Domain):
            raise TypeError(
                "where must be a domain, or a function of coordinates such as lambda y: y < 0.5, "
                f"got {_checks.describe(self.where)}"
            )

    def region(self, domain: Domain) -> Domain:
        """Return where it holds."""
        # A function of coordinates is a region only together with a domain.
        if not isinstance(self.where, Domain):
            return domain.where(self.where)
        if self.where.coordinates != domain.coordinates:
            raise ValueError(
                f"an equation holds in a region of coordinates {', '.join(self.where.coordinates)}"
                f", the problem has {', '.join(domain.coordinates)}: give a region of all of them"
            )
        return self.where


Residual = Callable[..., Any] | Equation
"""An equation: a function of fields by argument name, anywhere or in a part of the domain."""

# A mapping's keys are invariant: a type of both kinds would take no dictionary of names alone.
Equations = Mapping[Any, Residual]
"""Equations by name, or by the tuple of names of their components."""


@dataclass(frozen=True, eq=False)
class Component:
    """One component of a function that returns several, as an equation of its own.

    Parameters
    ----------
    whole:
        The function, which returns a tuple.
    names:
        Names of all components, in the order in which they are returned.
    position:
        Which of them this is.
    """

    whole: Callable[..., Any]
    names: tuple[str, ...]
    position: int

    def __call__(self, *arguments: object) -> object:
        """Return the component of what the whole function gives."""
        # Fields come from one pass for all; beside it this arithmetic, done again, is nothing.
        result = self.whole(*arguments)
        return self.part_of(result)

    def part_of(self, result: object) -> object:
        """Return the component of what the whole function gave.

        Raises
        ------
        ValueError
            If that has another number of components than there are names.
        """
        parts = as_tuple(result)
        # Too many would be dropped in silence, and too few an IndexError.
        if len(parts) == len(self.names):
            return parts[self.position]

        names = ", ".join(map(repr, self.names))
        raise ValueError(
            f"one function is split into the {len(self.names)} equations {names}, but returns "
            f"{len(parts)} component(s): it must return a tuple of {len(self.names)}, one for "
            "each name, in their order"
        )


def names_of(equations: Equations) -> list[object]:
    """Return the names of equations, those of each tuple in turn; one may come twice."""
    names: list[object] = []
    for key in equations:
        # Not into a dictionary: a name that comes twice must show.
        if not isinstance(key, tuple):
            names.append(key)
            continue
        if not key:
            raise ValueError(
                "an equation has an empty tuple for its names: give one name for each component "
                'that it returns, such as ("mass", "momentum")'
            )
        names += key
    return names


def split_by_name(equations: Equations) -> dict[str, Residual]:
    """Return equations by one name each: a function under a tuple of names is split into them.

    Examples
    --------
    >>> from whence.pinn.pde.equation import split_by_name
    >>> equations = split_by_name({("mass", "curl"): lambda u_x, v_x: (u_x, v_x)})
    >>> equations["curl"](1.0, 2.0)
    2.0
    """
    single: dict[str, Residual] = {}
    for key, equation in equations.items():
        if not isinstance(key, tuple):
            single[key] = equation
            continue

        for position, name in enumerate(key):
            # Each is confined to the region, which a slab of time resolves on its own domain.
            if isinstance(equation, Equation):
                part = Component(equation.residual, key, position)
                single[name] = Equation(part, equation.where)
            else:
                single[name] = Component(equation, key, position)
    return single


def first_alike(equations: Mapping[str, Residual], name: str) -> str:
    """Return the first equation that holds where the named one does."""
    where = _where(equations[name])
    for other, equation in equations.items():
        # By identity: what two functions of coordinates have in common is not known.
        if _where(equation) is where:
            return other
    return name


def _where(equation: Residual) -> Where | None:
    """Return in what part of the domain an equation holds, None for all of it."""
    return equation.where if isinstance(equation, Equation) else None
