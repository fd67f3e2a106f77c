"""``whence table``: the results of a study in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from whence._files import make_folder, write_atomically
from whence.cli.files import check_file
from whence.cli.flags import default_words
from whence.studies.comparison import Statistic, compare
from whence.studies.results import read_results
from whence.studies.tables import FormatName, formatted


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare the methods of a study: statistics over seeds, the best, ranks, significance."""

    study: tyro.conf.Positional[Path]
    """Study folder, as `whence study` leaves it."""
    statistic: Statistic = "mean"
    """Mean with standard deviation, or median with quartiles; methods are ranked by it."""
    value: Literal["error", "validation_loss", "test_loss", "seconds"] = "error"
    """What is compared: the relative L2 error, a loss, or the time."""
    baseline: Annotated[str | None, default_words("random, if any", "METHOD")] = None
    """Method that the others are divided by."""
    format: FormatName = "text"
    """CSV has a row for each problem and method, with all statistics."""
    out: Annotated[Path | None, default_words("printed", "FILE")] = None
    """File for the table."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Print or write the table; return the exit code."""
    # Before anything is read, which takes a while of many runs.
    if options.out is not None:
        check_file(options.out)
    results = read_results(options.study)
    comparison = compare(
        results.table,
        options.value,
        options.statistic,
        options.baseline,
    )
    # Runs that are not there are said, never dropped in silence.
    missing = results.describe_missing()
    text = formatted(comparison, options.format, missing)

    if options.out is None:
        print(text, end="")
        return 0
    make_folder(options.out.parent)
    write_atomically(options.out, text.encode())
    # A table of numbers alone has no place for it.
    if missing and options.format == "csv":
        print(missing)
    print(f"table: {options.out}")
    return 0
