"""Some of an objective's training points: which they are, and the objective with or without them.

Points are named by their term and their place in it. What is kept or dropped leaves the factor
w/N of every other point alone, so that losses of parts add up to the loss of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.points import Points

Indices = Sequence[int] | np.ndarray | Tensor
"""Which points of a term: their indices, or a boolean mask of its length."""

Members = Mapping[str, Indices] | Indices
"""Which points of an objective: indices by term, or of the only term."""

Chosen = Mapping[str, np.ndarray]
"""Checked indices by term, ascending, terms in the order of the objective."""


def members(objective: Objective, what: str, points: Members) -> dict[str, np.ndarray]:
    """Return checked indices by term, ascending, in the order of the objective's terms.

    A term that is unknown, an index that repeats or is out of range, a mask of another length and
    no points at all are errors that begin with ``what``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.subsets import members
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"]
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, torch.ones(4, 1))])
    >>> members(objective, "the group 'a'", [2, 0])
    {'data': array([0, 2])}
    """
    if not isinstance(points, Mapping):
        terms = objective.data_terms
        first = next(iter(terms))
        if len(terms) > 1:
            raise ValueError(
                f"{what}: the objective has terms {', '.join(terms)}; give indices by "
                f"term, such as {{{first!r}: [0, 1]}}"
            )
        points = {first: points}

    for name in points:
        objective.term(name)

    # In the order of the objective, whatever the order of the mapping.
    chosen = {}
    for name, term in objective.terms.items():
        if name not in points:
            continue
        indices = _indices(f"{what}, term {name!r}", points[name], len(term.points))
        if len(indices):
            chosen[name] = indices

    if not chosen:
        raise ValueError(f"{what} has no points: name at least one")
    return chosen


def _indices(what: str, points: Indices, n: int) -> np.ndarray:
    """Return indices of some of n points, ascending, from indices or a mask."""
    if isinstance(points, Tensor):
        points = points.detach().cpu().numpy()
    table = np.asarray(points)
    if table.ndim != 1:
        raise ValueError(
            f"{what}: indices must be a list or a vector, got {_checks.describe(points)}"
        )
    if not table.size:  # an empty list is an array of floats
        return np.empty(0, dtype=np.int64)

    if table.dtype.kind == "b":
        if len(table) != n:
            raise ValueError(f"{what}: a mask must have length {n}, got {len(table)}")
        return np.flatnonzero(table)

    if table.dtype.kind not in "iu":
        raise TypeError(
            f"{what}: indices must be integers or booleans, got {table.dtype}"
        )
    outside = table[(table < 0) | (table >= n)]
    if len(outside):
        raise ValueError(f"{what}: indices must lie in 0 … {n - 1}, got {outside[0]}")

    unique, counts = np.unique(table, return_counts=True)
    if len(unique) < len(table):
        repeated = unique[counts > 1][0]
        raise ValueError(
            f"{what}: each point once, got index {repeated} {counts.max()} times"
        )
    return unique.astype(np.int64)  # ascending, as unique() sorts


def check_groups(
    objective: Objective, groups: Mapping[str, Members]
) -> dict[str, dict[str, np.ndarray]]:
    """Return every group's indices by term; errors name the group."""
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(
            "groups must map names to points, such as {'left': [0, 1]} or "
            f"{{'left': {{'pde': mask}}}}, got {_checks.describe(groups)}"
        )
    checked = {}
    for name, points in groups.items():
        checked[name] = members(objective, f"the group {name!r}", points)
    return checked


def keep_points(objective: Objective, kept: Chosen) -> Objective:
    """Return the objective of some of its points only, each with the factor w/N it had.

    A term of n points out of N gets the weight ``w·n/N``; one that is not named is left out, and so
    is a penalty on the parameters, which is no point's.
    """
    device = objective.parameters.device
    indices = {}
    for name, places in kept.items():
        indices[name] = torch.as_tensor(places, device=device)
    fewer = objective.subset(indices)

    terms = []
    for name, places in kept.items():
        # The factor of a point is weight/N: with n points it stays where the weight is (w/N)·n.
        weight = objective.terms[name].scale * len(places)
        terms.append(replace(fewer.terms[name], weight=weight))
    return fewer.with_terms(terms).with_weight_decay(0.0)


def drop_points(objective: Objective, points: Members) -> Objective:
    """Return the same objective without these points; the others keep their factor w/N.

    A term that loses n of its N points gets the weight ``w·(N−n)/N``, so that
    ``L_fewer(θ) = L(θ) − Σ_dropped (w/N) ℓ(z)`` at every θ; one that loses all is left out. A
    penalty on the parameters stays.

    Parameters
    ----------
    objective:
        What the points belong to.
    points:
        Indices (or a mask) by term, or of the only term.

    Raises
    ------
    ValueError
        If nothing would be left, or an index is out of range, repeated, or its term unknown.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"]
    >>> objective = wh.Objective(network, [wh.Term("data", residual, torch.ones(4, 1))])
    >>> fewer = wh.drop_points(objective, [1])
    >>> len(fewer.term("data").points), fewer.term("data").weight, fewer.term("data").scale
    (3, 0.75, 0.25)
    """
    dropped = members(objective, "the points to leave out", points)
    kept = {}
    for name, indices in all_points(objective).items():
        remaining = np.setdiff1d(indices, dropped.get(name, ()))
        if len(remaining):
            kept[name] = remaining

    if not kept:
        raise ValueError(
            f"nothing would be left: all {objective.n_points} points of the objective are to be "
            "removed; keep at least one"
        )
    fewer = keep_points(objective, kept)
    penalties = [t for t in objective.terms.values() if t.source == "penalty"]
    terms = [*fewer.terms.values(), *penalties]
    return fewer.with_terms(terms).with_weight_decay(objective.weight_decay)


def all_points(objective: Objective) -> dict[str, np.ndarray]:
    """Return the indices of every training point by term."""
    terms = objective.data_terms.items()
    return {name: np.arange(len(term.points)) for name, term in terms}


def single_points(chosen: Chosen) -> list[dict[str, np.ndarray]]:
    """Return each point as a set of its own."""
    singles = []
    for name, indices in chosen.items():
        for index in indices:
            singles.append({name: np.asarray([index])})
    return singles


def points_at(objective: Objective, chosen: Chosen) -> dict[str, Points]:
    """Return the chosen training points by term."""
    points = {}
    for name, indices in chosen.items():
        points[name] = objective.terms[name].points[torch.as_tensor(indices)]
    return points


def n_members(chosen: Chosen) -> int:
    """Return the number of chosen points over all terms."""
    return sum(len(indices) for indices in chosen.values())
