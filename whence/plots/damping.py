"""How influences change with the damping, in one figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from whence import _checks
from whence.plots.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    TEXT,
    VERMILION,
    Array,
    Look,
    caption,
    dress,
    legend_beside,
    title,
)


class Truth(NamedTuple):
    """A comparison of predictions with retraining: its variable, in words, and how it is drawn."""

    name: str
    label: str
    words: str
    color: str
    marker: str


SOLVED = 1e-3
"""Relative residual below which systems count as solved, and need no panel."""
STABLE = 0.95
"""Agreement from which two rankings count as the same."""
WIDTH = 7.4
HEIGHTS = (2.6, 1.5, 1.2)
"""Of the panels of agreements, sizes and residuals."""
MARGINS = 1.3
"""Height of title, caption and axis labels."""
TRUTHS = (
    Truth("retraining", "with leaving out", "leaving points out", VERMILION, "s"),
    Truth("lds", "with subsets (LDS)", "subsets", GREEN, "^"),
)
"""What predictions may be compared with, where it is known."""


def damping(path: xr.Dataset) -> Figure:
    """Draw how influences change over dampings.

    Above: how far the ranking of the training points at each damping is that at the influence's
    own, marked by a line, and how well each predicts retraining, where that is known; dampings over
    which the ranking stays are shaded. Below: how large the influences are, and where some systems
    were not solved their residuals.

    Parameters
    ----------
    path:
        What :func:`whence.evaluation.damping_path` returns.

    Raises
    ------
    TypeError
        If it is something else.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import plots
    >>> from whence.evaluation import damping_path
    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(20, 3), torch.arange(20) % 2
    >>> influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss())
    >>> figure = plots.damping(damping_path(influence, wh.Loss(x[:4], y[:4])))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['rank correlation', 'size of influences']
    """
    check_path(path)
    values = path["damping"].values
    nearest = nearest_damping(path)
    stable = stable_range(path, nearest)

    heights = HEIGHTS if has_unsolved(path) else HEIGHTS[:2]
    figure = Figure((WIDTH, sum(heights) + MARGINS), layout="constrained")
    axes = figure.subplots(
        len(heights), sharex=True, gridspec_kw={"height_ratios": heights}
    )
    draw_agreements(axes[0], path, nearest)
    draw_sizes(axes[1], values, path["size"].values)
    if has_unsolved(path):
        draw_residuals(axes[2], values, path["residual"].values)

    current = float(path.attrs["damping"])
    for ax in axes:
        ax.axvspan(*stable, color="0.93", zorder=0)
        if current > 0:
            ax.axvline(current, color=INK, linewidth=1.0, linestyle=":")
    axes[-1].set_xlabel("damping λ relative to the largest eigenvalue", fontsize=TEXT)

    title(figure, heading(path), inches=WIDTH - 0.4)
    sentences = what_to_see(path, nearest, stable)
    caption(figure, " ".join(sentences), inches=WIDTH - 0.2)
    return figure


def check_path(path: object) -> None:
    """Raise ``TypeError`` unless this is what :func:`whence.evaluation.damping_path` returns."""
    is_path = isinstance(path, xr.Dataset) and {"agreement", "size"} <= set(path)
    if not is_path:
        raise TypeError(
            "expected what whence.evaluation.damping_path(...) returns, an xarray.Dataset with "
            f"agreement and size, got {_checks.describe(path)}"
        )


def has_unsolved(path: xr.Dataset) -> bool:
    """Whether at some damping the systems were not solved."""
    # NaN where the system is singular.
    largest = np.nanmax(path["residual"].values)
    return bool(largest > SOLVED)


def nearest_damping(path: xr.Dataset) -> int:
    """Return the place of the known damping that is nearest to the influence's own, by its log."""
    # Of no damping at all the smallest is the nearest.
    current = max(float(path.attrs["damping"]), np.finfo(float).tiny)
    ratios = path["damping"].values / current
    distances = np.abs(np.log(ratios))

    # Where the system was singular nothing is known.
    is_known = np.isfinite(path["size"].values)
    known_distances = np.where(is_known, distances, np.inf)
    return int(np.argmin(known_distances))


def stable_range(path: xr.Dataset, place: int) -> tuple[float, float]:
    """Return the first and last damping around a place whose rankings agree with it."""
    is_alike = path["agreement"].values[place] >= STABLE
    first = place
    while first > 0 and is_alike[first - 1]:
        first -= 1
    last = place
    while last < len(is_alike) - 1 and is_alike[last + 1]:
        last += 1

    values = path["damping"].values
    return float(values[first]), float(values[last])


