"""Checks of what a problem is made of: each wrong part is an error when the problem is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from whence import _checks
from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.equation import Equations
from whence.pinn.pde.names import derivative_of
from whence.pinn.pde.term_function import Count
from whence.pinn.pde.unknowns import Field, Unknown

Counts = int | Mapping[str, Count]
"""Numbers of points by term, or of the only term; of a condition also by part."""

RESERVED_TERMS = ("iteration",)
"""Names that the files of a run have for something else."""
MARKS = (":", "/", "\\", "\0")
"""Characters that part names in these files."""
RESERVED = ("field", "residual", "error", "problem", "network")
"""Names that a solution has for something else."""


def check_kinds(
    domain: object, equations: object, conditions: object, kinds: tuple[type, ...]
) -> None:
    """Raise ``TypeError`` for a part of the wrong kind."""
    if not isinstance(domain, Domain):
        raise TypeError(
            f'domain must be a domain, such as pinn.Interval("x", 0, 1), got {domain!r}'
        )
    if not isinstance(equations, Mapping):
        raise TypeError(
            'equations must be functions by term name, such as {"pde": function}, got '
            f"{equations!r}"
        )

    members = conditions if isinstance(conditions, Sequence) else (conditions,)
    if members is not conditions or not all(isinstance(c, kinds) for c in members):
        raise TypeError(
            "conditions must be a list of conditions, such as [pinn.Initial(u=0.0)], got "
            f"{conditions!r}"
        )


def check_outputs(outputs: Sequence[str], coordinates: Sequence[str]) -> None:
    """Raise unless every output's name can mean only that output."""
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a tuple of names, such as ({outputs!r},)")

    _checks.identifiers("output", outputs)

    n_names = len(outputs) + len(coordinates)
    if not outputs or len({*outputs, *coordinates}) < n_names:
        raise ValueError(
            f"outputs need names of their own, other than the coordinates', got outputs "
            f"{', '.join(outputs) or 'none'} and coordinates {', '.join(coordinates)}"
        )

    check_derivatives(outputs, outputs, coordinates)
    check_derivatives(coordinates, outputs, coordinates, kind="coordinate")


def check_derivatives(
    names: Sequence[str],
    outputs: Sequence[str],
    coordinates: Sequence[str],
    kind: str = "output",
) -> None:
    """Raise ``ValueError`` for a name that reads as a derivative of an output."""
    # With outputs u and u_x the name u_x would mean two fields; u_n is ∂u/∂n.
    suffixes = (*coordinates, "n")
    for name in names:
        for output in outputs:
            if output != name and derivative_of(name, output, suffixes):
                raise ValueError(
                    f"{kind} {name!r} reads as a derivative of another output: give it "
                    "another name"
                )


def check_symbols(
    unknowns: object,
    derived: object,
    outputs: Sequence[str],
    coordinates: Sequence[str],
) -> None:
    """Raise unless unknowns and derived fields have names of their own, and are such."""
    for what, members in (("unknowns", unknowns), ("derived", derived)):
        if not isinstance(members, Mapping):
            raise TypeError(f"{what} must be given by name, got {members!r}")
        _checks.identifiers(what.removesuffix("s"), members)

    taken = [*coordinates, *outputs]
    assert isinstance(unknowns, Mapping)
    assert isinstance(derived, Mapping)
    for name in (*unknowns, *derived):
        if name in taken or name in RESERVED:
            raise ValueError(
                f"the name {name!r} is taken: unknowns and derived fields need names of their "
                "own, other than those of coordinates, outputs and each other"
            )
        taken.append(name)
    check_derivatives(
        (*unknowns, *derived), outputs, coordinates, "unknown or derived field"
    )

    for name, unknown in unknowns.items():
        _check_unknown(name, unknown, coordinates)
    for name, field in derived.items():
        if not hasattr(field, "bind"):
            raise TypeError(
                f"derived field {name!r} must be such as pinn.At('u', x=1.0) or "
                f"pinn.Integrated('u', over='x'), got {field!r}"
            )


def _check_unknown(name: str, unknown: object, coordinates: Sequence[str]) -> None:
    """Raise unless this is a first guess, an unknown, or a field of this name."""
    if isinstance(unknown, Field):
        for coordinate in unknown.of:
            _checks.one_of(f"coordinate of field {name!r}", coordinate, coordinates)
        if unknown.name != name:
            raise ValueError(
                f"the unknown {name!r} is a field called {unknown.name!r}: give both one name"
            )
    elif not isinstance(unknown, Unknown):
        _checks.number(f"the first guess of unknown {name!r}", unknown)  # type: ignore[arg-type]


def check_terms(equations: Equations, terms: Sequence[object]) -> None:
    """Raise ``ValueError`` unless there are equations, and every term's name is its own."""
    if not equations:
        raise ValueError(
            'a problem needs at least one equation, such as {"pde": function}'
        )

    # Losses, points and weights are kept by term.
    for name in terms:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a term must be text, got {name!r}")
        if name in RESERVED_TERMS or any(mark in name for mark in MARKS):
            raise ValueError(
                f"no term can be called {name!r}: files of a run use {', '.join(RESERVED_TERMS)} "
                f"and the characters {' '.join(MARKS)} for something else; choose another name"
            )

    repeated = [name for name in terms if terms.count(name) > 1]
    if repeated:
        name = repeated[0]
        raise ValueError(
            f"{terms.count(name)} terms are called {name!r}: each term needs a name of "
            f"its own, such as name={f'{name}_left'!r} for one of the conditions"
        )


def checked_counts(
    counts: object,
    terms: Sequence[str],
    given_terms: Sequence[str],
    left_out: Sequence[str],
) -> Mapping[str, Count]:
    """Return numbers of points by term; a term that is unknown or missing is an error."""
    first = terms[0]
    counted = [name for name in terms if name not in left_out]
    # One number is enough where there is one term.
    if isinstance(counts, (int, np.integer)) and not isinstance(counts, bool):
        if len(counted) != 1:
            raise ValueError(
                f"the problem has terms {', '.join(terms)}: give a count for each, such "
                f"as {{{first!r}: {counts}, ...}}"
            )

        counts = {first: counts}

    if not isinstance(counts, Mapping):
        raise TypeError(
            f"points must be numbers by term, such as {{{first!r}: 100}}, got "
            f"{_checks.describe(counts)}"
        )

    for name in counts:
        _checks.one_of("term", name, terms)
        if name in given_terms:
            raise ValueError(
                f"the points of term {name!r} are part of the problem: leave its count out"
            )
    missing = [name for name in counted if name not in counts]
    if missing:
        raise ValueError(f"no count for term {missing[0]!r}: every term needs points")

    return counts
