"""About how long a study takes: from its finished runs, or from short trials of the others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from whence.cli.parsing import parsed
from whence.cli.sources import source_of
from whence.cli.train import GROUPS, Options
from whence.cli.training import Training
from whence.pinn.training.run_folder import RunFolder
from whence.studies.folder import StudyFolder
from whence.studies.study import Study, StudyRun
from whence.studies.study_file import without_seed
from whence.studies.work import go_on

TRIAL_SECONDS = 2.0
"""Time of a trial, beside that for starting."""


def estimated_seconds(
    study: Study,
    remaining: Sequence[StudyRun],
    folder: StudyFolder,
    *,
    progress: bool = True,
) -> float:
    """Return about how long the remaining runs of a study take one after the other.

    A run takes as long as one that differs in the seed alone and is finished. Of the others a
    trial of two seconds is made, in a temporary folder, and its iterations are extrapolated to
    those of the schedule: optimizers that come later in it may be slower or faster.
    """
    known: dict[tuple[str, ...], float] = {}
    if folder.exists():
        for run in study.runs:
            if folder.state(run) == "finished":
                summary = RunFolder(folder.run_path(run)).summary()
                known[without_seed(run.arguments)] = summary["seconds"]

    total = 0.0
    for run in tqdm(remaining, "trials", delay=2.0, disable=not progress, leave=False):
        kind = without_seed(run.arguments)
        if kind not in known:
            known[kind] = seconds_of_trial(run)
        total += known[kind]
    return total


def seconds_of_trial(run: StudyRun) -> float:
    """Return about how long a run takes, from a short trial of it."""
    arguments = list(run.arguments)
    training = Training(
        parsed(Options, "train", arguments), GROUPS, source_of(arguments[0])
    )
    limit = training.max_seconds()
    seconds = TRIAL_SECONDS if limit is None else min(TRIAL_SECONDS, limit)

    # The last of two equal flags counts.
    trial = StudyRun(
        run.name, run.labels, (*run.arguments, "--max-seconds", str(seconds))
    )
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "trial"
        go_on(trial, path)
        summary = RunFolder(path).summary()

    planned = sum(optimizer.iterations for optimizer in training.schedule())
    share = max(1.0, planned / max(1, summary["iterations"]))
    estimate: float = share * summary["seconds"]
    return estimate if limit is None else min(limit, estimate)