def truths_of(path: xr.Dataset) -> list[Truth]:
    """Return what predictions are compared with at one or more dampings."""
    truths = []
    for truth in TRUTHS:
        if truth.name not in path:
            continue
        is_known = np.isfinite(path[truth.name].values)
        if is_known.any():
            truths.append(truth)
    return truths


def draw_agreements(ax: Axes, path: xr.Dataset, place: int) -> None:
    """Draw rank correlations with the ranking at one damping, and with retraining."""
    values = path["damping"].values
    agreement = path["agreement"].values[place]
    look: Look = {"color": BLUE, "marker": "o", "markersize": 5}
    name = f"with λ = {values[place]:.0e}"
    ax.plot(values, agreement, label=name, linewidth=1.6, **look)

    columns = [agreement]
    for truth in truths_of(path):
        column = path[truth.name].values
        columns.append(column)
        look = {"color": truth.color, "marker": truth.marker, "markersize": 5}
        ax.plot(values, column, label=truth.label, linewidth=1.6, **look)
        draw_best(ax, values, column, truth.color)

    ax.set_xscale("log")
    lowest = float(np.nanmin(columns))
    ax.set_ylim(min(-0.05, 1.1 * lowest), 1.05)
    ax.axhline(0, color=GRAY, linewidth=0.8)
    dress(ax, ("", "rank correlation"))
    legend_beside(ax)


def draw_best(ax: Axes, values: Array, column: Array, color: str) -> None:
    """Draw a ring around the largest number of a column, where retraining is predicted best."""
    best = int(np.nanargmax(column))
    look: Look = {"color": color, "marker": "o", "markersize": 12}
    ax.plot(values[best], column[best], fillstyle="none", linestyle="none", **look)


def draw_sizes(ax: Axes, values: Array, sizes: Array) -> None:
    """Draw the root mean square of influences."""
    ax.plot(values, sizes, color=ORANGE, marker="o", markersize=5, linewidth=1.6)
    # Within a decade a logarithmic axis would have one tick.
    smallest = np.nanmin(sizes)
    largest = np.nanmax(sizes)
    if largest > 10 * smallest > 0:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
    dress(ax, ("", "size of influences"))


def draw_residuals(ax: Axes, values: Array, residuals: Array) -> None:
    """Draw relative residuals, and up to which systems count as solved."""
    ax.plot(values, residuals, color=INK, marker="o", markersize=4, linewidth=1.3)
    ax.axhline(SOLVED, color=GRAY, linestyle="--", linewidth=1.0)
    ax.set_yscale("log")
    dress(ax, ("", "residual"))


def heading(path: xr.Dataset) -> str:
    """Return what the figure is of."""
    name = str(path.attrs["quantity"])
    if name.startswith("loss"):
        name = f"the {name}"

    targets = _checks.counted(path.attrs["targets"], "target")
    n_points = path.attrs["points"]
    return f"Influence of {n_points} points on {name} ({targets}) over the damping"


def what_to_see(path: xr.Dataset, place: int, stable: tuple[float, float]) -> list[str]:
    """Return what the figure shows, in sentences."""
    value = float(path["damping"].values[place])
    sentences = [f"Dotted: the influence's own damping, {path.attrs['damping']:.0e}."]

    first, last = stable
    if first < last:
        sentences.append(
            f"Shaded: from {first:.0e} to {last:.0e} rankings correlate with that at {value:.0e} "
            f"by {STABLE} or more."
        )
    else:
        sentences.append("The ranking changes to either side of it.")

    for truth in truths_of(path):
        column = path[truth.name].values
        best = int(np.nanargmax(column))
        best_value = float(path["damping"].values[best])
        sentences.append(
            f"Best for {truth.words}: {best_value:.0e} ({column[best]:.2f}; at {value:.0e} "
            f"{column[place]:.2f})."
        )

    sentences.append("Size: root mean square over targets and points.")
    if has_unsolved(path):
        sentences.append("Above the dashed line systems are not solved.")
    is_singular = np.isnan(path["size"].values)
    if is_singular.any():
        dampings = _checks.counted(int(is_singular.sum()), "damping")
        sentences.append(f"At {dampings} the system is singular.")
    return sentences
