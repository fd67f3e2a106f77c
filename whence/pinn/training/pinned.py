"""Points that never leave: the first ones of their term, whatever renews the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from whence import _checks
from whence.arrays import ArrayLike, to_locations
from whence.objective import Objective
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.base import new_rows

Pinned = Mapping[str, ArrayLike]
"""Points (n, d) that never leave, by term."""


def pinned_rows(problem: Problem, pinned: Pinned | None) -> dict[str, Tensor]:
    """Return the pinned points of each term as tensors (n, d), checked.

    Raises
    ------
    TypeError
        If they are not given by term.
    ValueError
        If a term is unknown or has measurements, or a point is given twice.
    """
    if pinned is None:
        return {}
    if not isinstance(pinned, Mapping):
        raise TypeError(
            f"pinned points must be given by term, such as {{{problem.terms[0]!r}: points}}, got "
            f"{_checks.describe(pinned)}"
        )

    rows = {}

    for name, points in pinned.items():
        _checks.one_of("term for pinned", name, problem.terms)
        if name in problem.given_terms:
            raise ValueError(
                f"the points of term {name!r} are part of the problem and never leave: leave it "
                "out of pinned"
            )
        what = f"the pinned points of term {name!r}"
        rows[name] = to_locations(what, points, problem.coordinates)
        # A point given twice would weigh twice.
        _checks.distinct(what, rows[name])

    return rows


def with_pinned(
    points: Mapping[str, ArrayLike],
    pinned: Mapping[str, Tensor],
    coordinates: tuple[str, ...],
) -> dict[str, ArrayLike]:
    """Return the points by term, pinned ones first; others that equal one are left out."""
    joined = dict(points)
    for name, head in pinned.items():
        what = f"the points of term {name!r}"
        others = to_locations(what, points[name], coordinates)
        joined[name] = headed(head, others)
    return joined


def headed(head: Tensor, others: Tensor) -> Tensor:
    """Return pinned points and after them those of the others that are none of them."""
    head = head.to(others)
    rows = new_rows(others, head)
    return torch.cat([head, others[rows]])


def pinned_kept(
    objective: Objective, points: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return renewed points by term with those pinned at the head, whatever renewed them."""
    kept = {}

    for name, rows in points.items():
        term = objective.term(name)
        kept[name] = rows
        # A resampler of the user's own may know nothing of them.
        if term.pinned:
            head = term.locations[: term.pinned]
            kept[name] = headed(head, rows.to(head))
    return kept
