"""Figures of training: losses, errors and accuracies by iteration or epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence.plots.looks import legend_columns, legend_inches, line_looks
from whence.plots.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    PURPLE,
    TEXT,
    TITLE,
    VERMILION,
    Array,
    Look,
    count_ticks,
    dress,
    legend_beside,
)

LINES = {
    "loss": ("total loss", INK, "-", 2.0),
    "validation_loss": ("validation loss", GRAY, "--", 1.5),
    "relative_l2": ("relative L2 error", INK, ":", 2.0),
}
"""Label, color, dashes and width of the columns of a run that are of no term."""
SETS = {
    "train": ("training", BLUE),
    "training": ("training", BLUE),
    "validation": ("validation", VERMILION),
    "valid": ("validation", VERMILION),
    "val": ("validation", VERMILION),
    "test": ("test", GREEN),
    "": ("", BLUE),
}
"""Name and color by what stands before ``_loss`` or ``_accuracy``."""
KINDS = ("loss", "accuracy")
WIDTH = 7.0
"""Width of figures in inches."""
MAX_BESIDE = 9
"""A legend of more lines is below the panels."""
MAX_MARKED = 30
"""Up to so many values of a curve are marked by a dot."""
LOG_DECADES = 1.5
"""Losses that span more are drawn on a logarithmic axis."""


Rows = Sequence[Mapping[str, Any]]
"""A row for each record of a training: numbers by the names of columns."""


def convergence(history: Rows) -> Figure:
    """Draw losses and errors against iterations, the stages of the schedule, and the points.

    ``history`` holds the rows of :meth:`whence.pinn.RunFolder.history`, or is a result's own.

    Examples
    --------
    >>> from whence import plots
    >>> rows = [{"iteration": k, "stage": "Adam", "loss_pde": 10.0**-k} for k in range(3)]
    >>> [text.get_text() for text in plots.convergence(rows).axes[0].get_legend().get_texts()]
    ['loss: pde']
    """
    if not history or "iteration" not in history[0]:
        raise ValueError(
            "history must hold rows with an 'iteration', as RunFolder.history() gives"
        )
    run = _Run(history)
    weighted = run.weighted_terms()
    is_resampled = run.is_resampled()

    # Panels below each other: losses, then weights and numbers of points if they change.
    heights = {"loss, error": 4.0}
    if weighted:
        heights["weight"] = 1.6
    if is_resampled:
        heights["points"] = 1.0
    ratios = list(heights.values())
    height = 3.0 + sum(ratios) / 4
    # A long legend is below all panels, which keep their size.
    labels = run.labels()
    is_below = len(labels) > MAX_BESIDE
    if is_below:
        height += legend_inches(labels, WIDTH)
    figure, axes = _stacked(height, ratios)

    run.draw_losses(axes[0])
    if weighted:
        run.draw_weights(axes[1], weighted)
    if is_resampled:
        run.draw_points(axes[-1])

    for ax, label in zip(axes, heights, strict=True):
        dress(ax, ("", label))
    axes[-1].set_xlabel("iteration")
    count_ticks(axes[0])
    run.mark_stages(axes)

    if is_below:
        figure.legend(
            loc="outside lower left",
            ncols=legend_columns(labels, WIDTH),
            fontsize=TEXT,
            frameon=False,
        )
    else:
        legend_beside(axes[0])
    return figure


def _stacked(height: float, ratios: list[float]) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels below each other that share the horizontal axis."""
    figure = Figure((WIDTH, height), layout="constrained")
    table = figure.subplots(
        len(ratios),
        sharex=True,
        squeeze=False,
        height_ratios=ratios,
    )
    return figure, list(table[:, 0])


