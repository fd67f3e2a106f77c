"""What the runs of :mod:`benchmarks.ablation` come to: errors, ranks, paired tests, steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks import _measure
from whence.studies.significance import holm

Row = Mapping[str, str]
Errors = dict[str, dict[tuple[str, int], float]]
"""Relative L2 errors by method, and then by problem and seed."""

REFERENCE = "influence"
TIMES = {
    "at_quarter": "1/4 of the time",
    "at_half": "1/2",
    "at_three_quarters": "3/4",
    "relative_l2": "end",
}
TITLES = {
    "replace": "By replacement",
    "grow": "By growing",
}


def tables(rows: Sequence[Row]) -> str:
    """Return all tables, those of each update one after another."""
    parts = []
    for update, title in TITLES.items():
        chosen = [row for row in rows if row["update"] == update]
        if not chosen:
            continue
        errors = errors_of(chosen)
        parts += [
            f"{title}: relative L2, median (quartiles) of {len(seeds_of(chosen))} seeds",
            error_table(errors),
            f"{title}: is {REFERENCE} best, or within the best one's quartiles?",
            verdict_table(errors),
            f"{title}: {REFERENCE} against each, over pairs of the same problem and seed",
            comparison_table(errors),
            f"{title}: what the time went into",
            cost_table(chosen),
            f"{title}: error over that of {REFERENCE} as time goes by, medians over the pairs",
            trend_table(chosen),
        ]
    parts += [
        "Held-out loss against error: rank correlation over the runs of a problem",
        correlation_table(rows),
    ]
    return "\n\n".join(parts)


def errors_of(rows: Iterable[Row], column: str = "relative_l2") -> Errors:
    """Return the errors of a column, by default those of the networks that were kept."""
    errors: Errors = {}
    for row in rows:
        key = row["problem"], int(row["seed"])
        errors.setdefault(row["method"], {})[key] = float(row[column])
    return errors


def seeds_of(rows: Iterable[Row]) -> set[str]:
    """Return the seeds of some runs."""
    return {row["seed"] for row in rows}


def problems_of(errors: Errors) -> list[str]:
    """Return the problems in the order of the runs."""
    keys = [key for by_key in errors.values() for key in by_key]
    return list(dict.fromkeys(problem for problem, _ in keys))


def of_problem(errors: Errors, problem: str) -> dict[str, list[float]]:
    """Return the errors of each method on one problem."""
    table = {}
    for method, by_key in errors.items():
        values = [error for (name, _), error in by_key.items() if name == problem]
        if values:
            table[method] = values
    return table


def mean_ranks(errors: Errors) -> dict[str, float]:
    """Return the mean rank of each method over problems and seeds that all methods have."""
    shared = set.intersection(*(set(by_key) for by_key in errors.values()))
    totals = dict.fromkeys(errors, 0.0)
    for key in shared:
        values = [by_key[key] for by_key in errors.values()]
        for method, rank in zip(errors, stats.rankdata(values), strict=True):
            totals[method] += float(rank) / len(shared)
    return totals


def error_table(errors: Errors) -> str:
    """Return medians and quartiles by method and problem, best medians in bold."""
    problems = problems_of(errors)
    best = {}
    for problem in problems:
        medians = {
            method: statistics.median(values)
            for method, values in of_problem(errors, problem).items()
        }
        best[problem] = min(medians, key=lambda method: medians[method])

    ranks = mean_ranks(errors)
    lines = []
    for method in sorted(errors, key=lambda method: ranks[method]):
        cells = []
        for problem in problems:
            values = of_problem(errors, problem).get(method, [])
            cells.append(_interval(values, method == best[problem]))
        lines.append([method, *cells, f"{ranks[method]:.1f}"])
    return _measure.table(["method", *problems, "mean rank"], lines)


def _interval(values: Sequence[float], is_best: bool) -> str:
    if not values:
        return "–"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    median = f"**{middle:.1e}**" if is_best else f"{middle:.1e}"
    return f"{median} ({low:.1e} to {high:.1e})"


def comparison_table(errors: Errors) -> str:
    """Return Wilcoxon's signed-rank test of the reference's log errors against each method's."""
    reference = errors[REFERENCE]
    compared = []
    for method, by_key in errors.items():
        shared = sorted(set(by_key) & set(reference))
        if method == REFERENCE or not shared:
            continue
        # Above zero where the reference has the smaller error.
        gains = [math.log(by_key[key] / reference[key]) for key in shared]
        compared.append((method, gains, float(stats.wilcoxon(gains).pvalue)))

    compared.sort(key=lambda entry: entry[2])
    corrected = holm([p for _, _, p in compared])
    lines = []
    for (method, gains, p), p_holm in zip(compared, corrected, strict=True):
        wins = sum(gain > 0 for gain in gains)
        ratio = math.exp(statistics.median(gains))
        lines.append(
            [
                method,
                f"{ratio:.2f}",
                f"{wins} of {len(gains)}",
                f"{p:.2g}",
                f"{p_holm:.2g}",
            ]
        )
    return _measure.table(
        [
            "against",
            f"its error over that of {REFERENCE}, median",
            f"{REFERENCE} is better",
            "p",
            "p, Holm",
        ],
        lines,
    )


