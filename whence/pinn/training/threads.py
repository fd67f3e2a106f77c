"""How many threads a run computes with: measured at its start, and the same ever after.

Small tensors gain little from a second thread, and beside other work they lose much. Sums are
rounded by the number of threads, so a run that resumes to the same bits keeps its number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from whence import _checks
from whence._files import JsonObject, PathLike
from whence.objective import Objective
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.training import rng
from whence.pinn.training.loop import Plan
from whence.pinn.training.run_folder import RunFolder

Threads = int | Literal["auto"] | None
"""A number of threads, ``"auto"`` to measure it, None for what torch has."""

CALIBRATION_SECONDS = 0.4
"""How long steps are tried, up to one more step on each number of threads."""
STEP_SECONDS = 0.025
"""A timed step takes so long, up to four times: larger ones gain more from threads, but several
must fit."""
MIN_POINTS = 64
"""Points of each term in the first, smallest step that is timed."""
MIN_GAIN = 1.1
"""Several threads must be so many times as fast as one, as they take the cores of others."""


def check_threads(threads: Threads) -> None:
    """Raise ``ValueError`` unless threads are a number of them, ``"auto"`` or None."""
    if isinstance(threads, str):
        _checks.one_of("number of threads", threads, ("auto",))
    elif threads is not None:
        _checks.count("threads", threads)


@contextmanager
def on_threads(
    threads: Threads,
    objective: Objective,
    plan: Plan,
    out: PathLike | None,
    resume: bool,
) -> Iterator[JsonObject]:
    """Let torch compute with the threads of a run inside, and yield what its folder says of them.

    To be entered before anything is compiled, which is done for a number of threads.

    Parameters
    ----------
    threads:
        What was asked for.
    objective, plan:
        What the run begins with, of which steps are timed for ``"auto"``.
    out, resume:
        The folder, and whether the number of the run in it counts.

    Raises
    ------
    ValueError
        If the resumed run has another number of threads than the one asked for.
    """
    before = torch.get_num_threads()
    number = None
    if resume and out is not None:
        number = saved_number(threads, RunFolder(out))
    elif threads == "auto":
        number = fastest_number(objective, plan.schedule[0])
    elif threads is not None:
        number = int(threads)  # NumPy's integers are none of JSON's

    try:
        if number is not None:
            torch.set_num_threads(number)
        yield {"threads": number}
    finally:
        torch.set_num_threads(before)


def saved_number(threads: Threads, folder: RunFolder) -> int | None:
    """Return the number of threads of a run, None if it says nothing of them."""
    number: int | None = folder.config().get("threads")
    if isinstance(threads, int) and threads != number:
        raise ValueError(
            f"{folder.path} was made with threads = {number!r}, not {threads}: resume with the "
            "same number, or leave it out"
        )

    return number


def fastest_number(objective: Objective, stage: Optimizer) -> int:
    """Return 1 or the number of torch's threads, whichever takes steps of a stage sooner."""
    parameters = objective.parameters
    most = torch.get_num_threads()
    # A GPU computes alike, whatever number of threads waits for it.
    if most == 1 or parameters.device.type != "cpu":
        return most

    theta = parameters.vector()
    end = time.perf_counter() + CALIBRATION_SECONDS
    try:
        with rng.kept(parameters.device):
            part = affordable_part(objective, stage)
            seconds = seconds_by_number(part, stage, most, end)
    finally:
        torch.set_num_threads(most)
        parameters.assign(theta)

    gain = seconds[1] / seconds[most]
    return most if gain >= MIN_GAIN else 1


def affordable_part(objective: Objective, stage: Optimizer) -> Objective:
    """Return the objective with as many of its points as a timed step may take."""
    sizes = {name: len(term.points) for name, term in objective.terms.items()}
    largest = max(sizes.values())
    points = MIN_POINTS
    torch.set_num_threads(1)
    is_first = True

    while True:
        rows = {}
        for name, size in sizes.items():
            rows[name] = torch.arange(min(size, points))
        part = objective.subset(rows)

        if is_first:
            step_seconds(part, stage)  # which loads code
            is_first = False

        seconds = step_seconds(part, stage)
        if seconds > STEP_SECONDS or points >= largest:
            return part
        points *= 2  # a step takes two to four times as long


def seconds_by_number(
    objective: Objective, stage: Optimizer, most: int, end: float
) -> dict[int, float]:
    """Return the median seconds of a step on 1 and on ``most`` threads, tried until ``end``."""
    # The first step on several threads starts them.
    torch.set_num_threads(most)
    step_seconds(objective, stage)

    timings: dict[int, list[float]] = {1: [], most: []}
    is_over = False

    while not is_over:
        # In turn, so that what slows the machine for a while slows all of them.
        for number in timings:
            torch.set_num_threads(number)
            seconds = step_seconds(objective, stage)
            timings[number].append(seconds)
        is_over = time.perf_counter() > end

    return {number: statistics.median(taken) for number, taken in timings.items()}


def step_seconds(objective: Objective, stage: Optimizer) -> float:
    """Return how long a stage's first step on the objective takes; it moves the parameters."""
    stepper = stage.start(objective.parameters)
    begun = time.perf_counter()
    stepper.advance(objective, 1)
    return time.perf_counter() - begun
