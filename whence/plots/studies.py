"""Figures of the runs of a study: errors on the way, at the end, and beside a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from whence import _checks
from whence.plots.study_curves import (
    NAMES,
    Curves,
    curves_of,
    positive_rows,
    ratios_of,
)
from whence.plots.study_panels import StudyPanels, set_log_ticks
from whence.plots.style import INK, TEXT, Array, dress

AXES = {"iteration": "iteration", "seconds": "time (s)"}
HEADINGS = {"iteration": "iterations", "seconds": "time"}
SPREAD = 0.4
"""Height over which the seeds of a box are spread; a box has room of height 1."""
BAND = "Line: median over seeds; band: from the lower to the upper quartile."
KEPT = "A run that has ended keeps its last value."

Against = Literal["iteration", "seconds"]


def study_convergence(
    histories: DataFrame, against: Against = "iteration", column: str = "error"
) -> Figure:
    """Draw how the error falls, a panel for each problem and a line for each method.

    Parameters
    ----------
    histories:
        Columns problem, method, seed, iteration, seconds and ``column``, as
        :func:`whence.studies.results.read_histories` returns them.
    against:
        ``"iteration"`` or ``"seconds"``.
    column:
        What is drawn, ``"error"`` or ``"test_loss"``.

    Raises
    ------
    ValueError
        If ``against`` or ``column`` is unknown, or no positive value of the column is there.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence import plots
    >>> histories = pd.DataFrame({
    ...     "problem": "wave", "method": ["random"] * 2 + ["residual"] * 2, "seed": 0,
    ...     "iteration": [0, 100] * 2, "error": [1.0, 0.1, 1.0, 0.01]})
    >>> [len(ax.lines) for ax in plots.study_convergence(histories).axes]
    [2]
    """
    _checks.one_of("axis", against, AXES)
    rows = positive_rows(histories, column)
    panels = panels_of(histories, rows)
    name = NAMES[column]
    heading = f"{capitalized(name)} against {HEADINGS[against]}"
    note = f"{BAND} {KEPT}"
    figure = panels.figure(heading, note, has_legend=True)

    for k, problem in enumerate(panels.problems):
        ax = panels.panel(figure, k)
        is_of_problem = rows["problem"] == problem
        of_problem = rows[is_of_problem]
        # All that is drawn decides where ticks are.
        drawn = []
        for method, runs in of_problem.groupby("method", sort=False):
            curves = curves_of(runs, against, column)
            values = draw_band(ax, panels, str(method), curves)
            drawn.append(values)

        labels = (AXES[against], panels.label(k, name))
        finish(ax, labels, drawn)

    # Those that have not run on any problem, too: what is missing is seen.
    panels.draw_legend(figure, panels.methods)
    return figure


def study_ratio(histories: DataFrame, baseline: str, column: str = "error") -> Figure:
    """Draw the error of each method over that of a baseline of the same seed, by iteration.

    Parameters
    ----------
    histories:
        As of :func:`study_convergence`.
    baseline:
        The method that others are divided by.
    column:
        What is drawn, ``"error"`` or ``"test_loss"``.

    Raises
    ------
    ValueError
        If the baseline is no method, or shares no seed of any problem with another method.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence import plots
    >>> histories = pd.DataFrame({
    ...     "problem": "wave", "method": ["random"] * 2 + ["residual"] * 2, "seed": 0,
    ...     "iteration": [0, 100] * 2, "error": [1.0, 0.1, 1.0, 0.01]})
    >>> (ax,) = plots.study_ratio(histories, "random").axes
    >>> ax.lines[-1].get_ydata()[[0, -1]].round(3).tolist()
    [1.0, 0.1]
    """
    rows = positive_rows(histories, column)
    methods = list(rows["method"].unique())
    _checks.one_of("method as baseline", baseline, methods)

    # By problem and method, where there are pairs.
    ratios: dict[str, dict[str, Curves]] = {}
    for problem, of_problem in rows.groupby("problem", sort=False):
        by_method = ratios_of(of_problem, baseline, column)
        if by_method:
            ratios[str(problem)] = by_method
    if not ratios:
        raise ValueError(
            f"no method shares a problem and a seed with {baseline!r}: choose another baseline"
        )

    all_methods = list(histories["method"].unique())
    panels = StudyPanels(list(ratios), all_methods)
    heading = f"{capitalized(NAMES[column])} over that of {baseline}"
    note = f"{BAND} Below the line at 1 a method is better than {baseline} of the same seed."
    figure = panels.figure(heading, note, has_legend=True)

    for k, by_method in enumerate(ratios.values()):
        ax = panels.panel(figure, k)
        # Where the baseline itself is.
        ax.axhline(1, color=INK, linewidth=1.0)
        drawn = [np.ones(1)]
        for method, curves in by_method.items():
            values = draw_band(ax, panels, method, curves)
            drawn.append(values)

        labels = ("iteration", panels.label(k, "ratio"))
        finish(ax, labels, drawn)

    others = [method for method in panels.methods if method != baseline]
    panels.draw_legend(figure, others)
    return figure


def panels_of(table: DataFrame, rows: DataFrame) -> StudyPanels:
    """Return the panels of those problems that have rows to draw."""
    # Of all methods, so that one looks the same in every figure of a study.
    methods = list(table["method"].unique())
    problems = list(rows["problem"].unique())
    return StudyPanels(problems, methods)


def capitalized(words: str) -> str:
    """Return words with a capital first, the others as they are."""
    return words[0].upper() + words[1:]


def draw_band(ax: Axes, panels: StudyPanels, method: str, curves: Curves) -> Array:
    """Draw the median and the quartiles of a method; return all that is drawn."""
    low, median, high = curves.quartiles()
    look = panels.looks[method]
    # Faint, as the bands of several methods lie over each other.
    ax.fill_between(
        curves.places,
        low,
        high,
        color=look["color"],
        alpha=0.18,
        linewidth=0,
    )
    ax.plot(curves.places, median, linewidth=1.8, label=method, **look)
    return np.concatenate([low, median, high])


def finish(ax: Axes, labels: tuple[str, str], drawn: Sequence[Array]) -> None:
    """Give a panel its axes, for the values that are drawn in it."""
    ax.set_yscale("log")
    values = np.concatenate(drawn)
    set_log_ticks(ax, "y", values)
    # Curves begin at one edge and end at the other.
    ax.margins(x=0)
    dress(ax, labels)


# --- the outcome ---------------------------------------------------------------------------------


def study_boxes(table: DataFrame, value: str = "error") -> Figure:
    """Draw what the runs came to: a box for each method, and a mark for each seed.

    Parameters
    ----------
    table:
        A row for each run with problem, method, seed and the value, as
        :func:`whence.studies.results.read_results` returns it.
    value:
        What is drawn: ``"error"``, ``"validation_loss"``, ``"test_loss"`` or ``"seconds"``.

    Raises
    ------
    ValueError
        If the value is unknown or never positive.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence import plots
    >>> table = pd.DataFrame({
    ...     "problem": "wave", "method": ["random"] * 2 + ["residual"] * 2, "seed": [0, 1] * 2,
    ...     "error": [0.2, 0.4, 0.1, 0.2]})
    >>> (ax,) = plots.study_boxes(table).axes
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['random', 'residual']
    """
    rows = positive_rows(table, value)
    panels = panels_of(table, rows)
    # Ticks and title of a panel take 0.9 inches, each box with the room around it 0.34.
    n_methods = len(panels.methods)
    height = 0.9 + 0.34 * n_methods
    panels = replace(panels, height=height)
    name = NAMES[value]
    heading = f"{capitalized(name)} of each run"
    note = "Box: quartiles and median over seeds; whiskers: least and largest; marks: the seeds."
    figure = panels.figure(heading, note, has_legend=False)

    for k, problem in enumerate(panels.problems):
        ax = panels.panel(figure, k)
        is_of_problem = rows["problem"] == problem
        of_problem = rows[is_of_problem]
        draw_boxes(ax, of_problem, value, panels)

        ax.set_xscale("log")
        values = of_problem[value].to_numpy(dtype=float)
        set_log_ticks(ax, "x", values)
        dress(ax, (name, ""))
        # Names stand once in a row of panels.
        names = [panels.label(k, method) for method in panels.methods]
        ax.set_yticks(range(n_methods), names, fontsize=TEXT)
        ax.set_ylim(n_methods - 0.5, -0.5)  # the first method on top
    return figure


def draw_boxes(ax: Axes, runs: DataFrame, value: str, panels: StudyPanels) -> None:
    """Draw a box and the values of each method of one problem."""
    for place, method in enumerate(panels.methods):
        is_of_method = runs["method"] == method
        values = np.sort(runs[is_of_method][value])
        n = len(values)
        if n == 0:
            continue

        color = panels.looks[method]["color"]
        # Its face lighter than what stands in it.
        face = {"facecolor": (color, 0.15), "edgecolor": color, "linewidth": 1.4}
        line = {"color": color, "linewidth": 1.4}
        ax.boxplot(
            values,
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            whis=(0, 100),
            boxprops=face,
            patch_artist=True,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": color, "linewidth": 2.4},
        )
        # Beside each other where they are alike: evenly spread, as chance would differ each time.
        heights = place + SPREAD * (np.arange(n) - (n - 1) / 2) / n
        ax.scatter(
            values,
            heights,
            s=14,
            color=color,
            edgecolors="white",
            linewidths=0.5,
            zorder=4,
        )
