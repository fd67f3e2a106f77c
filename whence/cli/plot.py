"""``whence plot``: draw a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from whence import plots
from whence._files import make_folder
from whence._netcdf import read_netcdf
from whence.cli.compare import comparison_figures
from whence.cli.files import INFLUENCE_FILE, check_folder
from whence.cli.flags import default_words
from whence.cli.influence_figures import influence_figures
from whence.cli.study_figures import study_figures
from whence.pinn.training.load import load_run
from whence.pinn.training.result import FigureName
from whence.plots.plane import is_plane
from whence.studies.folder import StudyFolder

TEST_POINTS = 10_000


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw a run or a study: errors, convergence, where points went."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it, or a study, as `whence study` does."""
    out: Annotated[Path | None, default_words("RUN/figures", "PATH")] = None
    """Folder for the figures."""
    compare: Annotated[tuple[Path, ...], default_words("none", "[RUN ...]")] = ()
    """Other runs of the problem, such as of its variants: draw what influence is like in each, on
    one scale, and nothing else. `whence influence` must have explained the same answers of all."""
    terms: Annotated[
        tuple[str, ...], default_words("the strongest three", "[TERM ...]")
    ] = ()
    """Terms to compare."""
    baseline: Annotated[str | None, default_words("random, if any", "METHOD")] = None
    """Method of a study whose error the others are divided by."""


def compare(options: Options) -> int:
    """Draw what several runs have in common side by side; return the exit code."""
    out = options.out or options.run / "figures"
    check_folder(out)
    runs = [options.run, *options.compare]
    figures = comparison_figures(runs, options.terms)
    # Only now, as nothing is left of a comparison that fails.
    make_folder(out)
    for added, figure in figures.items():
        png, svg = plots.save(figure, out / f"comparison{added}")
        print(f"figure: {png}  {svg.name}")
    return 0


def plot_study(options: Options) -> int:
    """Draw the methods of a study side by side; return the exit code."""
    if options.compare or options.terms:
        raise ValueError(
            f"{options.run} is a study, whose methods are compared as they are: leave out "
            "--compare and --terms"
        )

    out = options.out or options.run / "figures"
    check_folder(out)
    for name, figure in study_figures(options.run, options.baseline):
        png, svg = plots.save(figure, out / name)
        print(f"figure: {png}  {svg.name}")
    return 0


def run(options: Options, arguments: Sequence[str]) -> int:
    """Draw every figure of a run or a study; return the exit code."""
    if StudyFolder.at(options.run).exists():
        return plot_study(options)
    if options.baseline is not None:
        raise ValueError(
            "--baseline is of a study, as a run has one method: leave it out"
        )
    if options.compare:
        return compare(options)
    if options.terms:
        raise ValueError("--terms does nothing without --compare: leave it out")

    out = options.out or options.run / "figures"
    result = load_run(options.run)
    # Before anything is drawn, which takes a while.
    check_folder(out)
    if not result.history:
        raise ValueError(
            f"{options.run} has no history to draw: history.csv is missing or empty"
        )

    make_folder(out)
    names: list[FigureName] = ["solution", "convergence"]
    has_maps = is_plane(result.problem.coordinates)
    if has_maps:
        names.append("points")
    else:
        print("no maps of points and influence: they need two coordinates")
    # Spectra only where they were recorded.
    if result.spectra is not None:
        names.append("spectra")
    files = [plots.save(result.plot(name), out / name) for name in names]

    row = None
    influence_file = options.run / INFLUENCE_FILE
    if influence_file.is_file():  # whence influence wrote it
        row = read_netcdf(influence_file)
    if row is not None:
        for added, figure in influence_figures(row, result.problem).items():
            files.append(plots.save(figure, out / f"influence{added}"))

    if result.problem.solution is not None:
        grid = result.problem.domain.sample(TEST_POINTS, "grid")
        error = result.problem.relative_l2(result.network, grid)
        print(f"relative L2 error: {error:.2e}")
    if row is not None:
        print(plots.describe_targets(row))
    for png, svg in files:
        print(f"figure: {png}  {svg.name}")
    return 0
