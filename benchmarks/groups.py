"""Removing whole groups of training points: predicted from one factorisation, and refitted.

``python -m benchmarks.groups``: (1) linear least squares, groups of 1 to 40 of 200 points: distance
of the exact removal from the fit without the group. (2) PINNs of about 200 parameters on 500
points (diffusion, hard constraints; burgers, soft constraints, three terms), trained by
Gauss–Newton; 24 groups of 5 to 25 points, half of them random, half of them neighbours; mean over
50 targets of the Spearman correlation over groups between the predicted and the true change of u.
True changes come from refits of the loss without the group, held to where the network was by the
same λ that damps the prediction; what the same refit does with nothing left out is taken off. Last,
the same predictions against refits that nothing holds, after 60 steps, when they are still under
way: there is no bar for these, and their stability (the correlation between the changes after 30
and after 60 steps) says how much there is to predict.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.attribution.groups import group_influence
from whence.evaluation.leaving_out import leave_out

METHODS: tuple[Literal["exact", "first_order"], ...] = ("exact", "first_order")
DAMPINGS = (1e-4, 1e-6, 1e-8, 1e-10, 1e-11)
POINTS = {
    "diffusion": {"pde": 500},
    "burgers": {"pde": 350, "initial_u": 75, "dirichlet_u": 75},
}
Groups = dict[str, Mapping[str, np.ndarray]]


def linear() -> list[Row]:
    """Measure exact and first-order removal in linear least squares."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)) * np.logspace(0, -2, 20)
    y = x @ rng.standard_normal(20) + rng.standard_normal(200)
    network = torch.nn.Linear(20, 1, bias=False, dtype=torch.float64)

    def fields(names: object) -> wh.objective.Pointwise:
        return lambda tensors, z: torch.func.functional_call(
            network, dict(tensors), (z[:, :20],)
        )

    term = wh.Term(
        "data",
        lambda tensors, z: fields(None)(tensors, z) - z[:, 20:],
        torch.as_tensor(np.column_stack([x, y])),
    )
    objective = wh.Objective(network, [term], space=wh.Space(evaluate=fields))
    objective.parameters.assign(torch.as_tensor(np.linalg.lstsq(x, y, rcond=None)[0]))
    sizes = rng.integers(1, 41, 30)
    groups = {
        f"{k}": rng.choice(200, size, replace=False) for k, size in enumerate(sizes)
    }
    influence, output = wh.Influence(objective, damping=0.0), wh.Output(term.points)
    whole = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    without = [np.delete(np.arange(200), group) for group in groups.values()]
    actual = np.stack(
        [
            x @ np.linalg.lstsq(x[kept], y[kept], rcond=None)[0] - whole
            for kept in without
        ],
        axis=1,
    )
    errors = [
        relative(
            group_influence(influence, output, groups, method=method).values, actual
        )
        for method in METHODS
    ]
    said = "30 groups of 1 to 40 of 200 points, 20 parameters, relative to the largest change"
    return [
        Row(
            "linear: exact removal against a fit without the group",
            errors[0],
            "",
            said,
            1e-10,
        ),
        Row("linear: sum of influences, the same", errors[1], "", said),
    ]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest entry."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def trained(
    name: str, constraints: Literal["hard", "soft"], quick: bool
) -> tuple[wh.Objective, wh.Output]:
    """Return a network trained by Gauss–Newton, and u at the targets."""
    problem = pinn.zoo.load(name, constraints=constraints)
    network = pinn.MLP([2, 12, 12, 1], seed=0)
    counts = {n: k // 2 for n, k in POINTS[name].items()} if quick else POINTS[name]
    objective = problem.objective(network, problem.sample(counts, seed=0))
    stepper = pinn.GaussNewton(1, damping=1e-8).start(objective.parameters)
    for _ in range(100 if quick else 1500):
        if stepper.advance(objective, 1).finished:
            break
    return objective, wh.Output(problem.draw("pde", 50, seed=99))


def drawn(objective: wh.Objective, n: int) -> Groups:
    """Return n groups: half of them random over all terms, half of them neighbours in the pde."""
    rng = np.random.default_rng(0)
    names = np.repeat(
        list(objective.terms), [len(t.points) for t in objective.terms.values()]
    )
    index = np.concatenate([np.arange(len(t.points)) for t in objective.terms.values()])
    pde = objective.term("pde").points.numpy()
    found: Groups = {}
    for k in range(n // 2):
        size = int(rng.integers(5, 26))
        chosen = rng.choice(len(index), size, replace=False)
        found[f"random {k}"] = {
            name: index[chosen][names[chosen] == name] for name in objective.terms
        }
        distance = np.square(pde - pde[rng.integers(len(pde))]).sum(axis=1)
        found[f"neighbours {k}"] = {"pde": np.argsort(distance)[:size]}
    return found


def spearman(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over targets of the rank correlation over groups."""
    from scipy.stats import spearmanr

    return float(
        np.mean([spearmanr(a, p)[0] for a, p in zip(actual, predicted, strict=True)])
    )


def network(name: str, constraints: Literal["hard", "soft"], quick: bool) -> list[Row]:
    """Measure on a trained PINN, at each damping."""
    objective, output = trained(name, constraints, quick)
    groups = drawn(objective, 6 if quick else 24)
    _measure.say(f"{name} trained: loss {float(objective.loss()):.2e}")
    rows = []
    for damping in DAMPINGS[:2] if quick else DAMPINGS:
        influence = wh.Influence(objective, damping=damping)
        absolute = influence.state().spectrum.damping
        rows += against(
            f"{name}, damping {damping:.0e}",
            influence,
            output,
            groups,
            anchor=absolute,
            steps=200,
        )
    last = wh.Influence(objective)
    rows += against(
        f"{name}, refits not held", last, output, groups, steps=60, bar=None
    )
    return rows


def against(
    what: str,
    influence: wh.Influence,
    output: wh.Output,
    groups: Groups,
    *,
    steps: int,
    anchor: float = 0.0,
    bar: float | None = 0.98,
) -> list[Row]:
    """Compare both predictions with refits."""
    refitting, actual = _measure.once(
        lambda: leave_out(
            influence.objective, output, groups, anchor=anchor, steps=steps
        )
    )
    change = math.sqrt(float(np.square(actual.values).mean()))
    rows = []
    for method in METHODS:
        predict = partial(group_influence, influence, output, groups, method)
        predicting, table = _measure.once(predict)
        found = table.values
        error = np.linalg.norm(found - actual.values) / np.linalg.norm(actual.values)
        said = f"relative error {error:.1e}"
        if method == "exact":
            said += (
                f", stability {actual.attrs['stability']:.3f}, change {change:.1e}, drift "
                f"{actual.attrs['drift']:.1e}, {predicting:.2g} s against {refitting:.2g} s"
            )
        least = bar if method == "exact" else None
        rows.append(
            Row(
                f"{what}: {method}",
                spearman(actual.values, found),
                "ρ",
                said,
                least=least,
            )
        )
        _measure.say(f"  {rows[-1].what}: {rows[-1].measured:.4f}, {said}")
    return rows


def main() -> None:
    """Measure and print."""
    given: argparse.Namespace = _measure.parser(__doc__).parse_args()
    _measure.run(
        given,
        lambda: [
            *linear(),
            *network("diffusion", "hard", given.quick),
            *network("burgers", "soft", given.quick),
        ],
    )


if __name__ == "__main__":
    main()
