"""The points that a run begins with: drawn, or given by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from whence.arrays import ArrayLike
from whence.objective import Objective
from whence.pinn.pde.problem import Counts, Problem


def first_points(
    problem: Problem,
    points: Counts | Mapping[str, int | ArrayLike],
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
    points: Counts | Mapping[str, ArrayLike | int],
) -> dict[str, ArrayLike]:
    """Return the points that the user gave, by term, without numbers of points to draw."""
    if not isinstance(points, Mapping):
        return {}
    given: dict[str, ArrayLike] = {}
    for name, rows in points.items():
        if not isinstance(rows, (int, float, np.number)):
            given[name] = rows
    return given


def first_objective(
    problem: Problem,
    network: nn.Module,
    rows: Mapping[str, ArrayLike],
    points: Counts | Mapping[str, int | ArrayLike],
    weights: Mapping[str, float] | None,
) -> Objective:
    """Return the objective at its first points, those marked that the user gave."""
    objective = problem.objective(network, rows, weights)
    terms = dict(objective.terms)
    for name in given_points(points):
        if terms[name].source == "drawn":
            terms[name] = replace(terms[name], source="given")
    return objective.with_terms(terms.values())
