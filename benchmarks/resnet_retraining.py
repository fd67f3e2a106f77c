"""ResNet-18, all layers: replay, EK-FAC, TRAK and others side by side, held against retraining.

``python -m benchmarks.resnet_retraining``. A ResNet-18 of 11.2 M parameters, trained before on
mirrored images, is given a new head and trained on a few thousand images, all layers; and again on
random subsets of them, from the same start and in the same order. Each method predicts the losses
of test images from the sums of effects of the images left out, in a fresh process that is given
model, run and images, of which seconds and peak memory are. The score is the Spearman correlation
over subsets (linear datamodeling score), mean over test images, with a bootstrap interval. Two
controls: the norm of an image's gradient alone, and retraining with another head and order.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import whence as wh
from benchmarks import _measure
from benchmarks._measure import Row, say
from benchmarks._resnet import Images, ResNet, images
from benchmarks._resnet import trained as trained_before
from benchmarks.lds import checkpoints, losses
from whence.evaluation import linear_datamodeling_score, random_subsets
from whence.evaluation.ranks import spearman_rows

WIDTH, SIDE, BATCH = 64, 64, 50
BEFORE_SEED, BEFORE_EPOCHS = 5, 2
RATE, MOMENTUM, DECAY = 5e-3, 0.9, 5e-4
"""At a larger rate, or from a random start, what a training comes to is a more rugged function of
its images' weights, of which a first-order prediction says less."""
DAMPINGS = (1e-3, 1e-2, 1e-1)
SAMPLES = 2
CHECKPOINTS = 3
LEAST_SCORE = 0.9
REPLAY_BUDGET = 4_000_000_000
"""Bytes of the derivatives by a state that a replay may hold: of 22 targets at once."""
LOSS = nn.CrossEntropyLoss()
RUN = "run.safetensors"

Array = np.ndarray[Any, np.dtype[Any]]
Method = Callable[[wh.TrainingRun, wh.Loss], Array]


def untrained(width: int) -> ResNet:
    """Return a network to put parameters into."""
    return ResNet(width, is_wide=True).eval()


def pretrained(width: int, n: int) -> ResNet:
    """Return a network that tells mirrored digits apart."""
    data = images(n, 1, seed=BEFORE_SEED, side=SIDE)
    mirrored = replace(data, x=data.x.flip(3), x_test=data.x_test.flip(3))
    model, _ = trained_before(width, mirrored, BEFORE_EPOCHS, is_wide=True)
    return model


