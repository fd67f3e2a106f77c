"""Bars of indicators of one run, or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence.plots.style import COLORS, TEXT, TICK, caption, dress, title

BAR = 0.8
"""Share of the room of an indicator that its bars take."""
PANEL = 2.3
"""Height of the panel of a quantity, in inches."""


def indicator_bars(runs: Mapping[str, xr.Dataset]) -> Figure:
    """Draw indicators as bars with their intervals, a panel for each quantity.

    A line across a bar is its baseline: what the places of the points alone would give.

    Parameters
    ----------
    runs:
        Of each run by name what :func:`whence.diagnosis.indicators.measure` returns, all of the
        same indicators and quantities.

    Raises
    ------
    ValueError
        If there are no runs, or their indicators or quantities differ.

    Examples
    --------
    >>> from whence import plots
    >>> from whence.attribution.result import Attribution
    >>> from whence.diagnosis.indicators import Causality, measure
    >>> coords = {"t": ("point", [0.2, 0.8]), "target_t": ("target", [0.5, 0.9])}
    >>> table = Attribution([[3.0, 1.0], [1.0, 1.0]], coords, ("target", "point"))
    >>> (axes,) = plots.indicator_bars({"good": measure(table, {"past": Causality()})}).axes
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['past']
    """
    check_alike(runs)
    first = next(iter(runs.values()))
    quantities = first["quantity"].values
    n_indicators = first.sizes["indicator"]

    # As wide as its bars need, and no narrower than its heading.
    width = max(5.2, 1.2 + 0.45 * n_indicators * (len(runs) + 1))
    height = 1.2 + PANEL * len(quantities)
    figure = Figure((width, height), layout="constrained")
    panels = figure.subplots(len(quantities), 1, squeeze=False, sharex=True)[:, 0]
    for panel, quantity in zip(panels, quantities, strict=True):
        selected = {
            name: numbers.sel(quantity=quantity) for name, numbers in runs.items()
        }
        _bars(panel, selected)
        dress(panel, ("", f"share, {quantity}" if quantity else "share"))

    if len(runs) > 1:
        # Between the heading and the panels, where it covers neither.
        panels[0].legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(runs),
            fontsize=TEXT,
            frameon=False,
        )
    title(figure, "Where influence comes from", inches=width - 0.6)
    level = round(100 * first.attrs["level"])
    text = (
        f"Mean over targets with its {level} % interval; the line across a bar is what the places "
        "of the points alone would give"
    )
    caption(figure, text, inches=width - 0.6, size=TEXT)
    return figure


def check_alike(runs: Mapping[str, xr.Dataset]) -> None:
    """Raise ``ValueError`` unless runs have the same indicators and quantities."""
    if not runs:
        raise ValueError(
            "there are no indicators to draw: give those of one run at least"
        )

    first_name, first = next(iter(runs.items()))
    for name, numbers in runs.items():
        for dimension in ("indicator", "quantity"):
            expected = first[dimension].values.tolist()
            present = numbers[dimension].values.tolist()
            if present != expected:
                raise ValueError(
                    f"runs are compared by the same {dimension}s, but {first_name!r} has "
                    f"{expected} and {name!r} has {present}"
                )


def _bars(panel: Axes, runs: Mapping[str, xr.Dataset]) -> None:
    """Draw the bars of one quantity: a group for each indicator, a color for each run."""
    width = BAR / len(runs)
    for k, (name, numbers) in enumerate(runs.items()):
        places = np.arange(numbers.sizes["indicator"])
        # Centered on the number of the indicator.
        shift = (k - (len(runs) - 1) / 2) * width
        values = numbers["value"].values
        panel.bar(
            places + shift,
            values,
            width=0.9 * width,
            color=COLORS[k % len(COLORS)],
            label=name,
            zorder=3,
        )
        below = values - numbers["low"].values
        above = numbers["high"].values - values
        panel.errorbar(
            places + shift,
            values,
            yerr=np.stack([below, above]),
            fmt="none",
            ecolor="0.15",
            capsize=2.5,
            elinewidth=1.0,
            zorder=4,
        )
        panel.hlines(
            numbers["baseline"].values,
            places + shift - 0.5 * width,
            places + shift + 0.5 * width,
            colors="0.15",
            linestyles=(0, (2, 1)),
            linewidth=1.2,
            zorder=5,
        )

    names = next(iter(runs.values()))["indicator"].values
    panel.set_xticks(np.arange(len(names)), list(names), fontsize=TICK)
    panel.set_ylim(0, 1)
