"""Time to the paper's best error: whence's recipe against DeepXDE with Adam, L-BFGS and RAR.

Both train the same network with the same hard constraints in float64, one process each, on the
same number of threads. DeepXDE follows the published protocol (arXiv 2506.16443): Hammersley
points, rounds of 1000 Adam and 1000 L-BFGS iterations, after each the worst of 10,000 uniform
candidates by residual are added. Error is measured on the same grid, off the clock. A limit ends
what takes too long; its ratio is then a lower bound.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

TARGETS = {"diffusion": 2.9e-5, "burgers": 6.5e-4, "allen_cahn": 2.5e-3}
"""Least mean relative L2 error in the paper's tables, adding points, after 200,000 iterations."""
LEAST_LIMIT, FACTOR = 120.0, 21.0
FIRST, ADDED = {"diffusion": 30}, {"diffusion": 1}
CANDIDATES, CHUNK, STEPS = 10_000, 200, 1000
BAR = 20.0


@dataclass(frozen=True)
class Reached:
    """How long training took to the target, or that it did not get there."""

    seconds: float
    iterations: int
    error: float
    reached: bool


def whence_time(name: str, threads: int, seed: int, limit: float) -> Reached:
    """Train by the problem's recipe; its history has the seconds of training proper."""
    import torch

    from whence import pinn
    from whence.pinn.recipes import recipe

    torch.set_num_threads(threads)
    base = recipe(name)
    problem = pinn.zoo.load(name)
    result = pinn.train(
        problem,
        points=base.points,
        schedule=base.schedule,
        resample=base.resample,
        seed=seed,
        max_seconds=limit,
        progress=False,
    )
    rows = [row for row in result.history if row["relative_l2"] <= TARGETS[name]]
    row = rows[0] if rows else result.history[-1]
    return Reached(row["seconds"], row["iteration"], row["relative_l2"], bool(rows))


