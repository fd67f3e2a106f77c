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
        for term in terms_named(objective, name):
            n_points = len(objective.terms[term].points)
            members[term] = np.arange(n_points)
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
    first, *rest = words
    term, colon, number = first.partition(":")
    locations = objective.locations(term)
    if colon:
        is_index = number.isdecimal() and int(number) < len(locations)
        if rest or not is_index:
            raise ValueError(
                f"--point {' '.join(words)}: {term} has the points 0 … {len(locations) - 1}, such "
                f"as --point {term}:0"
            )
        return term, int(number)

    names = objective.coordinates
    if len(rest) != len(names):
        raise ValueError(
            f"--point takes TERM:INDEX, such as {term}:0, or TERM and {len(names)} numbers "
            f"({', '.join(names)}), got {' '.join(words)}"
        )
    place = torch.tensor(numbers("--point", rest)).to(locations)
    distances = torch.linalg.vector_norm(locations - place, dim=1)
    return term, int(distances.argmin())


def spread_points(table: xr.DataArray, n: int) -> dict[str, list[int]]:
    """Return n training points that are spread over the ranks of their influence, by term.

    Ranks are those of the largest influence on any target: strong points and weak ones, so that
    what is predicted of them can be told apart from noise.
    """
    strengths = np.abs(table.values).max(axis=0)
    order = np.argsort(-strengths, kind="stable")
    n_points = len(order)
    # Evenly, the strongest and the weakest among them.
    ranks = np.linspace(0, n_points - 1, min(n, n_points))
    chosen = order[ranks.round().astype(int)]

    members: dict[str, list[int]] = {}
    for point in np.sort(chosen):
        term = str(table["term"].values[point])
        index = int(table["index"].values[point])
        members.setdefault(term, []).append(index)
    return members
