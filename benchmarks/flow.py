"""Influence of 10,000 points of a flow on u, v and p at 2,500 places: seconds and memory.

``python -m benchmarks.flow``: the flow around a cylinder with three equations and six conditions,
2,500 points of each equation and 2,500 of the conditions, a network of 12,867 parameters after two
steps of Gauss–Newton. The time is that of everything: rows, curvature, factor, solves, products.
"""

from __future__ import annotations

import time
import warnings

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

SECONDS, GIB = 180.0, 6.0
MEMORY_BUDGET = int(5.5 * 2**30)
"""Bytes that the matrices may take: the exact solver's, whose rows are fewer than parameters."""
WIDTH, EQUATION_POINTS, CONDITION_POINTS, PLACES = 64, 2500, 2500, 2500
QUICK = (8, 40, 60, 30)


def measured(
    width: int, equation_points: int, condition_points: int, places: int
) -> list[Row]:
    """Return the rows: seconds, and the most memory that the process took."""
    problem = pinn.zoo.load("navier_stokes")
    counts = {}
    n_conditions = len(problem.terms) - len(problem.equations)
    for name in problem.terms:
        is_equation = name in problem.equations
        counts[name] = (
            equation_points if is_equation else condition_points // n_conditions
        )
    bounds = problem.domain.bounds.tolist()
    layers = [2, *[width] * 4, len(problem.outputs)]
    network = pinn.MLP(layers, bounds=bounds, seed=0)
    result = pinn.train(
        problem,
        network,
        points=dict.fromkeys(problem.terms, 100),
        schedule=[pinn.GaussNewton(2)],
        progress=False,
    )
    objective = problem.objective(
        result.objective.network, problem.sample(counts, seed=0)
    )
    targets = problem.domain.sample(places, "random", seed=1)
    outputs = [wh.Output(targets, name) for name in problem.outputs]

    start = time.perf_counter()
    with warnings.catch_warnings():
        # Two steps do not train it, which does not matter to time and memory.
        warnings.simplefilter("ignore")
        influence = wh.Influence(objective, memory_budget=MEMORY_BUDGET)
        table = influence.attribute(outputs)
    seconds = time.perf_counter() - start
    peak = _measure.peak_bytes() / 2**30

    n_targets, n_points = table.shape
    residual = table.attrs["solver_residual"]
    detail = (
        f"{objective.parameters.size} parameters, {n_points} points, {n_targets} targets, relative "
        f"residual of the solves {float(residual):.1e}"
    )
    what = "influence of all points on u, v and p"
    return [
        Row(f"{what}: seconds", seconds, "s", detail, most=SECONDS),
        Row(f"{what}: most memory of the process", peak, "GiB", detail, most=GIB),
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    sizes = (WIDTH, EQUATION_POINTS, CONDITION_POINTS, PLACES)
    if given.quick:
        sizes = QUICK
    _measure.run(given, lambda: measured(*sizes))


if __name__ == "__main__":
    main()
