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

from whence._files import PathLike, write_atomically

Array = np.ndarray[Any, np.dtype[Any]]

# Okabe & Ito (2008): distinguishable with every common colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BLUE, VERMILION = COLOURS[0], COLOURS[5]
GREY, INK = "#8c8c8c", "#262626"
MARKERS = "os^DvP<>"
TITLE, TEXT, TICK = 11.0, 9.0, 8.5
Look = dict[str, Any]


def save(figure: Figure, path: PathLike) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG side by side, each through a temporary file and a rename.

    ``path`` may end in ``.png``, ``.svg`` or neither; its folder is made if need be.
    """
    base = str(path).removesuffix(".png").removesuffix(".svg")
    png, svg = Path(f"{base}.png"), Path(f"{base}.svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    # No date and a fixed salt: the same figure made anew gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "whence"}):
        for file, metadata in ((png, {}), (svg, {"Date": None})):
            held = io.BytesIO()
            figure.savefig(held, format=file.suffix[1:], dpi=150, metadata=metadata)
            write_atomically(file, held.getvalue())
    return png, svg


def colour_bar(
    figure: Figure, mappable: ScalarMappable, label: str = "", **options: Any
) -> Colorbar:
    """Draw a colour bar with a label of the size of all text."""
    bar = figure.colorbar(mappable, **options)
    bar.set_label(label, fontsize=TEXT)
    bar.ax.tick_params(labelsize=TICK)
    return bar


def dress(ax: Axes, labels: tuple[str, str], grid: bool = True) -> None:
    """Set labels, ticks, spines and grid of a panel."""
    ax.tick_params(labelsize=TICK, color="0.5")
    ax.spines[["top", "right"]].set_visible(not grid)
    ax.spines[:].set_color("0.5")
    ax.set_xlabel(labels[0], fontsize=TEXT)
    ax.set_ylabel(labels[1], fontsize=TEXT)
    # Such ticks do not depend on the size, which layout changes.
    if ax.get_xscale() == "linear":
        ax.locator_params("x", nbins=5)
    if ax.get_yscale() == "linear":
        ax.locator_params("y", nbins=5)
    if grid:
        ax.grid(True, color="0.9", linewidth=0.7)
        ax.set_axisbelow(True)


def handle(
    marker: str,
    label: str,
    colour: Any,
    size: float = 6,
    alpha: float = 1,
    edge: str = "none",
) -> Line2D:
    """Return a mark for a legend."""
    look: Look = {
        "color": colour,
        "markersize": size,
        "alpha": alpha,
        "markeredgecolor": edge,
    }
    return Line2D([], [], linestyle="", marker=marker, label=label, **look)


def without_ends(name: str, low: float, high: float) -> LinearSegmentedColormap:
    """Return a part of a colour map of matplotlib, as its ends are too light or too dark."""
    colours = mpl.colormaps[name](np.linspace(low, high, 256))
    return LinearSegmentedColormap.from_list(name, colours)


def wrapped(text: str, inches: float, size: float = TEXT) -> str:
    """Return text in lines that fit a width: a character is about half as wide as high."""
    return textwrap.fill(text, max(20, int(inches * 72 / (0.54 * size))))
