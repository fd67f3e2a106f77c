"""Beside two busy processes: scores of a round, a Gauss–Newton step, a short training run.

``python -m benchmarks.busy``: each in fresh processes, alone and beside two processes that never
wait, with torch as it comes and with what the command line sets: threads that sleep while they
wait, and the number of threads that a short measurement chooses. A ratio is to the faster of the
two alone, so that neither setting is flattered by its own cost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import _measure
from benchmarks._measure import Row

BUSY_PROCESSES = 2
REPEATS = 5
ROUNDS = 2
TIMES_IDLE = 4
TASKS = {
    "scores": "1000 × 10000 scores, |Σ|",
    "step": "Gauss–Newton step, burgers, 1000 points",
    "run": "burgers, 20 Gauss–Newton steps on 500 points",
}
SETTINGS = {"plain": "torch as it comes", "set": "as the command line sets it"}


def measure_here(threads: str, quick: bool) -> dict[str, Any]:
    """Return the median seconds of each task in this process, and its number of threads."""
    import torch  # slow to import, and the parent does without

    from benchmarks import scoring  # slow for the same reason
    from whence import pinn
    from whence.pinn.training.threads import fastest_number

    sizes = scoring.QUICK if quick else scoring.Sizes()
    burgers = pinn.zoo.load("burgers")
    points = 100 if quick else 1000
    objective = burgers.objective(
        burgers.network(seed=0), burgers.sample(points, seed=0)
    )
    begun_with = torch.get_num_threads()
    chosen = begun_with
    if threads == "auto":
        chosen = fastest_number(objective, pinn.GaussNewton(1))
        torch.set_num_threads(chosen)

    to_score = scoring.case(sizes, sizes.candidates)
    stepper = pinn.GaussNewton(1000).start(objective.parameters)

    def run() -> None:
        pinn.train(
            burgers,
            points=points // 2,
            schedule=pinn.GaussNewton(3 if quick else 20),
            threads=None if threads == "plain" else chosen,
            progress=False,
        )

    timings = _measure.paired(
        {
            "scores": lambda: to_score.score("abs_of_sum"),
            "step": lambda: stepper.advance(objective, 1),
            "run": run,
        },
        2 if quick else REPEATS,
    )
    seconds = {task: timing.median for task, timing in timings.items()}
    return {"seconds": seconds, "threads": chosen}


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Let n processes use a core each inside."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def child(setting: str, n_busy: int, quick: bool) -> dict[str, Any]:
    """Measure in a fresh process of this setting beside n busy ones."""
    environment = dict(os.environ)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    threads = "plain"
    if setting == "set":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        threads = "auto"

    command = [sys.executable, "-m", "benchmarks.busy", "--child", threads]
    if quick:
        command.append("--quick")
    with busy_processes(n_busy):
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
    return json.loads(done.stdout)


def measure(quick: bool) -> list[Row]:
    """Return all rows."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    loads = []
    # In turn, as what else runs on the machine comes and goes.
    for _ in range(1 if quick else ROUNDS):
        for n_busy in (0, BUSY_PROCESSES):
            for setting in SETTINGS:
                loads.append(os.getloadavg()[0])
                _measure.say(
                    f"# {SETTINGS[setting]}, {n_busy} busy, load {loads[-1]:.1f}"
                )
                seen = child(setting, n_busy, quick)
                found.setdefault((setting, n_busy), []).append(seen)

    rows = []
    for task, what in TASKS.items():
        # What else runs only adds time: the least of the rounds' medians is nearest to the truth.
        seconds = {
            key: min(seen["seconds"][task] for seen in several)
            for key, several in found.items()
        }
        idle = min(seconds[setting, 0] for setting in SETTINGS)
        for setting, label in SETTINGS.items():
            chosen = [seen["threads"] for seen in found[setting, BUSY_PROCESSES]]
            busy = seconds[setting, BUSY_PROCESSES]
            rows.append(
                Row(
                    f"{what}: beside {BUSY_PROCESSES} busy processes, {label}",
                    busy / idle,
                    "× idle",
                    f"{busy:.3g} s, alone {seconds[setting, 0]:.3g} s; threads "
                    + ", ".join(map(str, chosen)),
                    most=TIMES_IDLE if setting == "set" else None,
                )
            )
    rows.append(
        Row("load before each process", max(loads), "", f"least {min(loads):.1f}")
    )
    return rows


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(measure_here(given.child, given.quick)))
        return
    rows = measure(given.quick)
    _measure.show([row.record() for row in rows], given)


if __name__ == "__main__":
    main()
