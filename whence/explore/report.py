"""The explorer's page as one file with its answers in it: for a colleague, or for a notebook.

What the server would be asked is asked beforehand, for targets on a grid. Influences are written
in 16 bits of the strongest of their target, which is finer than any color.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from whence._files import JsonObject
from whence.attribution.quality import FarFromMinimum, quality
from whence.explore import records
from whence.explore.answers import Answers
from whence.explore.notebook import MAX_INFLUENCES
from whence.explore.run_questions import check_comparable, point_table
from whence.explore.single_file import page_of, rounded_table, table

if TYPE_CHECKING:
    from whence.pinn.pde.problem import Problem

INFLUENCE_BYTES = 3_600_000
"""Bytes that the influences of a report may have, of all runs and answers together."""
FIELD_PLACES = 40_000
"""Places at which a report has each field."""
MAX_TARGETS_ALONG = 41
MIN_TARGETS_ALONG = 3
ONLY_LIVE = ("any place", "exact", "retrain")
"""What needs the run itself."""


def report_of_runs(
    *runs: Answers,
    of: Sequence[str] = (),
    targets: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> str:
    """Return the page of a run, or of two beside each other, as one HTML file.

    Parameters
    ----------
    runs:
        What is shown.
    of:
        What is explained, see :meth:`whence.explore.Session.quantity`; by default all outputs.
    targets:
        Places that are explained along each coordinate; by default as many as some megabytes have
        room for, at most 41.
    progress:
        Called with what is being made.

    Raises
    ------
    ValueError
        If runs cannot be compared, or a name means nothing.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.explore import Session
    >>> from whence.explore.answers import Answers
    >>> from whence.explore.report import report_of_runs
    >>> result = pinn.train(pinn.zoo.load("diffusion"), points=50, schedule=pinn.GaussNewton(10),
    ...                     progress=False)
    >>> page = report_of_runs(Answers(Session(result)), targets=5)
    >>> page[:15], "http://" in page.replace("http://www.w3.org/", "")
    ('<!doctype html>', False)
    """
    check_comparable(runs)
    room = INFLUENCE_BYTES // len(runs)
    with warnings.catch_warnings():
        # The page has it in words.
        warnings.simplefilter("ignore", FarFromMinimum)
        recorded = [_recorded(answers, of, targets, room, progress) for answers in runs]
    return page_of(recorded)


def _recorded(
    answers: Answers,
    of: Sequence[str],
    targets: int | None,
    room: int,
    progress: Callable[[str], None],
) -> JsonObject:
    """Return all that the page shows of a run."""
    result = answers.session.result
    problem = result.problem
    run = answers.run()
    names = list(of) or list(problem.outputs)
    n_along = targets or targets_along(room, run["n_points"] * len(names), problem)
    grid = [n_along] * len(problem.coordinates)
    check_room(len(names) * n_along ** len(grid) * run["n_points"])
    places, rows = places_on_grid(problem, grid)
    for name in names:
        check_everywhere(answers, name, places)

    influence, values, words = {}, {}, {}
    for name in names:
        progress(f"influences on {name} at {len(places)} places")
        rows_of_influence, values_of_name, words[name] = explained(
            answers, name, places
        )
        influence[name] = rounded_table(rows_of_influence)
        values[name] = table(values_of_name)

    progress("fields")
    field_grid, fields = fields_on_grid(answers)
    can = [name for name in run["can"] if name not in ONLY_LIVE]
    rounds = records.rounds(result)
    return {
        "run": {**run, "answers": names, "can": can, "fields": list(fields)},
        "points": table(point_table(answers)),
        "targets": table(places.T),
        "target_grid": grid,
        "target_rows": table(rows, "i4"),
        "influence": influence,
        "values": values,
        "quality": words,
        "field_grid": field_grid,
        "fields": fields,
        "terms": table(answers.between_terms()),
        "rounds": table(rounds, "f4"),
        "history": records.history(result),
        "spectra": records.spectra(result),
        "findings": records.findings(result),
    }


def check_room(n_influences: int) -> None:
    """Raise ``ValueError`` if a report has more influences than a browser reads."""
    if n_influences > MAX_INFLUENCES:
        raise ValueError(
            f"a report has room for {MAX_INFLUENCES:,} influences, this one would have "
            f"{n_influences:,}: lower --targets, or explain fewer answers (--of)"
        )


def check_everywhere(answers: Answers, name: str, places: np.ndarray) -> None:
    """Raise ``ValueError`` unless a name means something at all of some places."""
    answers.session.quantity(answers.first_place(), name)
    if not answers.fields.holds(name, places).all():
        raise ValueError(
            f"{name!r} holds in a part of the domain, and a report explains all of it: leave it "
            "out of --of, or use whence explore"
        )


def explained(
    answers: Answers, name: str, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return influences on an answer at places, (T, n), its values (T,), and how far to trust."""
    session = answers.session
    quantity = session.quantity(places, name)
    influences, _ = session.gradients.influences(quantity)
    values = quantity.values(session.result.objective)
    words = str(quality(session.influence_at(answers.first_place(), name)))
    return influences.double().cpu().numpy(), values.double().cpu().numpy(), words


def targets_along(room: int, n_influences: int, problem: Problem) -> int:
    """Return how many targets along each coordinate there is room for, in bytes.

    ``n_influences`` is how many each target has, of all points on all answers.
    """
    n_targets = room / (np.dtype("i2").itemsize * n_influences)
    along = int(n_targets ** (1 / len(problem.coordinates)))
    return max(MIN_TARGETS_ALONG, min(MAX_TARGETS_ALONG, along))


def _box_grid(problem: Problem, grid: Sequence[int]) -> np.ndarray:
    """Return a grid over the box around the domain, (n, d), the last coordinate fastest."""
    low, high = problem.domain.bounds
    sides = [np.linspace(low[k], high[k], n) for k, n in enumerate(grid)]
    return np.stack(
        [axis.ravel() for axis in np.meshgrid(*sides, indexing="ij")], axis=1
    )


def places_on_grid(
    problem: Problem, grid: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a grid that are in the domain, and of each place its row or −1."""
    places = _box_grid(problem, grid)
    inside = problem.domain.contains(places)
    rows = np.full(len(places), -1)
    rows[inside] = np.arange(inside.sum())
    return places[inside], rows


def fields_on_grid(answers: Answers) -> tuple[list[int], Mapping[str, JsonObject]]:
    """Return the grid of fields, and each on it."""
    problem = answers.session.result.problem
    n_coordinates = len(problem.coordinates)
    n = min(401, int(FIELD_PLACES ** (1 / n_coordinates)))
    grid = [min(n, 101) if n_coordinates > 1 else n] * n_coordinates
    places = _box_grid(problem, grid)
    inside = problem.domain.contains(places)
    fields = {}
    for name in answers.fields.names():
        values = np.full(len(places), np.nan)
        values[inside] = answers.fields(name, places[inside])
        fields[name] = table(values, "f4")
    return grid, fields
