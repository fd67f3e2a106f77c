"""Which training points ``whence influence RUN`` is about: of terms, one, or some to leave out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from whence.attribution.arguments import TrainingPoints
from whence.attribution.quantities.term_loss import terms_named
from whence.cli.targets import numbers
from whence.objective import Objective


def points_of_terms(
    objective: Objective, names: Sequence[str]
) -> TrainingPoints | None:
    """Return the training points of terms, or of groups of them; None of no names, for all.

    Raises
    ------
    ValueError
        If there is no such term or group; the nearest is suggested.
    """
    if not names:
        return None

    members: dict[str, np.ndarray] = {}
    for name in names:
        # A term that two of the names mean is taken once.
        for term in terms_named(objective, name):
            points = objective.terms[term].points
            members[term] = np.arange(len(points))
    return TrainingPoints(members)


def one_point(objective: Objective, words: Sequence[str]) -> tuple[str, int]:
    """Return the term and the index of a training point.

    Parameters
    ----------
    objective:
        Whose training points they are.
    words:
        ``TERM:INDEX``, or a term and the coordinates of a place: then the nearest of its points.

    Raises
    ------
    ValueError
        If there is no such term, its points are fewer, or coordinates are missing.
    """
    # The first word is TERM or TERM:INDEX.
    first, *place = words
    term, colon, index = first.partition(":")
    locations = objective.locations(term)
    if not colon:
        return term, nearest_point(objective, term, place)

    # With an index there is nothing to say by coordinates.
    n_points = len(locations)
    is_index = index.isdecimal() and int(index) < n_points
    if place or not is_index:
        text = " ".join(words)
        last = n_points - 1
        raise ValueError(
            f"--point {text}: {term} has the points 0 … {last}, such as --point {term}:0"
        )
    return term, int(index)


def nearest_point(objective: Objective, term: str, place: Sequence[str]) -> int:
    """Return the index of the training point of a term that is nearest to a place."""
    names = objective.coordinates
    if len(place) != len(names):
        listed = ", ".join(names)
        raise ValueError(
            f"--point takes TERM:INDEX, such as {term}:0, or TERM and {len(names)} numbers "
            f"({listed}), got {len(place)} numbers with {term}"
        )

    locations = objective.locations(term)
    # In the number type of the points, on their device.
    wanted = torch.tensor(numbers("--point", place)).to(locations)
    differences = locations - wanted
    distances = torch.linalg.vector_norm(differences, dim=1)
    return int(distances.argmin())


def spread_points(table: xr.DataArray, n: int) -> dict[str, list[int]]:
    """Return n training points that are spread over the ranks of their influence, by term.

    Ranks are those of the largest influence on any target: strong points and weak ones, so that
    what is predicted of them can be told apart from noise.
    """
    strengths = np.abs(table.values).max(axis=0)
    # Stable, so that equal ones keep the order of the points.
    order = np.argsort(-strengths, kind="stable")
    n_points = len(order)

    # Evenly, the strongest and the weakest among them.
    last = n_points - 1
    n_chosen = min(n, n_points)
    ranks = np.linspace(0, last, n_chosen)
    whole = ranks.round()
    chosen = order[whole.astype(int)]
    chosen.sort()

    # Where they are in their terms, by which refits name them.
    members: dict[str, list[int]] = {}
    some = table.isel(point=chosen)
    terms = some["term"].values
    indices = some["index"].values
    for term, index in zip(terms, indices, strict=True):
        of_term = members.setdefault(str(term), [])
        of_term.append(int(index))
    return members
