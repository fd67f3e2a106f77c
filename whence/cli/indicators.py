"""``whence indicators``: where the answers of runs come from, as a few numbers side by side."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import tyro
import xarray as xr

from whence import _checks, plots
from whence._files import make_folder, write_atomically
from whence.attribution.influence import Influence
from whence.attribution.quality import FarFromMinimum
from whence.attribution.quantities import Output
from whence.cli.files import check_file
from whence.cli.flags import default_words
from whence.diagnosis.indicators import (
    Causality,
    Coherence,
    Directional,
    Indicator,
    Proximity,
    measure,
)
from whence.pinn.pde.problem import Problem
from whence.pinn.training.load import load_run, problem_source
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import RunFolder

FILE = "indicators.csv"
TIME = "t"
"""The coordinate that is time, where a problem has one."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure where the answers of one run come from, or of several side by side.

    A share of influence is compared with what the places of the points alone would give.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of one problem, or of variants of it."""
    of: Annotated[tuple[str, ...], default_words("all outputs", "[NAME ...]")] = ()
    """Outputs to explain."""
    targets: int = 300
    """Points of the domain at which they are explained."""
    direction: Annotated[
        tuple[float, ...], default_words("by the problem", "[FLOAT ...]")
    ] = ()
    """Which way things go, a number for each coordinate: measures the share from upstream."""
    center: Annotated[
        tuple[float, ...], default_words("by the problem", "[FLOAT ...]")
    ] = ()
    """What things spread from, in place of a direction."""
    seed: int = 0
    """Seed of the targets and of the intervals."""
    out: Annotated[Path | None, default_words("RUN/indicators.csv", "PATH")] = None
    """CSV file to write, with the figure beside it; in the first run by default."""


def run(options: Options, arguments: Sequence[str]) -> int:
    """Measure indicators of runs; return the exit code."""
    _checks.count("--targets", options.targets)
    if not options.runs:
        raise ValueError("name a run folder at least, as `whence train` leaves it")
    out = options.out or options.runs[0] / FILE
    if out.suffix != ".csv":
        raise ValueError(f"--out names a CSV file, which ends in .csv, got {out}")
    check_file(out)

    results = {_name(path): load_run(path) for path in options.runs}
    check_alike(results)
    indicators = indicators_of(options, next(iter(results.values())).problem)
    numbers = {}
    for name, result in results.items():
        table = explained(result, options)
        numbers[name] = measure(table, indicators, seed=options.seed)

    rows = as_table(numbers)
    make_folder(out.absolute().parent)
    write_atomically(out, rows.to_csv(index=False).encode())
    print(rows.to_string(index=False, float_format="{:.3f}".format))
    figure = plots.indicator_bars(numbers)
    png, svg = plots.save(figure, out.with_suffix(""))
    print(f"indicators: {out}")
    print(f"figure: {png}  {svg}")
    return 0


def _name(path: Path) -> str:
    """Return the name of a run, which is that of its folder."""
    return path.resolve().name


def check_alike(results: dict[str, Result]) -> None:
    """Raise ``ValueError`` unless all runs are of one problem, or of variants of it."""
    first_name, first = next(iter(results.items()))
    for name, result in results.items():
        if result.problem.name != first.problem.name:
            raise ValueError(
                f"runs are compared of one problem and its variants, but {first_name} solves "
                f"{first.problem.name} and {name} {result.problem.name}"
            )


def indicators_of(options: Options, problem: Problem) -> dict[str, Indicator]:
    """Return what is measured of a problem: what suits any, what it lists, what is asked for."""
    indicators: dict[str, Indicator] = {"proximity": Proximity()}
    if len(problem.equations) > 1:
        indicators["coherence"] = Coherence()
    if TIME in problem.coordinates:
        indicators["causality"] = Causality(TIME)

    source = problem_source(RunFolder(options.runs[0]))
    if source is not None:
        indicators.update(source.indicators)
    if options.direction:
        indicators["directional"] = Directional(direction=options.direction)
    if options.center:
        indicators["directional"] = Directional(center=options.center)
    return indicators


def explained(result: Result, options: Options) -> xr.DataArray:
    """Return the influence of all training points on outputs at points of the domain."""
    problem = result.problem
    names = options.of or tuple(problem.outputs)
    for name in names:
        _checks.one_of("--of", name, tuple(problem.outputs))

    points = problem.domain.sample(options.targets, "random", seed=options.seed)
    points = points.to(dtype=result.objective.parameters.dtype)
    quantities = [Output(points, name) for name in names]
    with warnings.catch_warnings():
        # A run that is trained poorly on purpose is what indicators are for.
        warnings.simplefilter("ignore", FarFromMinimum)
        with torch.no_grad():
            return Influence(result.objective).attribute(quantities)


def as_table(numbers: dict[str, xr.Dataset]) -> pd.DataFrame:
    """Return indicators of runs as rows, one for each run, indicator and quantity."""
    parts = []
    for name, of_run in numbers.items():
        part = of_run.to_dataframe().reset_index()
        part.insert(0, "run", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
