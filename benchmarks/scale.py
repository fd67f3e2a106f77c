"""Attribution of more points than memory holds: a matrix on disk, and ten million candidates.

``python -m benchmarks.scale``: diffusion, 2241 parameters. The influence of a million training
points on 1000 targets goes to a zarr folder, by this process and by two workers; its rate is
compared with that of a matrix in memory, of a twentieth of the points. Then candidates are scored
by |Σ_t I(t, x)|, ten times more each time. Each number is of a fresh process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.pinn.sampling.scores.parts import score_in_parts

if TYPE_CHECKING:
    from distributed import Client

TARGETS = 1000
POINTS, IN_MEMORY = 1_000_000, 50_000
CANDIDATES = (100_000, 1_000_000, 10_000_000)
TRAINED_ON = 1000
MAX_GIB, MAX_RATIO = 2.0, 1.2
MAX_SECONDS, MAX_EXPONENT = 150.0, 1.05
MEMORY, DISK, WORKERS = "in memory", "on disk", "on disk by two workers"
QUICK = 1000
"""By how much fewer there are for a quick look."""


def trained(points: int) -> tuple[pinn.Problem, wh.Objective]:
    """Return diffusion after a few steps, with so many training points."""
    problem = pinn.zoo.load("diffusion")
    result = pinn.train(
        problem,
        points=TRAINED_ON,
        schedule=[pinn.GaussNewton(10)],
        progress=False,
    )
    many = problem.draw("pde", points, seed=3, method="random")
    return problem, result.objective.with_points({"pde": many})


@contextlib.contextmanager
def two_workers() -> Iterator[Client]:
    """Yield a client of two new processes with a thread each."""
    from distributed import Client, LocalCluster  # slow to import

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two,
        Client(two) as client,
    ):
        yield client


def matrix(points: int, targets: int, where: str) -> dict[str, float]:
    """Return seconds by million entries, without the factor, and the peak memory of a process."""
    problem, objective = trained(points)
    output = wh.Output(problem.draw("pde", targets, seed=4, method="random"))
    influence = wh.Influence(objective, memory_budget=2**30)
    start = time.perf_counter()
    influence.state()
    factored = time.perf_counter() - start

    peaks = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        client = None
        if where == WORKERS:
            client = stack.enter_context(two_workers())
            client.run(
                trained, 1
            )  # what a worker imports is not what it costs to be at work
        out = None if where == MEMORY else Path(folder) / "influence.zarr"

        start = time.perf_counter()
        influence.attribute(output, out=out, client=client)
        seconds = time.perf_counter() - start
        if client is not None:
            peaks = list(client.run(_measure.peak_bytes).values())
    return {
        "factored": factored,
        "seconds": seconds,
        "rate": seconds / (targets * points / 1e6),
        "peak": max([_measure.peak_bytes(), *peaks]) / 2**30,
    }


def candidates(n: int, where: str) -> dict[str, float]:
    """Return the seconds and the peak memory of scoring so many candidates."""
    problem, objective = trained(TRAINED_ON)
    test = problem.draw("pde", TARGETS, seed=1, method="random")
    scorer = pinn.InfluenceScore(reduce="abs_of_sum", quantity=wh.Loss({"pde": test}))
    pool = problem.draw("pde", n, seed=2, method="random")
    peaks = []
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(two_workers()) if where == WORKERS else None
        if client is not None:
            client.run(trained, 1)
        start = time.perf_counter()
        score_in_parts(scorer, objective, pool, client)
        seconds = time.perf_counter() - start
        if client is not None:
            peaks = list(client.run(_measure.peak_bytes).values())
    return {
        "seconds": seconds,
        "peak": max([_measure.peak_bytes(), *peaks]) / 2**30,
    }


def matrix_rows(share: int) -> list[Row]:
    """Return the rows of the matrix: its rate beside that in memory, and its memory."""
    points, few = POINTS // share, IN_MEMORY // share
    numbers = {}
    for where, n in ((MEMORY, few), (DISK, points), (WORKERS, points)):
        _measure.say(f"a matrix of {n} points: {where}")
        numbers[where] = _measure.child(
            "benchmarks.scale", "--matrix", str(n), str(TARGETS), where
        )

    rows = []
    memory = numbers[MEMORY]
    for where in (DISK, WORKERS):
        found = numbers[where]
        what = f"{TARGETS} × {points}, {where}"
        detail = (
            f"{found['seconds']:.0f} s, and {found['factored']:.1f} s for the factor; in memory "
            f"{TARGETS} × {few} in {memory['seconds']:.1f} s"
        )
        ratio = found["rate"] / memory["rate"]
        rows += [
            Row(
                f"{what}: time by entry over that in memory",
                ratio,
                "×",
                detail,
                most=MAX_RATIO,
            ),
            Row(
                f"{what}: peak memory",
                found["peak"],
                "GiB",
                "of the process that takes most",
                most=MAX_GIB,
            ),
        ]
    return rows


def candidate_rows(share: int) -> list[Row]:
    """Return the rows of the candidates: seconds, their growth, and memory."""
    numbers = {}
    for n in (n // share for n in CANDIDATES):
        _measure.say(f"{n} candidates")
        numbers[n] = _measure.child("benchmarks.scale", "--candidates", str(n), MEMORY)

    first, *_, last = numbers
    _measure.say(f"{last} candidates by two workers")
    two = _measure.child("benchmarks.scale", "--candidates", str(last), WORKERS)
    seconds, peak = numbers[last]["seconds"], numbers[last]["peak"]
    # seconds ∝ n^e between the fewest and the most
    exponent = math.log(seconds / numbers[first]["seconds"]) / math.log(last / first)
    detail = ", ".join(
        f"{n}: {entry['seconds']:.2f} s, {entry['peak']:.2f} GiB"
        for n, entry in numbers.items()
    )
    hours = 1e9 / last * two["seconds"] * 2 / 3600
    return [
        Row(f"{last} candidates, |Σ|", seconds, "s", detail, most=MAX_SECONDS),
        Row(
            "time ∝ candidates to the power of", exponent, "", detail, most=MAX_EXPONENT
        ),
        Row(f"{last} candidates: peak memory", peak, "GiB", detail, most=MAX_GIB),
        Row(
            f"{last} candidates, by two workers",
            two["seconds"],
            "s",
            f"{two['peak']:.2f} GiB at most; 10⁹ by n workers: {hours:.1f}/n hours",
        ),
    ]


def main() -> None:
    """Measure and print, or be one of the fresh processes."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--matrix", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--candidates", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.matrix:
        points, targets, where = given.matrix
        print(json.dumps(matrix(int(points), int(targets), where)))
    elif given.candidates:
        n, where = given.candidates
        print(json.dumps(candidates(int(n), where)))
    else:
        share = QUICK if given.quick else 1
        _measure.run(given, lambda: matrix_rows(share) + candidate_rows(share))


if __name__ == "__main__":
    main()
