"""Relative L2 error of ``whence train`` with its defaults: problems of a set, three seeds.

``python -m benchmarks.accuracy`` takes the five problems of the paper with its own networks (the
set ``paper``), ``--set frontier`` the best recipes, whatever the network, ``--set soft`` these with
soft conditions, ``--set physics`` ten further problems of the zoo, ``--set held_out`` the files of
``benchmarks/held_out``, for which a recipe is chosen by trial, and names of problems just these. It
runs what is missing in ``--runs`` (``runs/accuracy``), one run at a time with all cores, and prints
the table. Called again it goes on with runs that were killed; a run that fails is named in its row,
whose bar is then missed. ``--jobs 2`` runs two at a time with one core each, which can only make
each run worse, as runs are bounded in seconds. ``--json`` prints one JSON object instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Summary = dict[str, Any]
"""What ``summary.json`` of a run holds."""


@dataclass(frozen=True)
class Bar:
    """What the runs of a problem must keep to.

    Parameters
    ----------
    error:
        Most that the median relative L2 error may be.
    seconds, points:
        Most that any run may take, and use.
    flags:
        Flags of ``whence train``.
    """

    error: float
    seconds: float
    points: float
    flags: Sequence[str] = ()


def _paper(error: float) -> Bar:
    flags = ("--recipe", "own_network")
    return Bar(error, seconds=600.0, points=2000, flags=flags)


def _frontier(error: float, *flags: str) -> Bar:
    return Bar(error, seconds=600.0, points=math.inf, flags=flags)


def _physics(error: float) -> Bar:
    return Bar(error, seconds=300.0, points=math.inf)


PAPER = {
    "diffusion": _paper(1e-6),
    "burgers": _paper(1e-4),
    "allen_cahn": _paper(2e-4),
    "wave": _paper(1e-3),
    "drift_diffusion": _paper(3e-4),
}
PHYSICS = {
    "kuramoto_sivashinsky": _physics(1e-4),
    "korteweg_de_vries": _physics(1e-4),
    "helmholtz": _physics(1e-4),
    "l_shape": _physics(1e-4),
    "euler_bernoulli": _physics(1e-4),
    "linear_elasticity": _physics(1e-4),
    "lid_driven_cavity": _physics(1e-2),
    "lorenz": _physics(1e-4),
    "inverse_heat": _physics(1e-4),
    "schrodinger": _physics(1e-4),
}
FRONTIER = {
    "diffusion": _frontier(1e-9),
    "burgers": _frontier(1e-6),
    "allen_cahn": _frontier(2e-6),
    "wave": _frontier(5e-6),
    "drift_diffusion": _frontier(1e-6),
    "helmholtz": _frontier(1e-8),
    "korteweg_de_vries": _frontier(1e-6),
    "kuramoto_sivashinsky": _frontier(1e-4),
    "poisson_5d": _frontier(1e-8),
    "poisson_disk": _frontier(1e-4),
}
SOFT = {
    "diffusion": _frontier(5e-9, "--constraints", "soft"),
    "burgers": _frontier(5e-6, "--constraints", "soft"),
    "allen_cahn": _frontier(1e-5, "--constraints", "soft"),
    "wave": _frontier(2.5e-5, "--constraints", "soft"),
    "drift_diffusion": _frontier(5e-6, "--constraints", "soft"),
    "poisson_disk": _frontier(1e-4, "--constraints", "soft"),
}
HELD_OUT_FOLDER = Path(__file__).parent / "held_out"
"""Problem files that no recipe names."""
HELD_OUT = {path.stem: _physics(1e-4) for path in sorted(HELD_OUT_FOLDER.glob("*.py"))}
BEGUN = ("config.json", "slabs/000/config.json")
"""What the folder of a run has from its first seconds, one in slabs before they are joined."""
SETS = {
    "paper": PAPER,
    "frontier": FRONTIER,
    "soft": SOFT,
    "physics": PHYSICS,
    "held_out": HELD_OUT,
}


@dataclass(frozen=True)
class Runs:
    """Runs on disk, made where they are missing.

    Parameters
    ----------
    folder:
        Where they are, each in PROBLEM-SEED.
    jobs:
        How many train at once.
    flags:
        Further flags of ``whence train``.
    """

    folder: Path
    bars: Mapping[str, Bar]
    jobs: int = 1
    flags: Sequence[str] = field(default_factory=tuple)

    def summary(self, problem: str, seed: int) -> Summary | None:
        """Return the summary of one run, trained as a user would; None if that failed."""
        of_bar = self.bars[problem].flags
        # Runs of other flags are other runs.
        suffix = "".join(f"-{flag}" for flag in of_bar if not flag.startswith("-"))
        out = self.folder / f"{problem}{suffix}-{seed}"
        file = out / "summary.json"
        if not file.is_file():
            self._train(problem, seed, out)
        # A run that fails is a row that misses its bar, not the end of all others.
        if not file.is_file():
            return None

        summary: Summary = json.loads(file.read_text())
        return summary

    def _train(self, problem: str, seed: int, out: Path) -> None:
        """Train a problem, or go on where a former call was killed."""
        command = [sys.executable, "-m", "whence.cli", "train"]
        has_begun = any((out / path).is_file() for path in BEGUN)
        if has_begun:
            command += [str(out), "--resume", "--quiet"]
        else:
            source = problem
            if self.bars is HELD_OUT:
                source = str(HELD_OUT_FOLDER / f"{problem}.py")
            command += [source, "--out", str(out), "--seed", str(seed), "--quiet"]
            command += [*self.bars[problem].flags, *self.flags]

        environment = dict(os.environ)
        if self.jobs > 1:
            environment["OMP_NUM_THREADS"] = "1"
        subprocess.run(command, check=False, stdout=sys.stderr, env=environment)

    def measure(
        self, problems: Sequence[str], seeds: Sequence[int]
    ) -> dict[str, Summary]:
        """Return errors, medians and limits by problem."""
        pending = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            for seed in seeds:
                for problem in problems:
                    run = pool.submit(self.summary, problem, seed)
                    pending[problem, seed] = run

        table = {}
        for problem in problems:
            summaries = [pending[problem, seed].result() for seed in seeds]
            table[problem] = judged(self.bars[problem], summaries)
        return table


def judged(bar: Bar, summaries: Sequence[Summary | None]) -> Summary:
    """Return what the runs of one problem came to, and whether they keep to the bar.

    A run that failed has no error: it counts as infinite in the median.
    """
    errors: list[float | None] = []
    finished = []
    for summary in summaries:
        error = None
        if summary is not None and summary["relative_l2"] is not None:
            error = float(summary["relative_l2"])
            finished.append(summary)
        errors.append(error)

    known = [math.inf if error is None else error for error in errors]
    median = statistics.median(known)
    seconds = max((float(summary["seconds"]) for summary in finished), default=0.0)
    points = max((int(summary["max_points"]) for summary in finished), default=0)
    is_met = median <= bar.error and seconds <= bar.seconds and points <= bar.points
    if len(finished) < len(summaries):
        is_met = False
    return {
        "bar": bar.error,
        "median": median if math.isfinite(median) else None,
        "errors": errors,
        "longest_seconds": seconds,
        "most_points": points,
        "met": is_met,
    }


def shown(error: float | None) -> str:
    """Return an error in two digits, or that its run failed."""
    return "failed" if error is None else f"{error:.1e}"


def print_table(table: dict[str, Summary]) -> None:
    """Print a row for each problem."""
    print("| problem | bar | median | seeds | longest run | most points | met |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for problem, row in table.items():
        errors = ", ".join(shown(error) for error in row["errors"])
        met = "yes" if row["met"] else "no"
        print(
            f"| {problem} | {row['bar']:.0e} | **{shown(row['median'])}** | {errors} | "
            f"{row['longest_seconds']:.0f} s | {row['most_points']} | {met} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("problems", nargs="*", metavar="PROBLEM", help="of these, in place of a set")
    add("--set", choices=SETS, default="paper")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--runs", type=Path, default=Path("runs/accuracy"))
    add("--jobs", type=int, default=1)
    add("--max-seconds", type=float, help="of each run; by default the recipe's")
    add("--json", action="store_true")
    given = parser.parse_args(arguments)

    bars = SETS[given.set]
    problems = given.problems or list(bars)
    for problem in problems:
        if problem not in bars:
            parser.error(
                f"no problem {problem!r} in the set {given.set}: choose from {', '.join(bars)}"
            )

    flags: list[str] = []
    if given.max_seconds is not None:
        flags = ["--max-seconds", str(given.max_seconds)]
    runs = Runs(given.runs, bars, given.jobs, flags)
    table = runs.measure(problems, given.seeds)
    if given.json:
        print(json.dumps(table))
    else:
        print_table(table)


if __name__ == "__main__":
    main()
