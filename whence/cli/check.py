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
    n_files = len(states)
    n_damaged = 0

    for state in states:
        condition = "whole"
        if state.problem is not None:
            condition = state.problem
            n_damaged += 1
        print(f"{state.name:{width}s}  {condition}")

    if n_damaged:
        print(f"{options.run}: {n_damaged} of {n_files} files are not whole")
        return 2
    print(f"{options.run}: {n_files} files, all whole")
    return 0
