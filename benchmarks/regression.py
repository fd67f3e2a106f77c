"""Whether this checkout is slower than another one, row by row of the speed benchmarks.

``python -m benchmarks.regression OTHER``: every part is measured in turn here and in the checkout
OTHER, each in a process of its own, again and again; what slows the machine for a while then slows
both. Printed is how much more each row takes here than there: the median over pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import _measure

PARTS = ("startup", "steps", "scoring", "attribution")
BAR_PERCENT = 5.0
HERE = Path(__file__).parent.parent


def measured(checkout: Path, part: str, options: list[str]) -> dict[str, Any]:
    """Return the rows of a part by what they measure, run in a checkout."""
    command = [sys.executable, "-m", f"benchmarks.{part}", "--json", *options]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )
    return {row["what"]: row for row in json.loads(done.stdout)["rows"]}


def slowdown(here: dict[str, Any], there: dict[str, Any]) -> float | None:
    """Return by how many per cent a row is worse here; None where a number is missing."""
    if not here["measured"] or not there["measured"]:
        return None
    ratio = here["measured"] / there["measured"]
    # Of some rows, such as "times faster than a peer", more is better.
    if here["least"] is not None:
        ratio = 1 / ratio
    return 100 * (ratio - 1)


def compare(
    other: Path, part: str, repeats: int, options: list[str]
) -> list[list[str]]:
    """Return the lines of a table: row, here, there, by how many per cent it is worse."""
    here: dict[str, list[dict[str, Any]]] = {}
    there: dict[str, list[dict[str, Any]]] = {}
    for k in range(repeats):
        _measure.say(f"{part}: pair {k + 1} of {repeats}")
        pairs = [(HERE, here), (other, there)]
        # The second of a pair finds the machine as the first left it: take turns.
        for checkout, rows in pairs if k % 2 == 0 else reversed(pairs):
            for what, row in measured(checkout, part, options).items():
                rows.setdefault(what, []).append(row)

    lines = []
    for what, ours in here.items():
        theirs = there.get(what)
        if theirs is None:
            continue
        worse = [slowdown(a, b) for a, b in zip(ours, theirs, strict=True)]
        numbers = [value for value in worse if value is not None]
        median = statistics.median(numbers) if numbers else float("nan")
        lines.append(
            [
                f"{part}: {what}",
                *(
                    f"{statistics.median(row['measured'] for row in rows):.3g} {rows[0]['unit']}"
                    for rows in (ours, theirs)
                ),
                f"{median:+.1f} % ({min(numbers):+.1f} to {max(numbers):+.1f})",
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
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    given = parser.parse_args()

    options = ["--threads", str(given.threads), *(["--quick"] if given.quick else [])]
    lines = []
    for part in given.parts or PARTS:
        lines += compare(given.other.resolve(), part, given.repeats, options)
    head = ["what", "here", "there", "worse here", f"at most {BAR_PERCENT:g} %"]
    print(_measure.table(head, lines))


if __name__ == "__main__":
    main()
