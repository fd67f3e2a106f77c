"""The settings of dattri's and quanda's benchmarks, on digits, beside what dattri published.

``python -m benchmarks.published_settings``: dattri's MLP (128 and 64 hidden units with ReLU and
dropout, SGD of rate 0.01 and momentum 0.9, batches of 64, 50 epochs) is trained on 1200 of
scikit-learn's digits, 8 × 8, with 120 to explain; theirs are 5000 and 500 of MNIST, 28 × 28, which
no package ships, so that the figures are of the same protocol and not of the same data.

dattri (arXiv 2410.04555): linear datamodeling score over 50 random halves; rank correlation with 50
leave-one-out trainings; area under the curve of finding flipped labels, a tenth, by effects of
samples on themselves. Published figures are read off its bar charts to two digits.

quanda (arXiv 2410.07158, defined as in its code): the share of targets whose first sample is of
their class, or of their subclass where ten digits are two groups; the area under the curve of
flipped labels found, a fifth; average precision for half of the zeros with white bars, and for
foreign images labelled 0; different samples among the first five of all targets, as a share;
correlation with a network of random parameters (Spearman's; quanda's is Kendall's). Targets are the
losses of what the network predicts.

Two controls: the norm of a sample's gradient alone, and retraining: what 50 networks trained on
other halves (20 where they serve for nothing else) say without a sample less what they say with it.
Beside the scores stands what a second training of the same halves predicts of the first.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import whence as wh
from benchmarks import _digit_settings as settings
from benchmarks import _measure
from benchmarks._digit_settings import Networks, Setting
from benchmarks._measure import Row
from whence.attribution.method import Method
from whence.evaluation import (
    linear_datamodeling_score,
    model_randomization,
    random_subsets,
    retrieval,
    top_k_cardinality,
    with_random_parameters,
)
from whence.evaluation.ranks import spearman_rows

HALVES = 50
FEW_HALVES = 20
"""Networks of the settings in which they are a control alone."""
LEFT_OUT = 50
CHECKPOINTS = 10
FIRST = 5
REPLAYED = 10
"""Targets of a replay, which costs a training and a half for each."""
DAMPINGS = (1e-3, 1e-2, 1e-1)
"""dattri's figures are the best over its own grid of seven, too."""
LDS = {
    "Influence, EK-FAC": "CG 0.26, LiSSA 0.14, Arnoldi 0.09",
    "TracIn": "0.15",
    "GradDot": "0.10",
    "GradCos": "0.12",
    "TRAK": "0.11",
    "TRAK × 10": "0.33",
    "TRAK × 50": "0.45",
}
LEAVE_ONE_OUT = dict.fromkeys(LDS, "≤ 0.02")
AUC = {
    "Influence, EK-FAC": "CG 0.86, LiSSA 0.87, Arnoldi 0.84",
    "TracIn": "0.86",
    "GradDot": "0.86",
    "GradCos": "0.51",
    "TRAK": "0.98",
    "TRAK × 10": "1.00",
}
Array = np.ndarray[Any, np.dtype[Any]]
Methods = dict[str, Method]


