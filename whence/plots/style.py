"""How every figure looks, and how it is written to disk."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from whence._files import PathLike, write_atomically

Array = np.ndarray[Any, np.dtype[Any]]
Look = dict[str, Any]
"""Keyword arguments of matplotlib that say how a mark or a text looks."""

# Okabe & Ito (2008): distinguishable with every common color vision.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
VERMILION = "#D55E00"
YELLOW = "#F0E442"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)

GRAY = "#8c8c8c"
INK = "#262626"
MARKERS = "os^DvP<>"
"""Shapes that have an area: those of lines alone could not show a color."""

# Sizes of text in points.
TITLE = 11.0
TEXT = 9.0
TICK = 8.5

DPI = 150
MAX_SHARP_MARKS = 5000
"""More marks are pixels in an SVG too: as paths they would make a file of many megabytes."""


def save(figure: Figure, path: PathLike) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG side by side, each through a temporary file and a rename.

    ``path`` may end in ``.png``, ``.svg`` or neither; its folder is made if need be.

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> from whence import plots
    >>> [path.name for path in plots.save(Figure(), tempfile.mkdtemp() + "/empty")]
    ['empty.png', 'empty.svg']
    """
    base = str(path).removesuffix(".png").removesuffix(".svg")
    png = Path(f"{base}.png")
    svg = Path(f"{base}.svg")
    png.parent.mkdir(parents=True, exist_ok=True)

    # No date and a fixed salt: the same figure gives the same bytes each time.
    files = {png: {}, svg: {"Date": None}}
    layout = figure.get_layout_engine()
    try:
        with mpl.rc_context({"svg.hashsalt": "whence"}):
            arrange(figure)
            for file, metadata in files.items():
                # Into memory first: a figure that cannot be drawn leaves the old file whole.
                buffer = io.BytesIO()
                figure.savefig(
                    buffer,
                    format=file.suffix.removeprefix("."),
                    dpi=DPI,
                    metadata=metadata,
                )
                write_atomically(file, buffer.getvalue())
    finally:
        if layout is not None:
            figure.set_layout_engine(layout)

    return png, svg


def arrange(figure: Figure) -> None:
    """Put the panels of a figure in their places, and take its layout engine away.

    Places are fractions of the figure, in any format, and finding them takes longest. With an
    engine, even one that does nothing, ``savefig`` draws a figure twice for each file.
    """
    layout = figure.get_layout_engine()
    if layout is None:
        return

    dpi = figure.dpi
    figure.dpi = DPI
    try:
        layout.execute(figure)
    finally:
        figure.dpi = dpi

    # None stands for the engine that is configured: where that is none, for no engine.
    with mpl.rc_context(
        {"figure.autolayout": False, "figure.constrained_layout.use": False}
    ):
        figure.set_layout_engine(None)


def dress(ax: Axes, labels: tuple[str, str], grid: bool = True) -> None:
    """Set labels, ticks, spines and grid of a panel."""
    ax.tick_params(labelsize=TICK, color="0.5")
    ax.spines[["top", "right"]].set_visible(not grid)
    ax.spines[:].set_color("0.5")

    horizontal, vertical = labels
    ax.set_xlabel(horizontal, fontsize=TEXT)
    ax.set_ylabel(vertical, fontsize=TEXT)

    # A fixed number of ticks: the default depends on the panel's size, which the layout changes.
    if ax.get_xscale() == "linear":
        ax.locator_params("x", nbins=5)
    if ax.get_yscale() == "linear":
        ax.locator_params("y", nbins=5)

    if grid:
        ax.grid(True, color="0.9", linewidth=0.7)
        ax.set_axisbelow(True)


def count_ticks(ax: Axes) -> None:
    """Put the ticks of an axis that counts iterations or epochs at round whole numbers."""
    locator = MaxNLocator(
        nbins=8,
        integer=True,
        steps=[1, 2, 5, 10],
    )
    ax.xaxis.set_major_locator(locator)


def color_bar(
    figure: Figure, mappable: ScalarMappable, label: str = "", **options: Any
) -> Colorbar:
    """Draw a color bar with a label of the size of all text."""
    bar = figure.colorbar(mappable, **options)
    bar.set_label(label, fontsize=TEXT)
    bar.ax.tick_params(labelsize=TICK)
    return bar


def trimmed_colormap(name: str, low: float, high: float) -> LinearSegmentedColormap:
    """Return a part of a color map of matplotlib, as its ends are too light or too dark."""
    # As many colors as matplotlib's own maps have.
    colormap = mpl.colormaps[name]
    shares = np.linspace(low, high, 256)
    return LinearSegmentedColormap.from_list(name, colormap(shares))


def legend_beside(ax: Axes) -> None:
    """Draw a panel's legend to its right, where it hides nothing."""
    ax.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=TEXT,
        frameon=False,
    )


def legend_mark(
    marker: str,
    label: str,
    color: ColorType,
    size: float = 6,
    alpha: float = 1,
    edge: str = "none",
) -> Line2D:
    """Return a mark for a legend."""
    look: Look = {
        "color": color,
        "markersize": size,
        "alpha": alpha,
        "markeredgecolor": edge,
    }
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        label=label,
        **look,
    )


def draw_star(ax: Axes, across: float, up: float, size: float = 15) -> None:
    """Mark the one place that a panel is about."""
    ax.plot(
        across,
        up,
        marker="*",
        markersize=size,
        color=GREEN,
        markeredgecolor="black",
        zorder=5,
        # The place may lie on the edge of the domain, or beyond.
        clip_on=False,
    )


def title(figure: Figure, text: str, inches: float) -> None:
    """Write the title of a whole figure in lines that fit a width."""
    lines = wrapped(text, inches, TITLE)
    figure.suptitle(lines, fontsize=TITLE)


def caption(figure: Figure, text: str, inches: float, size: float = TICK) -> None:
    """Write below a figure how to read it, in lines that fit a width."""
    figure.supxlabel(
        wrapped(text, inches, size),
        x=0.02,
        ha="left",
        fontsize=size,
    )


def wrapped(text: str, inches: float, size: float = TEXT) -> str:
    """Return text in lines that fit a width: a character is about half as wide as high."""
    # A point is 1/72 inch, and DejaVu Sans is 0.54 as wide as high on average.
    character = 0.54 * size / 72
    width = int(inches / character)
    return textwrap.fill(text, max(20, width))
