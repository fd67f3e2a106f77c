"""``whence study``: train a grid of runs, as many at a time as there are workers."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from whence.cli import EXIT_ERROR, EXIT_INTERRUPTED
from whence.cli.flags import default_words
from whence.studies.estimate import estimated_seconds
from whence.studies.folder import StudyFolder
from whence.studies.scheduling import run_study
from whence.studies.study import Study
from whence.studies.study_file import read_study

MAX_LISTED = 20
"""Runs that are listed by name."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Train every run of a study, go on with one, or say how far it is."""

    study: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="STUDY.toml")
    ] = None
    """File that describes the runs (docs/studies.md)."""
    out: Annotated[Path | None, default_words("studies/NAME", "DIR")] = None
    """Folder of the study. One that holds a part of it is gone on with: finished runs are kept,
    begun ones resume, failed ones are tried again."""
    workers: Annotated[int | None, default_words("one for each core", "INT")] = None
    """Processes of this machine that train."""
    scheduler: Annotated[str | None, default_words("none", "ADDRESS")] = None
    """Address of a dask scheduler whose workers train, such as tcp://10.0.0.1:8786."""
    dry_run: bool = False
    """List the runs and about how long they take, and train none."""
    status: Annotated[Path | None, default_words("none", "DIR")] = None
    """Say how far the study in this folder is."""
    quiet: bool = False
    """Show no progress bar."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Run the study as the options say; return the exit code."""
    if options.status is not None:
        if options.study is not None:
            raise ValueError("--status takes the folder of a study: leave the file out")
        return print_status(StudyFolder.at(options.status))
    if options.study is None:
        raise ValueError(
            "name a study file (docs/studies.md), or a folder with --status DIR"
        )

    study = read_study(options.study)
    out = options.out or Path("studies") / options.study.stem
    if options.dry_run:
        return print_plan(study, out, options)

    try:
        run_study(
            study,
            out,
            workers=options.workers,
            scheduler=options.scheduler,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        print(f"go on with: whence study {options.study} --out {out}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return print_status(StudyFolder.at(out))


def print_plan(study: Study, out: Path, options: Options) -> int:
    """Print what would be trained and about how long it takes."""
    folder = StudyFolder.at(out)
    remaining = list(study.runs)
    if folder.exists():
        remaining = folder.remaining(study)
    for run in study.runs[:MAX_LISTED]:
        print(f"{run.name}: whence train {' '.join(run.arguments)}")
    if len(study.runs) > MAX_LISTED:
        print(f"and {len(study.runs) - MAX_LISTED} more")

    seconds = estimated_seconds(study, remaining, folder, progress=not options.quiet)
    workers = options.workers or os.cpu_count() or 1
    finished = len(study.runs) - len(remaining)
    where = "one worker" if workers == 1 else f"{workers} workers"
    print(
        f"{len(study.runs)} runs, {finished} of them finished; the others take about "
        f"{duration(seconds / workers)} on {where}"
    )
    return 0


def print_status(folder: StudyFolder) -> int:
    """Print how many runs are in which state, and why some failed; return the exit code."""
    study = folder.study()
    states = folder.states()
    counts = Counter(states.values())
    numbers = ", ".join(f"{n} {state}" for state, n in counts.items())
    print(f"{folder.path}: {len(study.runs)} runs, {numbers}")

    for state in ("begun", "waiting"):
        names = [name for name, value in states.items() if value == state]
        if names:
            listed = ", ".join(names[:MAX_LISTED])
            more = f" and {len(names) - MAX_LISTED} more" if names[MAX_LISTED:] else ""
            print(f"{state}: {listed}{more}")

    failed = [run for run in study.runs if states[run.name] == "failed"]
    for entry in failed:
        print(f"failed: {entry.name}: {folder.failure(entry)}")
    if counts["finished"]:
        print(f"next: whence table {folder.path}   and   whence plot {folder.path}")
    return EXIT_ERROR if failed else 0


def duration(seconds: float) -> str:
    """Return a time in words.

    Examples
    --------
    >>> from whence.cli.study import duration
    >>> duration(40), duration(400), duration(40_000)
    ('40 s', '7 min', '11 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
