"""Bars of the strongest points of an attribution, whatever they are."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from whence import _checks
from whence.plots.style import BLUE, TEXT, TICK, VERMILION, caption, dress, title
from whence.plots.text import (
    Story,
    coordinates,
    describe_location,
    one_target,
    terms_of,
)


def influence_bars(attribution: xr.DataArray, k: int = 20) -> Figure:
    """Draw the k strongest influences on one target as bars, the strongest on top.

    Parameters
    ----------
    attribution:
        Of one target, dimensions (target, point) or (point,).
    k:
        How many points; all, if there are fewer.

    Raises
    ------
    ValueError
        If there are several targets, or k is no positive integer.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray([0.5, -2.0], {"t": ("point", [0.0, 0.1])}, "point")
    >>> (axes,) = plots.influence_bars(row).axes
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['(t=0.1)', '(t=0)']
    """
    _checks.count("k", k)
    data = one_target(attribution)
    # Stable, so that equal influences keep the order of the points.
    strongest = np.argsort(-np.abs(data.values), kind="stable")[:k]
    values = data.values[strongest]
    names = _names(data.isel(point=strongest))

    figure = Figure((6.6, 1.4 + 0.24 * len(values)), layout="constrained")
    ax = figure.add_subplot()
    places = np.arange(len(values))
    ax.barh(
        places,
        values,
        height=0.7,
        color=np.where(values > 0, BLUE, VERMILION).tolist(),
        zorder=3,
    )

    story = Story.of(data)
    dress(ax, (f"influence on {story.name}", ""))
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(places, names, fontsize=TICK)
    ax.invert_yaxis()  # bar 0, the strongest, on top

    title(figure, f"Strongest influences on {story}", inches=5.8)
    text = f"The {len(values)} strongest of {data.size} points"
    if "sign" in data.attrs:
        text += f": {data.attrs['sign']}"
    caption(figure, text, inches=6.0, size=TEXT)
    return figure


def _names(points: xr.DataArray) -> list[str]:
    """Return what each point is called: its place, its label, or its number, and its term."""
    terms = terms_of(points)
    has_terms = len(set(terms)) > 1
    columns = coordinates(points)

    names = []
    for i, term in enumerate(terms):
        point = points.isel(point=i)
        if columns:
            name = describe_location({c: float(point.coords[c]) for c in columns})
        elif "index" in point.coords:
            name = f"{int(point.coords['index'])}"
        else:
            name = f"{i}"
        names.append(f"{term} {name}" if has_terms else name)
    return names
