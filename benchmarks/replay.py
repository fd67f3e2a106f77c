"""Replays: exactness against finite differences of whole trainings, cost, and memory.

``python -m benchmarks.replay``: small models of every kind are trained in float64 by SGD and Adam.
The replayed derivatives of some losses by the weights of a few samples are compared with five-point
differences of whole trainings; the time of a replay with that of the training; and, in fresh
processes, the memory of a replay of 250 steps with that of one of 4000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from benchmarks._trainings import Training, trainings
from whence import pinn
from whence.replay.checkpointing import default_kept

ERROR, COST = 1e-6, 6.0
PLACES = (0, 17, 40)
STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
SHORT, LONG = 250, 4000
GROWTH = 1.6
"""Most growth of the states held, for 16 times as many steps: log 4000 / log 250 is 1.5."""


def difference(function: Callable[[float], Tensor]) -> Tensor:
    """Return f′(1) by five points, as far apart as changes least from one distance to the next.

    Points further apart have a kink of a network between them, nearer ones only rounding.
    """
    found = [five_points(function, h) for h in STEPS]
    changes = [float((a - b).norm()) for a, b in itertools.pairwise(found)]
    return found[1 + int(np.argmin(changes))]


def five_points(function: Callable[[float], Tensor], h: float) -> Tensor:
    """Return f′(1) from points h and 2h around it."""
    near = function(1 + h) - function(1 - h)
    far = function(1 + 2 * h) - function(1 - 2 * h)
    return (8 * near - far) / (12 * h)


def of_model(case: Training, optimizer: str) -> Row:
    """Compare a replay with trainings in which a sample weighs more or less."""
    run = case.run(optimizer=optimizer)
    x, y = (part[:5] for part in case.test)
    effects = wh.Replay(run).attribute(wh.Loss((x, y)))

    worst = 0.0
    for place in PLACES:

        def losses(weight: float, place: int = place) -> Tensor:
            weights = torch.ones(len(case.train[0]), dtype=torch.float64)
            weights[place] = weight
            model = run.retrained(weights).eval()
            with torch.no_grad():
                return F.cross_entropy(model(x), y, reduction="none")

        actual = -difference(losses)
        error = torch.as_tensor(effects.values[:, place]) - actual
        worst = max(worst, float(error.norm() / actual.norm()))
    return Row(
        f"{case.name}, {optimizer}: replay against finite differences",
        worst,
        "relative",
        f"{len(run)} steps",
        most=ERROR,
    )


def of_pinn(schedule: list[Any], name: str) -> Row:
    """Compare a replay of a PINN's run with runs in which a point weighs more or less."""
    problem = pinn.zoo.load("diffusion", "soft")
    points = problem.sample(dict.fromkeys(problem.terms, 40), seed=0)
    at = problem.sample(dict.fromkeys(problem.terms, 5), seed=7)["pde"]

    def train(weighted: dict[str, Any]) -> pinn.Result:
        return pinn.train(
            problem,
            points=weighted,
            network=pinn.MLP([2, 12, 12, 1], seed=0),
            schedule=schedule,
            keep="last",
            compile=False,
            threads=1,
            progress=False,
        )

    run = train(dict(points))
    effects = wh.Replay(run).attribute(wh.Output(at))
    worst = 0.0
    for term, place in (("pde", 3), ("initial_u", 20)):

        def values(weight: float, term: str = term, place: int = place) -> Tensor:
            weights = torch.ones(40, dtype=torch.float64)
            weights[place] = weight
            weighted = {**points, term: pinn.WeightedPoints(points[term], weights)}
            return torch.as_tensor(train(weighted).solution(at)).reshape(-1)

        actual = -difference(values)
        column = effects.sel(term=term).values[:, place]
        error = torch.as_tensor(column) - actual
        worst = max(worst, float(error.norm() / actual.norm()))
    return Row(
        f"PINN diffusion, {name}: replay against finite differences",
        worst,
        "relative",
        f"{run.steps().n_steps} steps",
        most=ERROR,
    )


def cost(case: Training) -> Row:
    """Compare the time of a replay of one answer with that of the training."""
    x, y = (part[:1] for part in case.test)
    run = case.run()
    timings = _measure.paired(
        {
            "training": case.run,
            "replay": lambda: wh.Replay(run).attribute(wh.Loss((x, y))),
        },
        3,
    )
    ratio = timings["replay"].median / timings["training"].median
    return Row(
        f"{case.name}: time of a replay over that of the training",
        ratio,
        "×",
        f"{timings['replay']} and {timings['training']}, {len(run)} steps",
        most=COST,
    )


def _memory(steps: int) -> None:
    """Replay a training of so many steps of a network of 0.4 M parameters; print its memory."""
    torch.manual_seed(0)
    width = 600
    model = torch.nn.Sequential(
        torch.nn.Linear(20, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 1),
    )
    x = torch.randn(steps, 20)
    y = x.square().sum(1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    run = wh.train(
        model, (x, y), wh.Squared(), optimizer, epochs=1, batch_size=1, progress=False
    )
    before = _measure.peak_bytes()
    begun = time.perf_counter()
    wh.Replay(run).attribute(wh.Output(x[:1]))
    state = sum(tensor.numel() * tensor.itemsize for tensor in run.record.end.values())
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begun,
                "bytes": _measure.peak_bytes() - before,
                "state": state,
                "held": default_kept(steps),
            }
        )
    )


def memory(short: int, long: int) -> list[Row]:
    """Compare the memory of replays of few and many steps."""
    table = []
    found = {}
    for steps in (short, long):
        found[steps] = _measure.child("benchmarks.replay", "memory", str(steps))
        of_steps = found[steps]
        table.append(
            Row(
                f"memory of a replay of {steps} steps",
                of_steps["bytes"] / of_steps["state"],
                "states",
                f"{of_steps['held']} held, {of_steps['bytes'] / 2**20:.0f} MiB, "
                f"{of_steps['seconds']:.0f} s",
            )
        )
    table.append(
        Row(
            f"growth of memory for {long / short:.0f} times as many steps",
            found[long]["bytes"] / found[short]["bytes"],
            "×",
            f"logarithms grow {np.log(long) / np.log(short):.2f} ×",
            most=GROWTH,
        )
    )
    return table


def measure(given: argparse.Namespace) -> list[Row]:
    """Return the table."""
    table = []
    double = trainings(100, torch.float64)
    for case in double[:1] if given.quick else double:
        for optimizer in ("SGD", "Adam"):
            _measure.say(f"{case.name}, {optimizer}")
            table.append(of_model(case, optimizer))
    table.append(of_pinn([pinn.Adam(100, lr=1e-3, batch_size=20)], "Adam"))
    table.append(of_pinn([pinn.Adam(20, lr=1e-3), pinn.GaussNewton(6)], "Gauss–Newton"))
    for case in trainings(100 if given.quick else 600):
        table.append(cost(case))
    table += memory(SHORT // 5, LONG // 20) if given.quick else memory(SHORT, LONG)
    return table


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["memory"]:
        _memory(int(sys.argv[2]))
        return
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(given))


if __name__ == "__main__":
    main()
