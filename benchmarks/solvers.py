"""Every solver on one network: agreement with the exact answer, and time, beside captum and pyDVL.

``python -m benchmarks.solvers``: burgers, 3 × 32 (2241 parameters), 2000 training points, trained
by Gauss–Newton; the influence of every training point on the loss at 50 test points, factorisation
included, each method with the same damping (1e-6 of the largest eigenvalue). Agreement is the
Spearman correlation over training points with the exact answer of the same curvature, mean over
test points; captum's and pyDVL's curvature is the Hessian. Last comes a network
of 400,000 parameters with 20,000 points, in a fresh process.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.curvature.solvers import Solver

RANK = 50
LARGE_MEMORY_GIB = 4


@dataclass(frozen=True)
class Sizes:
    """Points, and what limits the slow."""

    training: int = 2000
    test: int = 50
    steps: int = 100
    damping: float = 1e-6
    limit: float = 300.0
    hessian: bool = True
    large_points: int = 20_000
    large_width: int = 365


QUICK = Sizes(100, 3, 5, limit=20.0, hessian=False, large_points=200, large_width=40)

SOLVERS: dict[str, Solver] = {
    "ConjugateGradient()": wh.ConjugateGradient(rtol=1e-4),
    "ConjugateGradient(preconditioner=None)": wh.ConjugateGradient(
        rtol=1e-4, preconditioner=None
    ),
    f"Arnoldi({RANK})": wh.Arnoldi(RANK),
    f"Arnoldi({RANK}, complement=False)": wh.Arnoldi(RANK, complement=False),
    "Arnoldi(300)": wh.Arnoldi(300),
    f"Nystrom({RANK})": wh.Nystrom(RANK),
    f"Nystrom({RANK}, complement=False)": wh.Nystrom(RANK, complement=False),
    "Nystrom(300)": wh.Nystrom(300),
    "EKFAC()": wh.EKFAC(),
    "EKFAC(coupled=0)": wh.EKFAC(coupled=0),
    "Sketched(1024)": wh.Sketched(1024),
    "Sketched(1024, kind='gaussian')": wh.Sketched(1024, kind="gaussian"),
    "DataInf()": wh.DataInf(),
    "LiSSA(300)": wh.LiSSA(300),
}


def agreement(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the mean over test points of the Spearman correlation over training points."""
    return float(
        np.mean([spearmanr(a, b)[0] for a, b in zip(exact, found, strict=True)])
    )


def trained(sizes: Sizes) -> tuple[wh.Objective, Tensor]:
    """Return a trained objective and test points."""
    problem = pinn.zoo.load("burgers")
    result = pinn.train(
        problem,
        points=sizes.training,
        schedule=[pinn.GaussNewton(sizes.steps)],
        keep="last",
        progress=False,
    )
    return result.objective, problem.sample(sizes.test, seed=5)["pde"]


def attributed(
    objective: wh.Objective, test: Tensor, **options: Any
) -> tuple[float, np.ndarray, dict[str, Any]]:
    """Return the seconds, the matrix and its attributes."""
    quantity = wh.Loss({next(iter(objective.terms)): test}, reduce="none")

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of a network far from a minimum, in quick runs
            return wh.Influence(objective, **options).attribute(quantity)

    seconds, found = _measure.once(run)
    return seconds, found.values, found.attrs


def ours(objective: wh.Objective, test: Tensor, sizes: Sizes) -> list[Row]:
    """Return a row for each solver of whence."""
    attributed(objective, test)  # warm up
    seconds, exact, _ = attributed(objective, test, damping=sizes.damping)
    rows = [Row("Exact()", seconds, "s", "agreement 1")]
    for name, solver in SOLVERS.items():
        _measure.say(name)
        seconds, found, said = attributed(
            objective, test, solver=solver, damping=sizes.damping
        )
        detail = (
            f"agreement {agreement(exact, found):.4f}; "
            f"relative residual {said['solver_residual']:.0e}"
        )
        if "trace_share" in said:
            detail += f"; {said['trace_share']:.4%} of the trace"
        if said["solver_message"]:
            detail += f"; {said['solver_message'].split(':')[0]}"
        rows.append(Row(name, seconds, "s", detail))
    return rows


