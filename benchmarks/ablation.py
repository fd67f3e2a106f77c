"""Training points at equal time and equal number: influence beside residual, R3, PINNACLE, uniform.

``python -m benchmarks.ablation [PROBLEM…]`` trains one network for each problem, seed and method,
each by the same optimizer for the same CPU seconds of one thread, in which everything counts that
the method does: steps, scores, selections. Only measuring the error is off the clock. CPU seconds,
as other work on the machine then takes no time from a run. Results are appended to ``--out`` run by
run, and runs that it holds are not repeated. ``--table FILE.csv`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import _measure
from benchmarks._ablation_tables import tables
from whence import pinn
from whence.objective import Objective

RESULTS = Path(__file__).parent / "results" / "ablation.csv"
PROBLEMS = ("diffusion", "burgers", "allen_cahn", "wave", "drift_diffusion")
ACTIVATIONS = {
    "diffusion": "tanh",
    "burgers": "tanh",
    "allen_cahn": "tanh",
    "wave": "sin",
    "drift_diffusion": "sin",
}
SEEDS = (0, 1, 2, 3, 4)
SECONDS = 6.0

WIDTHS = (20, 20, 20)
POINTS, DENSE = 300, 1500
EVERY, RENEWED, CANDIDATES = 10, 60, 1000
FIRST = 100
"""Points at the start where they grow in number up to POINTS."""

TEST_GRID, HELD_OUT = 10_000, 4000
QUARTERS = (0.25, 0.5, 0.75)
UPDATES = ("replace", "grow")
COLUMNS = (
    "problem",
    "update",
    "method",
    "seed",
    "relative_l2",
    "at_quarter",
    "at_half",
    "at_three_quarters",
    "loss",
    "held_out_loss",
    "points",
    "steps",
    "cpu_seconds",
    "resampling_seconds",
)


RAD = pinn.Proportional(k=1, c=1)
"""Candidates drawn in proportion to their score over its mean, plus one."""


@dataclass(frozen=True)
class Method:
    """Where the points of a run come from: how many there are, how placed, how renewed.

    Parameters
    ----------
    score:
        What candidates are scored by, ``None`` where none are.
    selection:
        How they are chosen by it.
    points, sampling:
        Number and placing of the first points.
    options:
        Further options of :class:`whence.pinn.Resample`.
    weighting:
        What weighs the points, ``None`` where all weigh the same.
    """

    score: pinn.Score | None = None
    selection: pinn.Selection = RAD
    points: int = POINTS
    sampling: str = "hammersley"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weighting: pinn.weighting.Weighting | None = None

    def resampler(self, update: str) -> pinn.Resampler | None:
        """Return what renews the points, if anything does."""
        if self.score is None:
            return None
        limits: dict[str, Any] = {"update": "replace"}
        if update == "grow":
            limits = {"update": "add", "max_points": POINTS}
        return pinn.Resample(
            self.score,
            self.selection,
            n=RENEWED,
            every=EVERY,
            candidates=CANDIDATES,
            **limits,
            **self.options,
        )


@dataclass(frozen=True)
class R3Method(Method):
    """R3, which has no score."""

    def resampler(self, update: str) -> pinn.Resampler | None:
        """Return R3."""
        return pinn.R3(every=EVERY)


METHODS: dict[str, Method] = {
    "influence": Method(pinn.InfluenceScore()),
    "residual": Method(pinn.ResidualScore()),
    "r3": R3Method(),
    "pinnacle": Method(pinn.PinnacleScore(), pinn.Proportional(k=1, c=0)),
    "quasi_random": Method(),
    "dense": Method(points=DENSE),
    "redrawn": Method(pinn.RandomScore()),
    "grad_dot": Method(pinn.GradDotScore()),
    "sum_of_abs": Method(pinn.InfluenceScore(reduce="sum_of_abs", n_test=200)),
    "loss_grad": Method(pinn.LossGradScore()),
    "leverage": Method(pinn.LeverageScore()),
    "random": Method(sampling="random"),
    "error_influence": Method(pinn.ErrorInfluenceScore(n_test=500)),
    "harmful_leave": Method(pinn.InfluenceScore(), options={"leave": "harmful"}),
    "fresh_curvature": Method(pinn.InfluenceScore(curvature_points=1000)),
    "determinant": Method(pinn.LeverageScore(), pinn.Determinant()),
    "vrba": Method(
        pinn.ResidualScore(),
        # Memory of ten updates, as points are renewed every ten steps.
        weighting=pinn.ResidualBasedAttention(lr=0.1, decay=0.9),
    ),
}
MAIN = tuple(METHODS)[:9]


class TimedResampler:
    """A resampler whose CPU seconds are counted."""

    def __init__(self, resampler: pinn.Resampler) -> None:
        self._resampler = resampler
        self.seconds = 0.0

    @property
    def every(self) -> int:
        """Iterations between two rounds."""
        return self._resampler.every

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the points could not be renewed."""
        self._resampler.check(objective)

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor]:
        """Return the renewed points by term."""
        begun = time.process_time()
        points = self._resampler.update_points(objective, round, seed)
        self.seconds += time.process_time() - begun
        return points


