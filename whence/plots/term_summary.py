"""What terms do to each other, as a heat map and as shares."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence.plots.looks import LINE_COLORS
from whence.plots.style import (
    GRAY,
    TEXT,
    TICK,
    Array,
    caption,
    color_bar,
    dress,
    legend_beside,
    title,
    trimmed_colormap,
)
from whence.plots.term_points import percent

LOSS = "loss "
"""How the names of rows begin that are losses of terms."""
DARK = 0.6
"""Size of a color, in units of the largest, above which what is written on it is white."""
MIN_LIMIT = 0.1
"""Least end of the scale of colors: where all cancel, all is pale."""
BAR = 0.8
"""Height of the bars of a term together, in units of the distance between terms."""


def term_matrix(table: xr.Dataset) -> Figure:
    """Draw what the points of each term do to each quantity, as a heat map.

    A cell's color is the signed influence of all points of a term, in units of the magnitude of all
    points on the same quantity: what cancels is pale. The number is the term's share of the
    magnitude, which nothing cancels.

    Parameters
    ----------
    table:
        What :func:`whence.term_matrix` returns.

    Raises
    ------
    ValueError
        If it is something else.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> both = ("quantity", "term")
    >>> table = xr.Dataset(
    ...     {"influence": (both, [[3.0, -1.0]]), "magnitude": (both, [[3.0, 1.0]]),
    ...      "share": (both, [[0.75, 0.25]]), "loss_share": ("term", [0.5, 0.5])},
    ...     {"quantity": ["loss pde"], "term": ["pde", "wall"]})
    >>> [text.get_text() for text in plots.term_matrix(table).axes[0].texts]
    ['75', '25']
    """
    check_table(table)
    quantities = [str(name) for name in table["quantity"].values]
    terms = [str(name) for name in table["term"].values]
    sizes = table["magnitude"].transpose("quantity", "term").values
    signed = table["influence"].transpose("quantity", "term").values
    shares = table["share"].transpose("quantity", "term").values

    # Rows are of different units: each is divided by what all points do to it.
    totals = sizes.sum(axis=1, keepdims=True)
    relative = signed / np.where(totals > 0, totals, 1.0)
    limit = max(MIN_LIMIT, float(np.abs(relative).max()))

    # In inches: room for names and bar, and for a number in each cell.
    longest = max(map(len, quantities))
    width = 2.2 + 0.075 * longest + 0.62 * len(terms)
    height = 2.1 + 0.07 * max(map(len, terms)) + 0.4 * len(quantities)
    width = max(width, 5.2)
    figure = Figure((width, height), layout="constrained")
    ax = figure.add_subplot()
    image = ax.imshow(
        relative,
        cmap=trimmed_colormap("PuOr_r", 0.06, 0.94),
        vmin=-limit,
        vmax=limit,
        aspect="auto",
    )
    write_shares(ax, relative / limit, shares)
    name_cells(ax, quantities, terms)
    color_bar(figure, image, "signed influence / magnitude of all", ax=ax)

    # What a positive number means depends on what happens to points.
    verb = "removing" if table.attrs.get("effect", "remove") == "remove" else "adding"
    title(figure, "What the points of each term do to each quantity", width - 0.8)
    caption(
        figure,
        f"Orange: {verb} all points of the term would raise the quantity; purple: lower it; pale: "
        "they cancel. Number: the term's share of the magnitude on that quantity, in percent.",
        inches=width - 0.4,
        size=TEXT,
    )
    return figure


def term_shares(table: xr.Dataset) -> Figure:
    """Draw the share of each term in the loss, and in the influence on quantities, as bars.

    Parameters
    ----------
    table:
        What :func:`whence.term_matrix` returns. Rows that are no losses of terms have a bar each;
        where all are, one bar is the mean of their shares.

    Raises
    ------
    ValueError
        If it is something else.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> both = ("quantity", "term")
    >>> table = xr.Dataset(
    ...     {"influence": (both, [[3.0, -1.0]]), "magnitude": (both, [[3.0, 1.0]]),
    ...      "share": (both, [[0.75, 0.25]]), "loss_share": ("term", [0.5, 0.5])},
    ...     {"quantity": ["u"], "term": ["pde", "wall"]})
    >>> legend = plots.term_shares(table).axes[0].get_legend()
    >>> [text.get_text() for text in legend.get_texts()]
    ['loss', 'influence on u']
    """
    check_table(table)
    terms = [str(name) for name in table["term"].values]
    bars = bars_of(table)

    # The more bars a term has, the more room it takes.
    height = 1.5 + len(terms) * (0.22 + 0.13 * len(bars))
    figure = Figure((7.6, height), layout="constrained")
    ax = figure.add_subplot()
    thickness = BAR / len(bars)
    places = np.arange(len(terms))
    for k, (label, shares) in enumerate(bars.items()):
        color = GRAY if k == 0 else LINE_COLORS[(k - 1) % len(LINE_COLORS)]
        # The first bar of a term is on top, the last one at the bottom.
        offset = (k - (len(bars) - 1) / 2) * thickness
        ax.barh(
            places + offset,
            100 * shares,
            height=thickness,
            color=color,
            label=label,
            zorder=3,
        )

    # Terms are named beside their bars.
    dress(ax, ("share, %", ""))
    ax.set_yticks(places, terms, fontsize=TICK)
    # The first term on top, and no empty room above and below.
    ax.set_ylim(len(terms) - 0.5, -0.5)
    ax.set_xlim(left=0)
    legend_beside(ax)
    title(figure, "Share of each term in the loss, and in what the solution is", 6.8)
    caption(
        figure,
        "Influence: the magnitude of all of a term's points, as a share of that of all points.",
        inches=7.0,
        size=TEXT,
    )
    return figure


def bars_of(table: xr.Dataset) -> dict[str, Array]:
    """Return the shares of all terms by what they are shares of, the loss first."""
    bars = {"loss": table["loss_share"].values}
    shares = table["share"].transpose("quantity", "term")
    for name in table["quantity"].values:
        if not str(name).startswith(LOSS):
            bars[f"influence on {name}"] = shares.sel(quantity=name).values

    # Where all rows are losses of terms, what each term does to them on the mean.
    if len(bars) == 1:
        bars["influence on losses"] = shares.mean("quantity").values
    return bars


def write_shares(ax: Axes, relative: Array, shares: Array) -> None:
    """Write the share of each cell into it."""
    for (row, column), share in np.ndenumerate(shares):
        # Black on dark orange cannot be read.
        is_dark = abs(relative[row, column]) > DARK
        # Without the sign for percent, which the caption says.
        text = percent(share).removesuffix(" %")
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=TICK,
            color="white" if is_dark else "black",
        )


def name_cells(ax: Axes, quantities: list[str], terms: list[str]) -> None:
    """Name the rows and columns of a heat map."""
    dress(ax, ("training points of", "influence on"), grid=False)
    ax.set_xticks(range(len(terms)), terms, fontsize=TICK)
    ax.set_yticks(range(len(quantities)), quantities, fontsize=TICK)
    # Long names would run into each other.
    ax.tick_params("x", labelrotation=45)
    for label in ax.get_xticklabels():
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")
    # The cells are edge enough.
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def check_table(table: xr.Dataset) -> None:
    """Raise ``ValueError`` unless this is what :func:`whence.term_matrix` returns."""
    # A data set of another kind would fail further on with less to say.
    needed = {"influence", "magnitude", "share", "loss_share"}
    if not isinstance(table, xr.Dataset) or not needed <= set(table.data_vars):
        raise ValueError(
            "expected what wh.term_matrix returns, a data set with influence, magnitude and "
            f"share, got {type(table).__name__}"
        )
