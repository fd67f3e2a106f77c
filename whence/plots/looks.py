"""Looks by which many things in one panel are told apart, and legends that hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from whence.plots.style import (
    BLUE,
    COLORS,
    GREEN,
    INK,
    MARKERS,
    TEXT,
    VERMILION,
    Look,
)

LINE_COLORS = COLORS[:6]
"""All but yellow, which is too light for a line."""
DASHES = (
    "-",
    "--",
    ":",
    "-.",
    (0, (6, 1.2, 1, 1.2, 1, 1.2)),
)
"""Line styles: solid, dashed, dotted, dash-dot, dash-dot-dot."""
EDGES = (
    ("0.45", 0.3),
    (INK, 1.2),
    (BLUE, 1.2),
    (GREEN, 1.2),
    (VERMILION, 1.2),
)
"""Color and width in points of the outlines of marks whose face shows a value: the first, for up
to eight names, does not compete with the face."""


def line_looks(names: Iterable[str]) -> dict[str, Look]:
    """Return a color and a line style for each name, no two alike among the first thirty.

    Examples
    --------
    >>> from whence.plots.looks import line_looks
    >>> looks = line_looks(f"term_{k}" for k in range(7))
    >>> looks["term_6"]["color"] == looks["term_0"]["color"], looks["term_6"]["linestyle"]
    (True, '--')
    """
    looks: dict[str, Look] = {}
    for k, name in enumerate(names):
        # All colors with one style, then all again with the next.
        turn, color = divmod(k, len(LINE_COLORS))
        looks[name] = {
            "color": LINE_COLORS[color],
            "linestyle": DASHES[turn % len(DASHES)],
        }

    return looks


def mark_looks(names: Iterable[str]) -> dict[str, Look]:
    """Return a shape and an outline for each name, no two alike among the first forty.

    The face is left out: its color shows a value.
    """
    looks: dict[str, Look] = {}
    for k, name in enumerate(names):
        turn, shape = divmod(k, len(MARKERS))
        color, width = EDGES[turn % len(EDGES)]
        looks[name] = {
            "marker": MARKERS[shape],
            "edgecolors": color,
            "linewidths": width,
        }

    return looks


def legend_columns(labels: Sequence[str], inches: float) -> int:
    """Return how many columns of a legend fit a width."""
    # A point is 1/72 inch, and DejaVu Sans is 0.54 as wide as high on average; a mark with the
    # room around it takes half an inch.
    character = 0.54 * TEXT / 72
    longest = max(len(label) for label in labels)
    column = 0.5 + character * longest

    columns = max(1, int(inches / column))
    # As few as the rows need, so that the last row is not almost empty.
    rows = math.ceil(len(labels) / columns)
    return math.ceil(len(labels) / rows)


def legend_inches(labels: Sequence[str], inches: float) -> float:
    """Return the height of a legend that fits a width."""
    columns = legend_columns(labels, inches)
    rows = math.ceil(len(labels) / columns)
    return rows * 1.5 * TEXT / 72