class Watch(pinn.Observer):
    """Ends a run after so many CPU seconds, and measures errors on the way, off the clock."""

    def __init__(self, error: Callable[[Objective], float], seconds: float) -> None:
        self._error = error
        self._seconds = seconds
        self._begun = time.process_time()
        self.errors: list[float] = []

    @property
    def seconds(self) -> float:
        """CPU seconds up to now, without those of measuring."""
        return time.process_time() - self._begun

    def start(self, objective: Objective, iterations: int) -> Watch:
        """Begin to count."""
        self._begun = time.process_time()
        return self

    def at_row(self, objective: Objective, row: Mapping[str, Any]) -> None:
        """Measure the error if the next quarter of the time is up."""
        if len(self.errors) == len(QUARTERS):
            return
        if self.seconds < QUARTERS[len(self.errors)] * self._seconds:
            return
        begun = time.process_time()
        self.errors.append(self._error(objective))
        self._begun += time.process_time() - begun

    def should_stop(self, row: Mapping[str, Any]) -> bool:
        """Whether the time is up."""
        return self.seconds >= self._seconds


def train(
    name: str, update: str, method: str, seed: int, seconds: float
) -> dict[str, Any]:
    """Return the row of one run."""
    chosen = METHODS[method]
    problem = pinn.zoo.load(name)
    grid = problem.domain.sample(TEST_GRID, "grid")
    truth = problem.reference(grid)

    def error(objective: Objective) -> float:
        return problem.relative_l2(objective.network, grid, truth)

    # Without its solution no error is measured in training, which would count as time.
    blind = dataclasses.replace(problem, solution=None)
    resampler = chosen.resampler(update)
    timed = None if resampler is None else TimedResampler(resampler)
    grows = update == "grow" and isinstance(resampler, pinn.Resample)

    watch = Watch(error, seconds)
    result = pinn.train(
        blind,
        pinn.MLP([2, *WIDTHS, len(problem.outputs)], ACTIVATIONS[name], seed=seed),
        points=FIRST if grows else chosen.points,
        sampling=chosen.sampling,
        schedule=pinn.GaussNewton(10**6),
        resample=timed,
        weighting=chosen.weighting,
        observers=[watch],
        validation=1000,
        seed=seed,
        compile=False,
        progress=False,
    )
    spent = watch.seconds

    held_out = problem.sample(HELD_OUT, seed=10_000 + seed)
    held_out_loss = problem.objective(result.network, held_out).loss()
    kept = error(result.objective)
    # A run whose last rows lie far apart may end before it has seen all quarters.
    at_quarters = watch.errors + [kept] * 3
    return {
        "problem": name,
        "update": update,
        "method": method,
        "seed": seed,
        "relative_l2": kept,
        "at_quarter": at_quarters[0],
        "at_half": at_quarters[1],
        "at_three_quarters": at_quarters[2],
        "loss": result.summary["loss"],
        "held_out_loss": float(held_out_loss.detach()),
        "points": result.objective.n_points,
        "steps": result.history[-1]["iteration"],
        "cpu_seconds": spent,
        "resampling_seconds": 0.0 if timed is None else timed.seconds,
    }


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file, none where it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row to the end of a file."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
        writer.writerow(short)


def measure(given: argparse.Namespace) -> None:
    """Make the runs that the file does not hold yet, all methods of a seed before the next seed."""
    torch.set_num_threads(1)
    done = {
        (row["problem"], row["update"], row["method"], int(row["seed"]))
        for row in read(given.out)
    }
    for seed in given.seeds:
        for problem in given.problems:
            for method in given.methods:
                key = (problem, given.update, method, seed)
                if key in done:
                    continue
                row = train(*key, given.seconds)
                append(given.out, row)
                _measure.say(f"{key}: {row['relative_l2']:.2e}, {row['steps']} steps")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM")
    add("--methods", nargs="+", choices=METHODS, default=list(MAIN))
    add("--update", choices=UPDATES, default="replace")
    add("--seeds", type=int, nargs="+", default=list(SEEDS))
    add("--seconds", type=float, default=SECONDS, help="CPU seconds of a run")
    add("--out", type=Path, default=RESULTS, help="where rows are appended")
    add(
        "--table", type=Path, metavar="FILE.csv", help="print its tables, train nothing"
    )
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(tables(read(given.table)))
        return
    measure(given)


if __name__ == "__main__":
    main()
