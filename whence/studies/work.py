"""What a worker does: one run of a study, begun or gone on with."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path

from whence import __version__
from whence.cli import train as training
from whence.cli.parsing import parsed
from whence.pinn.training.run_folder import RunFolder
from whence.studies.folder import is_finished
from whence.studies.study import StudyRun
from whence.workers import keep_freed_memory

LOCK_SECONDS = 60.0
"""Time that a worker has to end once its study is gone."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    name:
        Of the run.
    error:
        Why it failed, empty if it did not.
    seconds:
        Time of the worker, that for starting and writing included.
    """

    name: str
    error: str
    seconds: float


class OtherVersion(RuntimeError):
    """A worker has another version of whence than the study was started with."""


def train_run(run: StudyRun, path: Path, version: str) -> Outcome:
    """Train one run in its folder, from where it is; an error of it is an outcome, too.

    Raises
    ------
    OtherVersion
        If this process has another version of whence.
    """
    if version != __version__:
        raise OtherVersion(
            f"this worker has whence {__version__}, the study was started with {version}: install "
            f"whence {version} for all workers"
        )

    keep_freed_memory()
    start = time.perf_counter()
    error = ""
    try:
        go_on_unlocked(run, path)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(run.name, error, time.perf_counter() - start)


def go_on_unlocked(run: StudyRun, path: Path) -> None:
    """Train a run to its end once no other process does."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            go_on(run, path)
            return
        except BlockingIOError:
            # A worker that was cut off from the study ends soon, and its lock with it.
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def go_on(run: StudyRun, path: Path) -> None:
    """Train a run to its end; one that has it already is left as it is."""
    folder = RunFolder(path)
    arguments = [*run.arguments, "--out", str(path), "--quiet"]
    if folder.exists():
        # Another worker may have ended it, whose word was lost.
        if is_finished(folder):
            return
        arguments.append("--resume")
    options = parsed(training.Options, "train", arguments)
    # What is printed of it, the study says in its own way.
    with contextlib.redirect_stdout(io.StringIO()):
        training.run(options, arguments)
