"""The figure of a march in slabs of time: what each slab came to, and what it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whence.plots.style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    TITLE,
    VERMILION,
    Array,
    Look,
    dress,
    legend_beside,
)

WIDTH = 7.5
"""Width of the figure in inches."""
HEIGHTS = (3.6, 1.1, 1.1)
"""Heights of the panels, in proportion."""
QUANTITIES = {
    "loss": ("loss", BLUE, "-", 2.2),
    "validation_loss": ("validation loss", GRAY, "--", 1.6),
    "relative_l2": ("relative L2 error", VERMILION, "-", 2.2),
}
"""Label, color, dashes and width of what is known of a slab."""

Trainings = Sequence[Mapping[str, Any]]
"""A row for each training of a slab, in the order in which they were made."""


def march(trainings: Trainings, time: str = "t") -> Figure:
    """Draw what each slab of a march came to, and the trainings and seconds that it took.

    Above, the final loss, validation loss and error of each slab over its part of the time, and
    faintly the loss of passes and of slabs of other lengths that were not kept. Below, how many
    trainings a slab took, and their seconds.

    Parameters
    ----------
    trainings:
        What a result's ``summary["march"]["trainings"]`` holds: for each training of a slab its
        ends ``low`` and ``high``, ``loss``, ``validation_loss``, ``relative_l2`` (None where not
        known), ``seconds``, and whether it was ``kept``.
    time:
        Name of the time.

    Raises
    ------
    ValueError
        If no slab was kept.

    Examples
    --------
    >>> from whence import plots
    >>> slab = {"loss": 1e-9, "validation_loss": 2e-9, "relative_l2": None, "seconds": 3.0}
    >>> halves = [{"low": k / 2, "high": (k + 1) / 2, "kept": True, **slab} for k in range(2)]
    >>> figure = plots.march(halves)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss, error', 'trainings', 'seconds']
    """
    record = _March(trainings)
    if not record.kept:
        raise ValueError(
            "trainings must hold the slabs of a march, as summary['march']['trainings'] of a run "
            f"that pinn.Slabs trained does, got {len(trainings)} of which none was kept"
        )

    figure = Figure((WIDTH, 5.6), layout="constrained")
    table = figure.subplots(3, sharex=True, squeeze=False, height_ratios=HEIGHTS)
    above, counts, seconds = table[:, 0]

    record.draw_quality(above)
    record.draw_trainings(counts)
    record.draw_seconds(seconds)

    dress(above, ("", "loss, error"))
    dress(counts, ("", "trainings"))
    dress(seconds, (time, "seconds"))
    for ax in (above, counts, seconds):
        record.mark_edges(ax)

    whole_numbers = MaxNLocator(nbins=4, integer=True)
    counts.yaxis.set_major_locator(whole_numbers)
    figure.align_ylabels()
    figure.suptitle(record.title(), fontsize=TITLE)
    return figure


class _March:
    """The trainings of a march: those of slabs that were kept, and what was given up for them."""

    def __init__(self, trainings: Trainings) -> None:
        self.trainings = trainings
        self.kept = [row for row in trainings if row["kept"]]
        self.given_up = [row for row in trainings if not row["kept"]]

        self.lows = _column(self.kept, "low")
        """Where kept slabs begin, (n,)."""
        self.highs = _column(self.kept, "high")

        # Of all trainings, (m,): those that start where a kept slab does were made for it.
        self.starts = _column(trainings, "low")
        self.ends = _column(trainings, "high")
        self.seconds = _column(trainings, "seconds")

    def draw_quality(self, ax: Axes) -> None:
        """Draw a step for each slab and quantity, and faintly the losses that were given up."""
        for name, (label, color, dashes, width) in QUANTITIES.items():
            times, values = _steps(self.kept, name)
            # An error is known where the problem has a reference solution.
            if not np.isfinite(values).any():
                continue

            ax.plot(
                times,
                values,
                color=color,
                linestyle=dashes,
                linewidth=width,
                label=label,
                solid_capstyle="butt",
            )

        # One label for all of them; matplotlib leaves names with an underscore out.
        label = "loss, not kept"
        for row in self.given_up:
            times, values = _steps([row], "loss")
            ax.plot(times, values, color=BLUE, linewidth=1.0, alpha=0.4, label=label)
            label = "_"

        ax.set_yscale("log")
        legend_beside(ax)

    def draw_trainings(self, ax: Axes) -> None:
        """Draw a column for each slab: its passes, and on top those of other lengths."""
        passes = []
        # Slabs that start there but were halved, or halves that were not worth it.
        others = []
        for low, high in zip(self.lows, self.highs, strict=True):
            ends = self.ends[self.starts == low]
            passes.append(np.sum(ends == high))
            others.append(np.sum(ends != high))

        columns = self._columns()
        ax.bar(height=passes, color=BLUE, label="passes", **columns)
        if any(others):
            columns["bottom"] = passes
            ax.bar(height=others, color=ORANGE, label="other lengths", **columns)
        legend_beside(ax)

    def draw_seconds(self, ax: Axes) -> None:
        """Draw the seconds of all trainings that a slab took."""
        heights = []
        for low in self.lows:
            taken = self.seconds[self.starts == low]
            heights.append(taken.sum())
        ax.bar(height=heights, color=GRAY, **self._columns())

    def _columns(self) -> Look:
        """Return where the columns of slabs stand: from edge to edge."""
        return {
            "x": self.lows,
            "width": self.highs - self.lows,
            "align": "edge",
            # Slabs side by side are told apart by a white line.
            "edgecolor": "white",
            "linewidth": 0.6,
        }

    def mark_edges(self, ax: Axes) -> None:
        """Draw where one slab ends and the next begins."""
        # The grid's own lines would be taken for edges.
        ax.grid(False, axis="x")
        for edge in self.lows[1:]:
            ax.axvline(edge, color=INK, linewidth=0.5, alpha=0.25, zorder=0.5)
        ax.set_xlim(self.lows[0], self.highs[-1])

    def title(self) -> str:
        """Return how many slabs there are, and what all of them took."""
        n_slabs = len(self.kept)
        slabs = "slab" if n_slabs == 1 else "slabs"
        n_trainings = len(self.trainings)
        seconds = self.seconds.sum()
        return f"{n_slabs} {slabs}, {n_trainings} trainings, {seconds:.0f} s"


def _column(rows: Trainings, name: str) -> Array:
    """Return the numbers of one name, (n,), NaN where one is not known."""
    numbers = []
    for row in rows:
        value = row[name]
        numbers.append(math.nan if value is None else value)
    return np.array(numbers, dtype=float)


def _steps(rows: Trainings, name: str) -> tuple[Array, Array]:
    """Return a line that is level over each slab, with a gap where a value is not known."""
    levels = _column(rows, name)
    # Zero, of an exact slab, has no place on a logarithmic axis.
    levels[levels == 0] = math.nan

    # Both ends of each slab in turn, (2n,).
    lows = _column(rows, "low")
    highs = _column(rows, "high")
    times = np.column_stack([lows, highs])
    return times.ravel(), np.repeat(levels, 2)
