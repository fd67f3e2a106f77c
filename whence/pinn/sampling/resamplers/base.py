"""What every resampler is, and the row numbers that resamplers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.sampling.weighted_points import WeightedPoints
from whence.shared_pass import are_same_points, passes_of

PROBED = 2
"""Points drawn to see whether terms draw the same."""


@runtime_checkable
class Resampler(Protocol):
    """Renews training points between steps; see :class:`whence.pinn.Resample`."""

    @property
    def every(self) -> int:
        """Iterations between two rounds."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> Mapping[str, Tensor | WeightedPoints]:
        """Return the renewed points by term, with weights or without; others keep theirs.

        ``round`` and ``seed`` together determine every random draw, so that a run can be repeated
        and resumed.
        """


def renewable_terms(
    objective: Objective, names: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the terms whose points can be renewed: those named, or all with points drawn.

    Raises
    ------
    ValueError
        If the points of a named term are fixed, as measurements are, or no term has points drawn.
    """
    for name in names or ():
        if objective.term(name).source == "fixed":
            raise ValueError(
                f"the points of term {name!r} are part of it, as measurements are: they cannot be "
                "renewed"
            )
    if names:
        return tuple(names)

    drawn = [n for n, term in objective.terms.items() if term.source == "drawn"]
    if not drawn:
        raise ValueError(
            "the points of every term were given: name those to renew, such as "
            f"terms=({next(iter(objective.terms))!r},)"
        )
    return tuple(drawn)


def units_of(objective: Objective, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the terms in units that share their points, and keep them when these are renewed.

    Equations drawn at the same points are one unit; terms on different parts of the domain never.
    """
    terms = [objective.term(name) for name in names]
    units = []

    for shared in passes_of(terms):
        by_leader: dict[str, list[str]] = {}
        for term in shared.terms:
            # Points that were given may be the same where fresh ones are not.
            leader = _leader(objective, by_leader, term.name)
            members = by_leader.setdefault(leader, [])
            members.append(term.name)

        for members in by_leader.values():
            units.append(tuple(members))

    return units


def _leader(objective: Objective, leaders: Iterable[str], name: str) -> str:
    """Return the first of some terms that draws the same points as another, or the other itself."""
    drawn = objective.draw(name, PROBED, seed=0)
    for leader in leaders:
        # The same seed: terms on the same domain then draw the same.
        first = objective.draw(leader, PROBED, seed=0)
        if are_same_points(first, drawn):
            return leader

    return name


def check_unweighted(objective: Objective, names: Sequence[str]) -> None:
    """Raise ``ValueError`` if the points of a term have weights that new ones would not have."""
    for name in names:
        if objective.term(name).base_weights is not None:
            raise ValueError(
                f"the points of term {name!r} have weights, those of a quadrature rule say, which "
                "points that join them would not have: name other terms, or leave the resampling "
                "out"
            )


def new_rows(pool: Tensor, present: Tensor) -> Tensor:
    """Return the row numbers of candidates that are not present, each different one once."""
    # The present ones stand first, so that a candidate equal to one of them is the repetition.
    is_repeated = _checks.repeated(torch.cat([present, pool]))
    is_new = ~is_repeated[len(present) :]
    return torch.nonzero(is_new)[:, 0]
