"""The histories of a study's runs at common places, so that seeds and methods can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pandas import DataFrame

from whence import _checks
from whence.plots.style import Array

GRID = 200
"""Places at which runs are compared that were logged at others."""
QUARTILES = (0.25, 0.5, 0.75)
NAMES = {
    "error": "relative L2 error",
    "validation_loss": "validation loss",
    "test_loss": "test loss",
    "seconds": "time (s)",
}
"""What is drawn, in words."""


def positive_rows(table: DataFrame, column: str) -> DataFrame:
    """Return the rows that a logarithmic axis can show, all positive and finite."""
    _checks.one_of("column", column, NAMES)
    values = table[column].astype(float)
    # NaN where nothing was measured; zero where an answer is exact.
    is_shown = np.isfinite(values) & (values > 0)
    if not is_shown.any():
        raise ValueError(f"there is no positive value of {column!r} to draw")
    return table[is_shown]


@dataclass(frozen=True)
class Curves:
    """The logarithms of values of several runs at the same places."""

    places: Array
    """Iterations or seconds, (n,)."""
    logarithms: Array
    """A row for each run, (runs, n)."""

    def quartiles(self) -> Array:
        """Return lower quartile, median and upper quartile over runs, (3, n)."""
        # Of logarithms, so that the middle of two values is their geometric mean.
        quartiles: Array = np.quantile(
            self.logarithms,
            QUARTILES,
            axis=0,
        )
        return np.exp(quartiles)


def curves_of(runs: DataFrame, against: str, column: str) -> Curves:
    """Return the runs of a method on one problem at common places."""
    # Seeds log at the same iterations, but never at the same seconds.
    places = common_places(runs, against)
    rows = []
    for _, run in runs.groupby("seed"):
        row = logarithms_at(places, run, against, column)
        rows.append(row)
    return Curves(places, np.array(rows))


def ratios_of(runs: DataFrame, baseline: str, column: str) -> dict[str, Curves]:
    """Return by method the ratios to the baseline of the same seed, on one problem."""
    is_of_baseline = runs["method"] == baseline
    by_seed = dict(list(runs[is_of_baseline].groupby("seed")))

    ratios = {}
    others = runs[~is_of_baseline]
    for method, of_method in others.groupby("method", sort=False):
        places = common_places(of_method, "iteration")
        rows = []
        for seed, run in of_method.groupby("seed"):
            divisor = by_seed.get(seed)
            # A seed of which the baseline failed.
            if divisor is None:
                continue

            # log(a/b) = log a − log b, both at the same iterations.
            logarithms = logarithms_at(places, run, "iteration", column)
            other = logarithms_at(places, divisor, "iteration", column)
            rows.append(logarithms - other)
        if rows:
            ratios[str(method)] = Curves(places, np.array(rows))
    return ratios


def common_places(runs: DataFrame, against: str) -> Array:
    """Return where runs are compared: where they were logged, or as many places as can be seen."""
    places = runs[against].to_numpy(dtype=float)
    logged = np.unique(places)
    if len(logged) <= GRID:
        return logged
    # From the first row to the last one of the run that took longest.
    first = logged[0]
    last = logged[-1]
    return np.linspace(first, last, GRID)


def logarithms_at(places: Array, run: DataFrame, against: str, column: str) -> Array:
    """Return the logarithms of a run's values at places, straight between those logged."""
    # Of two rows at one iteration the later one has the state that was kept.
    rows = run.drop_duplicates(against, keep="last")
    rows = rows.sort_values(against)
    logged = rows[against].to_numpy(dtype=float)
    values = rows[column].to_numpy(dtype=float)
    # Beyond its last row a run has what it came to.
    return np.interp(places, logged, np.log(values))
