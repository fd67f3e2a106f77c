"""Linear datamodeling scores on the digits: what each method predicts of retraining.

``python -m benchmarks.retraining``: the network of 3466 parameters is trained anew on 50 random
halves of 1200 images; the loss at 100 test images is predicted from the sum of influences of the
images left out, of a network trained on all. The score is the Spearman correlation over the 50
subsets, mean over test images (Park et al. 2023). captum and pyDVL explain the same network. Each
half is trained with several seeds and the mean taken; how well half of the seeds predict the other
half shows what can be had at most.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whence as wh
from benchmarks import _digits, _measure
from benchmarks._measure import Row
from benchmarks.classification import agreement
from whence.curvature.failures import SingularSystem
from whence.evaluation.lds import linear_datamodeling_score, random_subsets, retrained

TEST, SUBSETS, EPOCHS, DECAY = 100, 50, 60, 1e-3
DAMPINGS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def truth(
    data: _digits.Digits, subsets: np.ndarray, epochs: int, seeds: int
) -> np.ndarray:
    """Return the test losses of networks trained on subsets, (seeds, subsets, test)."""

    def train(chosen: np.ndarray, seed: int) -> np.ndarray:
        index = torch.as_tensor(chosen)
        model = _digits.network(seed)
        _digits.train(model, data.x[index], data.y[index], epochs, DECAY, seed=seed)
        return losses(model, data)

    each = [
        retrained(lambda c, k, s=s: train(c, 1000 * s + k), subsets)
        for s in range(seeds)
    ]
    return np.stack(each)


def losses(model: nn.Module, data: _digits.Digits) -> np.ndarray:
    """Return the loss of each test image."""
    with torch.no_grad():
        output = model(data.x_test[:TEST])
        return (
            F.cross_entropy(output, data.y_test[:TEST], reduction="none")
            .double()
            .numpy()
        )


def matrices(
    data: _digits.Digits, model: nn.Module, states: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Return the attribution of every method, ours and the peers'."""
    from benchmarks import _peers_on_digits as peers

    train, test = (data.x, data.y), (data.x_test[:TEST], data.y_test[:TEST])
    objective = wh.Objective.supervised(model, train, nn.CrossEntropyLoss())
    quantity, loss = wh.Loss(*test), {}
    for damping in DAMPINGS:
        name = f"damping {damping:g}"
        loss[f"Influence, {name}"] = wh.Influence(objective, damping=damping)
        loss[f"Influence, Hessian, {name}"] = wh.Influence(
            objective, damping=damping, curvature="hessian"
        )
        loss[f"Influence, EKFAC(coupled=0), {name}"] = wh.Influence(
            objective, damping=damping, solver=wh.EKFAC(coupled=0)
        )
    penalty = wh.Damping(DECAY, relative=False)
    loss["Influence, damping = weight decay"] = wh.Influence(objective, damping=penalty)
    loss["TracIn, 6 checkpoints"] = wh.TracIn(objective, states)
    loss["GradDot"] = wh.GradDot(objective)
    loss["GradCos"] = wh.GradCos(objective)
    loss["EmpiricalInfluence"] = wh.EmpiricalInfluence(objective)
    found = {}
    for name, method in loss.items():
        try:
            found[name] = method.attribute(quantity).values
        except SingularSystem as error:  # an indefinite Hessian, damped too little
            _measure.say(f"{name}: {error}")
    largest = wh.Influence(objective).state().spectrum.largest_eigenvalue
    for damping in (1e-3, 1e-2, 1e-1):
        _measure.say(f"pyDVL, damping {damping}")
        found[f"pyDVL direct, damping {damping:g}"] = peers.pydvl(
            "direct", model, None, damping * largest, train, test
        ).numpy()
    _measure.say("captum")
    found["captum TracInCP"] = peers.captum_tracin(
        model, None, states, train, test
    ).numpy()
    found["captum Arnoldi"] = peers.captum_arnoldi(model, None, train, test).numpy()
    return found


def measure(quick: bool, seeds: int) -> list[Row]:
    """Return a row for each method, best first."""
    data = _digits.digits()
    epochs, count = (2, 4) if quick else (EPOCHS, SUBSETS)
    subsets = random_subsets(len(data.y), count)
    model = _digits.network()
    states = _digits.train(model, data.x, data.y, epochs, DECAY)
    each = truth(data, subsets, epochs, seeds)
    actual = each.mean(axis=0)
    rows = []
    scores = {}
    for name, matrix in matrices(data, model, states).items():
        score = linear_datamodeling_score(matrix, subsets, actual)
        scores[name] = score.attrs["mean"], score.attrs["error"]
    peer = max(v[0] for n, v in scores.items() if n.startswith(("pyDVL", "captum")))
    best = max(
        (n for n in scores if n.startswith("Influence")), key=lambda n: scores[n][0]
    )
    for name, (mean, error) in sorted(scores.items(), key=lambda item: -item[1][0]):
        bar = peer if name == best else None
        rows.append(
            Row(name, mean, "LDS", f"± {error:.3f} over test images", least=bar)
        )
    if seeds > 1:
        halves = [part.mean(axis=0) for part in np.array_split(each, 2)]
        ceiling = agreement(halves[0].T, halves[1].T)
        rows.append(
            Row("one half of the seeds by the other", ceiling, "LDS", f"{seeds} seeds")
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser: argparse.ArgumentParser = _measure.parser(__doc__)
    parser.add_argument(
        "--seeds", type=int, default=4, help="networks for each subset (4)"
    )
    given = parser.parse_args()
    _measure.run(given, lambda: measure(given.quick, 1 if given.quick else given.seeds))


if __name__ == "__main__":
    main()