class _Run:
    """The rows of a run's history as columns of numbers, NaN where a row has none."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.names = _names_of(rows)
        self.iterations = self.column("iteration")

        self.terms = []
        for name in self.names:
            if name.startswith("loss_"):
                self.terms.append(name.removeprefix("loss_"))

        # A term looks the same in all panels.
        self.looks = line_looks(self.terms)

    def column(self, name: str) -> Array:
        numbers = []
        for row in self.rows:
            numbers.append(float(row.get(name, math.nan)))
        return np.array(numbers)

    def weighted_terms(self) -> list[str]:
        """Return the terms with recorded weights: a run records only weights that change."""
        return [term for term in self.terms if f"weight_{term}" in self.names]

    def is_resampled(self) -> bool:
        counts = self.column("points")
        known = counts[np.isfinite(counts)]
        return len(np.unique(known)) > 1

    def labels(self) -> list[str]:
        """Return what the legend of the losses says."""
        lines = [label for name, (label, *_) in LINES.items() if name in self.names]
        return [*lines, *(f"loss: {term}" for term in self.terms)]

    def draw_losses(self, ax: Axes) -> None:
        """Draw the losses of all terms, their sum and the errors, as far as recorded."""
        # The sum of a single term would be drawn twice.
        if len(self.terms) != 1:
            self._draw_known(ax, "loss")

        for term in self.terms:
            ax.plot(
                self.iterations,
                self.column(f"loss_{term}"),
                linewidth=1.5,
                label=f"loss: {term}",
                **self.looks[term],
            )

        self._draw_known(ax, "validation_loss")
        self._draw_known(ax, "relative_l2")

        # An axis from one row to itself would be singular.
        ax.set_yscale("log")
        first = self.iterations[0]
        last = self.iterations[-1]
        ax.set_xlim(first, max(last, first + 1))

    def _draw_known(self, ax: Axes, name: str) -> None:
        if name not in self.names:
            return

        label, color, dashes, width = LINES[name]
        ax.plot(
            self.iterations,
            self.column(name),
            linestyle=dashes,
            color=color,
            linewidth=width,
            label=label,
        )

    def draw_weights(self, ax: Axes, terms: Sequence[str]) -> None:
        for term in terms:
            ax.plot(
                self.iterations,
                self.column(f"weight_{term}"),
                linewidth=1.5,
                **self.looks[term],
            )

        # Weights are factors: twice and half are equally far from one.
        ax.set_yscale("log")

    def draw_points(self, ax: Axes) -> None:
        ax.plot(
            self.iterations,
            self.column("points"),
            ".-",
            color=INK,
            linewidth=1.2,
            markersize=4,
        )

    def mark_stages(self, axes: Sequence[Axes]) -> None:
        """Name the stages of the schedule above the first panel, and draw where each begins."""
        stages = [str(row.get("stage", "")) for row in self.rows]
        firsts = [0]
        for k in range(1, len(stages)):
            if stages[k] != stages[k - 1]:
                firsts.append(k)

        # A stage begins where the last row of the stage before it was written.
        starts = []
        for k in firsts:
            starts.append(self.iterations[max(k - 1, 0)])

        # Names that do not fit side by side are turned. Rooms and needs are shares of the width,
        # of which a character takes 0.018.
        last = self.iterations[-1]
        span = np.ptp(self.iterations) or 1
        rooms = np.diff([*starts, last]) / span
        needs = [0.018 * len(stages[k]) for k in firsts]
        is_tight = bool((rooms < needs).any())
        look: Look = {
            "rotation": 35 if is_tight else 0,
            "rotation_mode": "anchor",
            "fontsize": TEXT,
            "xytext": (2, 4),
            "textcoords": "offset points",
            "xycoords": ("data", "axes fraction"),
        }
        for k, start in zip(firsts, starts, strict=True):
            axes[0].annotate(stages[k], (start, 1), **look)

        # The first stage begins at the left edge, where a line would hide the axis.
        for start in starts[1:]:
            for ax in axes:
                ax.axvline(start, color=INK, linewidth=0.8)


def _names_of(rows: Rows) -> list[Any]:
    """Return the names of columns in the order in which they first come."""
    names: dict[Any, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names)


def losses(
    history: Rows | Mapping[str, Sequence[float]],
) -> Figure:
    """Draw losses, and accuracies where there are some, by epoch.

    Parameters
    ----------
    history:
        A row for each epoch, or a sequence of numbers for each column. Columns end in ``loss`` or
        ``accuracy`` and may have ``train_``, ``validation_`` or ``test_`` in front; ``epoch`` is
        taken where it is there, else rows count from 1. What was not measured may be missing or
        NaN; other columns are left out.

    Raises
    ------
    ValueError
        If no column is a loss or an accuracy, or lengths differ.

    Examples
    --------
    >>> from whence import plots
    >>> figure = plots.losses({"train_loss": [1.0, 0.5, 0.3], "validation_loss": [1.1, 0.7, 0.8]})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()[:2]]
    ['training loss', 'validation loss']
    """
    columns = _read_columns(history)
    panels: dict[str, list[str]] = {}
    for kind in KINDS:
        names = [name for name in columns if _kind(name) == kind]
        if names:
            panels[kind] = names

    if not panels:
        raise ValueError(
            "history must have columns such as 'train_loss', 'validation_loss' or "
            f"'validation_accuracy', got {', '.join(columns)}"
        )

    n_epochs = len(next(iter(columns.values())))
    epochs = np.arange(1.0, n_epochs + 1)
    if "epoch" in columns:
        epochs = _numbers("epoch", columns["epoch"])

    n_panels = len(panels)
    figure, axes = _stacked(1.3 + 2.4 * n_panels, [1.0] * n_panels)
    for ax, (kind, names) in zip(axes, panels.items(), strict=True):
        curves = []
        for name in names:
            values = _numbers(name, columns[name])
            curves.append(_Curve(name, epochs, values))

        for curve in curves:
            curve.draw(ax)
        # On top of all curves, and last in the legend.
        for curve in curves:
            curve.mark_best(ax)

        values = np.concatenate([curve.values for curve in curves])
        if kind == "loss" and _spans_decades(values):
            ax.set_yscale("log")
        dress(ax, ("", kind))
        legend_beside(ax)

    axes[-1].set_xlabel("epoch")
    count_ticks(axes[-1])
    title = " and ".join(panels).capitalize() + " during training"
    figure.suptitle(title, fontsize=TITLE)
    return figure


def _read_columns(history: Any) -> dict[str, list[Any]]:
    """Return the columns of a history, all of one length, None where a row has none."""
    columns: dict[str, list[Any]] = {}
    if isinstance(history, Mapping):
        for name, values in history.items():
            # Notes, such as the model's name, are no columns.
            if hasattr(values, "__len__") and not isinstance(values, str):
                columns[str(name)] = list(values)
    else:
        rows = list(history)
        if not all(isinstance(row, Mapping) for row in rows):
            raise TypeError(
                "history must be rows, each a mapping such as {'epoch': 1, 'train_loss': 0.5}, or "
                "a mapping of columns"
            )
        # Rows need not have the same names: validation is often measured at some epochs only.
        for name in _names_of(rows):
            columns[str(name)] = [row.get(name) for row in rows]

    if not columns or not next(iter(columns.values())):
        raise ValueError("history must have one epoch or more")

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of history must have one length, got {lengths}")
    return columns


def _kind(name: str) -> str:
    """Return what a column measures: the last word of its name."""
    return name.split("_")[-1]


def _numbers(name: str, values: Sequence[Any]) -> Array:
    numbers = []
    try:
        for value in values:
            numbers.append(math.nan if value is None else float(value))
        return np.array(numbers)
    except (TypeError, ValueError):
        raise TypeError(
            f"the column {name!r} of history must hold numbers, got {values}"
        ) from None


def _spans_decades(values: Array) -> bool:
    """Whether values are positive and span so much that a linear axis would hide the small."""
    finite = values[np.isfinite(values)]
    if not len(finite) or finite.min() <= 0:
        return False

    decades = np.log10(finite.max() / finite.min())
    return bool(decades > LOG_DECADES)


class _Curve:
    """One column of a history."""

    def __init__(self, name: str, epochs: Array, values: Array) -> None:
        self.epochs = epochs
        self.values = values
        self.kind = _kind(name)

        prefix = name.removesuffix(self.kind).removesuffix("_")
        if prefix in SETS:
            source, self.color = SETS[prefix]
            # Told apart without colors too.
            self.dashes = "--" if source == "validation" else "-"
        else:
            source = prefix.replace("_", " ")
            self.color = PURPLE
            self.dashes = "-."

        self.label = f"{source} {self.kind}".strip()
        self.is_validation = self.label.startswith("validation")

    def draw(self, ax: Axes) -> None:
        # A curve goes on through epochs at which it was not measured.
        measured = np.isfinite(self.values)
        has_dots = measured.sum() <= MAX_MARKED
        ax.plot(
            self.epochs[measured],
            self.values[measured],
            linestyle=self.dashes,
            color=self.color,
            label=self.label,
            linewidth=1.6,
            marker="o" if has_dots else "",
            markersize=3.5,
        )

    def mark_best(self, ax: Axes) -> None:
        """Mark the best epoch of validation, which is the one that is usually kept."""
        # The only value is the best without saying so.
        if not self.is_validation or np.isfinite(self.values).sum() < 2:
            return

        if self.kind == "loss":
            best = int(np.nanargmin(self.values))
            which = "lowest"
        else:
            best = int(np.nanargmax(self.values))
            which = "highest"

        value = self.values[best]
        epoch = self.epochs[best]
        ax.plot(
            epoch,
            value,
            "o",
            label=f"{which} {self.label}:\n{value:.3g} at epoch {epoch:g}",
            markerfacecolor="none",
            markeredgecolor=INK,
            markersize=10,
        )
