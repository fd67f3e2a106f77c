"""Wrong labels among the digits, found by every method: average precision.

``python -m benchmarks.detection``: 10 % of 1200 labels are replaced by wrong ones, a network of
3466 parameters is trained on them (early in its training and late), and all samples are ranked by
their influence on themselves, by what removing them does to the loss of 300 clean images, and by
their loss; and by values that ask no network: Shapley values of nearest neighbours for the clean
images, and how 200 bagged trees predict labels out of their bags. Three seeds; a random ranking
stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

import whence as wh
from benchmarks import _digits, _measure
from benchmarks._measure import Row
from whence.attribution.method import Method
from whence.evaluation import data_oob, knn_shapley
from whence.evaluation.bad_data import detection, suspects

BAR = 0.9
BAGS = 200
Scores = dict[str, list[float]]


def methods(
    objective: wh.Objective, states: list[Mapping[str, object]]
) -> dict[str, Callable[[], Method]]:
    """Return every method by name."""
    made: dict[str, Callable[[], Method]] = {
        f"Influence, damping {damping:g}": lambda d=damping: wh.Influence(
            objective, damping=d
        )
        for damping in (1e-3, 1e-2, 1e-1)
    }
    return {
        **made,
        "Influence, EKFAC(coupled=0), damping 0.01": lambda: wh.Influence(
            objective, solver=wh.EKFAC(coupled=0), damping=1e-2
        ),
        "TracIn, 6 checkpoints": lambda: wh.TracIn(objective, states),
        "GradDot": lambda: wh.GradDot(objective),
        "GradCos": lambda: wh.GradCos(objective),
        "EmpiricalInfluence": lambda: wh.EmpiricalInfluence(objective),
    }


def valued(
    train: tuple[Tensor, Tensor], clean: tuple[Tensor, Tensor], seed: int
) -> dict[str, np.ndarray]:
    """Return values of the samples that ask no network."""
    of_neighbors = knn_shapley(train, clean).mean("target")
    trees = DecisionTreeClassifier(random_state=seed)
    of_bags = data_oob(trees, train, bags=BAGS, seed=seed, progress=False)
    return {
        "Shapley values of 5 nearest neighbours": of_neighbors.values,
        f"{BAGS} trees out of their bags": of_bags.values,
    }


def ranked(epochs: int, seed: int) -> dict[str, float]:
    """Return the average precision of every ranking on one network."""
    data = _digits.digits(seed=seed)
    labels, bad = _digits.corrupted(data.y, seed=seed)
    model = _digits.network(seed)
    states = _digits.train(model, data.x, labels, epochs, seed=seed)
    objective = wh.Objective.supervised(model, (data.x, labels), nn.CrossEntropyLoss())
    clean = data.x_validation, data.y_validation
    found = {}
    for name, make in methods(objective, states).items():
        method = make()
        if name != "GradCos":  # of a sample with itself it is one
            by_itself = suspects(method, "self_influence")
            found[f"{name}: on itself"] = detection(by_itself, bad).attrs[
                "average_precision"
            ]
        by_others = suspects(method, "validation", validation=clean)
        found[f"{name}: on clean data"] = detection(by_others, bad).attrs[
            "average_precision"
        ]
    for name, values in valued((data.x, labels), clean, seed).items():
        found[name] = detection(-values, bad).attrs["average_precision"]
    loss = suspects(wh.GradDot(objective), "loss")
    found["loss"] = detection(loss, bad).attrs["average_precision"]
    drawn = np.random.default_rng(seed).random(len(bad))
    found["random"] = detection(drawn, bad).attrs["average_precision"]
    return found


def measure(epochs: tuple[int, ...], seeds: int) -> list[Row]:
    """Return a row for each ranking, after few epochs and after many."""
    rows = []
    for count in epochs:
        each = []
        for seed in range(seeds):
            _measure.say(f"{count} epochs, seed {seed}")
            each.append(ranked(count, seed))
        means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        attributed = [name for name in means if name not in ("loss", "random")]
        best = max(attributed, key=lambda name: means[name])
        for name, mean in sorted(means.items(), key=lambda item: -item[1]):
            values = [one[name] for one in each]
            detail = f"{min(values):.3f} to {max(values):.3f}"
            bar = BAR if name == best else None
            rows.append(Row(f"{count} epochs, {name}", mean, "AP", detail, least=bar))
    return rows


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    _measure.run(
        given, lambda: measure((5,), 1) if given.quick else measure((20, 100), 3)
    )


if __name__ == "__main__":
    main()