def deepxde_time(name: str, threads: int, seed: int, limit: float) -> Reached:
    """Train under DeepXDE until the target or the limit, in rounds of Adam, L-BFGS and RAR."""
    import os

    os.environ["DDE_BACKEND"] = "pytorch"
    import deepxde as dde
    import numpy as np
    import torch

    from whence import pinn

    torch.set_num_threads(threads)
    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    problem = pinn.zoo.load(name)
    model, data, pde = _deepxde_model(dde, name, problem)
    grid = problem.domain.sample(10_000, "grid")
    truth = problem.reference(grid).numpy()
    clock, iterations, error = 0.0, 0, math.inf

    def timed(work: Callable[[], Any]) -> Any:
        nonlocal clock
        begun = time.perf_counter()
        result = work()
        clock += time.perf_counter() - begun
        return result

    while clock < limit:
        for steps, optimizer in [(CHUNK, "adam")] * (STEPS // CHUNK) + [(STEPS, "L-BFGS")]:
            timed(lambda o=optimizer, n=steps: _steps(dde, model, o, n))
            iterations += steps
            difference = model.predict(grid.numpy()) - truth
            error = float(np.linalg.norm(difference) / np.linalg.norm(truth))
            if error <= TARGETS[name]:
                return Reached(clock, iterations, error, True)
        timed(lambda: _add_worst(model, data, pde, ADDED.get(name, 10)))
    return Reached(clock, iterations, error, False)


def _deepxde_model(dde: Any, name: str, problem: Any) -> tuple[Any, Any, Any]:
    import inspect

    import torch

    low, high = problem.domain.bounds
    space = dde.geometry.Interval(float(low[0]), float(high[0]))
    domain = dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(0, 1))
    (equation,) = problem.equations.values()
    fields = {
        "u": lambda x, y: y,
        "u_x": lambda x, y: dde.grad.jacobian(y, x, i=0, j=0),
        "u_t": lambda x, y: dde.grad.jacobian(y, x, i=0, j=1),
        "u_xx": lambda x, y: dde.grad.hessian(y, x, i=0, j=0),
        "x": lambda x, y: x[:, 0:1],
        "t": lambda x, y: x[:, 1:2],
    }
    names = tuple(inspect.signature(equation).parameters)

    def pde(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return equation(*(fields[n](x, y) for n in names))

    ansatz = tuple(inspect.signature(problem.ansatz).parameters)

    def hard(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return problem.ansatz(*(fields[n](x, y) for n in ansatz))

    data = dde.data.TimePDE(
        domain, pde, [], num_domain=FIRST.get(name, 1000), train_distribution="Hammersley"
    )
    widths = [p.shape[0] for n, p in problem.network(0).named_parameters() if "weight" in n]
    network = dde.nn.FNN([2, *widths], "tanh", "Glorot normal")
    network.apply_output_transform(hard)
    own, theirs = (sum(p.numel() for p in n.parameters()) for n in (problem.network(0), network))
    assert own == theirs, f"networks of {own} and {theirs} parameters"
    return dde.Model(data, network), data, pde


def _steps(dde: Any, model: Any, optimizer: str, n: int) -> None:
    if model.opt_name != optimizer:
        dde.optimizers.set_LBFGS_options(maxiter=STEPS)
        model.compile(optimizer, lr=1e-3 if optimizer == "adam" else None, verbose=0)
    model.train(iterations=n, verbose=0, display_every=10**9)


def _add_worst(model: Any, data: Any, pde: Any, n: int) -> None:
    import numpy as np

    candidates = data.geom.random_points(CANDIDATES)
    residual = np.abs(model.predict(candidates, operator=pde)).sum(axis=1)
    data.add_anchors(candidates[np.argsort(residual)[-n:]])


CONTESTANTS = {"whence": whence_time, "DeepXDE": deepxde_time}


def alone(contestant: str, name: str, seed: int, limit: float, core: int | None) -> Reached:
    """Run one contestant in a process of its own, on one core or on all."""
    command = [sys.executable, "-m", "benchmarks.time_to_error", "--problems", name]
    command += ["--only", contestant, "--seed", str(seed), "--limit", str(limit), "--json"]
    threads = os.cpu_count() or 1
    if core is not None:
        command, threads = ["taskset", "-c", str(core), *command], 1
    command += ["--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    print(f"{contestant}, {name}: at most {limit:.0f} s", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    reached = Reached(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{contestant}, {name}: {reached}", file=sys.stderr)
    return reached


def measure(problems: Sequence[str], seed: int, apart: bool) -> dict[str, dict[str, Reached]]:
    """Return what each contestant reached; ``apart`` runs two at a time with a core each."""
    found: dict[str, dict[str, Reached]] = {name: {} for name in problems}
    cores: queue.Queue[int | None] = queue.Queue()
    for core in (0, 1) if apart else (None,):
        cores.put(core)

    def go(contestant: str, name: str, limit: float) -> None:
        core = cores.get()
        try:
            found[name][contestant] = alone(contestant, name, seed, limit, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(2 if apart else 1) as pool:
        list(pool.map(lambda name: go("whence", name, 600.0), problems))
        limits = {n: max(LEAST_LIMIT, FACTOR * found[n]["whence"].seconds) for n in problems}
        longest_first = sorted(problems, key=lambda name: -limits[name])
        list(pool.map(lambda name: go("DeepXDE", name, limits[name]), longest_first))
    return found


def table(found: dict[str, dict[str, Reached]]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [
        "| problem | target | whence | DeepXDE, Adam + L-BFGS + RAR | ratio (bar 20) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, both in found.items():
        ours, theirs = both["whence"], both["DeepXDE"]
        more = "" if theirs.reached else "> "
        ratio = f"{more}{theirs.seconds / ours.seconds:.0f}" if ours.reached else "missed"
        lines.append(
            f"| {name} | {TARGETS[name]:.1e} | {_told(ours)} | {_told(theirs)} | {ratio} |"
        )
    return "\n".join(lines)


def _told(reached: Reached) -> str:
    if reached.reached:
        return f"{reached.seconds:.1f} s, {reached.iterations} iterations"
    return f"{reached.error:.1e} after {reached.seconds:.0f} s, {reached.iterations} iterations"


def main() -> None:
    """Measure what is asked for and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", action="store_true", help="two at a time, one core each")
    parser.add_argument("--only", choices=list(CONTESTANTS), help="one contestant, one problem")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds, with --only")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="with --only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.only:
        work, (name, *_) = CONTESTANTS[options.only], options.problems
        print(json.dumps(asdict(work(name, options.threads, options.seed, options.limit))))
        return
    found = measure(options.problems, options.seed, options.apart)
    if options.json:
        print(json.dumps({n: {who: asdict(r) for who, r in b.items()} for n, b in found.items()}))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
