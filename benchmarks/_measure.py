"""What the speed benchmarks share: paired timings, peak memory, rows of a table, command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        scale, unit = (1e3, "ms") if self.median < 1 else (1, "s")
        low, middle, high = (
            f"{scale * s:.3g}" for s in (self.least, self.median, self.most)
        )
        return f"{middle} {unit} ({low} to {high})"

    def per(self, steps: int) -> Timing:
        """Return the seconds of one of several steps."""
        return Timing(self.median / steps, self.least / steps, self.most / steps)


@dataclass(frozen=True)
class Row:
    """One line of the table: a number and the bar it is held to, at most one of two.

    ``beyond`` says that the number is only a lower bound.
    """

    what: str
    measured: float | None
    unit: str
    detail: str = ""
    most: float | None = None
    least: float | None = None
    beyond: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none, or the number leaves it open."""
        if self.most is None and self.least is None:
            return None
        if self.measured is None:
            return False
        if self.most is not None:
            return self.measured <= self.most
        assert self.least is not None
        return (
            None
            if self.beyond and self.measured < self.least
            else self.measured >= self.least
        )

    def record(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {**asdict(self), "met": self.met}

    def cells(self) -> list[str]:
        """Return what, bar, measured, met, detail."""
        bar = "–"
        if self.most is not None:
            bar = f"≤ {self.most:g} {self.unit}"
        elif self.least is not None:
            bar = f"≥ {self.least:g} {self.unit}"
        met = {True: "yes", False: "**missed**", None: "–" if bar == "–" else "open"}[
            self.met
        ]
        number = (
            "not reached"
            if self.measured is None
            else f"{self.measured:.3g} {self.unit}"
        )
        return [
            self.what,
            bar,
            f"{'> ' if self.beyond else ''}{number}",
            met,
            self.detail,
        ]


def say(text: str) -> None:
    """Tell the user how far things are."""
    print(text, file=sys.stderr, flush=True)


def once(function: Callable[[], Value]) -> tuple[float, Value]:
    """Return the seconds that one call takes and its result."""
    begun = time.perf_counter()
    value = function()
    return time.perf_counter() - begun, value


def paired(
    functions: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, Timing]:
    """Time the contestants in turn, again and again, after one call of each to warm up.

    What slows the machine for a while then slows all of them.
    """
    for name, function in functions.items():
        say(f"  {name}: warm-up took {once(function)[0]:.3g} s")
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            taken[name].append(once(function)[0])
    timings = {
        n: Timing(statistics.median(s), min(s), max(s)) for n, s in taken.items()
    }
    for name, timing in timings.items():
        say(f"  {name}: {timing}")
    return timings


def peak_bytes() -> int:
    """Return the largest resident size that this process has had."""
    # ru_maxrss would do elsewhere, but it is inherited from the parent: a child would report that.
    status = Path("/proc/self/status").read_text()
    kibibytes = next(
        line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")
    )
    return 1024 * int(kibibytes)


def limit_memory(gib: float) -> None:
    """Let this process have so much address space: what needs more fails, and says so."""
    import resource  # not on Windows

    most = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def child(*arguments: str) -> dict[str, Any]:
    """Run ``python -m`` with these arguments in a fresh process; return the JSON it prints."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every part has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument(
        "--quick", action="store_true", help="small sizes, to see that all runs"
    )
    made.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    return made


def run(given: argparse.Namespace, measure: Callable[[], list[Row]]) -> None:
    """Measure with the given number of threads and print the rows."""
    import torch  # slow to import, and startup.py does without

    torch.set_num_threads(given.threads)
    with contextlib.redirect_stdout(sys.stderr):  # peers print as they go
        rows = measure()
    show([row.record() for row in rows], given)


def show(records: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Print recorded rows as a table or as one JSON object."""
    if given.json:
        print(
            json.dumps(
                {"threads": given.threads, "quick": given.quick, "rows": records}
            )
        )
        return
    rows = [
        Row(**{k: v for k, v in record.items() if k != "met"}) for record in records
    ]
    print(
        table(
            ["what", "bar", "measured", "met", "detail"], (row.cells() for row in rows)
        )
    )


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in (head, *lines))
    first, *rest = (f"| {' | '.join(cells)} |" for cells in escaped)
    return "\n".join([first, f"|{' --- |' * len(head)}", *rest])
