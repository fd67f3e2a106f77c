"""The flow around a cylinder against finite elements and the published forces.

``python -m benchmarks.cylinder`` trains it by its recipe and prints the relative L2 errors of u, v
and p, and drag, lift and pressure difference beside those of the DFG benchmark 2D-1 (Schäfer &
Turek 1996; values of Nabh 1998). ``--problem navier_stokes_dimensional`` does it in metres.
"""

from __future__ import annotations

import time
from importlib import import_module

import numpy as np

from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

BARS = {"u": 0.01, "v": 0.03, "p": 0.02}
DRAG_BAR, SECONDS = 0.005, 1200.0
DRAG, LIFT, DROP = 5.57953523384, 0.010618948146, 0.11752016697
"""Δp in units of the benchmark, where the mean speed is 0.2."""
PLACES = 20_000
PROBLEMS = ("navier_stokes", "navier_stokes_dimensional")


def measured(name: str, seed: int) -> list[Row]:
    """Return the rows of one training."""
    problem = pinn.zoo.load(name)
    recipe = pinn.zoo.recipe(name)
    assert recipe.network is not None
    start = time.perf_counter()
    result = pinn.train(
        problem,
        recipe.network(seed),
        points=recipe.points,
        pinned=recipe.pinned,
        schedule=recipe.schedule,
        weights=recipe.weights,
        resample=None,
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - start

    points = problem.domain.sample(PLACES, "random", seed=5)
    errors = np.asarray(result.solution.error(points))
    reference = np.asarray(problem.reference(points))
    norms = np.linalg.norm(errors, axis=0) / np.linalg.norm(reference, axis=0)
    what = f"{name}, seed {seed}"
    rows = [
        Row(f"{what}: relative L2 of {output}", float(error), "", most=BARS[output])
        for output, error in zip(problem.outputs, norms, strict=True)
    ]

    module = import_module(f"whence.pinn.zoo.{name}")
    drop = DROP * (module.FLOW.speed / 0.2) ** 2
    published = {"drag": DRAG, "lift": LIFT, "pressure_drop": drop}
    for functional, expected in published.items():
        value = float(getattr(module, functional)().values(result.objective))
        error = abs(value / expected - 1)
        most = DRAG_BAR if functional == "drag" else None
        detail = f"{value:.6g} against {expected:.6g}"
        rows.append(Row(f"{what}: {functional}, error", error, "", detail, most=most))
    rows.append(Row(f"{what}: seconds", seconds, "s", most=SECONDS))
    return rows


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--problem", default="navier_stokes", choices=PROBLEMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()

    def every() -> list[Row]:
        return [row for seed in given.seeds for row in measured(given.problem, seed)]

    _measure.run(given, every)


if __name__ == "__main__":
    main()
