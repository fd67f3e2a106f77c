"""Exact influence of every training point on every target, and beside its algebra alone.

``python -m benchmarks.attribution``: a 10,000 × 1200 matrix on soft-constrained drift_diffusion
(8577 parameters), factorisation included; then the same call against what no exact method can do
without, with the Jacobian J of the residuals and the targets' gradients G given: ``JJᵀ``, its
Cholesky factor, ``X = Jᵀ(JJᵀ + λI)⁻¹`` and ``GX``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn

MATRIX_SECONDS, TIMES_BARE = 4, 2


@dataclass(frozen=True)
class Case:
    """A problem, its training points by term, and how many targets."""

    problem: str
    constraints: Literal["hard", "soft"]
    pde: int
    conditions: int
    targets: int
    repeats: int


LARGE = Case(
    "drift_diffusion", "soft", pde=900, conditions=100, targets=10_000, repeats=5
)
SMALL = Case("diffusion", "hard", pde=1000, conditions=0, targets=1000, repeats=15)
QUICK_LARGE = Case(
    "drift_diffusion", "soft", pde=90, conditions=10, targets=200, repeats=2
)
QUICK_SMALL = Case("diffusion", "hard", pde=100, conditions=0, targets=100, repeats=2)


def trained(case: Case) -> tuple[wh.Objective, wh.Output]:
    """Return an objective after a few steps of training, and the targets."""
    problem = pinn.zoo.load(case.problem, case.constraints)
    counts = {
        term: case.pde if term == "pde" else case.conditions for term in problem.terms
    }
    result = pinn.train(
        problem,
        points=counts,
        schedule=[pinn.GaussNewton(10)],
        keep="last",
        progress=False,
    )
    targets = problem.draw("pde", case.targets, seed=1, method="random")
    return result.objective, wh.Output(targets)


def bare(jacobian: Tensor, gradients: Tensor, damping: float) -> Tensor:
    """Return ``G Jᵀ(JJᵀ + λI)⁻¹``."""
    gram = jacobian @ jacobian.T
    gram.diagonal().add_(damping)
    solved = torch.cholesky_solve(jacobian, torch.linalg.cholesky(gram))
    return gradients @ solved.T


def measure(case: Case, matrix_bar: float | None, ratio_bar: float | None) -> list[Row]:
    """Return the time of the matrix and its ratio to that of the bare algebra."""
    _measure.say(f"{case.problem}, {case.constraints} constraints")
    objective, output = trained(case)
    jacobian = wh.Jacobian(objective, scaled=True).dense()
    gradients = torch.cat(list(output.gradients(objective)))
    damping = float(wh.Influence(objective).attribute(output).attrs["damping"])
    timings = _measure.paired(
        {
            "influence": lambda: wh.Influence(objective).attribute(output),
            "bare": lambda: bare(jacobian, gradients, damping),
        },
        case.repeats,
    )
    ours, algebra = timings["influence"], timings["bare"]
    rows, size = jacobian.shape
    what = f"{case.targets} × {rows} influences, {case.problem} ({size} parameters)"
    return [
        Row(what, ours.median, "s", str(ours), most=matrix_bar),
        Row(
            f"{what}: over its products, Cholesky and solve alone",
            ours.median / algebra.median,
            "x",
            f"those take {algebra}",
            most=ratio_bar,
        ),
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    large, small = (QUICK_LARGE, QUICK_SMALL) if given.quick else (LARGE, SMALL)
    _measure.run(
        given,
        lambda: [
            *measure(large, MATRIX_SECONDS, None),
            *measure(small, None, TIMES_BARE),
        ],
    )


if __name__ == "__main__":
    main()
