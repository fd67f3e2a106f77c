"""What the command line sets in its environment before torch is loaded."""

from __future__ import annotations

import os
import sys

WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""How threads of OpenMP wait for each other: a user who sets any of them has chosen."""


def let_threads_sleep() -> None:
    """Let threads of torch sleep, not spin, while they wait for each other.

    A thread that spins keeps the core on which the thread it waits for could run. Beside other
    work on all cores, each small operation then lasts until the system takes the core away.
    """
    # OpenMP reads its variables once, as torch loads it: after that they do nothing.
    if "torch" in sys.modules:
        return

    for name in WAITING_VARIABLES:
        if name in os.environ:
            return

    # Of the three, the one in the standard: GNU's, LLVM's and Intel's runtime all read it.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
