"""Every weighting on soft-constrained problems: the error after equal times of Adam and L-BFGS.

``python -m benchmarks.weighting_study`` trains burgers, wave and drift_diffusion with each
weighting from three seeds, one thread a run, writes ``benchmarks/results/weighting_study.csv`` and
prints the table of medians; runs that ``--runs`` holds already are not repeated. A run is ``ADAM``
iterations of Adam, then L-BFGS until ``SECONDS`` are up, both compiled; compiling is not counted,
updates of weights are. What a run ends with counts, not the best that it had. ``--jobs 2`` trains
two at a time, which makes each slower.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import _measure

RESULTS = Path(__file__).parent / "results" / "weighting_study.csv"
PROBLEMS = ("burgers", "wave", "drift_diffusion")
SEEDS = (0, 1, 2)
SECONDS, ADAM = 45.0, 5000
POINTS, CONDITION_POINTS, WIDTHS = 500, 50, (32, 32, 32)
EVERY = 100
NONE, CAUSAL = "none", "Causal, conditions 100"
COLUMNS = ("problem", "weighting", "seed", "relative_l2", "iterations", "seconds")


def weightings(terms: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Return what makes each weighting, by name.

    Weights of terms are renewed every hundred iterations, those of points every ten.
    """
    from whence import pinn

    conditions = _heavy_conditions(terms)
    uniform = dict.fromkeys(conditions, 1.0)
    kernel = pinn.NeuralTangentKernel
    return {
        NONE: lambda: None,
        "Fixed, conditions 100": lambda: pinn.Fixed(conditions),
        "Linear, conditions 100 to 1": lambda: pinn.Linear(
            conditions, uniform, 10_000, EVERY
        ),
        "NTK, trace": lambda: kernel(update_every=EVERY),
        "NTK, gradient_norm": lambda: kernel(
            update_every=EVERY, estimate="gradient_norm"
        ),
        "GradientNorm": lambda: pinn.GradientNorm(update_every=EVERY),
        "LearningRateAnnealing": lambda: pinn.LearningRateAnnealing(update_every=EVERY),
        "ReLoBRaLo": lambda: pinn.ReLoBRaLo(alpha=0.9, update_every=EVERY),
        "SoftAdapt": lambda: pinn.SoftAdapt(update_every=EVERY),
        "SelfAdaptive": lambda: pinn.SelfAdaptive(update_every=EVERY // 10),
        CAUSAL: lambda: pinn.Causal(update_every=EVERY // 10),
    }


def _heavy_conditions(terms: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys((name for name in terms if name != "pde"), 100.0)


def slug(weighting: str) -> str:
    """Return a weighting's name as part of a folder's name."""
    return weighting.replace(",", "").replace(" ", "-")


def train(
    problem: str, weighting: str, seed: int, out: Path, seconds: float, adam: int
) -> None:
    """Train one network and leave its run folder."""
    import torch

    from whence import pinn

    torch.set_num_threads(1)
    given = pinn.zoo.load(problem, "soft")
    pinn.train(
        given,
        pinn.MLP([2, *WIDTHS, 1], seed=seed),
        points={
            name: POINTS if name == "pde" else CONDITION_POINTS for name in given.terms
        },
        schedule=[pinn.Adam(adam), pinn.LBFGS(10**6)],
        weighting=weightings(given.terms)[weighting](),
        weights=_heavy_conditions(given.terms) if weighting == CAUSAL else None,
        keep="last",
        seed=seed,
        out=out,
        max_seconds=seconds,
        compile=True,
        progress=False,
    )


def outcome(
    problem: str, weighting: str, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of a run, which is trained in a process of its own unless it exists."""
    out = given.runs / f"{problem}-{slug(weighting)}-{seed}"
    if not (out / "summary.json").is_file():
        command = [
            sys.executable,
            "-m",
            "benchmarks.weighting_study",
            "--one",
            problem,
            weighting,
        ]
        command += [
            str(seed),
            str(out),
            "--seconds",
            str(given.seconds),
            "--adam",
            str(given.adam),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
    summary = json.loads((out / "summary.json").read_text())
    row = {"problem": problem, "weighting": weighting, "seed": seed}
    row |= {name: summary[name] for name in COLUMNS[3:]}
    _measure.say(f"{problem:16} {weighting:28} {seed}  {row['relative_l2']:.2e}")
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the medians over seeds of each weighting and problem, and the best beside none."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    names = list(dict.fromkeys(row["weighting"] for row in rows))
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        key = row["weighting"], row["problem"]
        found.setdefault(key, []).append(float(row["relative_l2"]))
    medians = {key: statistics.median(errors) for key, errors in found.items()}
    lines = [
        [name, *(_cell(found.get((name, p), [])) for p in problems)] for name in names
    ]
    gains = ["none by the best"]
    for problem in problems:
        others = [
            (medians[n, problem], n)
            for n in names
            if n != NONE and (n, problem) in medians
        ]
        if others and (NONE, problem) in medians:
            error, name = min(others)
            gains.append(f"{medians[NONE, problem] / error:.3g}× ({name})")
    return _measure.table(["weighting", *problems], [*lines, gains])


def _cell(errors: Sequence[float]) -> str:
    if not errors:
        return "–"
    return f"{statistics.median(errors):.2e} ({min(errors):.1e} to {max(errors):.1e})"


def main() -> None:
    """Train what is missing, write the results, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "problems", nargs="*", default=list(PROBLEMS), metavar="problem"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of training, for each run"
    )
    parser.add_argument(
        "--adam", type=int, default=ADAM, help="iterations of Adam before L-BFGS"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/weighting_study"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="where the results go"
    )
    parser.add_argument(
        "--table", action="store_true", help="print the table of --out only"
    )
    parser.add_argument(
        "--one", nargs=4, metavar=("PROBLEM", "WEIGHTING", "SEED", "OUT")
    )
    given = parser.parse_args()
    if given.one:
        problem, weighting, seed, out = given.one
        train(problem, weighting, int(seed), Path(out), given.seconds, given.adam)
        return
    if not given.table:
        names = [
            (p, w, s)
            for s in given.seeds
            for p in given.problems
            for w in weightings(())
        ]
        with ThreadPoolExecutor(given.jobs) as pool:
            rows = list(pool.map(lambda key: outcome(*key, given), names))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"results: {given.out}")
    with given.out.open(newline="") as file:
        print(table(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
