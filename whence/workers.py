"""Work that is done in parts: here one part after another, or by the workers of a dask cluster.

What all parts need is sent to each worker once. Parts are answered as they end, so that whoever
asked can record them; a worker that dies is replaced, and its part is done again.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from whence import __version__, _checks

if TYPE_CHECKING:
    from distributed import Client, Future, WorkerPlugin

Common = TypeVar("Common")
Part = TypeVar("Part")
Answer = TypeVar("Answer")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of options in malloc.h."""
MAX_MMAP_THRESHOLD = 32 * 2**20
CONNECT_SECONDS = 10
"""Time in which a scheduler must answer, and have workers."""
MAX_DEATHS = 3
"""Workers that a part may outlive; schedulers elsewhere have a number of their own."""
AHEAD = 2
"""Parts by worker that are handed out: the one it is at, and one to go on with."""
WAIT_SECONDS = 5.0
"""Time after which it is seen whether the scheduler is still there."""
GONE = "the scheduler is gone: what is finished is kept, so start it, and this, again"
DIED = (
    "the workers of a part died again and again, as where memory runs out: what is finished is "
    "kept, so give workers more memory and start this again"
)
_ONE_AT_A_TIME = threading.Lock()
"""Held by the part that a worker is at."""


def in_parts(
    function: Callable[[Common, Part], Answer],
    common: Common,
    parts: Iterable[Part],
    client: Client | None = None,
) -> Iterator[tuple[Part, Answer]]:
    """Yield each part with ``function(common, part)``, in the order in which they end.

    Parameters
    ----------
    function:
        What is done, a function of a module.
    common:
        What all parts need; each worker gets it once.
    parts:
        What there is to do. They are taken as workers become free, so they may be made meanwhile.
    client:
        Of a dask cluster; None does the parts here, in order.

    Raises
    ------
    TypeError
        If the client is none.
    OSError
        If the cluster has no workers.
    ValueError
        If a worker has another version of whence, or is a thread of this process.
    RuntimeError
        If the workers of a part die again and again.
    ConnectionError
        If the scheduler is gone.

    Examples
    --------
    >>> from operator import add
    >>> from whence.workers import in_parts
    >>> list(in_parts(add, 10, [1, 2]))
    [(1, 11), (2, 12)]
    """
    if client is None:
        for part in parts:
            yield part, function(common, part)
        return

    check_client(client)
    check_versions(client)
    check_processes(client)
    yield from by_workers(function, common, iter(parts), client)


def in_order(
    function: Callable[[Common, Part], Answer],
    common: Common,
    parts: Iterable[Part],
    client: Client | None = None,
) -> Iterator[tuple[Part, Answer]]:
    """Yield what :func:`in_parts` does, in the order of the parts.

    Examples
    --------
    >>> from operator import add
    >>> from whence.workers import in_order
    >>> list(in_order(add, 10, [2, 1]))
    [(2, 12), (1, 11)]
    """
    numbered = Numbered(function)
    waiting: dict[int, tuple[Part, Answer]] = {}
    turn = 0
    for (number, part), answer in in_parts(numbered, common, enumerate(parts), client):
        waiting[number] = (part, answer)
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


@dataclass(frozen=True)
class Numbered(Generic[Common, Part, Answer]):
    """A function of parts as one of parts with their numbers, which workers can be sent."""

    function: Callable[[Common, Part], Answer]

    def __call__(self, common: Common, part: tuple[int, Part]) -> Answer:
        """Return what the function does of the part."""
        return self.function(common, part[1])


def by_workers(
    function: Callable[[Common, Part], Answer],
    common: Common,
    parts: Iterator[Part],
    client: Client,
) -> Iterator[tuple[Part, Answer]]:
    """Hand parts out, a few ahead of the workers, and yield their answers as they end."""
    from distributed import wait  # slow to import
    from distributed.comm.core import CommClosedError  # slow to import
    from distributed.core import RPCClosed  # slow to import

    sent = client.scatter(common, broadcast=True, hash=False)
    active: dict[Future[Answer], Part] = {}
    deaths = 0
    again: list[Part] = []
    is_more = True
    try:
        while True:
            if client.status != "running" or client.scheduler is None:
                raise ConnectionError(GONE)
            # Workers may come and go.
            room = AHEAD * max(1, len(client.nthreads()))
            while len(active) < room and (again or is_more):
                part = again.pop() if again else next(parts, None)
                if part is None:
                    is_more = False
                    break
                future = client.submit(as_worker, function, sent, part, pure=False)
                active[future] = part

            if not active:
                return
            # Futures that were lost are done too, which wait answers with an error.
            with contextlib.suppress(CancelledError, TimeoutError):
                wait(list(active), return_when="FIRST_COMPLETED", timeout=WAIT_SECONDS)

            for future in [future for future in active if future.done()]:
                part = active.pop(future)
                try:
                    answer = answer_of(future)
                except CancelledError:
                    # The last worker that had the answer, or what parts need, has died.
                    again.append(part)
                else:
                    yield part, answer
            if again:
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise RuntimeError(DIED)
                check_versions(client)
                sent = client.scatter(common, broadcast=True, hash=False)
    except (CommClosedError, RPCClosed):
        raise ConnectionError(GONE) from None
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            client.cancel(list(active))


