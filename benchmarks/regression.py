"""Whether this checkout is slower than another one, hot path by hot path.

``python -m benchmarks.regression OTHER``: training steps, scoring, attribution and start-up are
measured in turn here and in the checkout OTHER, each in a process of its own, again and again;
what slows the machine for a while then slows both. Printed is the median over pairs of how much
longer each takes here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import _measure

HERE = Path(__file__).parent.parent
PARTS = ("startup", "steps", "scoring", "attribution")
BAR_PERCENT = 5.0
STARTUP = {
    "import whence": ["-c", "import whence"],
    "import whence and all its names": [
        "-c",
        "import whence, whence.pinn\n"
        "for m in (whence, whence.pinn):\n"
        "    for n in m.__all__: getattr(m, n)",
    ],
    "whence --help": ["-m", "whence.cli", "--help"],
    "whence train --help": ["-m", "whence.cli", "train", "--help"],
}


def run(checkout: Path, arguments: list[str]) -> str:
    """Return what Python prints with these arguments in a checkout."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )
    return done.stdout


def measured(checkout: Path, part: str, threads: int) -> dict[str, float]:
    """Return the seconds of a part's paths, run in a checkout."""
    if part != "startup":
        script = str(HERE / "benchmarks" / "_hot_paths.py")
        seconds: dict[str, float] = json.loads(
            run(checkout, [script, part, str(threads)])
        )
        return seconds

    seconds = {}
    for what, arguments in STARTUP.items():
        begun = time.perf_counter()
        run(checkout, arguments)
        seconds[what] = time.perf_counter() - begun
    return seconds


def compare(other: Path, part: str, repeats: int, threads: int) -> list[list[str]]:
    """Return the lines of a table: path, here, there, by how many per cent it takes longer."""
    here: dict[str, list[float]] = {}
    there: dict[str, list[float]] = {}
    for k in range(repeats):
        _measure.say(f"{part}: pair {k + 1} of {repeats}")
        pairs = [(HERE, here), (other, there)]
        # The second of a pair finds the machine as the first left it: take turns.
        for checkout, seconds in pairs if k % 2 == 0 else reversed(pairs):
            for what, value in measured(checkout, part, threads).items():
                seconds.setdefault(what, []).append(value)

    lines = []
    for what, ours in here.items():
        theirs = there[what]
        longer = [100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)]
        median = statistics.median(longer)
        lines.append(
            [
                f"{part}: {what}",
                f"{statistics.median(ours):.3g} s",
                f"{statistics.median(theirs):.3g} s",
                f"{median:+.1f} % ({min(longer):+.1f} to {max(longer):+.1f})",
                "yes" if median <= BAR_PERCENT else "**missed**",
            ]
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=5, help="pairs (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    given = parser.parse_args()

    lines = []
    for part in given.parts or PARTS:
        lines += compare(given.other.resolve(), part, given.repeats, given.threads)
    head = ["what", "here", "there", "longer here", f"at most {BAR_PERCENT:g} %"]
    print(_measure.table(head, lines))


if __name__ == "__main__":
    main()
