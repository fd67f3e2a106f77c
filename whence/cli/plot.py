"""``whence plot``: draw a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
import xarray as xr

from whence import plots
from whence._files import make_folder
from whence._netcdf import read_netcdf
from whence.cli.flags import told
from whence.cli.loading import INFLUENCE_FILE, check_folder, load
from whence.pinn.runs import RunFolder


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw a run: its solution and error, its convergence, where its points went."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    out: Annotated[Path | None, told("RUN/figures")] = None
    """Folder for the figures."""


def run(options: Options) -> int:
    """Draw every figure of a run; return the exit code."""
    out = options.out or options.run / "figures"
    problem, objective = load(options.run)
    check_folder(out)
    folder = RunFolder(options.run)
    history, points, row = folder.history(), folder.points(), _influence(options.run)
    if not history:
        raise ValueError(
            f"{options.run} has no history to draw: history.csv is missing or empty"
        )
    make_folder(out)
    made = [
        plots.save(plots.solution(problem, objective.network), out / "solution"),
        plots.save(plots.convergence(history), out / "convergence"),
        plots.save(plots.rounds(problem, points), out / "points"),
    ]
    if folder.has_spectra():
        made.append(plots.save(plots.spectra(folder.spectra()), out / "spectra"))
    if row is not None:
        made.append(plots.save(plots.influence_map(row, problem), out / "influence"))
    grid = problem.domain.sample(10_000, "grid")
    print(f"relative L2 error: {problem.relative_l2(objective.network, grid):.2e}")
    if row is not None:
        print(plots.describe_influence(row))
    for png, svg in made:
        print(f"figure: {png}  {svg.name}")
    return 0


def _influence(run: Path) -> xr.DataArray | None:
    """Return what ``whence influence`` wrote, if it did."""
    path = run / INFLUENCE_FILE
    if not path.is_file():
        return None
    return read_netcdf(path)
