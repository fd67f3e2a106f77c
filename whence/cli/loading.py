"""From a run folder back to its problem and objective."""

from __future__ import annotations

from pathlib import Path

import torch

from whence.objective import Objective
from whence.pinn import zoo
from whence.pinn.problem import Problem
from whence.pinn.runs import RunFolder
from whence.pinn.training import load_network, load_points

INFLUENCE_FILE, SCORES_FILE = "influence.nc", "scores.npz"


def load(run: Path) -> tuple[Problem, Objective]:
    """Return the problem of a run and its objective at the kept network and its points."""
    config = RunFolder(run).config()
    if config["problem"] not in zoo.names():
        raise ValueError(
            f"{run} solves {config['problem']!r}, which is not one of {', '.join(zoo.names())}: "
            "use pinn.load_network and pinn.load_points from Python"
        )
    problem = zoo.load(config["problem"], "hard" if config["hard_constraints"] else "soft")
    network = problem.network(config["seed"]).to(getattr(torch, config["dtype"].split(".")[1]))
    load_network(network, run)
    return problem, problem.objective(network, load_points(run), config["weights"])
