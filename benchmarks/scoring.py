"""Influence scores for resampling, beside captum's Arnoldi influence and a loop over DeepXDE.

``python -m benchmarks.scoring``: diffusion, 2241 parameters, 1000 training points, 1000 test points
× 10,000 candidates, factorisation included: |Σ_t I(t, x)| and Σ_t |I(t, x)| for every candidate x.
Then up to 1,000,000 candidates, each number in a fresh process. Spearman correlations say how far
the peers' scores agree with the exact ones.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row
from whence import pinn
from whence.pinn.sampling.scores.base import SCORE_DAMPING

Reduce = Literal["abs_of_sum", "sum_of_abs"]
LABELS: dict[Reduce, str] = {"abs_of_sum": "|Σ|", "sum_of_abs": "Σ|·|"}
BARS: dict[Reduce, float] = {"abs_of_sum": 0.5, "sum_of_abs": 2.5}
TIMES_FASTER = 50
MANY_SECONDS, MANY_GIBIBYTES, EXPONENT = 30, 2, 1.05
MANY_REPEATS = 3
# Points that share a forward pass: the fastest of 1, 10, 50 and 100 for both peers.
BATCH = 50


@dataclass(frozen=True)
class Sizes:
    """How many points of each kind."""

    training: int = 1000
    test: int = 1000
    candidates: int = 10_000
    many: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    repeats: int = 7
    arnoldi: int = 4
    """Krylov dimension by which captum with batches of one point is extrapolated."""
    sample: int = 200
    """Gradients by which it is extrapolated."""


QUICK = Sizes(100, 50, 200, (500, 1000, 2000), repeats=2, arnoldi=3, sample=10)


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, its trained objective, and the points to score."""

    problem: pinn.Problem
    network: pinn.MLP
    objective: wh.Objective
    test: Tensor
    candidates: Tensor

    @property
    def training(self) -> Tensor:
        """The training points."""
        return self.objective.terms["pde"].points

    def score(self, reduce: Reduce) -> Tensor:
        """Return whence's score of every candidate."""
        quantity = wh.Loss({"pde": self.test})
        scorer = pinn.InfluenceScore(reduce=reduce, quantity=quantity)
        return scorer.score(self.objective, self.candidates)


def case(sizes: Sizes, candidates: int) -> Case:
    """Return a case after a few steps of training, as where points are first resampled."""
    problem = pinn.zoo.load("diffusion")
    network = problem.network(seed=0)
    schedule = [pinn.GaussNewton(10)]
    result = pinn.train(
        problem,
        network,
        points=sizes.training,
        schedule=schedule,
        keep="last",
        progress=False,
    )
    test = problem.draw("pde", sizes.test, seed=1, method="random")
    pool = problem.draw("pde", candidates, seed=2, method="random")
    return Case(problem, network, result.objective, test, pool)


def reduced(matrix: Tensor, reduce: Reduce) -> Tensor:
    """Return a score for every column of (test points or their sum, candidates)."""
    return (
        matrix.sum(dim=0).abs() if reduce == "abs_of_sum" else matrix.abs().sum(dim=0)
    )


@dataclass(frozen=True, eq=False)
class Peer:
    """What another library needed for the same scores, and the scores themselves."""

    name: str
    seconds: dict[Reduce, float]
    scores: dict[Reduce, Tensor]
    barred: bool
    note: str = ""


def captum(given: Case) -> Peer:
    """Return captum's rank-50 scores, in the batches that suit it best."""
    from benchmarks import _captum  # not in the processes whose memory is measured

    _measure.say("captum, Arnoldi, rank 50")
    model = _captum.Residual(given.problem, given.network)

    def matrix() -> Tensor:
        batches = (len(given.training), BATCH)
        function = _captum.prepared(model, given.training, given.candidates, batches)
        return _captum.influence(function, given.test, BATCH)

    seconds, found = _measure.once(matrix)
    scores = {reduce: reduced(found, reduce) for reduce in LABELS}
    return Peer(
        "captum Arnoldi, rank 50", dict.fromkeys(LABELS, seconds), scores, barred=True
    )


def captum_by_default(given: Case, sizes: Sizes) -> Row:
    """Return how long captum takes with its default batches of one point, extrapolated."""
    from benchmarks import _captum

    _measure.say("captum, its default batches of one point")
    model = _captum.Residual(given.problem, given.network)
    half = sizes.sample // 2
    few = given.candidates[:half]
    krylov, function = _measure.once(
        lambda: _captum.prepared(model, given.training, few, (1, 1), sizes.arnoldi)
    )
    grads, _ = _measure.once(lambda: _captum.influence(function, given.test[:half], 1))
    dimension = _captum.DIMENSION
    total = krylov * dimension / sizes.arnoldi
    total += grads * (len(given.test) + len(given.candidates)) / (2 * half)
    detail = (
        f"extrapolated linearly from {sizes.arnoldi} of {dimension} Hessian products and "
        f"{2 * half} of {len(given.test) + len(given.candidates)} gradients"
    )
    return Row("captum Arnoldi, default batches of one point", total, "s", detail)


