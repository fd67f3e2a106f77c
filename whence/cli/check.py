"""``whence check``: whether the files of a run are whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from whence.pinn.training.integrity import check_run


@dataclasses.dataclass(frozen=True)
class Options:
    """Verify every digest of a run's files, and that they fit each other."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Print the state of each file; return the exit code, 2 if one is damaged."""
    states = check_run(options.run)
    width = max(len(state.name) for state in states)
    for state in states:
        print(f"{state.name:{width}s}  {state.problem or 'whole'}")

    damaged = [state for state in states if state.problem is not None]
    if not damaged:
        print(f"{options.run}: {len(states)} files, all whole")
        return 0
    print(f"{options.run}: {len(damaged)} of {len(states)} files are not whole")
    return 2