def as_worker(
    function: Callable[[Common, Part], Answer], common: Common, part: Part
) -> Answer:
    """Do a part with all threads of this worker."""
    with alone():
        return function(common, part)


@contextmanager
def alone() -> Iterator[None]:
    """Be the only part of this worker, with all of its threads.

    Parts side by side in a process would share its cores, and a network that visits checkpoints.
    """
    from distributed import get_worker  # slow to import

    keep_freed_memory()
    with _ONE_AT_A_TIME:
        torch.set_num_threads(get_worker().state.nthreads)
        yield


def answer_of(future: Future[Answer]) -> Answer:
    """Return what a future gave, or raise what its part did."""
    from distributed import KilledWorker  # slow to import

    try:
        answer: Answer = future.result()
    except KilledWorker:
        raise RuntimeError(DIED) from None
    return answer


# --- clusters ------------------------------------------------------------------------------------


def check_installed() -> None:
    """Raise ``ImportError`` if there is no dask."""
    try:
        import distributed  # noqa: F401 - slow to import
    except ImportError:
        raise ImportError(
            'workers are those of dask: pip install "whence[study]"'
        ) from None


def check_workers(workers: int | None, scheduler: str | None) -> None:
    """Raise ``ValueError`` for no number of workers, or for workers and a scheduler."""
    if workers is None:
        return
    _checks.count("workers", workers)
    if scheduler is not None:
        raise ValueError(
            "workers are those of the scheduler, or processes of this machine: leave out "
            "workers or scheduler"
        )


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """Yield a client of a scheduler, or of new processes of this machine."""
    check_installed()
    import dask  # slow to import
    from distributed import Client, LocalCluster  # slow to import

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise OSError(
                f"no dask scheduler answers at {scheduler} within {CONNECT_SECONDS} s: {error}. "
                "Start one with: dask scheduler, and workers with: dask worker ADDRESS --nthreads 1"
            ) from None
        with client:
            yield client
        return

    settings = {
        "distributed.scheduler.allowed-failures": MAX_DEATHS,
        # Runs are long and hold the interpreter: that is no reason to warn, or to give them up.
        "distributed.admin.tick.limit": "1h",
        "distributed.scheduler.worker-ttl": None,
        # Each has a core to itself; a run that needs more memory than its share may take it.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        # Looking at the stack a hundred times a second takes the interpreter from training.
        "distributed.worker.profile.enabled": False,
        # Nor need each process look at itself fifty times a second.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.memory.monitor-interval": "5s",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(undisturbed_by_interrupts())
        yield client


def undisturbed_by_interrupts() -> WorkerPlugin:
    """Return what lets workers ignore Ctrl-C, which the command answers by ending them."""
    from distributed import WorkerPlugin  # slow to import

    class Undisturbed(WorkerPlugin):
        name = "undisturbed by interrupts"

        def setup(self, worker: object) -> None:
            # A terminal sends it to all of its processes.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Undisturbed()


def check_client(client: object) -> None:
    """Raise ``TypeError`` unless this is a client of a dask cluster."""
    if not (hasattr(client, "submit") and hasattr(client, "scatter")):
        raise TypeError(
            "client must be a dask.distributed.Client, such as Client(LocalCluster()), got "
            f"{_checks.describe(client)}"
        )


def check_processes(client: Client) -> None:
    """Raise ``ValueError`` if workers are threads of this process."""
    for answer in client.run(os.getpid, on_error="return").values():
        if answer == os.getpid():
            raise ValueError(
                "the workers are threads of this process, which would share its network and its "
                "threads: start processes, as Client(LocalCluster(processes=True))"
            )


def version() -> str:
    """Return the version of whence of this process."""
    return __version__


def check_versions(client: Client) -> None:
    """Raise ``ValueError`` if there are no workers, or some have another version of whence."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        raise OSError(
            "the scheduler has no workers: start some with: dask worker ADDRESS --nthreads 1"
        ) from None

    others = {}
    for worker, answer in client.run(version, on_error="return").items():
        # One that was lost meanwhile answers with an error; those that come later are asked by
        # the parts themselves.
        is_lost = isinstance(answer, OSError)
        if answer != __version__ and not is_lost:
            others[worker] = answer
    if others:
        listed = ", ".join(f"{worker}: {answer}" for worker, answer in others.items())
        raise ValueError(
            f"workers have other versions of whence than {__version__}: {listed}. Install the "
            "same for all"
        )


def keep_freed_memory() -> None:
    """Let the C library keep memory that was freed, as it does of itself.

    Workers of dask are started with ``MALLOC_TRIM_THRESHOLD_``, by which glibc takes every larger
    tensor from the system and gives it back at once: training takes twice the time.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if mallopt is not None:
        # What its own thresholds grow to as larger blocks are freed.
        mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2 * MAX_MMAP_THRESHOLD)
