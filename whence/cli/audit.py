"""``whence audit``: which training samples of a user's model look wrong."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
import tyro
import xarray as xr

from whence import plots
from whence._files import make_folder, write_atomically
from whence.attribution.method import Method
from whence.attribution.quality import FarFromMinimum
from whence.catalogue import METHODS
from whence.cli.files import check_file, free_name
from whence.cli.flags import (
    check_used,
    choices,
    default_words,
    groups_of,
    values_for,
    with_groups,
)
from whence.cli.model_file import ModelFile, read
from whence.cli.sample_images import draw_suspects
from whence.evaluation.bad_data import detection, label_report, suspects
from whence.plots.grouping import MAX_PANELS


@dataclasses.dataclass(frozen=True)
class _Options:
    """Rank the training samples of a model by how wrong they look."""

    file: tyro.conf.Positional[Path]
    """Python file that names model, data and loss; see `whence influence --help`."""
    method: Annotated[str, choices(METHODS)] = "influence"
    """Attribution method."""
    by: Literal["self_influence", "validation", "loss"] = "self_influence"
    """What makes a sample suspicious: its influence on itself, what it does to the test data's
    loss, or its own loss."""
    damping: Annotated[
        float | None, default_words("by number type and kind of points", "FLOAT")
    ] = None
    """Damping λ relative to the largest eigenvalue of the curvature, for --method influence."""
    show: int = 20
    """How many of the most suspicious to print."""
    out: Annotated[Path | None, default_words("FILE_suspects.csv", "PATH")] = None
    """CSV file of all samples, the most suspicious first; one more each time."""
    overwrite: bool = False
    """Write over a former result."""


GROUPS = groups_of((METHODS,), [field.name for field in dataclasses.fields(_Options)])
SKIPPED = ("memory_budget", "damping", "solver", "learning_rates", "weight_decay")
Options = with_groups(_Options, GROUPS, SKIPPED)

REASONS = {
    "self_influence": "influence on their own loss ({method})",
    "validation": "how much removing them would lower the test data's loss ({method})",
    "loss": "their loss",
}
"""What the samples are ranked by, in words."""


def run(options: _Options, arguments: Sequence[str]) -> int:
    """Rank the samples; return the exit code."""
    out = options.out
    if out is None:
        out = options.file.with_name(f"{options.file.stem}_suspects.csv")
        if not options.overwrite:
            out = free_name(out)
    if out.suffix != ".csv":
        raise ValueError(f"--out names a CSV file, which ends in .csv, got {out}")
    if options.show < 0:
        raise ValueError(f"--show must not be negative, got {options.show}")

    check_used(options, GROUPS, {"attribution method": [options.method]})
    check_file(out, overwrite=options.overwrite)

    file = read(options.file)
    # Only where it is needed, as a file without test data may be audited too.
    validation = file.test() if options.by == "validation" else None
    method = method_of(options, file)

    with warnings.catch_warnings():
        # The quality, which is printed, says how far from a minimum the model is.
        warnings.simplefilter("ignore", FarFromMinimum)
        ranked = suspects(method, options.by, validation=validation)

    # As a table: one row for each sample, the most suspicious first.
    table = ranked.sortby("rank").reset_coords(drop=False).to_dataframe()
    # A supervised objective has one term: its name would be the same in every row.
    table = table.reset_index(drop=True).drop(columns=["term"]).set_index("rank")
    if file.kind_of_target() == "value":
        table = with_predictions(table, file)
    make_folder(out.absolute().parent)
    write_atomically(out, table.to_csv().encode())

    reason = REASONS[options.by].format(method=options.method)
    print(f"{len(table)} training samples by {reason}")
    print(table.head(options.show).to_string(float_format="{:.4g}".format))
    if "quality" in ranked.attrs:
        print(f"quality: {ranked.attrs['quality']}")
    if "corrupted" in file.names:
        show_detection(ranked, np.asarray(file.names["corrupted"]), out)
    print(f"all samples, the most suspicious first: {out}")
    draw_suspects(file, ranked, out)
    return 0


def with_predictions(table: pd.DataFrame, file: ModelFile) -> pd.DataFrame:
    """Return the table of a regressor's samples with what the model predicts of each.

    Of several outputs there is no one number to show.
    """
    table = table.rename(columns={"label": "value"})
    (term,) = file.objective.terms.values()
    tensors = file.objective.parameters.tensors()
    parts = []
    for block in term.blocks():
        with torch.no_grad():
            parts.append(term.residual(tensors, block.points))
    output = torch.cat(parts).cpu().double().numpy()
    if output.shape[1] != 1 or "value" not in table:
        return table

    predictions = output[table["index"], 0]
    table.insert(2, "prediction", predictions)
    table.insert(3, "residual", predictions - table["value"])
    return table


def method_of(options: _Options, file: ModelFile) -> Method:
    """Return the attribution method that the options describe."""
    values = values_for(options, GROUPS, METHODS, options.method)
    if options.damping is not None:
        if options.method != "influence":
            raise ValueError(
                f"--damping does nothing with --method {options.method}: leave it out"
            )
        values["damping"] = options.damping

    return file.method(options.method, values)


def show_detection(ranked: xr.Dataset, is_bad: np.ndarray, out: Path) -> None:
    """Print and draw how well the known bad samples were found."""
    curve = detection(ranked, is_bad)
    results = curve.attrs
    n_bad = is_bad.sum()
    # Under a random order, precision is the share of bad samples.
    text = (
        f"of the {n_bad} samples known to be bad, {results['found_in_share']:.0%} are among the "
        f"first {n_bad}; average precision {results['average_precision']:.3f} "
        f"({results['share']:.3f} by chance)"
    )
    print(text.replace("%", " %"))

    # Which classes the bad samples were given, where samples have labels.
    if len(np.unique(ranked.coords.get("label", np.arange(0)))) in range(1, MAX_PANELS):
        report = label_report(ranked, is_bad).to_dataframe()
        print(report.to_string(float_format="{:.4g}".format))

    figure = plots.detection({ranked.attrs["method"]: curve})
    png, svg = plots.save(figure, out.with_suffix(""))
    print(f"figure: {png}  {svg}")
