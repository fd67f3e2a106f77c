"""Linear datamodeling scores: how well each method predicts what retraining does.

``python -m benchmarks.lds``: five models are trained, each again on 100 random subsets of its
data, from the same start and in the same order (the protocol of MAGIC, arXiv 2504.16430); the
losses of 30 test samples (of the PINN its values at 30 points) are predicted from the sums of
effects of the samples left out. Adam's ε is 1e-3: with 1e-8 trainings are rugged functions of their
samples, which a row for each model shows. The score is the Spearman correlation over subsets, mean
over test samples, with a bootstrap interval. pyDVL, captum, dattri and kronfluence explain the same
networks where they can. Methods with a damping are given a grid of three, and the best of it is
shown (slow conjugate gradients of others one). Two controls: the norm of a sample's gradient alone,
and retraining itself with other seeds.
"""

from __future__ import annotations

import argparse
import copy
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from benchmarks._trainings import TEST, Training, trainings
from whence import pinn
from whence.evaluation import linear_datamodeling_score, random_subsets, retrained
from whence.evaluation.ranks import spearman_rows

DAMPINGS = (1e-3, 1e-2, 1e-1)
SLOW_DAMPING = 1e-2
ENSEMBLE = 10
CHECKPOINTS = 6
SEGMENTS = 3
STATES = 11
LEAST_SCORE = 0.9
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Score:
    """What one method reached on one model."""

    model: str
    method: str
    mean: float
    low: float
    high: float
    seconds: float
    note: str = ""


def losses(model: nn.Module, test: tuple[torch.Tensor, torch.Tensor]) -> Array:
    """Return the losses of test samples."""
    x, y = test
    with torch.no_grad():
        values = F.cross_entropy(copy.deepcopy(model).eval()(x), y, reduction="none")
    return values.numpy()


def truth(run: wh.TrainingRun, case: Training, subsets: Array) -> Array:
    """Return the test losses of the same training on subsets, (subsets, test)."""

    def train(chosen: Array, seed: int) -> Array:
        weights = torch.zeros(len(case.train[0]))
        weights[torch.as_tensor(chosen)] = 1.0
        return losses(run.retrained(weights), case.test)

    return retrained(train, subsets, progress=False)


def checkpoints(run: wh.TrainingRun, count: int) -> list[dict[str, torch.Tensor]]:
    """Return states of the model along its training, the last of them its end."""
    at = np.linspace(0, len(run), count + 1).astype(int)
    return run.checkpoints(at[1:].tolist())


Made = Callable[[], Any]


def ours(case: Training, run: wh.TrainingRun) -> Iterator[tuple[str, str, Made]]:
    """Yield whence's methods: name, note, and a function that attributes."""
    quantity = wh.Loss(case.test)
    objective = run.objective
    yield "replay", "", lambda: wh.Replay(run).attribute(quantity)
    for damping in DAMPINGS:
        note = f"{damping:g}"
        yield (
            "influence, exact",
            note,
            lambda d=damping: wh.Influence(objective, damping=d).attribute(quantity),
        )
        yield (
            "influence, EK-FAC",
            note,
            lambda d=damping: wh.Influence(
                objective, solver=wh.EKFAC(), damping=d
            ).attribute(quantity),
        )
        yield (
            f"influence × {ENSEMBLE}, SWAG",
            note,
            lambda d=damping: drawn(case, run, d).attribute(quantity),
        )
    yield (
        "unrolled",
        f"{SEGMENTS} segments",
        lambda: wh.Unrolled.from_run(run, SEGMENTS).attribute(quantity),
    )
    states = checkpoints(run, CHECKPOINTS)
    yield "TracIn", "", lambda: wh.TracIn(objective, states).attribute(quantity)
    yield "GradDot", "", lambda: wh.GradDot(objective).attribute(quantity)
    yield "TRAK", "", lambda: wh.TRAK(objective).attribute(quantity)
    yield "gradient norm alone", "control", lambda: gradient_norms(objective)


