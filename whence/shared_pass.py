"""Terms at the same points: one pass through the network gives the residuals of all of them.

Three equations ``mass``, ``momentum_x`` and ``momentum_y`` that are three terms cost three passes
if each evaluates the network and its derivatives by itself. Where their points are the same, the
fields that any of them needs are evaluated once, in a *shared pass*, and each takes what it asked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from whence.points import Points, Pointwise, locations
from whence.term import Term


class FieldSource(Protocol):
    """Evaluates named fields of a network at points, all of them in one pass."""

    def evaluate(
        self, tensors: Mapping[str, Tensor], points: Tensor, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the named fields at points (n, d), each (n,)."""


@dataclass(frozen=True, eq=False)
class FieldFunction:
    """What a residual is made of: named fields of a source, and a function of them.

    Parameters
    ----------
    what:
        What messages call it.
    source:
        What evaluates the fields; residuals share a pass where it is the same object.
    names:
        The fields that it needs.
    function:
        The residual (n, m) from the fields by name, which may be more, and the points (n, d).
    """

    what: str
    source: FieldSource
    names: tuple[str, ...]
    function: Callable[[Mapping[str, Tensor], Tensor], Tensor]
    joined: dict[tuple[FieldFunction, ...], Pointwise] = field(default_factory=dict)
    """Functions of several, of which it is the first, by what they join."""


_FIELD_FUNCTIONS: WeakKeyDictionary[Pointwise, FieldFunction] = WeakKeyDictionary()
"""What residuals are made of, as far as it is known."""


def note_fields(residual: Pointwise, made_of: FieldFunction) -> None:
    """Note what a residual, a plain function, is made of, so that it can share a pass."""
    _FIELD_FUNCTIONS[residual] = made_of


def field_function(residual: Pointwise) -> FieldFunction | None:
    """Return what a residual is made of, None where that is not known."""
    # Other callables may have no hash, or no weak references.
    if not isinstance(residual, FunctionType):
        return None
    return _FIELD_FUNCTIONS.get(residual)


def _values(
    parts: Sequence[FieldFunction], tensors: Mapping[str, Tensor], points: Points
) -> list[Tensor]:
    """Return the value (n, m) of each function by one evaluation of all their fields."""
    # Each name once, in order.
    names: dict[str, None] = {}
    for part in parts:
        names |= dict.fromkeys(part.names)

    source = parts[0].source
    rows = locations(points)
    fields = source.evaluate(tensors, rows, tuple(names))

    values = []
    for part in parts:
        value = part.function(fields, rows)  # (n, m)
        values.append(value)
    return values


def _side_by_side(parts: Sequence[FieldFunction]) -> Pointwise:
    """Return the functions' values side by side, (n, Σ m), as one function."""

    def at(tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        values = _values(parts, tensors, points)
        return torch.cat(values, dim=1)

    names = [part.what for part in parts]
    at.__qualname__ = ", ".join(names)
    return at


@dataclass(frozen=True, eq=False)
class SharedPass:
    """Terms whose residuals one pass gives; a term that shares its points with none is alone.

    Parameters
    ----------
    terms:
        One or several, at the same points.
    """

    terms: tuple[Term, ...]

    @property
    def points(self) -> Points:
        """The points of each of the terms."""
        return self.terms[0].points

    @property
    def function(self) -> Pointwise:
        """The residuals of the terms side by side, (n, Σ m)."""
        if len(self.terms) == 1:
            return self.terms[0].residual

        parts = self._parts()
        first = parts[0]
        joined = first.joined
        # The same object each time: what a function does at a point is remembered for it.
        if parts not in joined:
            joined[parts] = _side_by_side(parts)
        return joined[parts]

    def residuals(self, tensors: Mapping[str, Tensor], points: Points) -> list[Tensor]:
        """Return the residual (n, m) of each term at some of the points, in order."""
        if len(self.terms) == 1:
            term = self.terms[0]
            residual = term.checked_residual(tensors, points)
            return [residual]

        parts = self._parts()
        return _values(parts, tensors, points)

    def _parts(self) -> tuple[FieldFunction, ...]:
        parts = []
        for term in self.terms:
            part = _FIELD_FUNCTIONS[term.residual]
            parts.append(part)
        return tuple(parts)


def passes_of(terms: Iterable[Term]) -> list[SharedPass]:
    """Return the passes that give the residuals of all terms, by the first term of each.

    Terms share one where their residuals are functions of fields of the same source and their
    points are equal: drawn once for all of them, or given so.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.shared_pass import passes_of
    >>> problem = pinn.Problem(
    ...     domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
    ...     outputs=("u", "v"),
    ...     equations={"mass": lambda u_x, v_y: u_x + v_y, "curl": lambda v_x, u_y: v_x - u_y},
    ...     conditions=[pinn.Dirichlet(u=0.0, on="x")],
    ... )
    >>> points = problem.sample({"mass": 9, "curl": 9, "dirichlet_u": 9}, seed=0)
    >>> objective = problem.objective(pinn.MLP([2, 8, 2], seed=0), points)
    >>> [[term.name for term in one.terms] for one in passes_of(objective.terms.values())]
    [['mass', 'curl'], ['dirichlet_u']]
    """
    passes: list[list[Term]] = []
    for term in terms:
        for members in passes:
            first = members[0]
            if _can_share(first, term):
                members.append(term)
                break
        else:
            # It shares with none of those before it.
            passes.append([term])

    return [SharedPass(tuple(members)) for members in passes]


def _can_share(first: Term, other: Term) -> bool:
    """Whether one pass can give the residuals of both terms."""
    part = field_function(first.residual)
    other_part = field_function(other.residual)
    if part is None or other_part is None:
        return False

    # Fields of different maps, as of an equation with derived fields of its own, are not the same.
    if part.source is not other_part.source:
        return False
    return are_same_points(first.points, other.points)


def are_same_points(points: Points, others: Points) -> bool:
    """Whether both are the same points in the same order; samples are if they are one object."""
    if points is others:
        return True
    if not isinstance(points, Tensor) or not isinstance(others, Tensor):
        return False
    # By value, as a run that is resumed has its points from disk; next to a pass this is nothing.
    return points.shape == others.shape and bool(torch.equal(points, others))
