"""How long whence takes to import, above torch, and ``whence --help``, in fresh processes.

``python -m benchmarks.startup``: whole processes, in turn, so what slows the machine for a while
slows all of them; differences are between medians.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import _measure
from benchmarks._measure import Row

IMPORT_SECONDS, HELP_SECONDS = 0.3, 1.5
REPEATS, QUICK_REPEATS = 15, 2
EVERYTHING = """
import whence, whence.pinn
for module in (whence, whence.pinn):
    for name in module.__all__:
        getattr(module, name)
"""
PROGRAMS = {
    "torch": ["-c", "import torch"],
    "whence": ["-c", "import torch, whence"],
    "everything": ["-c", EVERYTHING],
    "help": ["-m", "whence.cli", "--help"],
}


def process(arguments: list[str]) -> None:
    """Run Python with these arguments to its end."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def measure(repeats: int) -> list[Row]:
    """Return all rows."""
    programs = {
        name: lambda given=given: process(given) for name, given in PROGRAMS.items()
    }
    timings = _measure.paired(programs, repeats)
    torch = timings["torch"].median
    labels = {
        "whence": "import whence",
        "everything": "every public name of whence, whence.pinn",
    }
    rows = [
        Row(
            f"{label}, above import torch",
            timings[name].median - torch,
            "s",
            f"{timings[name]} against {timings['torch']}",
            most=IMPORT_SECONDS,
        )
        for name, label in labels.items()
    ]
    shown = timings["help"]
    return [
        *rows,
        Row("whence --help", shown.median, "s", str(shown), most=HELP_SECONDS),
    ]


def main() -> None:
    """Measure and print."""
    given = _measure.parser(__doc__).parse_args()
    _measure.run(given, lambda: measure(QUICK_REPEATS if given.quick else REPEATS))


if __name__ == "__main__":
    main()