def drawn(case: Training, run: wh.TrainingRun, damping: float) -> wh.Ensemble:
    """Return influences of networks drawn around the second half of a training."""
    late = np.linspace(len(run) // 2, len(run), STATES).astype(int)
    loss = nn.CrossEntropyLoss()
    return wh.Ensemble.swag(
        lambda network: wh.Influence(network, case.train, loss, damping=damping),
        run.model,
        run.checkpoints(late.tolist()),
        count=ENSEMBLE,
        scale="target",
    )


def gradient_norms(objective: wh.Objective) -> Array:
    """Return the norm of each training sample's gradient, the same for every target."""
    own = wh.GradDot(objective).self_influence()
    norms = np.sqrt(np.maximum(own.values, 0))
    return np.tile(norms, (TEST, 1))


def ensembles(
    case: Training, runs: list[wh.TrainingRun]
) -> Iterator[tuple[str, str, Made]]:
    """Yield means over networks of other seeds."""
    quantity = wh.Loss(case.test)
    members = [wh.TRAK(run.objective, seed=k) for k, run in enumerate(runs)]
    yield f"TRAK × {len(runs)}", "", lambda: wh.Ensemble(members).attribute(quantity)
    many = [wh.Influence(run.objective, damping=1e-2) for run in runs]
    yield (
        f"influence × {len(runs)}",
        "0.01",
        lambda: wh.Ensemble(many, scale="target").attribute(quantity),
    )


Runs = list[wh.TrainingRun]
Methods = Iterator[tuple[str, str, Made]]


def peers(case: Training, run: wh.TrainingRun, runs: Runs) -> Methods:
    """Yield the methods of the libraries that are installed.

    Attention by products of matrices, as torch's fused ones have no second derivative.
    """
    libraries = {
        "dattri": of_dattri,
        "kronfluence": of_kronfluence,
        "pyDVL and captum": of_pydvl_and_captum,
    }
    for name, methods in libraries.items():
        try:
            for method, note, made in methods(case, run, runs):
                yield method, note, with_plain_attention(made)
        except ImportError as error:
            print(f"{name} left out: {error}")


def with_plain_attention(made: Made) -> Made:
    """Return a function that does the same, with attention that has second derivatives.

    And with layers that are called: torch's quick way through an encoder passes hooks by.
    """

    def call() -> Any:
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return made()
        finally:
            torch.backends.mha.set_fastpath_enabled(True)

    return call


def of_dattri(case: Training, run: wh.TrainingRun, runs: Runs) -> Methods:
    """Yield dattri's methods, its ensemble over networks of other seeds."""
    from benchmarks import _dattri

    # A model for each: hooks of one that fails would stay.
    def model() -> nn.Module:
        return copy.deepcopy(run.model).eval()

    state = model().state_dict()
    data = (case.train, case.test)

    # A minute or more for each damping: the one that is best for the exact answer.
    yield (
        "dattri CG",
        f"{SLOW_DAMPING:g}",
        lambda: _dattri.conjugate_gradients(model(), state, *data, SLOW_DAMPING),
    )
    for damping in DAMPINGS:
        yield (
            "dattri EK-FAC",
            f"{damping:g}",
            lambda d=damping: _dattri.ekfac(model(), state, *data, d),
        )

    yield "dattri TRAK", "", lambda: _dattri.trak(model(), [state], *data)
    states = [copy.deepcopy(other.model).eval().state_dict() for other in runs]
    name = f"dattri TRAK × {len(runs)}"
    yield name, "", lambda: _dattri.trak(model(), states, *data)
    along = checkpoints(run, CHECKPOINTS)
    yield "dattri TracIn", "", lambda: _dattri.tracin(model(), along, *data)


def of_kronfluence(case: Training, run: wh.TrainingRun, runs: Runs) -> Methods:
    """Yield kronfluence's EK-FAC."""
    from benchmarks import _kronfluence

    model = copy.deepcopy(run.model).eval()
    data = (case.train, case.test)
    for damping in (None, *DAMPINGS):
        yield (
            "kronfluence EK-FAC",
            "its own" if damping is None else f"{damping:g}",
            lambda d=damping: _kronfluence.ekfac(copy.deepcopy(model), *data, d),
        )


def of_pydvl_and_captum(case: Training, run: wh.TrainingRun, runs: Runs) -> Methods:
    """Yield pyDVL's and captum's methods."""
    import captum  # noqa: F401
    import pydvl  # noqa: F401

    from benchmarks import _peers_on_digits as others

    model = copy.deepcopy(run.model).eval()
    data = (case.train, case.test)
    # Its conjugate gradients come to the same as its exact inverse, a hundred times slower.
    for damping in DAMPINGS:
        for kind in ("direct", "EK-FAC"):
            yield (
                f"pyDVL {kind}",
                f"{damping:g}",
                lambda k=kind, d=damping: others.pydvl(k, model, None, d, *data),
            )

    yield "captum Arnoldi", "", lambda: others.captum_arnoldi(model, None, *data)
    along = checkpoints(run, CHECKPOINTS)
    yield (
        "captum TracInCP",
        "",
        lambda: others.captum_tracin(model, None, along, *data),
    )


def scored(
    model: str,
    methods: Iterator[tuple[str, str, Made]],
    subsets: Array,
    actual: Array,
    limits: argparse.Namespace,
) -> list[Score]:
    """Return the score of every method, of several dampings the best; NaN where it fails.

    Of methods whose names match ``limits.only`` and do not have ``limits.skip`` in them.
    """
    best: dict[str, Score] = {}
    failed: dict[str, Score] = {}
    for name, note, made in methods:
        is_skipped = limits.skip is not None and limits.skip in name
        if not re.search(limits.only, name) or is_skipped:
            continue
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings(), at_most(limits.minutes):
                warnings.simplefilter("ignore")  # of methods far from a minimum
                effects = np.asarray(made(), dtype=float)
            score = linear_datamodeling_score(effects, subsets, actual)
        except Exception as error:  # a peer's, which is what is measured
            seconds = time.perf_counter() - begun
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            _measure.say(f"  {name} {note}: fails after {seconds:.1f} s: {reason}")
            failed[name] = Score(model, name, np.nan, np.nan, np.nan, seconds, reason)
            continue
        seconds = time.perf_counter() - begun
        attributes = score.attrs
        result = Score(
            model,
            name,
            attributes["mean"],
            attributes["low"],
            attributes["high"],
            seconds,
            note,
        )
        _measure.say(f"  {name} {note}: {seconds:.1f} s, {result.mean:.3f}")
        if name not in best or best[name].mean < result.mean:
            best[name] = result
    without = [score for name, score in failed.items() if name not in best]
    return sorted(best.values(), key=lambda score: -score.mean) + without


@contextmanager
def at_most(minutes: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in what takes longer; of the main thread, and not on Windows."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {minutes:g} minutes")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def retraining_control(
    case: Training, run: wh.TrainingRun, subsets: Array, actual: Array
) -> Score:
    """Return how well trainings with another start and order predict these, subset by subset."""
    begun = time.perf_counter()
    other = case.run(seed=1)
    predicted = truth(other, case, subsets)
    mean = float(np.nanmean(spearman_rows(actual.T, predicted.T)))
    seconds = time.perf_counter() - begun
    return Score(
        case.name, "retraining, other seed", mean, mean, mean, seconds, "control"
    )


def classifier(
    case: Training, n_subsets: int, n_runs: int, given: argparse.Namespace
) -> list[Score]:
    """Return the scores of all methods on a classifier."""
    run = case.run()
    n = len(case.train[0])
    subsets = random_subsets(n, n_subsets, 1 - given.share, seed=1)
    actual = truth(run, case, subsets)
    runs = [case.run(seed) for seed in range(1, n_runs + 1)]
    scores = scored(case.name, ours(case, run), subsets, actual, given)
    scores += scored(case.name, ensembles(case, runs), subsets, actual, given)
    scores += scored(case.name, peers(case, run, runs), subsets, actual, given)
    if given.only:
        return scores
    scores.append(retraining_control(case, run, subsets, actual))
    rugged = case.run(eps=1e-8)
    of_rugged = truth(rugged, case, subsets)
    name = "replay of Adam with ε = 1e-8"
    alone = iter([(name, "", lambda: wh.Replay(rugged).attribute(wh.Loss(case.test)))])
    scores += scored(case.name, alone, subsets, of_rugged, given)
    return sorted(scores, key=lambda score: -np.nan_to_num(score.mean, nan=-np.inf))


def diffusion(n_subsets: int, given: argparse.Namespace) -> list[Score]:
    """Return the scores of whence's methods on a PINN, whose peers are wrong or refuse it."""
    problem = pinn.zoo.load("diffusion")
    points = problem.sample(dict.fromkeys(problem.terms, 200), seed=0)
    schedule = pinn.Adam(300, lr=3e-3, batch_size=50)
    options: dict[str, Any] = {
        "schedule": schedule,
        "keep": "last",
        "compile": False,
        "threads": 1,
        "progress": False,
    }
    at = problem.sample(dict.fromkeys(problem.terms, TEST), seed=7)["pde"]

    def trained(weights: dict[str, torch.Tensor] | None) -> pinn.Result:
        weighted: dict[str, Any] = dict(points)
        if weights is not None:
            for name, of_term in weights.items():
                weighted[name] = pinn.WeightedPoints(points[name], of_term)
        network = pinn.MLP([2, 16, 16, 1], seed=0)
        return pinn.train(problem, points=weighted, network=network, **options)

    run = trained(None)
    n = run.objective.n_points
    subsets = random_subsets(n, n_subsets, 1 - given.share, seed=1)
    rows = []
    for subset in subsets:
        weights = {}
        start = 0
        for name, term in run.objective.data_terms.items():
            part = subset[start : start + len(term.points)]
            weights[name] = torch.as_tensor(part, dtype=torch.float64)
            start += len(term.points)
        rows.append(np.asarray(trained(weights).solution(at)).reshape(-1))
    actual = np.stack(rows)

    quantity = wh.Output(at)
    objective = run.objective

    def methods() -> Iterator[tuple[str, str, Made]]:
        yield "replay", "", lambda: wh.Replay(run).attribute(quantity)
        for damping in (1e-8, 1e-5, *DAMPINGS):
            yield (
                "influence, exact",
                f"{damping:g}",
                lambda d=damping: wh.Influence(objective, damping=d).attribute(
                    quantity
                ),
            )
        yield "GradDot", "", lambda: wh.GradDot(objective).attribute(quantity)
        yield "gradient norm alone", "control", lambda: gradient_norms(objective)

    return scored("PINN diffusion", methods(), subsets, actual, given)


def rows(scores: list[Score]) -> list[Row]:
    """Return the table, with the bars: replay, and the best peer below it."""
    table = []
    for score in scores:
        bar = LEAST_SCORE if score.method == "replay" else None
        what = f"{score.model}: {score.method}"
        if np.isnan(score.mean):
            table.append(Row(what, None, "LDS", score.note, least=bar))
            continue
        detail = f"{score.low:.2f} to {score.high:.2f}, {score.seconds:.1f} s"
        if score.note:
            detail += f", {score.note}"
        table.append(Row(what, score.mean, "LDS", detail, least=bar))
    for model in dict.fromkeys(score.model for score in scores):
        of_model = [s for s in scores if s.model == model and not np.isnan(s.mean)]
        if not any(s.method == "replay" for s in of_model):
            continue
        libraries = ("dattri", "kronfluence", "pyDVL", "captum")
        theirs = [s.mean for s in of_model if s.method.startswith(libraries)]
        if not theirs:
            continue
        single = ("replay", "influence", "unrolled", "TracIn", "TRAK")
        best = max(s.mean for s in of_model if s.method.split(",")[0] in single)
        table.append(
            Row(
                f"{model}: best single run above the best library",
                best - max(theirs),
                "LDS",
                f"{best:.3f} and {max(theirs):.3f}",
                least=0.0,
            )
        )
    return table


def measure(given: argparse.Namespace) -> list[Row]:
    """Return the table of every method on every model."""
    n_subsets = 12 if given.quick else given.subsets
    n_runs = 2 if given.quick else ENSEMBLE
    scores = []
    for case in trainings(200 if given.quick else 600):
        if given.models and case.name not in given.models:
            continue
        _measure.say(f"{case.name}")
        scores += classifier(case, n_subsets, n_runs, given)
    if not given.models or "PINN diffusion" in given.models:
        _measure.say("PINN diffusion")
        scores += diffusion(n_subsets, given)
    return rows(scores)


def main() -> None:
    """Print the scores of every method on every model."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.05, help="left out")
    parser.add_argument("--models", nargs="*", default=None)
    parser.add_argument("--memory", type=float, default=16, help="GiB at most (16)")
    parser.add_argument("--minutes", type=float, default=60, help="a method at most")
    parser.add_argument("--only", default="", help="methods whose names match this")
    parser.add_argument("--skip", help="none with this in their names")
    given = parser.parse_args()
    _measure.limit_memory(given.memory)
    _measure.run(given, lambda: measure(given))


if __name__ == "__main__":
    main()
