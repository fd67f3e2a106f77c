"""The points that a run begins with: drawn, or given by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.arrays import ArrayLike
from whence.objective import Objective
from whence.pinn.geometry.quadrature_points import is_weighted, quadrature_weights
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.problem_checks import Counts
from whence.pinn.pde.term_function import Count
from whence.pinn.sampling.weighted_points import WeightedPoints
from whence.points import locations


def first_points(
    problem: Problem,
    points: Counts | Mapping[str, Count | ArrayLike],
    seed: int,
    sampling: str,
) -> Mapping[str, ArrayLike]:
    """Return the points given by term, and as many of the other terms as asked for."""
    if not isinstance(points, Mapping):
        return problem.sample(points, seed, sampling)

    given = given_points(points)
    counts: dict[str, Any] = {n: c for n, c in points.items() if n not in given}
    # The places of given terms are taken, so that only counts are left to be checked.
    drawn = problem.sample(counts, seed, sampling, but=tuple(given))
    return {**drawn, **given}


def given_points(
    points: Counts | Mapping[str, ArrayLike | Count],
) -> dict[str, ArrayLike]:
    """Return the points that the user gave, by term, without numbers of points to draw."""
    if not isinstance(points, Mapping):
        return {}
    given: dict[str, ArrayLike] = {}
    for name, rows in points.items():
        # Numbers by part of the boundary are numbers too.
        if not isinstance(rows, (int, float, np.number, Mapping)):
            given[name] = rows
    return given


def without_weights(points: Points) -> PlainPoints:
    """Return the points asked for without the weights that some have."""
    if not isinstance(points, Mapping):
        return points

    plain: dict[str, Count | ArrayLike] = {}
    for name, entry in points.items():
        plain[name] = entry.points if isinstance(entry, WeightedPoints) else entry
    return plain


def first_weights(problem: Problem, points: Points, sampling: str) -> dict[str, Tensor]:
    """Return the weights (N,) of the first points by term, of those that have such.

    The user gives them with the points; points of a quadrature rule have those of the rule.
    """
    wanted: dict[str, object] = {}
    if isinstance(points, Mapping):
        wanted.update(points)
    else:
        # One number is of the only term that is counted.
        counted = [name for name in problem.terms if name not in problem.given_terms]
        wanted.update(dict.fromkeys(counted, points))

    weights = {}
    for name, entry in wanted.items():
        if isinstance(entry, WeightedPoints):
            weights[name] = entry.tensor
        elif isinstance(entry, (int, np.integer)) and is_weighted(sampling):
            region = problem.region(name)
            what = f"term {name!r}"
            weights[name] = quadrature_weights(
                what, problem.domain, region, int(entry), sampling
            )
    return weights


def first_objective(
    problem: Problem,
    network: nn.Module,
    rows: Mapping[str, ArrayLike],
    points: Counts | Mapping[str, Count | ArrayLike],
    weights: Mapping[str, float] | None,
    pinned: Mapping[str, Tensor],
    base_weights: Mapping[str, Tensor],
) -> Objective:
    """Return the objective at its first points, those marked that the user gave or pinned.

    ``base_weights`` (N,) belong to the points of their terms.
    """
    objective = problem.objective(network, rows, weights)
    terms = dict(objective.terms)
    for name in given_points(points):
        if terms[name].source == "drawn":
            terms[name] = replace(terms[name], source="given")
    for name, head in pinned.items():
        # They stand first.
        terms[name] = replace(terms[name], pinned=len(head))
    return objective.with_terms(terms.values()).with_base_weights(base_weights)


PlainPoints = Counts | Mapping[str, Count | ArrayLike]
"""Numbers of points, or points, by term."""
Points = Counts | Mapping[str, Count | ArrayLike | WeightedPoints]
"""What may be asked for: numbers of points, points, or points with weights, by term."""

HeldOut = float | Mapping[str, float]
"""Share of the given points that are kept out of training, of all terms or by term."""


def hold_out_points(
    objective: Objective, problem: Problem, shares: HeldOut, seed: int
) -> tuple[Objective, dict[str, Tensor]]:
    """Split given points: return the objective without those held out, and these by term.

    Only points that the user gave can be held out: measurements, and points by term. Of N points a
    share s leaves out ``round(s N)``, one at least and never all, chosen by the seed.

    Raises
    ------
    ValueError
        If a share is not in [0, 1), a term's points are not given, or a term has a single one.
    """
    by_term = _shares_by_term(objective, problem, shares)
    terms = dict(objective.terms)
    held: dict[str, Tensor] = {}

    for name, share in by_term.items():
        term = terms[name]
        # Pinned points, the first ones, are always trained on.
        n_points = len(term.points) - term.pinned
        n_held = min(max(1, round(share * n_points)), n_points - 1)
        if n_held == 0:
            raise ValueError(
                f"term {name!r} has one point, which cannot be both trained on and held out: "
                "leave it out of hold_out"
            )

        # A seed of its own by term, apart from those that draw points.
        position = problem.terms.index(name)
        sequence = np.random.SeedSequence([seed, 104729, position])
        generator = torch.Generator()
        generator.manual_seed(int(sequence.generate_state(1)[0]))
        order = torch.randperm(n_points, generator=generator)
        rows = order.to(term.locations.device) + term.pinned
        head = torch.arange(term.pinned, device=rows.device)

        # In their first order, so that rows can be told by their places.
        held[name] = locations(term.part(rows[:n_held].sort().values).points)
        kept = torch.cat([head, rows[n_held:].sort().values])
        terms[name] = replace(term.part(kept), pinned=term.pinned)

    return objective.with_terms(terms.values()), held


def _shares_by_term(
    objective: Objective, problem: Problem, shares: HeldOut
) -> dict[str, float]:
    """Return the shares to hold out by term, without those of zero."""
    measured = [data.name for data in problem.data]
    given = []
    for name, term in objective.terms.items():
        if term.source == "given" or name in measured:
            given.append(name)

    wanted = shares if isinstance(shares, Mapping) else dict.fromkeys(given, shares)
    example = "hold_out=0.2 or hold_out={'sensors': 0.2}"
    if not isinstance(shares, Mapping) and shares and not given:
        raise ValueError(
            f"hold_out={shares!r} holds out given points, but all points of this problem are "
            "drawn: they are validated on fresh ones anyway"
        )

    by_term = {}
    for name, share in wanted.items():
        _checks.one_of("term for hold_out", name, given)
        if not 0 <= _checks.number("hold_out", share) < 1:
            raise ValueError(
                f"hold_out must be a share in [0, 1), such as {example}, got {share!r}"
            )
        if share:
            by_term[name] = float(share)
    return by_term
