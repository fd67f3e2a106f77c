"""Influences on a ResNet-18: EKFAC against the exact answer, and 11 M parameters in float32.

``python -m benchmarks.resnet_curvature``. First width 8, 176,402 parameters and 240 images, all
layers: Spearman's correlation over training images with the exact Gauss–Newton influence in double
precision, mean over 100 test losses, of EKFAC as it is and as published, and, with
``--kronfluence PYTHON`` (an interpreter that has it), of kronfluence's EK-FAC with the same
absolute damping, by the layers that it knows. Then width 64 in a fresh process, with nothing but
model, data and loss: residual, seconds, peak memory. ``--ceiling`` adds what any method could reach
that takes layers as independent: each layer's exact block.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy.stats import spearmanr
from torch import nn

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row, say
from benchmarks._resnet import Images, ResNet, images, trained

DAMPINGS = {1e-3: 0.8, 1e-1: 0.95}
"""Relative dampings, and the correlation that EKFAC must reach at each."""
MOST_RESIDUAL, MOST_SECONDS, MOST_GIB = 1e-2, 300.0, 4.0
SMALL, LARGE = 8, 64
SAMPLED = "EKFAC(mc_samples=1)"
SOLVERS = {
    "EKFAC()": wh.EKFAC(),
    "EKFAC(coupled=0)": wh.EKFAC(coupled=0),
    SAMPLED: wh.EKFAC(mc_samples=1),
    "EKFAC(mc_samples=3)": wh.EKFAC(mc_samples=3),
}
BARS = {"EKFAC()": DAMPINGS}
FACTOR = 2.0
TEST_IMAGES = 10
"""Test images of the large network."""


def agreement(found: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Return the mean rank correlation over targets, and the ratio of sizes."""
    pairs = zip(found, exact, strict=True)
    correlations = [spearmanr(row, expected)[0] for row, expected in pairs]
    ratio = np.linalg.norm(found) / np.linalg.norm(exact)
    return float(np.mean(correlations)), float(ratio)


def influence(model: ResNet, data: Images, **options: Any) -> wh.Influence:
    """Return the influence of the training images."""
    return wh.Influence(model, (data.x, data.y), nn.CrossEntropyLoss(), **options)


def exact_answers(
    state: dict[str, Any], data: Images
) -> tuple[dict[float, np.ndarray], float]:
    """Return the exact influences in double precision by damping, and the largest eigenvalue."""
    model = ResNet(SMALL)
    model.load_state_dict(state)
    doubled = Images(data.x.double(), data.y, data.x_test.double(), data.y_test)
    made = influence(model.double().eval(), doubled, damping=min(DAMPINGS))
    targets = wh.Loss(doubled.x_test, doubled.y_test)
    made.state()
    answers = {}
    for damping in DAMPINGS:
        attribution = made.with_damping(damping).attribute(targets)
        answers[damping] = attribution.values
        say(f"  exact, damping {damping}: {attribution.attrs['solver_residual']:.0e}")
    return answers, made.state().spectrum.largest_eigenvalue


def of_kronfluence(
    python: str,
    state: dict[str, Any],
    data: Images,
    dampings: list[float],
    threads: int,
) -> list[tuple[np.ndarray, float]]:
    """Return kronfluence's scores and seconds for each absolute damping."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = {
            "x": data.x,
            "y": data.y,
            "x_test": data.x_test,
            "y_test": data.y_test,
            "dampings": torch.tensor(dampings, dtype=torch.float64),
        }
        safetensors.torch.save_file(job, folder / "data.safetensors")
        safetensors.torch.save_file(state, folder / "state.safetensors")
        module = "benchmarks._kronfluence_resnet"
        command = [python, "-m", module, scratch, str(SMALL), str(threads)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = np.load(folder / "seconds.npy")
        scores = [np.load(folder / f"scores_{k}.npy") for k in range(len(dampings))]
    return list(zip(scores, seconds.tolist(), strict=True))


def ceiling(model: ResNet, data: Images, damping: float, largest: float) -> np.ndarray:
    """Return the influences by the exact curvature of each layer, layers independent."""
    total: np.ndarray | None = None
    absolute = wh.Damping(damping * largest, relative=False)
    names = dict.fromkeys(
        name.rpartition(".")[0] for name, _ in model.named_parameters()
    )
    for name in names:
        made = influence(model, data, parameters=f"{name}.*", damping=absolute)
        values = made.attribute(wh.Loss(data.x_test, data.y_test)).values
        total = values if total is None else total + values
    assert total is not None
    return total


def small(epochs: int, n: int, given: argparse.Namespace) -> list[Row]:
    """Return the rows on EKFAC."""
    data = images(n, n_test=100 if n > 100 else 20)
    model, accuracy = trained(SMALL, data, epochs)
    say(f"width {SMALL}: {accuracy:.0%} of the test images are right")
    answers, largest = exact_answers(model.state_dict(), data)
    exact = Exact(f"ResNet-18 width {SMALL}, {n} images, damping", answers, largest)

    rows = []
    for name, solver in SOLVERS.items():
        found = of_solver(solver, model, data, exact)
        rows += exact.rows(name, found, BARS.get(name, {}))
        if name == SAMPLED:
            sampled = found

    if given.kronfluence:
        lambdas = [damping * largest for damping in DAMPINGS]
        state = model.state_dict()
        scores = of_kronfluence(given.kronfluence, state, data, lambdas, given.threads)
        theirs = dict(zip(DAMPINGS, scores, strict=True))
        rows += exact.rows("kronfluence", theirs, {})
        rows += exact.ratios(theirs, sampled)
    if given.ceiling:
        blocks = {d: (ceiling(model, data, d, largest), np.nan) for d in DAMPINGS}
        rows += exact.rows("exact blocks of single layers", blocks, {})
    return rows


Found = Mapping[float, tuple[np.ndarray, float]]
"""Influences and seconds by damping."""


@dataclass(frozen=True)
class Exact:
    """The exact answers by damping, and what a table calls them."""

    what: str
    answers: Mapping[float, np.ndarray]
    largest: float

    def rows(self, name: str, found: Found, bars: Mapping[float, float]) -> list[Row]:
        """Return how well influences agree."""
        rows = []
        for damping, (values, seconds) in found.items():
            correlation, ratio = agreement(values, self.answers[damping])
            detail = f"sizes {ratio:.2g} times the exact; {seconds:.0f} s"
            what = f"{self.what} {damping}: {name}"
            bar = bars.get(damping)
            rows.append(Row(what, correlation, "", detail, least=bar))
        return rows

    def ratios(self, theirs: Found, ours: Found) -> list[Row]:
        """Return how much faster the factors of samples are, where they agree as well."""
        rows = []
        for damping, (values, seconds) in theirs.items():
            own, own_seconds = ours[damping]
            first, _ = agreement(values, self.answers[damping])
            second, _ = agreement(own, self.answers[damping])
            what = f"{self.what} {damping}: seconds of kronfluence over {SAMPLED}"
            detail = f"agreement {first:.3f} and {second:.3f}"
            rows.append(Row(what, seconds / own_seconds, "×", detail, least=FACTOR))
        return rows


def of_solver(
    solver: wh.EKFAC, model: ResNet, data: Images, exact: Exact
) -> dict[float, tuple[np.ndarray, float]]:
    """Return a solver's influences and seconds by damping, its factors made once."""
    targets = wh.Loss(data.x_test, data.y_test)
    absolute = {
        damping: wh.Damping(damping * exact.largest, relative=False)
        for damping in DAMPINGS
    }
    begun = time.perf_counter()
    made = influence(model, data, solver=solver, damping=absolute[min(DAMPINGS)])
    made.state()
    factored = time.perf_counter() - begun

    found = {}
    for damping in DAMPINGS:
        begun = time.perf_counter()
        values = made.with_damping(absolute[damping]).attribute(targets).values
        seconds = factored + time.perf_counter() - begun
        found[damping] = (values, seconds)
    return found


