"""Which damping predicts retraining best? Leave-one-out by Gauss–Newton, diffusion, 205 parameters.

``python -m benchmarks.damping``: train on 500 points to convergence; for each of ``--points``
training points, retrain from the optimum without it; compare the change of u at 50 targets with
the influence at every damping: mean over targets of the Spearman correlation over points. The
baseline's own drift (the same retraining with no point left out) is taken off.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from scipy.stats import spearmanr

import whence as wh
from whence import pinn

DAMPINGS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13)
POINTS, TARGETS, STEPS = 500, 50, 60


def settle(objective: wh.Objective, steps: int) -> float:
    """Take Gauss–Newton steps and return the gradient norm."""
    stepper = pinn.GaussNewton(steps, damping=1e-8).start(objective.parameters)
    for _ in range(steps):
        if stepper.advance(objective, 1).finished:
            break
    return float(objective.loss_and_gradient()[1].norm())


def measure(left_out: int, seed: int) -> dict[str, object]:
    """Return correlations by damping and how well converged the optimum is."""
    problem = pinn.zoo.load("diffusion")
    network = pinn.MLP([2, 12, 12, 1], seed=seed)
    objective = problem.objective(network, problem.sample(POINTS, seed=seed))
    gradient_norm = settle(objective, 1500)
    theta = objective.parameters.vector()
    targets = problem.draw("pde", TARGETS, seed=99)
    output = wh.Output(targets)
    chosen = np.random.default_rng(seed).choice(POINTS, left_out, replace=False)
    predicted = {
        damping: wh.Influence(objective, damping=damping)
        .attribute(output)
        .values[:, chosen]
        for damping in DAMPINGS
    }
    start = output.values(objective)
    settle(objective, STEPS)
    drift = output.values(objective) - start
    changes = []
    for index in chosen:
        objective.parameters.assign(theta)
        points = objective.terms["pde"].points
        kept = torch.cat([points[:index], points[index + 1 :]])
        settle(objective.with_points({"pde": kept}), STEPS)
        changes.append(output.values(objective) - start - drift)
    actual = torch.stack(changes, dim=1).numpy()
    scores = {
        damping: float(
            np.mean([spearmanr(a, p)[0] for a, p in zip(actual, rows, strict=True)])
        )
        for damping, rows in predicted.items()
    }
    return {"gradient_norm": gradient_norm, "spearman": scores}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {seed: measure(given.points, seed) for seed in given.seeds}
    if given.json:
        print(json.dumps(found))
        return
    print(
        "| relative damping | " + " | ".join(f"seed {s}" for s in found) + " | mean |"
    )
    print("| --- |" + " --- |" * (len(found) + 1))
    for damping in DAMPINGS:
        values = [row["spearman"][damping] for row in found.values()]  # type: ignore[index]
        cells = " | ".join(f"{v:.2f}" for v in values)
        print(f"| {damping:.0e} | {cells} | {np.mean(values):.2f} |")
    norms = ", ".join(f"{row['gradient_norm']:.1e}" for row in found.values())
    print(f"\ngradient norms at the optimum: {norms}")


if __name__ == "__main__":
    main()
