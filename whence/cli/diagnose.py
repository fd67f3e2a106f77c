"""``whence diagnose``: what looks wrong with a run, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from whence import plots
from whence._files import write_atomically
from whence.cli.files import check_file
from whence.cli.flags import default_words
from whence.diagnosis.diagnose import diagnose
from whence.pinn.training.load import load_run

FILE = "diagnosis.md"


@dataclasses.dataclass(frozen=True)
class Options:
    """Say in plain words what looks wrong with a run, where to look, and what to try next."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    reference: Annotated[
        Path | None, default_words("the problem's solution, if known", "PATH")
    ] = None
    """Trusted values: a CSV or Parquet file with a column for each coordinate and for at least one
    output."""
    out: Annotated[Path | None, default_words("RUN/diagnosis.md", "PATH")] = None
    """Markdown file to write; the figure is beside it."""
    seed: int = 0
    """Seed of the fresh points."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Diagnose a run, print the page and write it with its figure; return the exit code."""
    out = options.out or options.run / FILE
    if out.suffix != ".md":
        raise ValueError(f"--out names a Markdown file, which ends in .md, got {out}")
    # Before the work, which may take a minute.
    result = load_run(options.run)
    check_file(out)

    diagnosis = diagnose(result, options.reference, seed=options.seed, progress=True)
    print(diagnosis.text())

    # The figure first, so that a page never links to none.
    png, svg = plots.save(diagnosis.plot(), out.with_suffix(""))
    page = diagnosis.markdown(png.name)
    write_atomically(out, page.encode())
    print(f"page: {out}")
    print(f"figure: {png}  {svg.name}")
    return 0
