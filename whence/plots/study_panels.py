"""Figures of a study: a panel for each problem, in which a method always looks the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from whence.plots.looks import line_looks
from whence.plots.style import TEXT, Array, Look, caption, title

PANEL_WIDTH = 3.3
"""Width of a panel in inches, with its ticks and label."""
PANEL_HEIGHT = 2.6
MIN_WIDTH = 5.4
"""Width of a figure of one panel: its title has to fit."""
MIN_POWER_DECADES = 2.0
"""An axis of so many and more has ticks at powers of ten alone."""
MAX_ROUND_DECADES = 0.7
"""An axis of fewer has ticks at round numbers."""
ROUNDING = 1e-9
"""What a logarithm may be off."""
MIN_PLAIN, MAX_PLAIN = 1e-3, 1e4
"""Numbers from the one to the other are written without a power of ten."""


@dataclass(frozen=True)
class StudyPanels:
    """How the panels of a study lie, and how its methods look.

    Parameters
    ----------
    problems:
        A panel for each.
    methods:
        All methods of the study, in its order: their number in it gives them their color.
    height:
        Height of a panel in inches.
    """

    problems: Sequence[str]
    methods: Sequence[str]
    height: float = PANEL_HEIGHT

    @property
    def looks(self) -> dict[str, Look]:
        """Color and line style of each method."""
        return line_looks(self.methods)

    @property
    def n_columns(self) -> int:
        """How many panels stand side by side."""
        # Four make a square, others go three in a row.
        n_panels = len(self.problems)
        return 2 if n_panels == 4 else min(3, n_panels)

    @property
    def n_rows(self) -> int:
        """How many panels stand above each other."""
        return math.ceil(len(self.problems) / self.n_columns)

    @property
    def width(self) -> float:
        """Width of all panels in inches."""
        return max(MIN_WIDTH, PANEL_WIDTH * self.n_columns + 0.4)

    def figure(self, heading: str, note: str, has_legend: bool) -> Figure:
        """Return an empty figure with a title, a note below, and room for a legend beside."""
        panels = self.n_rows * self.height
        width = self.width
        # Which may be higher than panels of boxes are.
        if has_legend:
            width += legend_width(self.methods)
            panels = max(panels, legend_height(self.methods))

        # A line of the note takes 0.17 inches, of which a character is 0.0675 wide.
        length = 0.0675 * len(note)
        n_lines = math.ceil(length / (width - 0.6))
        height = panels + 0.5 + 0.17 * n_lines
        figure = Figure((width, height), layout="constrained")
        title(figure, heading, inches=width - 0.6)
        caption(figure, note, inches=width - 0.6, size=TEXT)
        return figure

    def panel(self, figure: Figure, k: int) -> Axes:
        """Return the panel of problem k with its name."""
        # Rows are filled from the left.
        ax = figure.add_subplot(
            self.n_rows,
            self.n_columns,
            k + 1,
        )
        ax.set_title(self.problems[k], fontsize=TEXT)
        return ax

    def label(self, k: int, words: str) -> str:
        """Return a label beside panel k, which the others of its row share with the first."""
        is_first = k % self.n_columns == 0
        return words if is_first else ""

    def draw_legend(self, figure: Figure, methods: Sequence[str]) -> None:
        """Name methods beside the panels, where their names hide nothing."""
        handles = []
        for method in methods:
            look = self.looks[method]
            line = Line2D([], [], linewidth=2, label=method, **look)
            handles.append(line)
        draw_legend_beside(figure, handles)


def draw_legend_beside(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draw the legend of a whole figure to its right, as its title and note are above and below."""
    figure.legend(
        handles=handles,
        loc="outside right center",
        fontsize=TEXT,
        frameon=False,
    )


def legend_width(labels: Sequence[str]) -> float:
    """Return the width in inches of a legend with its labels below each other."""
    # A character takes 0.0675 inches, a mark with the room around it 0.6.
    longest = max(map(len, labels))
    return 0.6 + 0.0675 * longest


def legend_height(labels: Sequence[str]) -> float:
    """Return the height in inches of a legend with its labels below each other."""
    line = 1.5 * TEXT / 72
    return 0.2 + line * len(labels)


def set_log_ticks(ax: Axes, which: str, values: Array) -> None:
    """Put the ticks of a logarithmic axis where they can be read, however little it spans.

    Parameters
    ----------
    ax:
        Its panel.
    which:
        ``"x"`` or ``"y"``.
    values:
        Positive values that the axis shows.
    """
    axis: Axis = ax.xaxis if which == "x" else ax.yaxis
    ratio = values.max() / values.min()
    decades = np.log10(ratio)
    # Of two decades and more powers of ten are enough, which matplotlib places itself.
    if decades >= MIN_POWER_DECADES:
        powers = LogLocator(numticks=6)
        axis.set_major_locator(powers)
        axis.set_minor_formatter(NullFormatter())
        return

    # Of less they would leave one tick or none: 1, 2, 5, 10, …, or any round numbers.
    locator: Locator = LogLocator(subs=(1, 2, 5), numticks=20)
    if decades < MAX_ROUND_DECADES:
        locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    axis.set_major_locator(locator)
    formatter = FuncFormatter(tick_label)
    axis.set_major_formatter(formatter)
    # Ticks in between would have no names.
    axis.set_minor_locator(NullLocator())


def tick_label(value: float, place: int = 0) -> str:
    """Return a number as it stands at a tick, nothing where a logarithmic axis has none.

    Examples
    --------
    >>> from whence.plots.study_panels import tick_label
    >>> tick_label(0.02), tick_label(2e-5)
    ('0.02', '2e-5')
    """
    if value <= 0:
        return ""
    if MIN_PLAIN <= value < MAX_PLAIN:
        return f"{value:.3g}"

    # Short, as ticks that are no powers of ten stand close to each other.
    exponent = math.floor(math.log10(value) + ROUNDING)
    mantissa = value / 10.0**exponent
    return f"{mantissa:.3g}e{exponent}"
