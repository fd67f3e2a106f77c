"""``whence train``: train a network on a problem and leave a run folder."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from whence.catalogue import (
    NETWORKS,
    OPTIMIZERS,
    RESAMPLERS,
    SCORES,
    SELECTIONS,
    WEIGHTINGS,
)
from whence.cli import EXIT_ERROR, EXIT_INTERRUPTED
from whence.cli.flags import groups_of, with_groups
from whence.cli.parsing import parsed
from whence.cli.sources import source_of
from whence.cli.training import AUTO, BEST, Training, TrainOptions
from whence.pinn.training.automatic import automatic_recipe
from whence.pinn.training.choices import GROWING
from whence.pinn.training.configuration import Origin
from whence.pinn.training.observers import say
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import FIRST_SLAB, SLABS, RunFolder
from whence.pinn.training.train import train
from whence.pinn.training.variant import GOOD

COMPILE: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}
SKIPPED = ("seed", "iterations", "dtype")
"""Options of classes that the command line sets otherwise."""
AUTO_SECONDS = 300.0
"""Time that a recipe is chosen for where none is given."""
MIN_TRIED = 30.0
"""Least time limit with which a file without a recipe has one chosen by trials."""


_NAMES = [field.name for field in dataclasses.fields(TrainOptions)]
GROUPS = groups_of(
    (RESAMPLERS, SCORES, SELECTIONS, OPTIMIZERS, WEIGHTINGS, NETWORKS), _NAMES
)
Options = with_groups(TrainOptions, GROUPS, SKIPPED)


def run(options: TrainOptions, arguments: Sequence[str]) -> int:
    """Train as the options say; return the exit code."""
    if Path(options.problem).is_dir():
        options, arguments = from_run_folder(options, arguments)

    options, arguments = with_choice(options, arguments)
    training = Training(options, GROUPS, source_of(options.problem))
    schedule = training.schedule()
    resampler = training.resampler()
    training.check_used(schedule, resampler)

    out = folder_of(options)
    is_file = options.problem.endswith(".py")
    # So that --resume needs no more than the folder.
    origin = Origin(
        problem_file=Path(options.problem) if is_file else None,
        constraints=training.constraints,
        command=tuple(arguments),
    )

    slabs = training.recipe.slabs
    arguments_of_run: dict[str, Any] = {
        "points": training.points(),
        "schedule": schedule,
        "weights": training.weights(),
        "sampling": options.sampling,
        "seed": options.seed,
        "device": options.device,
        "out": out,
        "max_seconds": training.max_seconds(),
        "resume": options.resume,
        "compile": COMPILE[options.compile],
        "threads": training.threads(),
        "progress": not options.quiet,
        "origin": origin,
    }
    if slabs is not None:
        # Its recipe is the best one, which no flag has changed: there is nothing else to tell.
        result = slabs.train(training.problem, training.network(), **arguments_of_run)
        return report(result, out)

    result = train(
        training.problem,
        training.network(),
        resample=resampler,
        weighting=training.weighting(),
        observers=training.observers(),
        hold_out=options.hold_out,
        pinned=training.recipe.pinned,
        validation=training.recipe.validation,
        test=training.test(),
        keep=options.keep or training.recipe.keep,
        dtype=getattr(torch, options.dtype),
        start=options.start,
        **arguments_of_run,
    )
    return report(result, out)


def folder_of(options: TrainOptions) -> Path:
    """Return the run folder: that asked for, or one of problem, variant and seed."""
    name = Path(options.problem).stem  # of a file its name, of the zoo the problem's
    if options.variant not in (None, GOOD):
        name = f"{name}-{options.variant}"
    return options.out or Path("runs") / f"{name}-{options.seed}"


def with_choice(
    options: TrainOptions, arguments: Sequence[str]
) -> tuple[TrainOptions, Sequence[str]]:
    """Return the options with a recipe chosen by trials, where one is to be, and the arguments.

    A run that is resumed keeps its choice.
    """
    source = source_of(options.problem)
    is_auto = options.recipe == AUTO
    has_recipe = source.has_recipe(options.variant)
    if not is_auto and (options.recipe != BEST or has_recipe or options.setting):
        return options, arguments

    # Of the plain recipe: what is wrong with the flags is said before any trial.
    plain = Training(dataclasses.replace(options, recipe=BEST), GROUPS, source)
    variant_trains = source.variant_trains(options.variant)
    sets_training = plain.sets_training() or variant_trains
    if is_auto and sets_training:
        raise ValueError(
            "--recipe auto chooses how to train: leave out the flags that say so too"
        )
    has_time = options.max_seconds is None or options.max_seconds >= MIN_TRIED
    if not is_auto and (sets_training or not has_time):
        return options, arguments
    plain.points()
    plain.weights()
    plain.threads()

    begun = time.perf_counter()
    out = folder_of(options)
    choice = chosen_before(out) if options.resume else None
    if choice is None:
        if not options.resume:
            RunFolder(out).check_free()
        problem = source.problem(options.constraints, options.variant)
        # What is wrong with the network, too; what it draws is not to change what is trained.
        with torch.random.fork_rng(devices=[]):
            source.network(problem, options.seed)
        automatic = automatic_recipe(
            problem,
            options.max_seconds or AUTO_SECONDS,
            network=lambda seed: source.network(problem, seed),
            seed=options.seed,
        )
        choice = automatic.choice
        for reason in automatic.reasons:
            say(reason)
        say(f"chosen: --recipe {choice}")

    options = dataclasses.replace(options, recipe=choice)
    if choice == GROWING and not options.resume:
        # What the trials took is gone; solving for features ends by itself.
        left = (options.max_seconds or AUTO_SECONDS) - (time.perf_counter() - begun)
        options = dataclasses.replace(options, max_seconds=left)
    return options, [*arguments, "--recipe", choice]


def chosen_before(out: Path) -> str | None:
    """Return the choice of the run in a folder, or of the first of its slabs; None if none."""
    folder = begun_run(out)
    if not folder.exists():
        return None

    command = folder.config().get("command") or []
    recipes = [v for flag, v in itertools.pairwise(command) if flag == "--recipe"]
    return recipes[-1] if recipes else None


def begun_run(path: Path) -> RunFolder:
    """Return the run of a folder; of slabs that are not joined yet the first one's.

    Each slab has the command line and the problem's file that all of them were made with.
    """
    folder = RunFolder(path)
    first_slab = RunFolder(path / SLABS / FIRST_SLAB)
    if first_slab.exists() and not folder.exists():
        return first_slab
    return folder


def report(result: Result, out: Path) -> int:
    """Print what came of a run; return the exit code."""
    summary = result.summary
    if summary["failure"]:
        print(
            f"whence: error: {summary['failure']}; {out} holds the last good state",
            file=sys.stderr,
        )
        return EXIT_ERROR

    # The error where a reference is known, else the loss at fresh points.
    error = summary["relative_l2"]
    quality = f"validation loss {summary['validation_loss']:.2e}"
    if error is not None:
        quality = f"relative L2 error {error:.2e}"
    print(
        f"{result.problem.label}: {quality} after {summary['iterations']} iterations in "
        f"{summary['seconds']:.0f} s with {summary['points']} points ({summary['stopped_by']})"
    )
    print(
        f"run: {out}  (summary.json, history.csv, points.npz, checkpoint.safetensors)"
    )
    if summary["stopped_by"] == "interrupted":
        print(f"go on with: whence train {out} --resume")
        return EXIT_INTERRUPTED

    print(f"next: whence influence {out}   and   whence plot {out}")
    return 0


def from_run_folder(
    options: TrainOptions, arguments: Sequence[str]
) -> tuple[TrainOptions, Sequence[str]]:
    """Return the options that a run was made with, those of now on top, and its command line."""
    run_folder = Path(options.problem)
    if not options.resume:
        raise ValueError(
            f"{run_folder} is a folder: name a problem, or go on with a run by --resume"
        )

    folder = begun_run(run_folder)
    command = folder.config().get("command")
    if not command:
        raise ValueError(
            f"{run_folder} was not made by whence train: resume it from Python, with the same "
            "options, pinn.train(..., out=..., resume=True)"
        )

    # The folder has a copy of the problem file: the original may have moved or changed.
    original = list(command)
    file = folder.problem_file()
    if file is not None:
        # Only the parser knows which of the arguments is the problem.
        problem = parsed(Options, "train", original).problem
        original[original.index(problem)] = str(file)

    # The last of two equal flags counts, so that those of now win.
    added = [argument for argument in arguments if argument != options.problem]
    combined = [*original, "--out", str(run_folder), *added]
    return parsed(Options, "train", combined), command
