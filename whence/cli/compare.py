"""Runs of one problem side by side: ``whence plot RUN --compare RUN …``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from whence import plots
from whence._netcdf import read_netcdf
from whence.cli.files import INFLUENCE_FILE
from whence.cli.influence_figures import file_name
from whence.pinn.pde.problem import Problem
from whence.pinn.training.load import load_run
from whence.plots.descriptions import of_quantity, quantities_of


def comparison_figures(
    folders: Sequence[Path], terms: Sequence[str]
) -> dict[str, Figure]:
    """Return a figure for each quantity that all runs explain, by what is added to its file's name.

    Parameters
    ----------
    folders:
        Run folders with an attribution each, as ``whence influence RUN`` leaves it.
    terms:
        Which terms to draw; none for the strongest.

    Raises
    ------
    FileNotFoundError
        If a run has no attribution.
    ValueError
        If runs are of different problems, or explain different answers.
    """
    # All that can be wrong is said before anything is drawn.
    problem = shared_problem(folders)
    attributions = read_attributions(folders)
    names = check_same_answers(attributions)

    figures = {}
    for name in names:
        # The same quantity of every run.
        parts = {}
        for run, attribution in attributions.items():
            parts[run] = of_quantity(attribution, name)
        # The usual single quantity needs no name of its own.
        added = f"_{file_name(name)}" if len(names) > 1 else ""
        figures[added] = plots.compared_influence(parts, problem, terms or None)
    return figures


def shared_problem(folders: Sequence[Path]) -> Problem:
    """Return the problem that all runs solve, in whichever variant."""
    first = load_run(folders[0]).problem
    for folder in folders[1:]:
        # Variants of a problem have its name.
        problem = load_run(folder).problem
        is_same = problem.name == first.name
        if not is_same or problem.coordinates != first.coordinates:
            raise ValueError(
                f"--compare takes runs of one problem: {folders[0]} is of {first.name}, {folder} "
                f"of {problem.name}"
            )
    return first


def read_attributions(folders: Sequence[Path]) -> dict[str, xr.DataArray]:
    """Return the attribution of each run by what it is called, dimensions (target, point)."""
    attributions = {}
    for folder, name in zip(folders, run_names(folders), strict=True):
        file = folder / INFLUENCE_FILE
        # whence influence leaves one in each run that it explains.
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} has no {INFLUENCE_FILE} to compare: whence influence {folder} makes it"
            )

        attribution = read_netcdf(file)
        if "target" not in attribution.dims:
            attribution = attribution.expand_dims("target")
            # What is known of the one target becomes known of each.
            attribution = with_target_labels(attribution)
        attributions[name] = attribution
    return attributions


def with_target_labels(attribution: xr.DataArray) -> xr.DataArray:
    """Return an attribution whose scalar labels are those of its one target."""
    # A row has the labels of its target as numbers, without a dimension.
    labels = {}
    for name, values in attribution.coords.items():
        is_of_target = name == "quantity" or str(name).startswith("target_")
        if is_of_target and values.ndim == 0:
            labels[name] = ("target", [values.item()])
    return attribution.assign_coords(labels)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return what runs are called: their folders' names, or all of the paths if two are alike.

    Examples
    --------
    >>> from pathlib import Path
    >>> from whence.cli.compare import run_names
    >>> run_names([Path("runs/good"), Path("runs/broken")])
    ['good', 'broken']
    >>> run_names([Path("a/wave"), Path("b/wave")])
    ['a/wave', 'b/wave']
    """
    # The folder's own name, also of a path such as "."
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        return [str(folder) for folder in folders]
    return names


def check_same_answers(attributions: Mapping[str, xr.DataArray]) -> list[str]:
    """Return the quantities that all runs explain; other answers in a run are a ``ValueError``."""
    runs = list(attributions)
    first = attributions[runs[0]]
    for run in runs[1:]:
        if not have_same_targets(first, attributions[run]):
            raise ValueError(
                f"{runs[0]} and {run} explain different answers: give whence influence the same "
                "--of and --at, or --region, for each run"
            )
    return quantities_of(first)


def have_same_targets(attribution: xr.DataArray, other: xr.DataArray) -> bool:
    """Whether two attributions are of the same answers at the same places."""
    if attribution.sizes["target"] != other.sizes["target"]:
        return False

    for name, labels in attribution.coords.items():
        if labels.dims != ("target",):
            continue
        # What is known of a target in one run must be known in the other.
        if name not in other.coords:
            return False
        others = other.coords[name]
        # An aggregate is at NaN, which xarray takes for equal to NaN.
        if not labels.variable.equals(others.variable):
            return False
    return True
