"""The figures of a study, as ``whence plot`` draws them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from whence import plots
from whence._files import PathLike
from whence.pinn.training.load import problem_source, solved_problem
from whence.pinn.training.point_record import PRESENT
from whence.pinn.training.run_folder import RunFolder
from whence.plots.plane import is_plane
from whence.plots.study_points import StudyPoints
from whence.plots.style import Array
from whence.studies.comparison import chosen_baseline
from whence.studies.folder import RUNS
from whence.studies.results import read_histories, read_results

MEASURES = ("error", "test_loss")
"""What runs are drawn by: the error where problems have a reference, else the test loss."""


def study_figures(
    folder: PathLike, baseline: str | None = None
) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of a study by name, as far as there is something to draw.

    Parameters
    ----------
    folder:
        The study.
    baseline:
        The method that others are divided by; by default the one called ``random``, if any.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is no study, no run has finished, the baseline is unknown, or neither error nor test
        loss were recorded.
    """
    results = read_results(folder)
    table = results.table
    methods = list(table["method"].unique())
    baseline = chosen_baseline(baseline, methods)
    histories = read_histories(folder)
    column = drawn_column(table)

    # One after the other, as each is written before the next is drawn.
    yield "convergence", plots.study_convergence(histories, "iteration", column)
    yield "error_against_time", plots.study_convergence(histories, "seconds", column)
    yield "boxes", plots.study_boxes(table, column)
    # The baseline alone has nothing to be compared with.
    if baseline is not None and len(methods) > 1:
        yield "ratio", plots.study_ratio(histories, baseline, column)

    # None where all problems have three coordinates.
    runs = list(points_of_study(folder, table))
    if runs:
        yield "points", plots.study_points(runs)


def drawn_column(table: DataFrame) -> str:
    """Return what runs of a study are drawn by."""
    for column in MEASURES:
        # NaN, where it was not measured, is not above zero.
        is_shown = table[column] > 0
        if is_shown.any():
            return column
    raise ValueError(
        "the runs have neither an error nor a test loss to draw: problems need a reference "
        "solution, or runs --test"
    )


def points_of_study(folder: PathLike, table: DataFrame) -> Iterator[StudyPoints]:
    """Yield the last points of the first seed of each problem and method, in the plane."""
    for (name, method), runs in table.groupby(["problem", "method"], sort=False):
        by_seed = runs.sort_values("seed")
        first = by_seed.iloc[0]
        path = Path(folder) / RUNS / first["name"]
        run_folder = RunFolder(path)

        source = problem_source(run_folder)
        problem = solved_problem(run_folder, source)
        # A panel has room for two coordinates.
        if is_plane(problem.coordinates):
            arrays = run_folder.points()
            points = last_points(arrays, problem.terms)
            yield StudyPoints(problem, str(name), str(method), points)


def last_points(arrays: dict[str, Array], terms: tuple[str, ...]) -> dict[str, Array]:
    """Return the points of each term that were in training at the end."""
    points = {}
    for term in terms:
        left = arrays.get(f"{term}:left")
        # What was not recorded cannot be drawn.
        if left is None:
            continue
        is_present = left == PRESENT
        points[term] = arrays[term][is_present]
    return points
