"""From a run folder back to its problem and objective."""

from __future__ import annotations

from pathlib import Path

import torch

from whence.objective import Objective
from whence.pinn import zoo
from whence.pinn.problem import Problem
from whence.pinn.runs import RunFolder
from whence.pinn.training import load_network, load_points, load_weights

INFLUENCE_FILE, SCORES_FILE = "influence.nc", "scores.npz"


def load(run: Path) -> tuple[Problem, Objective]:
    """Return the problem of a run and its objective at the kept network and its points."""
    config = RunFolder(run).config()
    if config["problem"] not in zoo.names():
        raise ValueError(
            f"{run} solves {config['problem']!r}, which is not one of {', '.join(zoo.names())}: "
            "use pinn.load_network and pinn.load_points from Python"
        )
    problem = zoo.load(
        config["problem"], "hard" if config["hard_constraints"] else "soft"
    )
    network = problem.network(config["seed"]).to(
        getattr(torch, config["dtype"].split(".")[1])
    )
    load_network(network, run)
    objective = problem.objective(network, load_points(run), config["weights"])
    like = objective.parameters.vector()
    return problem, objective.with_weights(
        {n: w.to(like) for n, w in load_weights(run).items()}
    )


def check_file(out: Path) -> None:
    """Raise ``FileExistsError`` unless a file can be written here."""
    _check_above(out)
    if out.is_dir():
        raise FileExistsError(
            f"--out names a file, but {out} is a folder: choose another name"
        )


def check_folder(out: Path) -> None:
    """Raise ``FileExistsError`` unless files can be written into this folder."""
    _check_above(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(
            f"--out names a folder, but {out} is a file: choose another name"
        )


def _check_above(out: Path) -> None:
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise FileExistsError(f"{out} cannot be made: {above} is a file, not a folder")
