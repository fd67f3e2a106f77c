"""Relative L2 error of ``whence train`` with its defaults: five problems, three seeds.

``python -m benchmarks.accuracy`` runs what is missing in ``--runs`` (``runs/accuracy``), one run at
a time with all cores, and prints the table; ``--jobs 2`` runs two at a time with one core each,
which can only make each run worse, as runs are bounded in seconds. ``--json`` prints one JSON
object instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BARS = {
    "diffusion": 1e-6,
    "burgers": 1e-4,
    "allen_cahn": 2e-4,
    "wave": 1e-3,
    "drift_diffusion": 3e-4,
}
MAX_SECONDS = 600.0
MAX_POINTS = 2000


def run_one(problem: str, seed: int, runs: Path, jobs: int) -> dict[str, object]:
    """Train one problem as a user would and return its summary."""
    out = runs / f"{problem}-{seed}"
    if not (out / "summary.json").is_file():
        command = [sys.executable, "-m", "whence.cli", "train", problem]
        command += ["--out", str(out), "--seed", str(seed), "--quiet"]
        threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
        subprocess.run(
            command, check=True, stdout=sys.stderr, env={**os.environ, **threads}
        )
    return json.loads((out / "summary.json").read_text())


def measure(
    problems: list[str], seeds: list[int], runs: Path, jobs: int
) -> dict[str, object]:
    """Return errors, medians and limits by problem."""
    table: dict[str, object] = {}
    with ThreadPoolExecutor(jobs) as pool:
        pending = {
            (problem, seed): pool.submit(run_one, problem, seed, runs, jobs)
            for seed in seeds
            for problem in problems
        }
        done = {key: future.result() for key, future in pending.items()}
    for problem in problems:
        summaries = [done[problem, seed] for seed in seeds]
        errors = [float(s["relative_l2"]) for s in summaries]  # type: ignore[arg-type]
        seconds = [float(s["seconds"]) for s in summaries]  # type: ignore[arg-type]
        points = [int(s["max_points"]) for s in summaries]  # type: ignore[call-overload]
        table[problem] = {
            "bar": BARS[problem],
            "median": statistics.median(errors),
            "errors": errors,
            "longest_seconds": max(seconds),
            "most_points": max(points),
            "met": statistics.median(errors) <= BARS[problem]
            and max(seconds) <= MAX_SECONDS
            and max(points) <= MAX_POINTS,
        }
    return table


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(BARS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    table = measure(given.problems, given.seeds, given.runs, given.jobs)
    if given.json:
        print(json.dumps(table))
        return
    print("| problem | bar | median | seeds | longest run | most points | met |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for problem, row in table.items():
        assert isinstance(row, dict)
        errors = ", ".join(f"{e:.1e}" for e in row["errors"])
        print(
            f"| {problem} | {row['bar']:.0e} | **{row['median']:.1e}** | {errors} | "
            f"{row['longest_seconds']:.0f} s | {row['most_points']} | "
            f"{'yes' if row['met'] else 'no'} |"
        )


if __name__ == "__main__":
    main()