@dataclass
class Trained:
    """A setting, its network, and networks of halves of its data."""

    setting: Setting
    run: wh.TrainingRun
    halves: Array
    networks: Networks

    @classmethod
    def on(cls, setting: Setting, n_halves: int) -> Trained:
        """Train."""
        n = len(setting.train[0])
        # With their complements, so that as many networks have each sample as have not.
        first = random_subsets(n, n_halves // 2, 0.5, seed=2)
        halves = np.concatenate([first, ~first])
        networks = settings.trained_on(setting, halves, seed=2)
        return cls(setting, settings.recorded(setting), halves, networks)

    @functools.cached_property
    def methods(self) -> Methods:
        """The methods by name; what they factor they keep."""
        objective = self.run.objective
        after = np.linspace(0, len(self.run), CHECKPOINTS + 1).astype(int)[1:]
        made: Methods = {
            "GradDot": wh.GradDot(objective),
            "GradCos": wh.GradCos(objective),
            "TracIn": wh.TracIn(objective, self.run.checkpoints(after.tolist())),
            "Influence, EK-FAC": wh.Influence(objective, solver=wh.EKFAC()),
            "EmpiricalInfluence": wh.EmpiricalInfluence(objective),
            "TRAK": wh.TRAK(objective),
        }
        if len(self.halves) > FEW_HALVES:
            made["TRAK × 10"] = wh.Ensemble(members(self, 10))
        return made

    def quantity(self, predicted: bool) -> wh.Loss:
        """Return the losses of the test samples, of their labels or of what is predicted."""
        x, y = self.setting.test
        return wh.Loss((x, self.predictions() if predicted else y))

    def predictions(self) -> torch.Tensor:
        """Return the classes that the network predicts for the test samples."""
        with torch.no_grad():
            return self.run.model(self.setting.test[0]).argmax(1)


def members(trained: Trained, count: int) -> list[wh.TRAK]:
    """Return TRAK of networks that were trained on halves, as dattri has it."""
    data, loss = trained.setting.train, nn.CrossEntropyLoss()
    return [
        wh.TRAK(trained.networks.model(k), data, loss, seed=k) for k in range(count)
    ]


def with_all_halves(trained: Trained) -> Methods:
    """Return the methods, and TRAK of as many networks as dattri's largest ensemble."""
    count = len(trained.halves)
    return {**trained.methods, f"TRAK × {count}": wh.Ensemble(members(trained, count))}


def retraining(halves: Array, losses: Array) -> Array:
    """Return mean losses of networks without a sample less those with it, (target, point)."""
    inside = halves.astype(float)
    outside = 1 - inside
    without = losses.T @ (outside / outside.sum(0))
    return np.asarray(without - losses.T @ (inside / inside.sum(0)))


def gradient_norms(trained: Trained) -> Array:
    """Return the norm of each training sample's gradient."""
    squares = wh.GradDot(trained.run.objective).self_influence()
    return np.sqrt(np.maximum(squares.values, 0))


def attributions(
    trained: Trained, made: Methods, predicted: bool
) -> Iterator[tuple[str, Array]]:
    """Yield (target, point) of every method and of both controls."""
    quantity = trained.quantity(predicted)
    for name, method in made.items():
        begun = time.perf_counter()
        yield name, np.asarray(method.attribute(quantity), dtype=float)
        _measure.say(f"    {name}: {time.perf_counter() - begun:.1f} s")
    norms = gradient_norms(trained)
    yield "gradient norm alone", np.tile(norms, (len(trained.setting.test[0]), 1))
    x, y = trained.setting.test
    labels = trained.predictions() if predicted else y
    losses = trained.networks.losses(x, labels)
    yield "retraining on halves", retraining(trained.halves, losses)


def of_self(trained: Trained, made: Methods) -> Iterator[tuple[str, Array]]:
    """Yield the effects of samples on themselves, (point,), of methods and controls."""
    for name, method in made.items():
        yield name, np.asarray(method.self_influence(), dtype=float)
    yield "gradient norm alone", gradient_norms(trained)
    losses = trained.networks.losses(*trained.setting.train)
    inside = np.where(trained.halves, losses, np.nan)
    outside = np.where(trained.halves, np.nan, losses)
    yield "retraining on halves", np.nanmean(outside, 0) - np.nanmean(inside, 0)
    with torch.no_grad():
        x, y = trained.setting.train
        own = nn.functional.cross_entropy(trained.run.model(x), y, reduction="none")
    yield "the sample's own loss", own.numpy()


# --- dattri ---


def dattri(base: Trained, n_halves: int, n_left_out: int) -> Iterator[Row]:
    """Yield scores and correlations with leave-one-out."""
    n = len(base.setting.train[0])
    subsets = random_subsets(n, n_halves, 0.5, seed=1)
    actual = settings.trained_on(base.setting, subsets, 1).losses(*base.setting.test)
    left_out = np.random.default_rng(0).choice(n, n_left_out, replace=False)
    fewer = np.ones((n_left_out, n), dtype=bool)
    fewer[np.arange(n_left_out), left_out] = False
    without = settings.trained_on(base.setting, fewer, 3).losses(*base.setting.test)

    made = with_all_halves(base)
    del made["Influence, EK-FAC"]
    scored = dict(attributions(base, made, predicted=False))
    scored |= best_damping(base, subsets, actual)
    for name, effects in scored.items():
        score = linear_datamodeling_score(effects, subsets, actual).attrs
        detail = f"{score['low']:.2f} to {score['high']:.2f}"
        if name in LDS:
            detail += f"; published {LDS[name]}"
        yield Row(f"dattri, LDS: {name}", score["mean"], "", detail)
    for name, effects in scored.items():
        correlation = spearman_rows(effects[:, left_out], without.T)
        detail = f"published {LEAVE_ONE_OUT[name]}" if name in LEAVE_ONE_OUT else ""
        mean = float(np.nanmean(correlation))
        yield Row(f"dattri, leave-one-out: {name}", mean, "", detail)

    again = settings.trained_on(base.setting, subsets, 5).losses(*base.setting.test)
    ceiling = float(np.nanmean(spearman_rows(again.T, actual.T)))
    yield Row("dattri, LDS: the same halves trained again", ceiling, "", "control")

    few = slice(0, REPLAYED)
    x, y = base.setting.test
    effects = wh.Replay(base.run).attribute(wh.Loss((x[few], y[few])))
    score = linear_datamodeling_score(effects, subsets, actual[:, few]).attrs
    detail = f"{score['low']:.2f} to {score['high']:.2f}; {REPLAYED} targets"
    yield Row("dattri, LDS: Replay", score["mean"], "", detail)


def best_damping(base: Trained, subsets: Array, actual: Array) -> dict[str, Array]:
    """Return the influence of the damping with the best score."""
    best: tuple[float, Array] | None = None
    for damping in DAMPINGS:
        method = wh.Influence(base.run.objective, solver=wh.EKFAC(), damping=damping)
        effects = np.asarray(method.attribute(base.quantity(False)), dtype=float)
        score = linear_datamodeling_score(effects, subsets, actual).attrs["mean"]
        _measure.say(f"    Influence, EK-FAC, {damping:g}: {score:.3f}")
        if best is None or score > best[0]:
            best = (score, effects)
    assert best is not None
    return {"Influence, EK-FAC": best[1]}


def flipped(trained: Trained) -> Iterator[Row]:
    """Yield dattri's area under the curve of finding flipped labels."""
    for name, values in of_self(trained, trained.methods):
        auc = retrieval(values, trained.setting.relevant).attrs["auc"]
        detail = f"published {AUC[name]}" if name in AUC else ""
        yield Row(f"dattri, AUC of flipped labels: {name}", auc, "", detail)


# --- quanda ---


def first_of_kind(trained: Trained, what: str) -> Iterator[Row]:
    """Yield the share of targets whose first sample is relevant."""
    relevant = trained.setting.relevant
    if what == "class detection":
        relevant = settings.same(trained.predictions(), trained.setting.train[1])
    assert relevant is not None
    for name, effects in attributions(trained, trained.methods, predicted=True):
        share = retrieval(effects, relevant, k=1).attrs["precision"]
        detail = f"chance {relevant.mean():.2f}"
        yield Row(f"quanda, {what}: {name}", share, "", detail)


def found(trained: Trained, what: str) -> Iterator[Row]:
    """Yield average precisions, of the targets that are taken for class 0."""
    relevant = trained.setting.relevant
    assert relevant is not None
    fooled = (trained.predictions() == 0).numpy()
    if not fooled.any():
        yield Row(f"quanda, {what}", None, "", "no target is taken for class 0")
        return
    for name, effects in attributions(trained, trained.methods, predicted=True):
        precision = retrieval(effects[fooled], relevant).attrs["average_precision"]
        detail = f"chance {relevant.mean():.2f}, {fooled.sum()} targets"
        yield Row(f"quanda, {what}: {name}", precision, "", detail)


def mislabelling(trained: Trained) -> Iterator[Row]:
    """Yield the area under the curve of flipped labels found by going down the ranking."""
    relevant = trained.setting.relevant
    assert relevant is not None
    for name, values in of_self(trained, trained.methods):
        order = np.argsort(-values, kind="stable")
        curve = np.cumsum(relevant[order]) / relevant.sum()
        area = float(np.trapezoid(curve)) / len(curve)
        detail = f"at most {1 - relevant.mean() / 2:.2f}"
        yield Row(f"quanda, mislabeling detection: {name}", area, "", detail)


def heuristics(base: Trained) -> Iterator[Row]:
    """Yield the share of different samples, and the correlation with a random network."""
    drawn = with_random_parameters(base.run.model).eval()
    loss = nn.CrossEntropyLoss()
    made = {
        "GradDot": lambda m: wh.GradDot(m, base.setting.train, loss),
        "GradCos": lambda m: wh.GradCos(m, base.setting.train, loss),
        "Influence, EK-FAC": lambda m: wh.Influence(
            m, base.setting.train, loss, solver=wh.EKFAC()
        ),
        "EmpiricalInfluence": lambda m: wh.EmpiricalInfluence(
            m, base.setting.train, loss
        ),
        "TRAK": lambda m: wh.TRAK(m, base.setting.train, loss),
        "gradient norm alone": lambda m: wh.GradDot(m, base.setting.train, loss),
    }
    quantity = base.quantity(predicted=True)
    for name, method in made.items():
        pair = []
        for model in (base.run.model, drawn):
            if name == "gradient norm alone":
                own = method(model).self_influence().values
                pair.append(np.tile(own, (len(base.setting.test[0]), 1)))
            else:
                pair.append(np.asarray(method(model).attribute(quantity), dtype=float))
        similar = model_randomization(*pair).attrs["mean"]
        yield Row(f"quanda, model randomization: {name}", similar, "", "0 is best")
    for name, effects in attributions(base, base.methods, predicted=True):
        share = top_k_cardinality(effects, k=FIRST)
        what = f"quanda, top-{FIRST} cardinality: {name}"
        yield Row(what, share, "", "1 is most")


Part = tuple[Callable[[], Setting], int, list[Callable[[Trained], Iterator[Row]]]]


def parts(n_halves: int, few_halves: int, n_left_out: int) -> dict[str, Part]:
    """Return of each part its setting, how many halves to train on, and what to measure."""
    return {
        "classes": (
            settings.classes,
            n_halves,
            [
                lambda base: dattri(base, n_halves, n_left_out),
                lambda base: first_of_kind(base, "class detection"),
                heuristics,
            ],
        ),
        "flipped": (lambda: settings.mislabelled(0.1), n_halves, [flipped]),
        "mislabelled": (lambda: settings.mislabelled(0.2), few_halves, [mislabelling]),
        "subclasses": (
            settings.subclasses,
            few_halves,
            [lambda trained: first_of_kind(trained, "subclass detection")],
        ),
        "shortcut": (
            settings.shortcut,
            few_halves,
            [lambda trained: found(trained, "shortcut detection")],
        ),
        "mixed": (
            settings.mixed,
            few_halves,
            [lambda trained: found(trained, "mixed datasets")],
        ),
    }


def measure(chosen: dict[str, Part]) -> list[Row]:
    """Return all rows."""
    rows: list[Row] = []
    for name, (make, n_halves, scores) in chosen.items():
        begun = time.perf_counter()
        trained = Trained.on(make(), n_halves)
        accuracy = (trained.predictions() == trained.setting.test[1]).double().mean()
        seconds = time.perf_counter() - begun
        _measure.say(f"{name}: trained in {seconds:.0f} s, accuracy {accuracy:.3f}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of networks that are not at a minimum
            for score in scores:
                for row in score(trained):
                    _measure.say(f"  {row.what}: {row.measured} {row.detail}")
                    rows.append(row)
        _measure.say(f"{name}: {time.perf_counter() - begun:.0f} s")
    return rows


def main() -> None:
    """Print all scores."""
    parser = _measure.parser(__doc__)
    parser.add_argument(
        "--parts", nargs="*", help="of classes, flipped, mislabelled, …"
    )
    given = parser.parse_args()
    sizes = (10, 4, 6) if given.quick else (HALVES, FEW_HALVES, LEFT_OUT)
    every = parts(*sizes)
    unknown = set(given.parts or ()) - set(every)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}: there are {', '.join(every)}")
    chosen = {name: every[name] for name in given.parts or every}
    _measure.run(given, lambda: measure(chosen))


if __name__ == "__main__":
    main()