def peers(objective: wh.Objective, test: Tensor, sizes: Sizes) -> list[Row]:
    """Return a row for captum and each method of pyDVL, against both exact answers."""
    exact = {"Gauss–Newton": attributed(objective, test, damping=sizes.damping)}
    rows = []
    if sizes.hessian:
        _measure.say("Exact(), Hessian")
        exact["Hessian"] = attributed(
            objective, test, damping=sizes.damping, curvature="hessian"
        )
        rows.append(
            Row(
                "Exact(), curvature='hessian'",
                exact["Hessian"][0],
                "s",
                f"agreement {agreement(exact['Gauss–Newton'][1], exact['Hessian'][1]):.4f} with "
                "Gauss–Newton",
            )
        )
    damping = float(exact["Gauss–Newton"][2]["damping"])
    for name in ("captum Arnoldi", "pyDVL Nyström", "pyDVL conjugate gradients"):
        _measure.say(name)
        done = _limited(name, sizes, damping, _frozen(objective), test)
        if done is None:
            what = f"{name}, {len(test)} test points"
            rows.append(
                Row(
                    what, sizes.limit, "s", "not done by then, and stopped", beyond=True
                )
            )
            continue
        seconds, found = done
        said = ", ".join(
            f"agreement {agreement(matrix, found):.4f} with {label}"
            for label, (_, matrix, _) in exact.items()
        )
        rows.append(
            Row(
                f"{name}, rank {RANK}" if "grad" not in name else name,
                seconds,
                "s",
                said,
            )
        )
    return rows


def _frozen(objective: wh.Objective) -> dict[str, Any]:
    (term,) = objective.terms.values()
    return {
        "theta": objective.parameters.vector().numpy(),
        "points": term.points.numpy(),
    }


def _limited(
    name: str, sizes: Sizes, damping: float, frozen: dict[str, Any], test: Tensor
) -> tuple[float, np.ndarray] | None:
    """Run a peer in a fresh process; None if it takes longer than the limit."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    given = (sender, name, damping, frozen, test.numpy(), torch.get_num_threads())
    process = context.Process(target=_peer, args=given)
    process.start()
    sender.close()
    try:
        ready = receiver.poll(sizes.limit + 60)  # and the time it takes to import
        return receiver.recv() if ready else None
    finally:
        process.kill()
        process.join()


def _peer(
    sender: Connection,
    name: str,
    damping: float,
    frozen: dict[str, Any],
    test: np.ndarray,
    threads: int,
) -> None:
    from benchmarks import _captum, _pydvl

    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float64)
    problem = pinn.zoo.load("burgers")
    training, targets = torch.as_tensor(frozen["points"]), torch.as_tensor(test)
    objective = problem.objective(problem.network(seed=0), {"pde": training})
    objective.parameters.assign(torch.as_tensor(frozen["theta"]))

    def run() -> Tensor:
        if name == "captum Arnoldi":
            model = _captum.Residual(problem, objective.network)
            function = _captum.prepared(
                model, training, training, (len(training), RANK)
            )
            return _captum.influence(function, targets, len(targets))
        if name == "pyDVL Nyström":
            function = _pydvl.nystrom(objective, damping, RANK)
        else:
            function = _pydvl.conjugate_gradients(objective, damping)
        return _pydvl.influence(function, training, targets, len(training))

    seconds, found = _measure.once(run)
    sender.send((seconds, found.detach().numpy()))


def large(sizes: Sizes) -> list[Row]:
    """Return time and peak memory of a network too large for the exact solver."""
    width, points = str(sizes.large_width), str(sizes.large_points)
    found = _measure.child("benchmarks.solvers", "--child", width, points)
    what = f"{found['parameters']} parameters, {points} points, solver='auto' ({found['solver']})"
    return [
        Row(
            what,
            found["seconds"],
            "s",
            f"{found['targets']} targets; {found['quality']}",
        ),
        Row(
            f"{what}: peak memory",
            found["bytes"] / 2**30,
            "GiB",
            "of the process, libraries included",
            most=LARGE_MEMORY_GIB,
        ),
    ]


def _large_child(width: int, points: int) -> None:
    problem = pinn.zoo.load("burgers")
    layers = [2, width, width, width, width, 1]
    network = pinn.MLP(layers, seed=0)
    objective = problem.objective(network, problem.sample(points, seed=0))
    stepper = pinn.Adam(10, lr=1e-3).start(objective.parameters)
    stepper.advance(objective, 10)
    output = wh.Output(problem.sample(10, seed=5)["pde"])
    influence = wh.Influence(objective, damping=1e-6)
    seconds, found = _measure.once(lambda: influence.attribute(output))
    print(
        json.dumps(
            {
                "parameters": objective.parameters.size,
                "targets": found.sizes["target"],
                "solver": found.attrs["solver"],
                "seconds": seconds,
                "bytes": _measure.peak_bytes(),
                "quality": str(found.quality()),
            }
        )
    )


def measure(sizes: Sizes) -> list[Row]:
    """Return all rows."""
    objective, test = trained(sizes)
    rows = [*ours(objective, test, sizes), *peers(objective, test, sizes)]
    return [*rows, *large(sizes)]


def main() -> None:
    """Measure and print."""
    if "--child" in sys.argv:
        _large_child(*map(int, sys.argv[sys.argv.index("--child") + 1 :][:2]))
        return
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(QUICK if given.quick else Sizes()))


if __name__ == "__main__":
    main()
