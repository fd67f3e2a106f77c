"""Attribution of more points than memory holds: a matrix on disk, and ten million candidates.

``python -m benchmarks.scale``: diffusion, 2241 parameters. The influence of a million training
points on 1000 targets goes to a zarr folder, tile by tile; its rate, in rows of targets by second,
is compared with that of a matrix in memory, of a twentieth of the points. Then candidates are
scored by |Σ_t I(t, x)|, ten times more each time. Each number is of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

TARGETS = 1000
POINTS, IN_MEMORY = 1_000_000, 50_000
CANDIDATES = (100_000, 1_000_000, 10_000_000)
TRAINED_ON = 1000
MAX_GIB, MAX_RATIO = 2.0, 1.2
MAX_SECONDS, MAX_EXPONENT = 150.0, 1.05
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


def matrix(points: int, targets: int, on_disk: bool) -> dict[str, float]:
    """Return seconds by target and million points, without the factor, and the peak memory."""
    problem, objective = trained(points)
    output = wh.Output(problem.draw("pde", targets, seed=4, method="random"))
    influence = wh.Influence(objective, memory_budget=2**30)
    start = time.perf_counter()
    influence.state()
    factored = time.perf_counter() - start

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "influence.zarr" if on_disk else None
        influence.attribute(output, out=out)
        seconds = time.perf_counter() - start
    return {
        "factored": factored,
        "seconds": seconds,
        "rate": seconds / (targets * points / 1e6),
        "peak": _measure.peak_bytes() / 2**30,
    }


def candidates(n: int) -> dict[str, float]:
    """Return the seconds and the peak memory of scoring so many candidates."""
    problem, objective = trained(TRAINED_ON)
    test = problem.draw("pde", TARGETS, seed=1, method="random")
    scorer = pinn.InfluenceScore(reduce="abs_of_sum", quantity=wh.Loss({"pde": test}))
    pool = problem.draw("pde", n, seed=2, method="random")
    start = time.perf_counter()
    scorer.score(objective, pool)
    return {
        "seconds": time.perf_counter() - start,
        "peak": _measure.peak_bytes() / 2**30,
    }


def matrix_rows(share: int) -> list[Row]:
    """Return the rows of the matrix: its rate beside that in memory, and its memory."""
    points, few = POINTS // share, IN_MEMORY // share
    _measure.say("a matrix in memory")
    memory = _measure.child(
        "benchmarks.scale", "--matrix", str(few), str(TARGETS), "memory"
    )
    _measure.say("a matrix on disk")
    disk = _measure.child(
        "benchmarks.scale", "--matrix", str(points), str(TARGETS), "disk"
    )

    what = f"{TARGETS} × {points} on disk"
    detail = (
        f"{disk['seconds']:.0f} s, and {disk['factored']:.0f} s for the factor; in memory "
        f"{TARGETS} × {few} in {memory['seconds']:.1f} s"
    )
    ratio = disk["rate"] / memory["rate"]
    return [
        Row(
            f"{what}: time by entry over that in memory",
            ratio,
            "×",
            detail,
            most=MAX_RATIO,
        ),
        Row(
            f"{what}: peak memory", disk["peak"], "GiB", "of the process", most=MAX_GIB
        ),
    ]


def candidate_rows(share: int) -> list[Row]:
    """Return the rows of the candidates: seconds, their growth, and memory."""
    numbers = {}
    for n in (n // share for n in CANDIDATES):
        _measure.say(f"{n} candidates")
        numbers[n] = _measure.child("benchmarks.scale", "--candidates", str(n))

    first, *_, last = numbers
    seconds, peak = numbers[last]["seconds"], numbers[last]["peak"]
    # seconds ∝ n^e between the fewest and the most
    exponent = math.log(seconds / numbers[first]["seconds"]) / math.log(last / first)
    detail = ", ".join(
        f"{n}: {entry['seconds']:.2f} s, {entry['peak']:.2f} GiB"
        for n, entry in numbers.items()
    )
    return [
        Row(f"{last} candidates, |Σ|", seconds, "s", detail, most=MAX_SECONDS),
        Row(
            "time ∝ candidates to the power of", exponent, "", detail, most=MAX_EXPONENT
        ),
        Row(f"{last} candidates: peak memory", peak, "GiB", detail, most=MAX_GIB),
    ]


def main() -> None:
    """Measure and print, or be one of the fresh processes."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--matrix", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.matrix:
        points, targets, where = given.matrix
        print(json.dumps(matrix(int(points), int(targets), where == "disk")))
    elif given.candidates:
        print(json.dumps(candidates(given.candidates)))
    else:
        share = QUICK if given.quick else 1
        _measure.run(given, lambda: matrix_rows(share) + candidate_rows(share))


if __name__ == "__main__":
    main()
