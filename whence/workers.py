"""Work that is done in parts: here one part after another, or by the workers of a dask cluster.

What all parts need is sent to each worker once. Parts are answered as they end, so that whoever
asked can record them; a worker that dies is replaced, and its part is done again.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import torch

from whence import __version__, _checks

if TYPE_CHECKING:
    from distributed import Client, Future

Common = TypeVar("Common")
Part = TypeVar("Part")
Answer = TypeVar("Answer")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of options in malloc.h."""
MAX_MMAP_THRESHOLD = 32 * 2**20
CONNECT_SECONDS = 10
"""Time in which a scheduler must have workers."""
AHEAD = 2
"""Parts by worker that are handed out: the one it is at, and one to go on with."""
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
        If a worker has another version of whence.
    RuntimeError
        If the workers of a part die again and again.

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
    yield from _by_workers(function, common, iter(parts), client)


def _by_workers(
    function: Callable[[Common, Part], Answer],
    common: Common,
    parts: Iterator[Part],
    client: Client,
) -> Iterator[tuple[Part, Answer]]:
    """Hand parts out, a few ahead of the workers, and yield their answers as they end."""
    from distributed import wait  # slow to import

    sent = client.scatter(common, broadcast=True, hash=False)
    active: dict[Future[Answer], Part] = {}
    is_more = True
    try:
        while True:
            # Workers may come and go.
            room = AHEAD * max(1, len(client.nthreads()))
            while is_more and len(active) < room:
                part = next(parts, None)
                if part is None:
                    is_more = False
                    break
                future = client.submit(as_worker, function, sent, part, pure=False)
                active[future] = part

            if not active:
                return
            done, _ = wait(list(active), return_when="FIRST_COMPLETED")
            for future in done:
                yield active.pop(future), _answer(future)
    finally:
        client.cancel(list(active))


def as_worker(
    function: Callable[[Common, Part], Answer], common: Common, part: Part
) -> Answer:
    """Do a part with all threads of this worker."""
    from distributed import get_worker  # slow to import

    keep_freed_memory()
    # Parts side by side in a process would share its cores, and a network that visits checkpoints.
    with _ONE_AT_A_TIME:
        torch.set_num_threads(get_worker().state.nthreads)
        return function(common, part)


def _answer(future: Future[Answer]) -> Answer:
    """Return what a future gave."""
    from distributed import KilledWorker  # slow to import

    if future.cancelled():
        raise ConnectionError(
            "the scheduler is gone: what is finished is kept, so start it, and this, again"
        )
    try:
        answer: Answer = future.result()
    except KilledWorker:
        raise RuntimeError(
            "the workers of a part died again and again, as where memory runs out: what is "
            "finished is kept, so give workers more memory and start this again"
        ) from None
    return answer


# --- clusters ------------------------------------------------------------------------------------


def check_client(client: object) -> None:
    """Raise ``TypeError`` unless this is a client of a dask cluster."""
    if not (hasattr(client, "submit") and hasattr(client, "scatter")):
        raise TypeError(
            "client must be a dask.distributed.Client, such as Client(LocalCluster()), got "
            f"{_checks.describe(client)}"
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