def measured(path: str, n: int, threads: int) -> None:
    """Attribute by the large network in this process, and print what it took."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", wh.FarFromMinimum)
    data = images(n)
    model = ResNet(LARGE)
    model.load_state_dict(safetensors.torch.load_file(path))
    model.eval()
    made = influence(model, data)
    planned = made.plan(wh.Loss())

    begun = time.perf_counter()
    cpu = time.process_time()
    own = made.attribute(wh.Loss())
    seconds = time.perf_counter() - begun
    cpu = time.process_time() - cpu
    some = wh.Loss(data.x_test[:TEST_IMAGES], data.y_test[:TEST_IMAGES])
    begun = time.perf_counter()
    others = made.attribute(some)
    print(
        json.dumps(
            {
                "solver": f"{planned.solver} ({planned.form})",
                "planned_seconds": planned.seconds,
                "planned_bytes": planned.bytes,
                "seconds": seconds,
                "cpu": cpu,
                "residual": own.attrs["solver_residual"],
                "more_seconds": time.perf_counter() - begun,
                "more_residual": others.attrs["solver_residual"],
                "bytes": _measure.peak_bytes(),
            }
        )
    )


def large(epochs: int, n: int, threads: int) -> list[Row]:
    """Return the rows on the large network."""
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "state.safetensors")
        model, accuracy = trained(LARGE, images(n), epochs)
        say(f"width {LARGE}: {accuracy:.0%} of the test images are right")
        safetensors.torch.save_file(model.state_dict(), path)
        size = sum(parameter.numel() for parameter in model.parameters())
        taken = _measure.child(
            "benchmarks.resnet_curvature", "measured", path, str(n), str(threads)
        )

    what = f"Influence() on {size / 1e6:.1f} M parameters, float32, {n} images"
    planned = (
        f"planned: {taken['planned_seconds']:.0f} s, "
        f"{taken['planned_bytes'] / 2**30:.1f} GiB"
    )
    more = f"{TEST_IMAGES} test losses more"
    return [
        Row(
            f"{what}: residual",
            taken["residual"],
            "",
            taken["solver"],
            most=MOST_RESIDUAL,
        ),
        Row(
            f"{what}: time, {n} training losses",
            taken["seconds"],
            "s",
            f"{taken['cpu']:.0f} s of processors; {planned}",
            most=MOST_SECONDS,
        ),
        Row(f"{what}: peak memory", taken["bytes"] / 2**30, "GiB", most=MOST_GIB),
        Row(
            f"{what}: residual, {more}", taken["more_residual"], "", most=MOST_RESIDUAL
        ),
        Row(f"{what}: time, {more}", taken["more_seconds"], "s"),
    ]


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["measured"]:
        measured(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = _measure.parser(__doc__)
    parser.add_argument("--kronfluence", help="a Python that has kronfluence")
    parser.add_argument("--ceiling", action="store_true", help="exact blocks, too")
    parser.add_argument("--part", choices=("both", "small", "large"), default="both")
    given = parser.parse_args()

    def measure() -> list[Row]:
        rows = []
        n = 20 if given.quick else 240
        if given.part != "large":
            rows += small(2 if given.quick else 20, n, given)
        if given.part != "small":
            rows += large(1 if given.quick else 8, n, given.threads)
        return rows

    _measure.run(given, measure)


if __name__ == "__main__":
    main()
