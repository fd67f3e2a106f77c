"""Work that takes longer than a reader waits: done in the background, asked after by number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from whence._files import JsonObject


@dataclass
class Job:
    """One piece of work and what has come of it.

    Parameters
    ----------
    outcome:
        What it returned; None until then.
    error:
        What was wrong; empty while nothing is.
    """

    outcome: JsonObject | None = None
    error: str = ""


class Jobs:
    """Pieces of work, of which one is done at a time.

    Examples
    --------
    >>> from whence.explore.jobs import Jobs
    >>> jobs = Jobs()
    >>> number = jobs.start(lambda: {"answer": 42})
    >>> jobs.wait(number)
    >>> jobs.state(number)
    {'state': 'done', 'answer': 42}
    """

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._one_at_a_time = threading.Lock()

    def start(self, work: Callable[[], JsonObject]) -> int:
        """Begin some work and return its number."""
        job = Job()

        def done() -> None:
            """Do it when the one before is done."""
            with self._one_at_a_time:
                try:
                    job.outcome = work()
                except Exception as error:  # whatever it is, the reader is to see it
                    job.error = str(error) or type(error).__name__

        # A daemon: the end of the explorer need not wait for it.
        thread = threading.Thread(target=done, daemon=True)
        self._jobs.append(job)
        self._threads.append(thread)
        thread.start()
        return len(self._jobs) - 1

    def state(self, number: int) -> JsonObject:
        """Return ``state`` (running, done or failed) with what came of it.

        Raises
        ------
        ValueError
            If there is no such work.
        """
        if not 0 <= number < len(self._jobs):
            raise ValueError(f"there is no job {number}")
        job = self._jobs[number]
        if job.error:
            return {"state": "failed", "error": job.error}
        if job.outcome is None:
            return {"state": "running"}
        return {"state": "done", **job.outcome}

    def wait(self, number: int) -> None:
        """Return when some work is done."""
        self._threads[number].join()
