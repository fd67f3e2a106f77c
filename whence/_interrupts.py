"""Ctrl-C that breaks off computations, but nothing else."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class _BrokenOff(KeyboardInterrupt):
    """Unwinds a computation; never leaves :meth:`Interrupts.completes`."""


class Interrupts:
    """While entered, Ctrl-C sets ``hit`` and breaks off the work in :meth:`completes`.

    Everything outside of that work, such as writing files, goes on undisturbed. A second Ctrl-C
    raises ``KeyboardInterrupt`` out of work that does not react to the first. Outside the main
    thread, where no signals arrive, nothing happens.

    Raising at a random instant could leave a library's global state switched, such as gradients
    turned off between a context's entry and its body. So the exception comes at the next call of
    a function of this package, as if that function had raised it; a profiling hook, which is set
    only once Ctrl-C was pressed, waits for the call.
    """

    def __init__(self) -> None:
        self.hit = False
        self._at_work = False
        self._previous: Any = None
        self._installed = False
        self._profile: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def completes(self, work: Callable[[], None]) -> bool:
        """Do ``work``; return whether it was done to its end, not broken off by Ctrl-C."""
        try:
            self._at_work = True
            if self.hit:  # since before: nothing else would break this off
                return False
            work()
        except _BrokenOff:
            return False
        finally:
            self._at_work = False
            if sys.getprofile() is _break_off:
                sys.setprofile(self._profile)

        return True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # The second time: the work did not come to a call since the first.
        if self.hit and self._at_work:
            raise KeyboardInterrupt

        self.hit = True
        if self._at_work:
            # Somebody else's profiler comes back when the work has ended.
            self._profile = sys.getprofile()
            sys.setprofile(_break_off)


def _break_off(frame: FrameType, event: str, argument: Any) -> None:
    """Raise at the next call of a function of this package; set as a profiling hook."""
    if event != "call":
        return

    # Not in this module, whose own functions must put the hook away.
    module = frame.f_globals.get("__name__", "")
    if module.startswith("whence.") and module != __name__:
        raise _BrokenOff
