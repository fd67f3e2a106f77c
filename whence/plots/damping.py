"""How influences change with the damping, in one figure."""

from __future__ import annotations

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

SOLVED = 1e-3
"""Relative residual below which systems count as solved, and need no panel."""
STABLE = 0.95
"""Agreement from which two rankings count as the same."""
WIDTH = 7.4


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
    is_path = isinstance(path, xr.Dataset) and {"agreement", "size"} <= set(path)
    if not is_path:
        raise TypeError(
            "expected what whence.evaluation.damping_path(...) returns, an xarray.Dataset with "
            f"agreement and size, got {_checks.describe(path)}"
        )
    residuals = path["residual"].values
    has_unsolved = bool(np.nanmax(residuals) > SOLVED)
    heights = [2.6, 1.5, 1.2] if has_unsolved else [2.6, 1.5]
    figure = Figure((WIDTH, sum(heights) + 1.3), layout="constrained")
    axes = figure.subplots(
        len(heights), sharex=True, gridspec_kw={"height_ratios": heights}
    )

    current = float(path.attrs["damping"])
    values = path["damping"].values
    nearest = nearest_damping(path)
    stable = stable_range(path, nearest)
    draw_agreements(axes[0], path, nearest)
    draw_sizes(axes[1], values, path["size"].values)
    if has_unsolved:
        draw_residuals(axes[2], values, residuals)

    for ax in axes:
        ax.axvspan(*stable, color="0.93", zorder=0)
        if current > 0:
            ax.axvline(current, color=INK, linewidth=1.0, linestyle=":")
    axes[-1].set_xlabel("damping λ relative to the largest eigenvalue", fontsize=TEXT)
    write_words(figure, path, nearest, stable)
    return figure


def nearest_damping(path: xr.Dataset) -> int:
    """Return the place of the known damping that is nearest to the influence's own."""
    # Of no damping at all the smallest is the nearest.
    current = max(float(path.attrs["damping"]), np.finfo(float).tiny)
    distances = np.abs(np.log(path["damping"].values / current))
    is_known = np.isfinite(path["size"].values)
    return int(np.argmin(np.where(is_known, distances, np.inf)))


def stable_range(path: xr.Dataset, place: int) -> tuple[float, float]:
    """Return the first and last damping around a place whose rankings agree with it."""
    is_alike = path["agreement"].values[place] >= STABLE
    first = last = place
    while first > 0 and is_alike[first - 1]:
        first -= 1
    while last < len(is_alike) - 1 and is_alike[last + 1]:
        last += 1
    values = path["damping"].values
    return float(values[first]), float(values[last])


def draw_agreements(ax: Axes, path: xr.Dataset, place: int) -> None:
    """Draw rank correlations with the ranking at one damping, and with retraining."""
    values = path["damping"].values
    lines = {
        f"with λ = {values[place]:.0e}": (path["agreement"].values[place], BLUE, "o")
    }
    if "retraining" in path:
        lines["with leaving out"] = (path["retraining"].values, VERMILION, "s")
    if "lds" in path:
        lines["with subsets (LDS)"] = (path["lds"].values, GREEN, "^")

    for name, (column, color, marker) in lines.items():
        look: Look = {"color": color, "marker": marker, "markersize": 5}
        ax.plot(values, column, label=name, linewidth=1.6, **look)
        if color == BLUE or not np.isfinite(column).any():
            continue
        # Where retraining is predicted best.
        best = int(np.nanargmax(column))
        ax.plot(
            values[best],
            column[best],
            "o",
            markersize=12,
            fillstyle="none",
            color=color,
        )
    ax.set_xscale("log")
    lowest = min(float(np.nanmin(column)) for column, _, _ in lines.values())
    ax.set_ylim(min(-0.05, 1.1 * lowest), 1.05)
    ax.axhline(0, color=GRAY, linewidth=0.8)
    dress(ax, ("", "rank correlation"))
    legend_beside(ax)


def draw_sizes(ax: Axes, values: Array, sizes: Array) -> None:
    """Draw the root mean square of influences."""
    ax.plot(values, sizes, color=ORANGE, marker="o", markersize=5, linewidth=1.6)
    # Within a decade a logarithmic axis would have one tick.
    if np.nanmax(sizes) > 10 * np.nanmin(sizes) > 0:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
    dress(ax, ("", "size of influences"))


def draw_residuals(ax: Axes, values: Array, residuals: Array) -> None:
    """Draw relative residuals, and up to which systems count as solved."""
    ax.plot(values, residuals, color=INK, marker="o", markersize=4, linewidth=1.3)
    ax.axhline(SOLVED, color=GRAY, linestyle="--", linewidth=1.0)
    ax.set_yscale("log")
    dress(ax, ("", "residual"))


def write_words(
    figure: Figure, path: xr.Dataset, place: int, stable: tuple[float, float]
) -> None:
    """Write what the figure is of above it, and what to see below it."""
    attrs = path.attrs
    n_targets = attrs["targets"]
    name = str(attrs["quantity"])
    if name.startswith("loss"):
        name = f"the {name}"
    what = f"{name} ({n_targets} target{'s' if n_targets > 1 else ''})"
    heading = f"Influence of {attrs['points']} points on {what} over the damping"
    title(figure, heading, inches=WIDTH - 0.4)

    value = float(path["damping"].values[place])
    text = f"Dotted: the influence's own damping, {attrs['damping']:.0e}."
    if stable[0] < stable[1]:
        text += (
            f" Shaded: from {stable[0]:.0e} to {stable[1]:.0e} rankings correlate with that at "
            f"{value:.0e} by {STABLE} or more."
        )
    else:
        text += " The ranking changes to either side of it."
    for column, words in (("retraining", "leaving points out"), ("lds", "subsets")):
        if column in path and np.isfinite(path[column].values).any():
            best = int(np.nanargmax(path[column].values))
            text += (
                f" Best for {words}: {float(path['damping'][best]):.0e} "
                f"({float(path[column][best]):.2f}; at {value:.0e} "
                f"{float(path[column][place]):.2f})."
            )
    text += " Size: root mean square over targets and points."
    if np.nanmax(path["residual"].values) > SOLVED:
        text += " Above the dashed line systems are not solved."
    n_singular = int(np.isnan(path["size"].values).sum())
    if n_singular:
        text += f" At {n_singular} dampings the system is singular."
    caption(figure, text, inches=WIDTH - 0.2)
