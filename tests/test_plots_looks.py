"""Many terms in one panel: no two look alike, and the legend has room."""

import warnings

import matplotlib.colors as colors
import numpy as np
import pytest
import xarray as xr

from whence import plots
from whence.plots.looks import legend_columns, line_looks, mark_looks


def names(n):
    return [f"interface_{k}" for k in range(n)]


def looks_of(lines):
    """Color, and pattern of dashes with its width taken out."""
    return [
        (colors.to_hex(line.get_color()), str(line.get_linestyle()), line._dash_pattern)
        for line in lines
    ]


@pytest.mark.parametrize("n", [1, 8, 9, 20, 24, 28])
def test_no_two_terms_look_alike(n):
    lines = {str(look) for look in line_looks(names(n)).values()}
    marks = {str(look) for look in mark_looks(names(n)).values()}
    assert len(lines) == len(marks) == n


def history(n):
    rows = []
    for k in range(6):
        row = {"iteration": k, "stage": "Adam", "points": 9, "loss": 1.0}
        for j, name in enumerate(names(n)):
            row |= {f"loss_{name}": 10.0**-j, f"weight_{name}": 1.0 + j + k}
        rows.append(row | {"validation_loss": 2.0})
    return rows


@pytest.mark.parametrize("n", [9, 24])
def test_lines_of_many_terms_are_distinct_and_named_outside_of_the_panels(n):
    figure = plots.convergence(history(n))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a panel without room is a warning
        figure.draw_without_rendering()
    top, weights = figure.axes
    # The total and the validation loss too.
    assert len(set(map(str, looks_of(top.lines)))) == len(top.lines) == n + 2
    assert looks_of(weights.lines) == looks_of(top.lines[1 : n + 1])

    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["total loss", *(f"loss: {t}" for t in names(n)), "validation loss"]
    frame = legend.get_window_extent()
    assert frame.y1 <= weights.get_window_extent().y0
    assert frame.x1 <= figure.bbox.x1
    assert top.get_window_extent().height > 200


@pytest.mark.parametrize("n", [9, 24])
def test_marks_of_many_terms_are_distinct_and_named_above_the_map(n):
    rng = np.random.default_rng(0)
    coords = {
        "x": ("point", rng.random(3 * n)),
        "y": ("point", 0.1 * rng.random(3 * n)),
        "term": ("point", np.repeat(names(n), 3)),
        "quantity": "u",
    }
    row = xr.DataArray(rng.normal(size=3 * n), coords, "point", name="influence")
    figure = plots.influence_map(row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    ax = figure.axes[0]
    drawn = set()
    for points in ax.collections:
        (path,) = points.get_paths()
        edge = tuple(points.get_edgecolor()[0])
        drawn.add((path.vertices.round(6).tobytes(), edge))
    assert len(drawn) == len(ax.collections) == n

    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names(n)
    marks = {
        (mark.get_marker(), str(mark.get_markeredgecolor()))
        for mark in legend.legend_handles
    }
    assert len(marks) == n
    frame = legend.get_window_extent()
    assert frame.x1 <= figure.bbox.x1
    assert ax.get_window_extent().height > 200


def test_columns_fill_their_rows():
    assert legend_columns(["a"] * 3, 7.0) == 3
    assert legend_columns(["a" * 30] * 9, 7.0) == 2
    assert legend_columns(["a" * 300] * 9, 7.0) == 1
    # Ten where at most nine fit are two rows of five.
    assert legend_columns(["abcd"] * 10, 7.0) == 5
