"""Methods compared over the seeds of a study: statistics, ranks, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pandas import DataFrame, Series
from scipy.stats import rankdata

from whence import _checks
from whence._files import JsonObject
from whence.studies.results import check_column
from whence.studies.significance import LEVEL, holm, paired_test

STATISTICS = ("mean", "median")
Statistic = Literal["mean", "median"]
BASELINE = "random"
"""The method that others are divided by where it is in a study and none is named."""
NAMES = {
    "error": "Relative L2 error",
    "validation_loss": "Validation loss",
    "test_loss": "Test loss",
    "seconds": "Seconds",
    "iterations": "Iterations",
    "points": "Points",
}
"""What is compared, in words."""


@dataclass(frozen=True)
class Comparison:
    """Methods compared on each problem over the same seeds.

    Parameters
    ----------
    value:
        The column of the results that is compared; less is better.
    statistic:
        ``"mean"`` or ``"median"``: by which methods are ranked and divided by the baseline.
    baseline:
        The method that others are divided by; None for none.
    cells:
        A row for each problem and method: n, the number of seeds; mean, std (n − 1); median and
        quartiles q1 and q3; rank on the problem, 1 the least; ``is_best``; n_pairs, p and p_holm
        against the best (NaN of the best itself); ``is_tied``, not significantly worse than the
        best; ratio to the baseline, NaN without one.
    ranks:
        Mean over problems of each method's rank.
    ratios:
        Geometric mean over problems of each method's ratio to the baseline.
    """

    value: str
    statistic: Statistic
    baseline: str | None
    cells: DataFrame
    ranks: Mapping[str, float]
    ratios: Mapping[str, float]

    @property
    def problems(self) -> list[str]:
        """The problems, in the order of the study."""
        return list(self.cells["problem"].unique())

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the study."""
        return list(self.cells["method"].unique())

    def cell(self, problem: str, method: str) -> Series:
        """Return the row of a problem and a method."""
        is_of_problem = self.cells["problem"] == problem
        is_of_method = self.cells["method"] == method
        # There is one of each pair.
        rows = self.cells[is_of_problem & is_of_method]
        return rows.iloc[0]


def compare(
    table: DataFrame,
    value: str = "error",
    statistic: Statistic = "mean",
    baseline: str | None = None,
) -> Comparison:
    """Compare methods on each problem: statistics over seeds, ranks, significance.

    The best of a problem has the least mean (or median). Each other method is tested against it
    by the exact two-sided Wilcoxon signed-rank test of the differences by seed, and the p of the
    m comparisons of a problem are corrected by Holm's procedure. A method is *tied* with the best
    unless its corrected p is at most 0.05 and its signed ranks say that it is worse.

    Parameters
    ----------
    table:
        A row for each run: problem, method, seed and the value; as
        :func:`whence.studies.results.read_results` returns it.
    value:
        Which column is compared; NaN is left out.
    statistic:
        ``"mean"`` or ``"median"``.
    baseline:
        The method that others are divided by; by default the one called ``random``, if any.

    Raises
    ------
    ValueError
        If a column, a statistic or a baseline is unknown, or the column has no numbers.

    Notes
    -----
    Wilcoxon (1945), Biometrics Bulletin 1; Holm (1979), Scandinavian Journal of Statistics 6;
    mean ranks over problems as of Demšar (2006), JMLR 7.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence.studies.comparison import compare
    >>> table = pd.DataFrame({
    ...     "problem": "wave", "method": ["random"] * 2 + ["residual"] * 2, "seed": [0, 1] * 2,
    ...     "error": [0.2, 0.4, 0.1, 0.2]})
    >>> comparison = compare(table)
    >>> comparison.cells[["method", "n", "mean", "is_best"]].values.tolist()
    [['random', 2, 0.30000000000000004, False], ['residual', 2, 0.15000000000000002, True]]
    >>> round(comparison.ratios["residual"], 3), comparison.ranks["residual"]
    (0.5, 1.0)
    """
    # Before any work, as all that follows takes them for granted.
    check_column(table, value)
    _checks.one_of("statistic", statistic, STATISTICS)
    methods = list(table["method"].unique())
    baseline = chosen_baseline(baseline, methods)

    rows: list[JsonObject] = []
    # In the order of the study, not of the alphabet.
    for problem, runs in table.groupby("problem", sort=False):
        values = _values_by_seed(runs, value, methods)
        rows += rows_of_problem(
            str(problem),
            values,
            statistic,
            baseline,
        )

    cells = DataFrame(rows)
    by_method = cells.groupby("method", sort=False)
    ranks = by_method["rank"].mean()
    # Ratios multiply: halving one problem's error makes up for doubling another's.
    # An exact method has a ratio of zero, and a logarithm of −∞.
    with np.errstate(divide="ignore"):
        logarithms = np.log(cells["ratio"])
    of_methods = logarithms.groupby(cells["method"], sort=False)
    ratios = np.exp(of_methods.mean())
    return Comparison(
        value,
        statistic,
        baseline,
        cells,
        ranks.to_dict(),
        ratios.to_dict(),
    )


