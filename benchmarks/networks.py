"""Every kind of network under one recipe: the error after equal times, and the time of rows.

``python -m benchmarks.networks`` trains burgers, allen_cahn and korteweg_de_vries with each network
of about 2250 parameters for ``SECONDS`` on one core, by Gauss–Newton on a set of points that grows
by influence, one seed, and prints the relative L2 error of the network that was kept. "mlp,
refined" has half of the time for the first network and half for the second. The table of rows is
of burgers (second order) and korteweg_de_vries (third) at ``POINTS`` points: the Jacobian of the
residual, the median of ``REPEATS``. ``--seconds`` and names of networks make a shorter run.

``python -m benchmarks.networks refinement`` trains a problem's own network for the seconds that
``REFINEMENTS`` has, then a second one on what it leaves for as long again, beside the first network
alone for twice as long.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from whence import pinn
from whence.jacobian import row_blocks

PROBLEMS = ("burgers", "allen_cahn", "korteweg_de_vries")
SECONDS, SEED = 45.0, 0
POINTS, REPEATS = 1000, 15
FIRST, LIMIT, RENEWED = 500, 1000, 50
REFINED = "mlp, refined"
REFINEMENTS = {"diffusion": 20.0, "helmholtz": 20.0, "korteweg_de_vries": 45.0}

Make = Callable[[torch.Tensor], nn.Module]
"""Makes a network for a box (2, 2)."""

NETWORKS: dict[str, Make] = {
    "mlp": lambda box: pinn.MLP([2, 32, 32, 32, 1], bounds=box, seed=SEED),
    "mlp, adaptive layer": lambda box: pinn.MLP(
        [2, 32, 32, 32, 1], bounds=box, adaptive="layer", seed=SEED
    ),
    "mlp, adaptive neuron": lambda box: pinn.MLP(
        [2, 31, 31, 31, 1], bounds=box, adaptive="neuron", seed=SEED
    ),
    "siren, ω₀ 5": lambda box: pinn.SIREN(
        [2, 32, 32, 32, 1], omega=5.0, bounds=box, seed=SEED
    ),
    "siren, ω₀ 30": lambda box: pinn.SIREN([2, 32, 32, 32, 1], bounds=box, seed=SEED),
    "modified_mlp": lambda box: pinn.ModifiedMLP(
        [2, 31, 31, 31, 1], bounds=box, seed=SEED
    ),
    "pirate_net": lambda box: pinn.PirateNet([2, 16, 16, 1], bounds=box, seed=SEED),
    "separable": lambda box: pinn.Separable([2, 25, 25, 1], bounds=box, seed=SEED),
    "periodic, 3 modes": lambda box: pinn.PeriodicNetwork(
        [2, 31, 31, 31, 1], modes=3, bounds=box, seed=SEED
    ),
}
"""All of 2193 to 2295 parameters."""


def box_of(problem: pinn.Problem) -> torch.Tensor:
    """Return the bounds of a problem's inputs, (2, d)."""
    return torch.as_tensor(problem.domain.bounds, dtype=torch.float64)


def seconds_of_rows(make: Make, name: str) -> float:
    """Return the median time of the Jacobian of a problem's residual."""
    problem = pinn.zoo.load(name)
    network = make(box_of(problem))
    objective = problem.objective(network, {"pde": problem.draw("pde", POINTS, SEED)})
    residual = objective.terms["pde"].residual
    points = objective.terms["pde"].points

    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in row_blocks(residual, objective.parameters, points):
            pass
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def trained(problem: pinn.Problem, network: nn.Module, seconds: float) -> pinn.Result:
    """Train a network by the recipe that all share."""
    return pinn.train(problem, network, seed=SEED, **shared_options(problem, seconds))


def refined(
    problem: pinn.Problem, network: nn.Module, seconds: float
) -> tuple[pinn.Result, pinn.Result]:
    """Train a network, and for as long again a second one on what it leaves; return both."""
    first = trained(problem, network, seconds)
    return first, pinn.refine(first, **shared_options(problem, seconds))


def shared_options(problem: pinn.Problem, seconds: float) -> dict[str, Any]:
    """Return the recipe of both as options of training."""
    recipe = pinn.growing_recipe(
        problem, first=FIRST, limit=LIMIT, renewed=RENEWED, max_seconds=seconds
    )
    return {
        "points": recipe.points,
        "schedule": recipe.schedule,
        "resample": recipe.resample,
        "max_seconds": seconds,
        "threads": 1,
        "progress": False,
    }


def shown(result: pinn.Result) -> str:
    """Return the error of a result and the steps it took."""
    summary = result.summary
    return f"{summary['relative_l2']:.1e} ({summary['iterations']})"


def refinements() -> None:
    """Print the table of refinements."""
    print("| problem | first network | refined | first network for as long |")
    print("| --- | --- | --- | --- |")
    for name, seconds in REFINEMENTS.items():
        problem = pinn.zoo.load(name)
        first, second = refined(problem, problem.network(SEED), seconds)
        longer = trained(problem, problem.network(SEED), 2 * seconds)
        cells = [shown(first), shown(second), shown(longer)]
        print(f"| {name}, {seconds:.0f} s | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print both tables, or that of refinements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.networks == ["refinement"]:
        refinements()
        return
    names = given.networks or [*NETWORKS, REFINED]

    print("| network | parameters | rows, 2nd order | rows, 3rd order |")
    print("| --- | --- | --- | --- |")
    for name in names:
        if name == REFINED:
            continue
        network = NETWORKS[name](box_of(pinn.zoo.load("burgers")))
        size = sum(parameter.numel() for parameter in network.parameters())
        second = 1e3 * seconds_of_rows(NETWORKS[name], "burgers")
        third = 1e3 * seconds_of_rows(NETWORKS[name], "korteweg_de_vries")
        print(f"| {name} | {size} | {second:.0f} ms | {third:.0f} ms |", flush=True)

    print(f"\n| network | {' | '.join(PROBLEMS)} |")
    print(f"| --- |{' --- |' * len(PROBLEMS)}")
    for name in names:
        cells = []
        for problem_name in PROBLEMS:
            problem = pinn.zoo.load(problem_name)
            kind = "mlp" if name == REFINED else name
            network = NETWORKS[kind](box_of(problem))
            if name == REFINED:
                _, result = refined(problem, network, given.seconds / 2)
            else:
                result = trained(problem, network, given.seconds)
            cells.append(shown(result))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
