"""Predicted influences against what retraining without the points really changes."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence.evaluation.ranks import rank_agreement
from whence.plots.looks import LINE_COLORS, mark_looks
from whence.plots.style import TEXT, Look, caption, dress, legend_beside, title
from whence.plots.text import Story, check_finite, terms_of

LINEAR_DECADES = 2
"""Decades below the largest change, rounded down, at which axes turn linear to pass zero."""


def leave_one_out(predicted: xr.DataArray, retrained: xr.DataArray) -> Figure:
    """Draw predicted changes against those of really retraining without each point.

    Parameters
    ----------
    predicted:
        An attribution, dimensions (target, point) or (point,), whose points have ``term`` and
        ``index``; it may have more points than were left out.
    retrained:
        The true changes for the same targets, as :func:`whence.leave_one_out` returns them.

    Raises
    ------
    ValueError
        If points have no term or index, a point was not predicted, or the targets differ in
        number.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"term": ("point", ["pde"] * 3), "index": ("point", [0, 1, 2])}
    >>> predicted = xr.DataArray([1.0, -2.0, 3.0], coords, "point")
    >>> figure = plots.leave_one_out(predicted, 1.1 * predicted[[2, 0]])
    >>> figure.get_suptitle().splitlines()[0]
    'Predicted and retrained change of the target: Spearman 1.00 over 2'
    """
    expected, true = matched(predicted, retrained)
    # Both of the same targets and points, in one order.
    values = np.stack([expected.values, true.values])  # (2, T, n)
    correlation = rank_agreement(values[1], values[0])
    largest = float(np.abs(values).max()) or 1.0

    figure = Figure((6.6, 5.2), layout="constrained")
    ax = figure.add_subplot()
    # Where predictions are the truth.
    ends = [-largest, largest]
    ax.plot(ends, ends, color="0.6", linewidth=1.0, zorder=1)

    first = true.isel(target=0)
    terms = terms_of(first)
    names = list(map(str, dict.fromkeys(terms)))
    looks = mark_looks(names)
    for k, name in enumerate(names):
        # All targets of a term's points look the same.
        shown = terms == name
        ax.scatter(
            true.values[:, shown],
            expected.values[:, shown],
            color=LINE_COLORS[k % len(LINE_COLORS)],
            label=name,
            s=26,
            zorder=3,
            **looks[name],
        )

    set_axes(ax, largest)
    # One term alone needs no name.
    if len(names) > 1:
        legend_beside(ax)
    write_words(figure, true, correlation)
    return figure


def matched(
    predicted: xr.DataArray, retrained: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return both at the points that were left out, in their order, dimensions (target, point).

    Raises
    ------
    ValueError
        As of :func:`leave_one_out`.
    """
    tables = []
    for what, table in (("predicted", predicted), ("retrained", retrained)):
        if not {"term", "index"} <= set(table.coords):
            raise ValueError(
                f"the {what} changes need the coordinates term and index of each point, got "
                f"{', '.join(map(str, table.coords)) or 'none'}"
            )
        # A row of one target is a table of it.
        if "target" not in table.dims:
            table = table.expand_dims("target")
        table = table.transpose("target", "point").astype(float)
        check_finite(table.values)
        tables.append(table)

    expected, true = tables
    if expected.sizes["target"] != true.sizes["target"]:
        raise ValueError(
            f"predicted are changes of {expected.sizes['target']} targets, retrained of "
            f"{true.sizes['target']}: explain the same targets"
        )

    # The column of each point among those that were predicted.
    columns = {key: column for column, key in enumerate(_keys(expected))}
    left_out = _keys(true)
    for term, index in left_out:
        if (term, index) not in columns:
            raise ValueError(
                f"point {index} of {term} was left out but not predicted: predict all training "
                "points"
            )
    chosen = [columns[key] for key in left_out]
    return expected.isel(point=chosen), true


def _keys(table: xr.DataArray) -> list[tuple[str, int]]:
    """Return the term and the index of each point."""
    # Points are the same where both are, whatever their order.
    terms = terms_of(table.isel(target=0))
    indices = table["index"].values
    keys = []
    for term, index in zip(terms, indices, strict=True):
        keys.append((str(term), int(index)))
    return keys


def set_axes(ax: Axes, largest: float) -> None:
    """Give both axes one scale, logarithmic away from zero, as changes span decades."""
    decade = math.floor(math.log10(largest))
    look: Look = {
        "linthresh": 10.0 ** (decade - LINEAR_DECADES),
        "linscale": 0.5,
    }
    ax.set_xscale("symlog", **look)
    ax.set_yscale("symlog", **look)

    # Zero and two decades of either sign: more ticks would run into each other.
    powers = [10.0**decade, 10.0 ** (decade - 1)]
    ticks = [-powers[0], -powers[1], 0.0, powers[1], powers[0]]
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    # A little room beyond the largest mark.
    end = 1.5 * largest
    ax.set_xlim(-end, end)
    ax.set_ylim(-end, end)
    ax.set_aspect("equal")
    dress(ax, ("change when retrained without the point", "predicted change"))


def write_words(figure: Figure, true: xr.DataArray, correlation: float) -> None:
    """Write how well they agree above the figure, and what it shows below."""
    # Of one target its name and place, of many how many there are.
    n_targets, n_points = true.shape
    story = Story.of(true.isel(target=0))
    what = str(story) if n_targets == 1 else f"{n_targets} targets"
    heading = (
        f"Predicted and retrained change of {what}: Spearman {correlation:.2f} over "
        f"{n_points} points"
    )
    title(figure, heading, inches=6.0)
    note = "On the line a prediction is the truth. Axes are logarithmic away from zero."
    if "stability" in true.attrs:
        # Of −0.001 it shows 0.00, without a sign.
        stability = round(float(true.attrs["stability"]), 2) + 0.0
        note += (
            f" Refits with half as many steps agree with these by a Spearman of {stability:.2f}: "
            "expect no more of a prediction."
        )
    caption(figure, note, inches=6.0, size=TEXT)
