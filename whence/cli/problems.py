"""``whence problems``: list the benchmark problems."""

from __future__ import annotations

import dataclasses

from whence.pinn import zoo


@dataclasses.dataclass(frozen=True)
class Options:
    """List the benchmark problems."""


def run(options: Options) -> int:
    """Print one line on each problem; return the exit code."""
    for name in zoo.names():
        print(f"{name:16s} {zoo.describe(name)}")
    print("train one with: whence train burgers")
    return 0
