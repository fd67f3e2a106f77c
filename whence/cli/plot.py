"""``whence plot``: draw a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
import xarray as xr

from whence import plots
from whence.cli.flags import told
from whence.cli.loading import INFLUENCE_FILE, load
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
    problem, objective = load(options.run)
    folder = RunFolder(options.run)
    out = options.out or options.run / "figures"
    out.mkdir(parents=True, exist_ok=True)
    made = [
        plots.save(plots.solution(problem, objective.network), out / "solution"),
        plots.save(plots.convergence(folder.history()), out / "convergence"),
        plots.save(plots.rounds(problem, folder.points()), out / "points"),
    ]
    sentence = None
    if (options.run / INFLUENCE_FILE).is_file():
        with xr.open_dataarray(options.run / INFLUENCE_FILE) as row:
            made.append(plots.save(plots.influence_map(row, problem), out / "influence"))
            sentence = plots.describe_influence(row)
    grid = problem.domain.sample(10_000, "grid")
    print(f"relative L2 error: {problem.relative_l2(objective.network, grid):.2e}")
    if sentence:
        print(sentence)
    for png, svg in made:
        print(f"figure: {png}  {svg.name}")
    return 0
