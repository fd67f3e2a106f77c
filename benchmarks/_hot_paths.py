"""Seconds of the hot paths by public calls that older checkouts have too, as JSON.

:mod:`benchmarks.regression` runs this file in one checkout after the other.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch

import whence as wh
from whence import pinn

QUIET = {"validation": 50, "progress": False}


def flow(
    u, v, u_x, u_y, v_x, v_y, p_x, p_y, u_xx, u_yy, v_xx, v_yy
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Return the residual of the steady Navier–Stokes equations."""
    return (
        u * u_x + v * u_y + p_x - 0.05 * (u_xx + u_yy),
        u * v_x + v * v_y + p_y - 0.05 * (v_xx + v_yy),
        u_x + v_y,
    )


def trained(problem, network, points, stage, compile=False) -> float:
    """Return the seconds in training, compilation not included."""
    result = pinn.train(
        problem, network, points=points, schedule=[stage], compile=compile, **QUIET
    )
    return float(result.summary["seconds"])


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of some calls, after one to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def steps() -> dict[str, float]:
    """Return the seconds of training steps."""
    burgers = pinn.zoo.load("burgers")
    square = pinn.Problem(
        domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u", "v", "p"),
        equations={"flow": flow},
    )

    def wide() -> pinn.MLP:
        return pinn.MLP([2, 64, 64, 64, 64, 3], seed=0)

    trained(burgers, None, 1000, pinn.Adam(20))
    return {
        "200 Adam steps, burgers, eager": trained(burgers, None, 1000, pinn.Adam(200)),
        "400 Adam steps, burgers, compiled": trained(
            burgers, None, 1000, pinn.Adam(400), compile=True
        ),
        "20 Adam steps, Navier–Stokes, eager": trained(
            square, wide(), 2500, pinn.Adam(20)
        ),
        "60 Adam steps, Navier–Stokes, compiled": trained(
            square, wide(), 2500, pinn.Adam(60), compile=True
        ),
        "100 L-BFGS steps, burgers, eager": trained(
            burgers, None, 1000, pinn.LBFGS(100)
        ),
        "8 Gauss–Newton steps, burgers, 2000 points": trained(
            burgers, None, 2000, pinn.GaussNewton(8)
        ),
    }


def scoring() -> dict[str, float]:
    """Return the seconds of scores of candidates."""
    problem = pinn.zoo.load("diffusion")
    points = problem.sample(1000, seed=0)
    objective = problem.objective(problem.network(seed=0), points)
    candidates = problem.draw("pde", 10_000, seed=1)
    seconds = {}
    for reduce in ("abs_of_sum", "sum_of_abs"):
        score = pinn.InfluenceScore(n_test=1000, reduce=reduce)
        seconds[f"influence of 10,000 candidates, {reduce}"] = best_of(
            lambda score=score: score.score(objective, candidates), 3
        )
    residual = pinn.ResidualScore()
    seconds["residual of 10,000 candidates"] = best_of(
        lambda: residual.score(objective, candidates), 5
    )
    return seconds


def attribution() -> dict[str, float]:
    """Return the seconds of attributions."""
    problem = pinn.zoo.load("drift_diffusion", "soft")
    counts = dict.fromkeys(problem.terms, 300)
    network = pinn.MLP([2, 32, 32, 32, 1], seed=0)
    objective = problem.objective(network, problem.sample(counts, seed=0))
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5)
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 20, generator=generator)
    y = torch.randint(0, 5, (2000,), generator=generator)
    samples = wh.Objective.supervised(model, (x, y), torch.nn.CrossEntropyLoss())
    test = wh.Loss(x[:200], y[:200])
    return {
        "exact influence, 900 targets at the training points": best_of(
            lambda: wh.Influence(objective).attribute(wh.Loss()), 3
        ),
        "exact influence of a classifier, 200 × 2000": best_of(
            lambda: wh.Influence(samples).attribute(test), 2
        ),
        "gradient products of a classifier, 200 × 2000": best_of(
            lambda: wh.GradDot(samples).attribute(test), 3
        ),
    }


PARTS = {"steps": steps, "scoring": scoring, "attribution": attribution}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(PARTS[sys.argv[1]]()))
