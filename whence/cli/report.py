"""``whence report``: the explorer's page with its answers in it, as one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from whence._files import make_folder, write_atomically
from whence.cli.files import check_file
from whence.cli.flags import default_words
from whence.explore.answers import Answers
from whence.explore.report import report_of_runs
from whence.explore.session import Session

FILE = "report.html"
MAX_RUNS = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """Write what `whence explore` shows of a run as one file, which opens without whence.

    It is made for places on a grid; what lies between them is answered by the nearest.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folder, or two to be compared."""
    out: Annotated[Path | None, default_words("RUN/report.html", "FILE.html")] = None
    """HTML file to write."""
    of: Annotated[tuple[str, ...], default_words("every output", "[NAME ...]")] = ()
    """What is explained: outputs, derivatives (u_x), residuals of terms (pde)."""
    targets: Annotated[int | None, default_words("as many as fit", "INT")] = None
    """Places that are explained along each coordinate: influences take two bytes for each of them
    and each training point."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Write the report; return the exit code."""
    check_number("whence report", options.runs)
    if options.targets is not None and options.targets < 2:
        raise ValueError(f"--targets must be at least 2, got {options.targets}")
    out = options.out or options.runs[0] / FILE
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out names an HTML file, which ends in .html, got {out}")
    answers = [Answers(Session.of_run(path)) for path in options.runs]
    check_file(out)

    page = report_of_runs(
        *answers, of=options.of, targets=options.targets, progress=print
    )
    content = page.encode()
    make_folder(out.parent)
    write_atomically(out, content)
    print(f"report: {out}  ({len(content) / 2**20:.1f} MB, opens in any browser)")
    return 0


def check_number(command: str, runs: Sequence[Path]) -> None:
    """Raise ``ValueError`` unless there is one run, or two."""
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(
            f"{command} takes one run, or two to be compared, got {len(runs)}"
        )