def chosen_baseline(baseline: str | None, methods: Sequence[str]) -> str | None:
    """Return the method that others are divided by."""
    if baseline is not None:
        _checks.one_of("method of the study as baseline", baseline, methods)
        return baseline

    # However its name is written.
    for method in methods:
        if method.lower() == BASELINE:
            return method
    return None


def _values_by_seed(
    runs: DataFrame, value: str, methods: Sequence[str]
) -> dict[str, Series]:
    """Return the finite values of each method on one problem, by seed."""
    values = {}
    for method in methods:
        is_own = runs["method"] == method
        by_seed = runs[is_own].set_index("seed")
        numbers = by_seed[value].astype(float)
        # A mean over what diverged to infinity would say nothing of the others.
        is_finite = np.isfinite(numbers)
        values[method] = numbers[is_finite]
    return values


def rows_of_problem(
    problem: str,
    values: Mapping[str, Series],
    statistic: Statistic,
    baseline: str | None,
) -> list[JsonObject]:
    """Return a row for each method on one problem."""
    rows = []
    for method, own_values in values.items():
        rows.append(row_of_method(problem, method, own_values))
    levels = np.array([row[statistic] for row in rows])
    # A method without a run on this problem has no rank there.
    ranks = rankdata(levels, nan_policy="omit")
    for row, rank in zip(rows, ranks, strict=True):
        row["rank"] = float(rank)

    best = None
    if np.isfinite(levels).any():
        best = int(np.nanargmin(levels))
    add_significance(rows, values, statistic, best)

    # Without a baseline, or one that has not run or is exact, there are no ratios.
    divisor = math.nan
    for row in rows:
        if row["method"] == baseline and row[statistic] > 0:
            divisor = row[statistic]
    for row in rows:
        row["ratio"] = row[statistic] / divisor
    return rows


def row_of_method(problem: str, method: str, values: Series) -> JsonObject:
    """Return the statistics of a method's values, NaN where there are too few."""
    return {
        "problem": problem,
        "method": method,
        "n": len(values),
        "mean": float(values.mean()),
        # Of a sample, by n − 1, so that one value has none.
        "std": float(values.std(ddof=1)),
        "median": float(values.median()),
        # Quartiles are interpolated between the values on either side.
        "q1": float(values.quantile(0.25)),
        "q3": float(values.quantile(0.75)),
    }


def add_significance(
    rows: list[JsonObject],
    values: Mapping[str, Series],
    statistic: Statistic,
    best: int | None,
) -> None:
    """Add to the rows of a problem how each method compares with the best, a row's number."""
    is_worse = []
    for row in rows:
        # Two methods may do the same.
        is_best = best is not None and row[statistic] == rows[best][statistic]
        row["is_best"] = is_best
        n_pairs = 0
        p = math.nan
        worse = False
        # The best is not compared with itself.
        if best is not None and not is_best:
            method = row["method"]
            best_method = rows[best]["method"]
            n_pairs, p, worse = paired_test(
                values[method],
                values[best_method],
            )
        row["n_pairs"] = n_pairs
        row["p"] = p
        is_worse.append(worse)

    corrected = holm([row["p"] for row in rows])
    for k, row in enumerate(rows):
        p_holm = float(corrected[k])
        row["p_holm"] = p_holm
        # NaN is not significant.
        is_significant = p_holm <= LEVEL and is_worse[k]
        is_compared = row["n_pairs"] > 0
        row["is_tied"] = is_compared and not is_significant
