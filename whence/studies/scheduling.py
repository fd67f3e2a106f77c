"""Runs on workers, by dask: processes of this machine, or those of a scheduler anywhere.

A worker that dies is replaced, and its run goes on from its last checkpoint on another. What is
finished is on disk, so that nothing depends on the scheduler, or on this process.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from whence import __version__
from whence.studies.folder import StudyFolder
from whence.studies.study import Study, StudyRun
from whence.studies.work import OtherVersion, Outcome, train_run
from whence.workers import check_installed, check_versions, check_workers, connected

if TYPE_CHECKING:
    from distributed import Client, Future

MAX_ATTEMPTS = 3
"""Attempts at a run after which it is to blame."""
GONE = (
    "the scheduler is gone: finished runs are kept, so start it, and the study, again"
)
DIED = "its workers died again and again, as where memory runs out"
REFRESH_SECONDS = 3.0
"""Time between two looks at what workers do: a look takes their cores for a moment."""
MAX_SHOWN = 3
"""Runs that progress names at once."""


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Train every run of a study that has no outcome yet; return the outcomes of these.

    Parameters
    ----------
    study:
        What to run.
    out:
        Its folder; one that holds a part of it already is gone on with.
    workers:
        Processes of this machine, by default one for each core.
    scheduler:
        Address of a dask scheduler whose workers take the runs, in place of processes here. They
        must see ``out`` under the same path.
    progress:
        Whether to show which runs are being made.
    say:
        What takes a line of text for the user.

    Raises
    ------
    FileExistsError
        If the folder holds another study.
    ImportError
        If dask's ``distributed`` is not installed.
    OSError
        If the scheduler cannot be reached, or the folder not be written.
    ValueError
        If workers and scheduler are both given, or workers have other versions of whence.
    """
    check_workers(workers, scheduler)
    check_installed()

    folder = StudyFolder.at(out)
    folder.begin(study)
    remaining = folder.remaining(study)
    done = len(study.runs) - len(remaining)
    if done:
        say(f"{done} of {len(study.runs)} runs are finished already")
    if not remaining:
        return []

    from distributed.comm.core import CommClosedError  # slow to import

    n_workers = min(workers or os.cpu_count() or 1, len(remaining))
    try:
        with connected(scheduler, n_workers) as client:
            check_versions(client)
            say(f"dashboard: {client.dashboard_link}")
            return _train_all(client, folder, remaining, done, progress)
    except CommClosedError:
        raise ConnectionError(GONE) from None


def _train_all(
    client: Client,
    folder: StudyFolder,
    runs: Sequence[StudyRun],
    done: int,
    progress: bool,
) -> list[Outcome]:
    """Train the runs, keep why some failed, and return the outcomes."""
    by_name = {run.name: run for run in runs}
    outcomes = []
    total = done + len(runs)
    with tqdm(total=total, initial=done, unit="run", disable=not progress) as bar:
        for outcome in _outcomes(client, folder, runs, bar):
            run = by_name[outcome.name]
            if outcome.error:
                folder.fail(run, outcome.error)
                tqdm.write(f"failed: {run.name}: {outcome.error}")
            else:
                folder.forget_failure(run)
            outcomes.append(outcome)
            bar.update()
    return outcomes


def _outcomes(
    client: Client, folder: StudyFolder, runs: Sequence[StudyRun], bar: tqdm[Any]
) -> Iterator[Outcome]:
    """Hand the runs to workers, no more than these have threads, and yield how each ended.

    A scheduler gives workers more than they can do at once, so that one may wait behind a long
    run while others are idle.
    """
    from distributed import wait  # slow to import

    by_name = {run.name: run for run in runs}
    waiting = list(reversed(runs))
    active: dict[str, Future[Outcome]] = {}
    attempts: Counter[str] = Counter()
    while waiting or active:
        # Workers may come and go.
        threads = sum(client.nthreads().values())
        room = max(1, threads)
        while waiting and len(active) < room:
            run = waiting.pop()
            attempts[run.name] += 1
            path = folder.run_path(run).resolve()
            # Where a worker dies, the scheduler gives its run to another.
            key = f"{run.name} ({attempts[run.name]})"
            future = client.submit(train_run, run, path, __version__, key=key)
            active[run.name] = future

        shown = [(name, folder.share(by_name[name])) for name in active]
        bar.set_postfix_str(shown_runs(shown) if threads else "no workers")
        with contextlib.suppress(TimeoutError):
            futures = list(active.values())
            wait(futures, timeout=REFRESH_SECONDS, return_when="FIRST_COMPLETED")
        ended = [name for name, future in active.items() if future.done()]
        for name in ended:
            outcome = outcome_of(name, active.pop(name))
            if outcome is not None:
                yield outcome
            elif attempts[name] < MAX_ATTEMPTS:
                waiting.append(by_name[name])
            else:
                yield Outcome(name, DIED, 0.0)


def shown_runs(shares: Sequence[tuple[str, float]]) -> str:
    """Return the first runs and how far they are, and how many more there are.

    Examples
    --------
    >>> from whence.studies.scheduling import shown_runs
    >>> shown_runs([("a", 0.5), ("b", 0.0)]), shown_runs([("a", 1.0)] * 5)
    ('a 50%, b 0%', 'a 100%, a 100%, a 100% and 2 more')
    """
    shown = [f"{name} {share:.0%}" for name, share in shares[:MAX_SHOWN]]
    listed = ", ".join(shown)
    if len(shares) > MAX_SHOWN:
        listed += f" and {len(shares) - MAX_SHOWN} more"
    return listed


def outcome_of(name: str, future: Future[Outcome]) -> Outcome | None:
    """Return the outcome of a run whose future has ended, None where its workers died.

    Raises
    ------
    ConnectionError
        If the scheduler is gone.
    """
    from distributed import KilledWorker  # slow to import

    if future.cancelled():
        raise ConnectionError(GONE)
    try:
        outcome: Outcome = future.result()
    except OtherVersion as error:
        return Outcome(name, str(error), 0.0)
    except KilledWorker:
        return None
    return outcome