def deepxde(given: Case, batch: int) -> Peer:
    """Return exact scores from gradients that are made by a loop over DeepXDE's residuals."""
    from benchmarks import _deepxde

    _measure.say(f"DeepXDE, gradients by a loop, {batch} point(s) a forward pass")
    net = _deepxde.network(given.problem, given.network)

    def loss_gradients(points: Tensor) -> Tensor:
        rows, values = _deepxde.gradients(given.problem, net, points, batch)
        return 2 * values.unsqueeze(1) * rows

    def scores(reduce: Reduce) -> Tensor:
        rows, _ = _deepxde.gradients(given.problem, net, given.training, batch)
        if reduce == "abs_of_sum":
            targets = _deepxde.loss_gradient(given.problem, net, given.test).unsqueeze(
                0
            )
        else:
            targets = loss_gradients(given.test)
        solved = dual_solve(rows * math.sqrt(2 / len(rows)), targets.T)
        return reduced((loss_gradients(given.candidates) @ solved).T, reduce)

    found = {reduce: _measure.once(lambda r=reduce: scores(r)) for reduce in LABELS}
    return Peer(
        f"DeepXDE gradients, {'point by point' if batch == 1 else f'batches of {batch}'}",
        {reduce: seconds for reduce, (seconds, _) in found.items()},
        {reduce: values for reduce, (_, values) in found.items()},
        barred=batch == 1,
        note=""
        if batch == 1
        else f"{batch} points share a forward pass, each has its backward",
    )


def dual_solve(rows: Tensor, right: Tensor) -> Tensor:
    """Return ``(JᵀJ + λI)⁻¹ b = (b − Jᵀ(JJᵀ + λI)⁻¹Jb)/λ``, λ relative as in whence's scores."""
    gram = rows @ rows.T
    damping = SCORE_DAMPING * float(torch.linalg.eigvalsh(gram)[-1])
    gram.diagonal().add_(damping)
    factor = torch.linalg.cholesky(gram)
    return (right - rows.T @ torch.cholesky_solve(rows @ right, factor)) / damping


def compare(sizes: Sizes) -> list[Row]:
    """Return the times of whence and of its peers for the same scores."""
    given = case(sizes, sizes.candidates)
    scorers: dict[str, Callable[[], Tensor]] = {
        reduce: lambda r=reduce: given.score(r) for reduce in LABELS
    }
    ours = _measure.paired(scorers, sizes.repeats)
    what = f"{sizes.test} × {sizes.candidates} scores"
    rows = [
        Row(
            f"{what}, {label}",
            ours[reduce].median,
            "s",
            str(ours[reduce]),
            most=BARS[reduce],
        )
        for reduce, label in LABELS.items()
    ]
    exact = {reduce: given.score(reduce) for reduce in LABELS}
    for peer in (captum(given), deepxde(given, 1), deepxde(given, BATCH)):
        for reduce, label in LABELS.items():
            correlation = float(spearmanr(exact[reduce], peer.scores[reduce])[0])
            rows.append(
                Row(
                    f"{what}, {label}: faster than {peer.name}",
                    peer.seconds[reduce] / ours[reduce].median,
                    "x",
                    f"{peer.seconds[reduce]:.3g} s; Spearman {correlation:.4f}"
                    + (f"; {peer.note}" if peer.note else ""),
                    least=TIMES_FASTER
                    if peer.barred and reduce == "abs_of_sum"
                    else None,
                )
            )
    return [*rows, captum_by_default(given, sizes)]


def score_many(count: int, threads: int, quick: bool) -> dict[str, float]:
    """Return seconds and peak bytes of scoring ``count`` candidates in this process."""
    torch.set_num_threads(threads)
    given = case(QUICK if quick else Sizes(), count)
    replace(given, candidates=given.candidates[:100]).score(
        "abs_of_sum"
    )  # which loads code
    taken = [
        _measure.once(lambda: given.score("abs_of_sum"))[0] for _ in range(MANY_REPEATS)
    ]
    return {
        "candidates": count,
        "seconds": statistics.median(taken),
        "bytes": _measure.peak_bytes(),
    }


def many(sizes: Sizes, arguments: list[str]) -> list[Row]:
    """Return time, memory and growth up to the largest number of candidates."""
    found = []
    for count in sizes.many:
        seen = _measure.child(
            "benchmarks.scoring", "--candidates", str(count), *arguments
        )
        found.append(seen)
        _measure.say(f"  {count} candidates: {seen['seconds']:.3g} s")
    counts, seconds = (
        [entry[key] for entry in found] for key in ("candidates", "seconds")
    )
    exponent = float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])
    last = found[-1]
    what = f"{last['candidates']} candidates, |Σ|"
    each = ", ".join(f"{s:.3g} s for {n}" for n, s in zip(counts, seconds, strict=True))
    return [
        Row(what, last["seconds"], "s", "in a fresh process", most=MANY_SECONDS),
        Row(
            f"{what}: peak memory",
            last["bytes"] / 2**30,
            "GiB",
            "of the process, libraries included",
            most=MANY_GIBIBYTES,
        ),
        Row("time ∝ candidates to the power of", exponent, "", each, most=EXPONENT),
    ]


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.candidates is not None:
        print(json.dumps(score_many(given.candidates, given.threads, given.quick)))
        return
    sizes = QUICK if given.quick else Sizes()
    passed = ["--threads", str(given.threads), *(["--quick"] if given.quick else [])]
    _measure.run(given, lambda: [*compare(sizes), *many(sizes, passed)])


if __name__ == "__main__":
    main()
