"""``whence audit``: which training samples of a user's model look wrong."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from whence import plots
from whence._files import make_folder, write_atomically
from whence.attribution.quality import FarFromMinimum
from whence.cli.flags import told
from whence.cli.loading import check_file
from whence.cli.model_file import MethodName, ModelFile, read
from whence.evaluation.bad_data import detection, label_report, suspects


@dataclasses.dataclass(frozen=True)
class Options:
    """Rank the training samples of a model by how wrong they look."""

    file: tyro.conf.Positional[Path]
    """Python file that names model, data and loss; see `whence influence --help`."""
    method: MethodName = "influence"
    """Attribution method."""
    by: Literal["self_influence", "validation", "loss"] = "self_influence"
    """What makes a sample suspicious: its influence on itself, what it does to the test data's
    loss, or its own loss."""
    damping: float | None = None
    """Damping λ relative to the largest eigenvalue of the curvature."""
    show: int = 20
    """How many of the most suspicious to print."""
    out: Annotated[Path | None, told("FILE_suspects.csv")] = None
    """CSV file of all samples, the most suspicious first."""


def run(options: Options) -> int:
    """Rank the samples; return the exit code."""
    out = options.out or options.file.with_name(f"{options.file.stem}_suspects.csv")
    if out.suffix != ".csv":
        raise ValueError(f"--out names a CSV file, which ends in .csv, got {out}")
    if options.show < 0:
        raise ValueError(f"--show must not be negative, got {options.show}")
    check_file(out)
    given = read(options.file)
    by = options.by
    validation = given.test() if by == "validation" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarFromMinimum)
        found = suspects(
            given.method(options.method, options.damping), by, validation=validation
        )
    table = (
        found.sortby("rank")
        .reset_coords(drop=False)
        .to_dataframe()
        .reset_index(drop=True)
    )
    table = table.drop(columns=["term"]).set_index("rank")
    make_folder(out.absolute().parent)
    write_atomically(out, table.to_csv().encode())
    print(f"{len(table)} training samples by {_reason(options.method, by)}")
    print(table.head(options.show).to_string(float_format="{:.4g}".format))
    if "corrupted" in given.names:
        _measured(given, found, out)
    print(f"all samples, the most suspicious first: {out}")
    return 0


def _reason(method: str, by: str) -> str:
    reasons = {
        "self_influence": f"influence on their own loss ({method})",
        "validation": f"how much removing them would lower the test data's loss ({method})",
        "loss": "their loss",
    }
    return reasons[by]


def _measured(given: ModelFile, found: Any, out: Path) -> None:
    """Print and draw how well the known bad samples were found."""
    bad = np.asarray(given.names["corrupted"])
    measured = detection(found, bad)
    said = measured.attrs
    print(
        f"of the {bad.sum()} samples known to be bad, {said['found_in_share']:.0%} are among the "
        f"first {bad.sum()}; average precision {said['average_precision']:.3f} "
        f"({said['share']:.3f} by chance)".replace("%", " %")
    )
    if "label" in found.coords:
        print(
            label_report(found, bad)
            .to_dataframe()
            .to_string(float_format="{:.4g}".format)
        )
    png, svg = plots.save(
        plots.detection({found.attrs["method"]: measured}), out.with_suffix("")
    )
    print(f"figure: {png}  {svg}")