def trained(start: ResNet, data: Images, epochs: int, seed: int) -> wh.TrainingRun:
    """Train with a new head, the rate rising once and falling to nothing; order by the seed."""
    model = copy.deepcopy(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.head.reset_parameters()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    steps = epochs * -(-len(data.x) // BATCH)
    # Momentum stays, where OneCycleLR would change it, too.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=steps + 1, cycle_momentum=False
    )
    return wh.train(
        model,
        (data.x, data.y),
        LOSS,
        optimizer,
        epochs=epochs,
        batch_size=BATCH,
        scheduler=schedule,
        seed=seed,
    )


def retrained(
    folder: Path,
    name: str,
    run: Callable[[], wh.TrainingRun],
    data: Images,
    subsets: Array,
) -> Array:
    """Return the test losses of the same training on subsets, (subsets, test).

    Those of a training that the folder has are read.
    """
    rows = []
    for k, subset in enumerate(subsets):
        path = folder / f"{name}-{k}.npy"
        if not path.exists():
            weights = torch.as_tensor(subset, dtype=torch.float32)
            seconds, model = _measure.once(lambda w=weights: run().retrained(w))
            np.save(path, losses(model, (data.x_test, data.y_test)))
            say(f"  training {k + 1} of {len(subsets)}: {seconds:.0f} s")
        rows.append(np.load(path))
    return np.stack(rows)


# --- methods, each in a process of its own ---


def ekfac(run: wh.TrainingRun, targets: wh.Loss) -> Array:
    """Return influences for each damping, (dampings, test, train), of one factorisation."""
    first = wh.Influence(
        run.objective, solver=wh.EKFAC(mc_samples=SAMPLES), damping=DAMPINGS[0]
    )
    found = [
        first.with_damping(damping).attribute(targets).values for damping in DAMPINGS
    ]
    return np.stack(found)


def tracin(run: wh.TrainingRun, targets: wh.Loss) -> Array:
    """Return products of gradients, summed over states along the training."""
    states = checkpoints(run, CHECKPOINTS)
    return wh.TracIn(run.objective, states).attribute(targets).values


def gradient_norms(run: wh.TrainingRun, targets: wh.Loss) -> Array:
    """Return the norm of each training image's gradient, (1, train): the same for every target."""
    own = wh.GradDot(run.objective).self_influence()
    norms = np.sqrt(np.maximum(own.values, 0))
    return norms[None]


METHODS: dict[str, Method] = {
    "replay": lambda run, targets: (
        wh.Replay(run, memory_budget=REPLAY_BUDGET).attribute(targets).values
    ),
    f"EKFAC(mc_samples={SAMPLES})": ekfac,
    "TRAK": lambda run, targets: wh.TRAK(run.objective).attribute(targets).values,
    f"TracIn, {CHECKPOINTS} states": tracin,
    "GradDot": lambda run, targets: wh.GradDot(run.objective).attribute(targets).values,
    "gradient norm alone (control)": gradient_norms,
}


def measured(folder: Path, name: str, width: int, threads: int) -> None:
    """Attribute in this process, and write the effects and what it took."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", wh.FarFromMinimum)
    data = Images.read(folder)
    run = loaded(folder, data, width)
    targets = wh.Loss((data.x_test, data.y_test))
    begun = time.perf_counter()
    effects = METHODS[name](run, targets)
    seconds = time.perf_counter() - begun
    np.savez(
        effects_of(folder, name),
        effects=effects,
        seconds=seconds,
        bytes=_measure.peak_bytes(),
    )
    print(json.dumps({}))


def effects_of(folder: Path, name: str) -> Path:
    """Return where the effects by a method are kept."""
    return folder / f"effects-{list(METHODS).index(name)}.npz"


def loaded(folder: Path, data: Images, width: int) -> wh.TrainingRun:
    """Return the training that a folder has."""
    return wh.TrainingRun.load(folder / RUN, untrained(width), (data.x, data.y), LOSS)


def compared(
    names: list[str],
    folder: Path,
    width: int,
    threads: int,
    subsets: Array,
    actual: Array,
) -> list[Row]:
    """Return a row for each method; of one that was run before, from its effects."""
    table = []
    for name in names:
        path = effects_of(folder, name)
        if not path.exists():
            _measure.child(
                "benchmarks.resnet_retraining",
                "measured",
                str(folder),
                name,
                str(width),
                str(threads),
            )
        with np.load(path) as taken:
            effects = taken["effects"]
            cost = f"{taken['seconds']:.0f} s, {taken['bytes'] / 2**30:.2f} GiB"
        if len(effects) == 1:
            effects = np.repeat(effects, actual.shape[1], axis=0)
        by_damping = effects if effects.ndim == 3 else effects[None]
        for damping, of_damping in zip(DAMPINGS, by_damping, strict=False):
            score = linear_datamodeling_score(of_damping, subsets, actual).attrs
            what = f"{name}, damping {damping:g}" if effects.ndim == 3 else name
            detail = f"{score['low']:.2f} to {score['high']:.2f}, {cost}"
            bar = LEAST_SCORE if name == "replay" else None
            table.append(Row(what, score["mean"], "LDS", detail, least=bar))
            say(f"  {what}: {score['mean']:.3f}, {detail}")
    return table


def prepared(folder: Path, given: argparse.Namespace, n: int, width: int) -> float:
    """Put images and a training into a folder that has none; return the training's seconds.

    Raises
    ------
    ValueError
        If the folder is of a benchmark with other settings.
    """
    settings = {
        "width": width,
        "images": n,
        "epochs": given.epochs,
        "targets": given.targets,
        "subsets": given.subsets,
        "share": given.share,
        "threads": given.threads,
    }
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        if {**settings, "seconds": before["seconds"]} != before:
            raise ValueError(f"{folder} is of {before}, not of {settings}")
        return float(before["seconds"])

    data = images(n, given.targets, side=SIDE)
    start = pretrained(width, n)
    seconds, run = _measure.once(lambda: trained(start, data, given.epochs, seed=0))
    data.write(folder)
    run.save(folder / RUN)
    path.write_text(json.dumps({**settings, "seconds": seconds}))
    return seconds


def rows(given: argparse.Namespace, folder: Path) -> list[Row]:
    """Train, retrain on subsets, and hold each method against them."""
    width = 8 if given.quick else given.width
    n = 200 if given.quick else given.images
    folder.mkdir(parents=True, exist_ok=True)
    seconds = prepared(folder, given, n, width)
    data = Images.read(folder)
    run = loaded(folder, data, width)
    size = sum(parameter.numel() for parameter in run.model.parameters())
    with torch.no_grad():
        right = run.model(data.x_test).argmax(dim=1) == data.y_test
    accuracy = float(right.double().mean())
    say(
        f"{size} parameters; {len(run)} steps in {seconds:.0f} s; {accuracy:.0%} of the test "
        "images are right"
    )

    subsets = random_subsets(n, given.subsets, 1 - given.share, seed=1)
    actual = retrained(folder, "losses", lambda: run, data, subsets)
    names = [name for name in METHODS if re.search(given.only, name)]
    table = compared(names, folder, width, given.threads, subsets, actual)

    detail = f"{size / 1e6:.1f} M parameters, {n} images, {len(run)} steps, {accuracy:.0%} right"
    table.insert(0, Row("one training", seconds, "s", detail))
    if given.only:
        return table

    @functools.cache
    def other() -> wh.TrainingRun:
        return trained(pretrained(width, n), data, given.epochs, seed=1)

    again = retrained(folder, "other", other, data, subsets)
    control = float(np.nanmean(spearman_rows(actual.T, again.T)))
    table.append(Row("retraining, other seed (control)", control, "LDS"))
    return table


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["measured"]:
        folder, name, *numbers = sys.argv[2:]
        measured(Path(folder), name, *map(int, numbers))
        return
    parser = _measure.parser(__doc__)
    parser.add_argument("--width", type=int, default=WIDTH, help="64: ResNet-18")
    parser.add_argument("--images", type=int, default=2000, help="for training (2000)")
    parser.add_argument("--epochs", type=int, default=2, help="of the training (2)")
    parser.add_argument("--targets", type=int, default=5, help="test losses (5)")
    parser.add_argument("--subsets", type=int, default=16, help="trainings (16)")
    parser.add_argument("--share", type=float, default=0.05, help="left out (0.05)")
    parser.add_argument("--only", default="", help="methods whose names match this")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keeps what is done: the same command goes on from there",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _measure.run(given, lambda: rows(given, given.folder or Path(scratch)))


if __name__ == "__main__":
    main()