def trend_table(rows: Sequence[Row]) -> str:
    """Return median ratios of errors at quarters of the time, and of what is kept in the end."""
    by_time = {title: errors_of(rows, column) for column, title in TIMES.items()}
    lines = []
    for method in next(iter(by_time.values())):
        if method == REFERENCE:
            continue
        cells = []
        for errors in by_time.values():
            reference = errors[REFERENCE]
            shared = set(errors[method]) & set(reference)
            ratios = [errors[method][key] / reference[key] for key in shared]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "–")
        lines.append([method, *cells])
    return _measure.table(["method", *by_time], lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Return steps, the share of time spent on resampling, and how far losses generalize."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    lines = []
    for method, runs in by_method.items():
        shares = [
            float(r["resampling_seconds"]) / float(r["cpu_seconds"]) for r in runs
        ]
        ratios = [float(r["held_out_loss"]) / float(r["loss"]) for r in runs]
        steps = statistics.median(int(r["steps"]) for r in runs)
        lines.append(
            [
                method,
                f"{steps:.0f}",
                f"{100 * statistics.median(shares):.0f} %",
                f"{statistics.median(ratios):.2g}",
            ]
        )
    return _measure.table(
        [
            "method",
            "steps",
            "of the time for resampling",
            "held-out over training loss",
        ],
        lines,
    )


def verdict_table(errors: Errors) -> str:
    """Return by problem which method is best, and whether the reference keeps up with it."""
    lines = []
    for problem in problems_of(errors):
        by_method = of_problem(errors, problem)
        best = min(by_method, key=lambda method: statistics.median(by_method[method]))
        high = float(np.quantile(by_method[best], 0.75))
        median = statistics.median(by_method[REFERENCE])
        is_met = "yes" if median <= high else "no"
        ratio = median / statistics.median(by_method[best])
        lines.append([problem, best, f"{ratio:.2g}", is_met])
    return _measure.table(
        ["problem", "best", f"median of {REFERENCE} over the best", "kept up"], lines
    )


def correlation_table(rows: Sequence[Row]) -> str:
    """Return Spearman's rank correlation between held-out loss and error, by problem."""
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        runs = [row for row in rows if row["problem"] == problem]
        losses = [float(row["held_out_loss"]) for row in runs]
        values = [float(row["relative_l2"]) for row in runs]
        correlation = float(stats.spearmanr(losses, values).statistic)
        lines.append([problem, str(len(runs)), f"{correlation:.2f}"])
    return _measure.table(["problem", "runs", "rank correlation"], lines)
