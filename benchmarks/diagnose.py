"""Diagnosis of runs that are broken on purpose, and of good ones.

``python -m benchmarks.diagnose --seed 2`` trains twenty broken runs of six problems and ten good
ones, diagnoses each, and prints what the first finding names. The seed draws sizes of the errors,
networks, points and noise: another seed, other runs of the same kinds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whence import pinn
from whence.diagnosis.diagnosis import Diagnosis
from whence.pinn.zoo import burgers, diffusion, poisson_disk, wave

BARS = "at least 17 of 20 named, no false alarm on 10"
GAUSS_NEWTON = 100
"""Steps of most runs."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run to diagnose, and what its first finding must be about.

    Parameters
    ----------
    label, kind:
        What it is called, and what is wrong: ``"good"`` if nothing is.
    problem, network:
        What is trained.
    options:
        Further arguments of :func:`whence.pinn.train`.
    checks:
        Names of the checks that may say it; empty for any.
    term:
        The term that is to be named, None for none.
    rows:
        The measurements that are to be named.
    """

    label: str
    kind: str
    problem: pinn.Problem
    network: nn.Module
    options: Mapping[str, Any]
    checks: tuple[str, ...] = ()
    term: str | None = None
    rows: tuple[int, ...] = ()

    def is_right(self, diagnosis: Diagnosis) -> bool:
        """Whether the first finding names it; of a good run, that none is serious."""
        if self.kind == "good":
            return not diagnosis.serious
        if not diagnosis.findings:
            return False

        # However serious: small sizes of an error do little harm.
        first = diagnosis.findings[0]
        is_said = not self.checks or first.check in self.checks
        is_named = self.term is None or self.term in first.terms
        return is_said and is_named and (not self.rows or first.rows == self.rows)


@dataclass(frozen=True, eq=False)
class Base:
    """A problem with soft constraints and a training that makes a good model of it."""

    problem: pinn.Problem
    network: Callable[[], nn.Module]
    points: Mapping[str, int]
    schedule: Sequence[Any]
    weights: Mapping[str, float] = field(default_factory=dict)
    pinned: Mapping[str, Tensor] | None = None

    def run(self, label: str, kind: str, seed: int, **changes: Any) -> Run:
        """Return the run with some changes: of problem, points, weights, schedule."""
        about = {k: changes.pop(k) for k in ("checks", "term", "rows") if k in changes}
        problem = changes.pop("problem", self.problem)
        options = {
            "points": {**self.points, **changes.pop("points", {})},
            "weights": {**self.weights, **changes.pop("weights", {})},
            "schedule": changes.pop("schedule", self.schedule),
            "pinned": changes.pop("pinned", self.pinned),
            "seed": seed,
            **changes,
        }
        return Run(label, kind, problem, self.network(), options, **about)


# --- good trainings -----------------------------------------------------------------------------


def bases(seed: int) -> dict[str, Base]:
    """Return a good training of each problem."""

    def narrow() -> nn.Module:
        return pinn.MLP([2, 20, 20, 1], seed=seed)

    def deep() -> nn.Module:
        return pinn.MLP([2, 20, 20, 20, 1], seed=seed)

    def features(name: str, n: int, scale: float) -> Callable[[], nn.Module]:
        bounds = pinn.zoo.load(name).domain.bounds.tolist()
        return lambda: pinn.RandomFeatures(
            [2, n, 1], "sin", scale=scale, bounds=bounds, seed=seed
        )

    def until(name: str, end: float) -> pinn.Problem:
        """Return a problem on [−1, 1] for a part of its time, that so small a network follows."""
        domain = pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, end)
        return replace(pinn.zoo.load(name, "soft"), domain=domain)

    # The front of Burgers' equation, which few points would hit.
    generator = torch.Generator().manual_seed(seed)
    front = torch.rand(500, 2, dtype=torch.float64, generator=generator)
    front = front * torch.tensor([0.2, 0.2]) + torch.tensor([-0.1, 0.2])
    gauss_newton = [pinn.GaussNewton(GAUSS_NEWTON)]
    few = {"initial_u": 100, "dirichlet_u": 80}
    return {
        "diffusion": Base(
            pinn.zoo.load("diffusion", "soft"), narrow,
            {"pde": 300, "initial_u": 40, "dirichlet_u": 40}, gauss_newton,
        ),
        "burgers": Base(
            until("burgers", 0.4), deep, {"pde": 500, **few}, gauss_newton,
            {"initial_u": 10.0, "dirichlet_u": 10.0}, {"pde": front},
        ),
        "allen_cahn": Base(
            until("allen_cahn", 0.5), deep, {"pde": 600, **few}, gauss_newton,
            {"initial_u": 100.0, "dirichlet_u": 10.0},
        ),
        "wave": Base(
            pinn.zoo.load("wave", "soft"), features("wave", 300, 16.0),
            {"pde": 1000, "initial_u_t": 100, **few}, [pinn.VarPro(3)],
            {"initial_u": 1e3, "initial_u_t": 1e2, "dirichlet_u": 1e3},
        ),
        "drift_diffusion": Base(
            pinn.zoo.load("drift_diffusion", "soft"), features("drift_diffusion", 500, 18.0),
            {"pde": 1500, "initial_u": 150, "periodic_u": 150, "periodic_u_x": 150},
            [pinn.VarPro(3)], {"initial_u": 1e3, "periodic_u": 1e3, "periodic_u_x": 1e2},
        ),
        "poisson_disk": Base(
            pinn.zoo.load("poisson_disk", "soft"), lambda: poisson_disk.crowded_features(seed),
            {"pde": 500, "dirichlet_u": 300}, [pinn.VarPro(5)], {"dirichlet_u": 1e4},
            {"pde": poisson_disk.crowded(2000, 1.0)[0]},
        ),
    }  # fmt: skip


def good(base: Mapping[str, Base], seed: int) -> Iterator[Run]:
    """Yield ten good runs, some of them only moderately trained."""
    for name in base:
        yield base[name].run(name, "good", seed)

    first_order = [pinn.Adam(1000), pinn.LBFGS(600)]
    yield base["diffusion"].run(
        "diffusion, Adam and L-BFGS", "good", seed, schedule=first_order
    )
    hard = replace(base["diffusion"], points={"pde": 200})
    yield hard.run("diffusion, hard", "good", seed, problem=pinn.zoo.load("diffusion"))
    with_sensors, _ = sensors(base["diffusion"].problem, seed, wrong=0)
    yield base["diffusion"].run(
        "diffusion, sensors", "good", seed, problem=with_sensors
    )
    hard = replace(base["wave"], points={"pde": 1000}, weights={})
    yield hard.run("wave, hard", "good", seed, problem=pinn.zoo.load("wave"))


# --- breakages ----------------------------------------------------------------------------------


def with_pde(problem: pinn.Problem, equation: Callable[..., Tensor]) -> pinn.Problem:
    """Return the problem with another equation."""
    return replace(problem, equations={"pde": equation})


def with_condition(problem: pinn.Problem, condition: pinn.Condition) -> pinn.Problem:
    """Return the problem with a condition in place of that of the same name."""
    conditions = []
    for present in problem.conditions:
        is_same = present.name == condition.name
        conditions.append(condition if is_same else present)
    return replace(problem, conditions=conditions)


def sensors(
    problem: pinn.Problem, seed: int, wrong: int
) -> tuple[pinn.Problem, tuple[int, ...]]:
    """Return the problem with 40 noisy measurements, some of them wrong, and which."""
    generator = np.random.default_rng(seed)
    low, high = problem.domain.bounds
    points = generator.uniform(low, high, (40, 2))
    size = float(np.std(problem.reference(points)))
    sigma = 0.02 * size
    values = problem.reference(points)[:, 0] + sigma * generator.normal(size=40)
    rows = generator.choice(40, wrong, replace=False)
    values[rows] += sigma * generator.uniform(8, 15, wrong) * generator.choice([-1, 1])

    data = pinn.Data("sensors", points, u=values, sigma=sigma)
    extended = replace(problem, conditions=[*problem.conditions, data])
    return extended, tuple(int(row) for row in rows)


def wrong_equations(
    base: Mapping[str, Base], seed: int, random: np.random.Generator
) -> Iterator[Run]:
    """Yield four wrong coefficients and three missing terms."""
    about = {"term": "pde", "checks": ("trusted_values",)}

    def factor(low: float, high: float) -> float:
        """Return a factor between low and high, or one over it."""
        size = float(random.uniform(low, high))
        return size if random.random() < 0.5 else 1 / size

    def broken(name: str, kind: str, equation: Callable[..., Tensor], what: str) -> Run:
        problem = with_pde(base[name].problem, equation)
        return base[name].run(f"{name}: {what}", kind, seed, problem=problem, **about)

    a, b, c, d = factor(1.5, 3), random.uniform(5, 20), factor(1.3, 2), factor(1.5, 3)
    yield broken(
        "diffusion", "wrong coefficient",
        lambda x, t, u_t, u_xx: diffusion.equation(x, t, u_t, a * u_xx), f"{a:.2f} u_xx",
    )  # fmt: skip
    yield broken(
        "burgers", "wrong coefficient",
        lambda u, u_t, u_x, u_xx: burgers.equation(u, u_t, u_x, b * u_xx), f"viscosity × {b:.1f}",
    )  # fmt: skip
    yield broken(
        "wave", "wrong coefficient",
        lambda u_tt, u_xx: wave.equation(u_tt, c * u_xx), f"{4 * c:.2f} u_xx",
    )  # fmt: skip
    yield broken(
        "poisson_disk", "wrong coefficient",
        lambda x, y, u_xx, u_yy: poisson_disk.equation(x, y, u_xx, d * u_yy), f"{d:.2f} u_yy",
    )  # fmt: skip

    share = random.uniform(0.0, 0.3)
    yield broken(
        "burgers", "missing term",
        lambda u_t, u_x, u_xx: u_t - 0.01 / math.pi * u_xx, "no u u_x",
    )  # fmt: skip
    yield broken(
        "allen_cahn", "missing term",
        lambda u, u_t, u_xx: u_t - 0.001 * u_xx + share * 5 * (u**3 - u), "hardly any reaction",
    )  # fmt: skip
    yield broken(
        "drift_diffusion", "missing term", lambda u_t, u_x: u_t + 20 * u_x, "no u_xx",
    )  # fmt: skip


def wrong_conditions(
    base: Mapping[str, Base], seed: int, random: np.random.Generator
) -> Iterator[Run]:
    """Yield three wrong values of conditions."""
    checks = ("trusted_values", "conflicting_conditions")

    def broken(name: str, condition: pinn.Condition, what: str) -> Run:
        problem = with_condition(base[name].problem, condition)
        return base[name].run(
            f"{name}: {what}", "wrong condition", seed, problem=problem,
            term=condition.name, checks=checks,
        )  # fmt: skip

    a = random.uniform(0.4, 0.8)
    yield broken(
        "diffusion",
        pinn.Initial(u=lambda x: a * diffusion.start(x)),
        f"initial value × {a:.2f}",
    )
    b = random.uniform(1.0, 2.0)
    yield broken(
        "allen_cahn",
        pinn.Dirichlet(u=lambda t: -1 + b * t, on="x"),
        f"−1 + {b:.2f} t at the ends",
    )
    c = random.uniform(3, 8)
    yield broken(
        "wave",
        pinn.Initial(u_t=lambda x: c * torch.sin(math.pi * x)),
        f"first moves at {c:.1f} sin πx",
    )


def poor_trainings(
    base: Mapping[str, Base], seed: int, random: np.random.Generator
) -> Iterator[Run]:
    """Yield three runs of few points, three of wrong weights and two that got stuck."""
    few = {"checks": ("few_points",)}
    n = int(random.integers(4, 8))
    yield base["diffusion"].run(
        f"diffusion: {n} points of pde", "too few points", seed, points={"pde": n}, term="pde",
        **few,
    )  # fmt: skip
    n = int(random.integers(20, 60))
    yield base["burgers"].run(
        f"burgers: {n} points of pde", "too few points", seed, points={"pde": n}, term="pde",
        pinned=None, **few,
    )  # fmt: skip
    n = int(random.integers(3, 6))
    yield base["drift_diffusion"].run(
        f"drift_diffusion: {n} points of initial_u", "too few points", seed,
        points={"initial_u": n}, term="initial_u", **few,
    )  # fmt: skip

    weights = {"checks": ("term_weights",)}
    first_order = [pinn.Adam(1500), pinn.LBFGS(200)]
    for name, term in (
        ("diffusion", "initial_u"), ("burgers", "initial_u"), ("allen_cahn", "pde"),
    ):  # fmt: skip
        weight = float(10 ** random.uniform(-5, -4))
        yield base[name].run(
            f"{name}: weight {weight:.0e} of {term}", "wrong weights", seed, term=term,
            weights={term: weight}, schedule=first_order, **weights,
        )  # fmt: skip

    stuck = {"checks": ("stuck_training",)}
    steps = int(random.integers(80, 200))
    yield base["diffusion"].run(
        f"diffusion: {steps} steps of Adam", "stuck training", seed,
        schedule=[pinn.Adam(steps)], **stuck,
    )  # fmt: skip
    steps = int(random.integers(300, 600))
    yield base["burgers"].run(
        f"burgers: {steps} steps of Adam, lr 1e-4", "stuck training", seed,
        schedule=[pinn.Adam(steps, lr=1e-4)], **stuck,
    )  # fmt: skip


def wrong_sensors(base: Mapping[str, Base], seed: int) -> Iterator[Run]:
    """Yield two runs with a wrong measurement each."""
    for name in ("diffusion", "wave"):
        problem, rows = sensors(base[name].problem, seed, wrong=1)
        yield base[name].run(
            f"{name}: sensor {rows[0]}", "sensor outlier", seed, problem=problem,
            checks=("sensor_outliers",), term="sensors", rows=rows,
        )  # fmt: skip


def runs(seed: int) -> Iterator[Run]:
    """Yield twenty broken runs and ten good ones."""
    base = bases(seed)
    random = np.random.default_rng(1000 + seed)
    yield from wrong_equations(base, seed, random)
    yield from wrong_conditions(base, seed, random)
    yield from poor_trainings(base, seed, random)
    yield from wrong_sensors(base, seed)
    yield from good(base, seed)


# --- the table ----------------------------------------------------------------------------------


def measured(run: Run) -> tuple[bool, str]:
    """Train and diagnose one run; return whether the diagnosis is right, and its row."""
    start = time.perf_counter()
    result = pinn.train(run.problem, run.network, progress=False, **run.options)
    trained = time.perf_counter()
    diagnosis = pinn.diagnose(result)
    done = time.perf_counter()

    said = "nothing"
    if diagnosis.findings:
        first = diagnosis.findings[0]
        what = ", ".join(first.terms) or "–"
        said = f"{first.check} ({first.severity}): {what}"
        if first.rows:
            said += f", row {', '.join(map(str, first.rows))}"
    is_right = run.is_right(diagnosis)
    error = result.summary.get("relative_l2", math.nan)
    cells = [
        run.kind, run.label, said, "yes" if is_right else "**no**", f"{error:.1e}",
        f"{trained - start:.0f} + {done - trained:.0f}",
    ]  # fmt: skip
    return is_right, f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row for each run, then both counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a label or kind")
    arguments = parser.parse_args()

    print("| breakage | run | first finding | right | relative L2 | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    counts = {"broken": [0, 0], "good": [0, 0]}
    for run in runs(arguments.seed):
        if arguments.only not in run.label and arguments.only not in run.kind:
            continue
        is_right, row = measured(run)
        print(row, flush=True)
        group = "good" if run.kind == "good" else "broken"
        counts[group][0] += is_right
        counts[group][1] += 1

    named, broken = counts["broken"]
    quiet, good_runs = counts["good"]
    print(f"\nseed {arguments.seed}: {named} of {broken} named, ", end="")
    print(f"{good_runs - quiet} false alarms on {good_runs} good runs (bar: {BARS})")


if __name__ == "__main__":
    main()
