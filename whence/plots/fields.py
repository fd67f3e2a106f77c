"""Figures of physics-informed networks: problems, runs and where influential points are.

Time, where there is one, is the horizontal axis.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator
from torch.nn import Module

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.plots.style import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    TEXT,
    TITLE,
    Array,
    Look,
    colour_bar,
    dress,
    handle,
    without_ends,
)
from whence.plots.words import Story, coordinates, one_target, shown_at, terms_of

LINES = {
    "loss": ("total loss", INK, "-", 2.0),
    "validation_loss": ("validation loss", GREY, "--", 1.5),
    "relative_l2": ("relative L2 error", INK, ":", 2.0),
}


def solution(problem: Problem, network: Module, resolution: int = 201) -> Figure:
    """Draw the reference solution, the network and the absolute error of each output.

    Without a reference solution, the network alone. The problem must have two coordinates; what
    lies outside its domain stays blank.

    Examples
    --------
    >>> from whence import pinn, plots
    >>> problem = pinn.zoo.load("diffusion")
    >>> figure = plots.solution(problem, problem.network(seed=0), resolution=21)
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['u: reference', 'u: network', 'u: absolute error']
    """
    _checks.count("resolution", resolution)
    across, up = _plane(problem.coordinates, problem.time)
    columns, grid, inside = _grid(problem, across, up, resolution)
    points = torch.from_numpy(grid[inside.ravel()])
    tensors = {name: p.detach() for name, p in network.named_parameters()}
    evaluate = problem.fields(network)(tuple(problem.outputs))
    parts = torch.split(points.to(next(iter(tensors.values()))), 10_000)
    got = torch.cat([evaluate(tensors, part) for part in parts]).double().cpu().numpy()
    title, panels, truth = problem.name, ["network"], None
    if problem.solution is not None:
        truth = problem.reference(points).numpy()
        error = np.linalg.norm(got - truth) / np.linalg.norm(truth)
        title += (
            f": relative L2 error {error:.2e} on a {resolution} × {resolution} grid"
        )
        panels = ["reference", "network", "absolute error"]
    slope = _slope(problem, across, up)
    long = slope < 0.5  # long panels go below each other
    rows, cols = (len(panels), got.shape[1]) if long else (got.shape[1], len(panels))
    width, height = (5.5, 0.7 + 4.6 * slope) if long else (3.1, 0.8 + 2.3 * slope)
    figure = Figure((max(cols * width, 4.5), rows * height + 0.4), layout="constrained")
    table = figure.subplots(rows, cols, squeeze=False)
    for j, output in enumerate(problem.outputs):
        fields = {"network": got[:, j]}
        if truth is not None:
            fields |= {
                "reference": truth[:, j],
                "absolute error": np.abs(got - truth)[:, j],
            }
        both = np.concatenate([fields[p] for p in panels[:2]])
        scale = Normalize(*np.quantile(both[np.isfinite(both)], [0, 1]))
        axes = list(table[:, j] if long else table[j])
        for ax, panel in zip(axes, panels, strict=True):
            is_error = panel == "absolute error"
            full = np.full(inside.shape, np.nan)
            full[inside] = fields[panel]
            largest = full[np.isfinite(full)].max(initial=1e-16)
            norm = LogNorm(1e-4 * largest, largest) if is_error else scale
            look: Look = {
                "cmap": "magma" if is_error else "viridis",
                "shading": "nearest",
            }
            mesh = ax.pcolormesh(*columns, full, norm=norm, rasterized=True, **look)
            dress(
                ax, (problem.coordinates[across], problem.coordinates[up]), grid=False
            )
            ax.set_title(f"{output}: {panel}", fontsize=TEXT + 1)
            ax.set(xlim=columns[0][[0, -1]], ylim=columns[1][[0, -1]])
            ax.set_aspect("auto" if problem.time else "equal")
            if is_error:
                colour_bar(figure, mesh, ax=ax, extend="min")
            elif panel == "network":
                colour_bar(figure, mesh, ax=axes[:2])
    figure.suptitle(title, fontsize=TITLE)
    return figure


def convergence(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw losses and errors against iterations, the stages of the schedule, and the points.

    ``history`` holds the rows of :meth:`whence.pinn.RunFolder.history`, or is a result's own.

    Examples
    --------
    >>> from whence import plots
    >>> rows = [{"iteration": k, "stage": "Adam", "loss_pde": 10.0**-k} for k in range(3)]
    >>> [text.get_text() for text in plots.convergence(rows).axes[0].get_legend().get_texts()]
    ['loss: pde']
    """
    if not history or "iteration" not in history[0]:
        raise ValueError(
            "history must hold rows with an 'iteration', as RunFolder.history() gives"
        )
    columns = list(dict.fromkeys(name for row in history for name in row))
    terms = [name for name in columns if name.startswith("loss_")]
    total = [] if len(terms) == 1 else ["loss"]
    names = [
        n for n in (*total, *terms, "validation_loss", "relative_l2") if n in columns
    ]
    needed = ("iteration", "points", *names)
    table = {
        n: np.array([float(row.get(n, math.nan)) for row in history]) for n in needed
    }
    iterations, counts = table["iteration"], table["points"]
    resampled = len(np.unique(counts[np.isfinite(counts)])) > 1
    weighted = [name for name in terms if f"weight_{name[5:]}" in columns]
    heights = [4.0, *([1.6] if weighted else []), *([1.0] if resampled else [])]
    figure = Figure((7.0, 3.0 + sum(heights) / 4), layout="constrained")
    shape: Look = {"nrows": len(heights), "height_ratios": heights}
    axes = list(figure.subplots(sharex=True, squeeze=False, **shape)[:, 0])
    for name in names:
        colour = COLOURS[terms.index(name) % len(COLOURS)] if name in terms else INK
        words, colour, dashes, width = LINES.get(
            name, (f"loss: {name[5:]}", colour, "-", 1.5)
        )
        axes[0].plot(
            iterations, table[name], dashes, color=colour, linewidth=width, label=words
        )
    axes[0].set_yscale("log")
    axes[0].set_xlim(iterations[0], max(iterations[-1], iterations[0] + 1))
    axes[0].legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=TEXT, frameon=False
    )
    for name in weighted:
        weights = np.array(
            [float(row.get(f"weight_{name[5:]}", math.nan)) for row in history]
        )
        colour = COLOURS[terms.index(name) % len(COLOURS)]
        axes[1].plot(iterations, weights, color=colour, linewidth=1.5)
    if weighted:
        axes[1].set_yscale("log")
    if resampled:
        axes[-1].plot(iterations, counts, ".-", color=INK, linewidth=1.2, markersize=4)
    labels = [
        "loss, error",
        *(["weight"] if weighted else []),
        *(["points"] if resampled else []),
    ]
    for ax, up in zip(axes, labels, strict=True):
        dress(ax, ("iteration" if ax is axes[-1] else "", up))
    axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    stages = [str(row.get("stage", "")) for row in history]
    first = [k for k, stage in enumerate(stages) if k == 0 or stage != stages[k - 1]]
    starts = [iterations[max(k - 1, 0)] for k in first]
    room = np.diff([*starts, iterations[-1]]) / (np.ptp(iterations) or 1)
    tight = any(r < 0.018 * len(stages[k]) for r, k in zip(room, first, strict=True))
    look: Look = {
        "rotation": 35 if tight else 0,
        "rotation_mode": "anchor",
        "fontsize": TEXT,
    }
    look |= {
        "xytext": (2, 4),
        "textcoords": "offset points",
        "xycoords": ("data", "axes fraction"),
    }
    for start, k in zip(starts, first, strict=True):
        axes[0].annotate(stages[k], (start, 1), **look)
        for ax in axes if k else ():
            ax.axvline(start, color=INK, linewidth=0.8)
    return figure


def rounds(problem: Problem, arrays: Mapping[str, Array]) -> Figure:
    """Draw where the training points are and when they entered, one panel per term.

    ``arrays`` is what :meth:`whence.pinn.RunFolder.points` returns: TERM, TERM_entered, TERM_left.
    The problem must have two coordinates.
    """
    across, up = _plane(problem.coordinates, problem.time)
    terms = [name for name in problem.terms if f"{name}_entered" in arrays]
    if not terms:
        what = f"the arrays hold no points of {', '.join(problem.terms)}"
        raise ValueError(
            f"{what}: give what RunFolder.points() returns, got {list(arrays)}"
        )
    latest = max(int(arrays[f"{name}_entered"].max(initial=0)) for name in terms)
    cols = 2 if len(terms) == 4 else min(3, len(terms))
    rows = math.ceil(len(terms) / cols)
    height = rows * (0.9 + 2.6 * _slope(problem, across, up)) + 0.7
    figure = Figure((max(3.2 * cols + 0.9, 5.5), height), layout="constrained")
    mappable = ScalarMappable(
        Normalize(0, max(latest, 1)), without_ends("viridis", 0.0, 0.92)
    )
    for k, name in enumerate(terms):
        ax = figure.add_subplot(rows, cols, k + 1)
        dress(ax, (problem.coordinates[across], problem.coordinates[up]))
        _frame(ax, problem, across, up)
        points, entered = arrays[name], arrays[f"{name}_entered"]
        gone, first = arrays[f"{name}_left"] >= 0, entered == 0
        base = float(np.clip(4000 / max(len(points), 1), 6, 22))
        for left, start in ((True, True), (True, False), (False, True), (False, False)):
            mask = (first == start) & (gone == left)
            size = base * (0.35 if left else 1.0) * (1.0 if start else 1.4)
            look: Look = {
                "alpha": 0.4 if left else 1.0,
                "linewidths": 0,
                "clip_on": False,
            }
            colour = GREY if start else mappable.to_rgba(entered[mask])
            xy = points[mask, across], points[mask, up]
            ax.scatter(
                *xy, s=size, c=colour, rasterized=len(points) > 5000, zorder=3, **look
            )
        later = f", {(~first).sum()} came, {gone.sum()} left" if latest else ""
        ax.set_title(f"{name}\n{first.sum()} at the start{later}", fontsize=TEXT)
    title = f"{problem.name}: training points (there was no resampling)"
    if latest:
        title = f"{problem.name}: where resampling put its points"
        colour_bar(
            figure, mappable, "entered at iteration", ax=figure.axes, fraction=0.04
        )
        handles = [
            handle("o", "at the start", GREY),
            handle("o", "came later", COLOURS[2]),
        ]
        if any(bool((arrays[f"{name}_left"] >= 0).any()) for name in terms):
            handles.append(
                handle("o", "has left (smaller, fainter)", GREY, size=3, alpha=0.4)
            )
        place: Look = {"loc": "outside lower center", "ncols": 3, "frameon": False}
        figure.legend(handles=handles, fontsize=TEXT, **place)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def influence_map(
    attribution: xr.DataArray, problem: Problem | None = None, term: str | None = None
) -> Figure:
    """Draw the influence of each point on one target, where the points are.

    The attribution must be of one target, such as ``influence.attribute(...).isel(target=0)``, at
    points of two coordinates. ``problem`` says which of them is time (otherwise ``"t"``) and
    outlines the domain; ``term`` draws the points of that term only.
    """
    data = one_target(attribution)
    names = coordinates(data) if problem is None else problem.coordinates
    across, up = _plane(names, "t" if problem is None else problem.time)
    for name in names:
        _checks.one_of("coordinate of the attribution", name, coordinates(data))
    if term is not None:
        _checks.one_of("term", term, dict.fromkeys(terms_of(data)))
        data = data.isel(point=terms_of(data) == term)
    values, of, story = data.values, terms_of(data), Story.of(data)
    horizontal, vertical = names[across], names[up]
    slope = 0.75 if problem is None else _slope(problem, across, up)
    figure = Figure((6.6, 1.8 + 4.8 * slope), layout="constrained")
    ax = figure.add_subplot()
    dress(ax, (horizontal, vertical))
    if problem is not None:
        _frame(ax, problem, across, up)
    sizes = np.abs(values)
    largest = float(sizes.max()) or 1.0
    linear = 10.0 ** (math.floor(math.log10(largest)) - 2)
    norm = SymLogNorm(linear, linscale=0.5, vmin=-largest, vmax=largest, base=10)
    mappable = ScalarMappable(norm, without_ends("PuOr_r", 0.06, 0.94))
    area = float(np.clip(12000 / len(values), 8, 30)) * (
        0.7 + 1.5 * np.sqrt(sizes / largest)
    )
    markers = {
        str(n): MARKERS[k % len(MARKERS)] for k, n in enumerate(dict.fromkeys(of))
    }
    colours = mappable.to_rgba(values)
    look: Look = {"edgecolors": "0.45", "linewidths": 0.3, "rasterized": len(of) > 5000}
    order = np.argsort(sizes, kind="stable")
    for name in sorted(markers, key=lambda n: float(sizes[of == n].max())):
        i = order[of[order] == name]  # the strongest on top
        xy = data.coords[horizontal].values[i], data.coords[vertical].values[i]
        ax.scatter(*xy, s=area[i], c=colours[i], marker=markers[name], zorder=3, **look)
    handles = [handle(m, name, "0.85", edge="0.45") for name, m in markers.items()]
    handles = handles if len(handles) > 1 else []
    if {horizontal, vertical} <= set(story.at):
        star: Look = {"marker": "*", "color": COLOURS[2], "markeredgecolor": "black"}
        ax.plot(
            story.at[horizontal],
            story.at[vertical],
            ms=15,
            zorder=5,
            clip_on=False,
            **star,
        )
        handles.insert(0, handle("*", "target", COLOURS[2], size=11, edge="black"))
    if handles:
        place: Look = {
            "loc": "lower left",
            "bbox_to_anchor": (0, 1),
            "ncols": min(5, len(handles)),
        }
        place |= {"handletextpad": 0.2, "columnspacing": 1.0, "borderaxespad": 0.2}
        ax.legend(handles=handles, fontsize=TEXT, frameon=False, **place)
    bar = colour_bar(figure, mappable, f"influence on {story.name}", ax=ax, aspect=28)
    bar.minorlocator = SymmetricalLogLocator(
        base=10, linthresh=linear, subs=range(2, 10)
    )
    figure.suptitle(
        textwrap.fill(f"Influence of each point on {story}", 70), fontsize=TITLE
    )
    caption = story.caption(str(data.attrs.get("sign", "")))
    figure.supxlabel(textwrap.fill(caption, 88), x=0.03, ha="left", fontsize=TEXT)
    return figure


def describe_influence(attribution: xr.DataArray) -> str:
    """Return one sentence: how concentrated the influence is, and what the strongest point does.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray([3.0, -1.0], {"x": ("point", [0.0, 0.5]), "quantity": "u"}, "point")
    >>> print(plots.describe_influence(row))                            # doctest: +ELLIPSIS
    The most influential of 2 points carries 75 % ...; the strongest is at (x=0), and its value ...
    """
    data = one_target(attribution)
    story, sizes, n = Story.of(data), np.abs(data.values), data.size
    if not sizes.any():
        return f"None of the {n} points has any influence on {story}."
    k = math.ceil(n / 10)
    share = np.sort(sizes)[-k:].sum() / sizes.sum()
    percent = "more than 99 %" if share >= 0.995 and k < n else f"{100 * share:.0f} %"
    few = f"{k} most influential of {n} points ({100 * k / n:.0f} %) carry"
    few = few if k > 1 else f"most influential of {n} point{'s' * (n > 1)} carries"
    strongest = int(np.argmax(sizes))
    point, value = data.isel(point=strongest), float(data[strongest])
    own = {name: float(point.coords[name]) for name in coordinates(data)}
    place = f"at {shown_at(own)}" if own else f"number {strongest}"
    of = (
        f", of term {terms_of(data)[strongest]},"
        if len(set(terms_of(data))) > 1
        else ""
    )
    does = f"its value is {value:+.1e}"
    if story.verb:
        change = f"{'raise' if value > 0 else 'lower'} {story.name} by a predicted"
        does = f"{story.verb} it would {change} {abs(value):.1e}"
    text = f"The {few} {percent} of the total absolute influence on {story}; the strongest{of} is "
    text += f"{place}, and {does}"
    return f"{text} (but {story.warning})." if story.warning else f"{text}."


def _grid(
    problem: Problem, across: int, up: int, n: int
) -> tuple[list[Array], Array, Array]:
    """Return axes, points (n², 2) and which of them, (n, n), are inside, of an n × n grid."""
    bounds = problem.domain.bounds
    columns = [np.linspace(bounds[0, k], bounds[1, k], n) for k in (across, up)]
    grid = np.zeros((n * n, 2))
    grid[:, across], grid[:, up] = (c.ravel() for c in np.meshgrid(*columns))
    return columns, grid, problem.domain.contains(grid).reshape(n, n)


def _slope(problem: Problem, across: int, up: int) -> float:
    """Return how high a panel should be for its width: to scale if both coordinates are space."""
    spans = np.ptp(problem.domain.bounds, axis=0)
    return 0.8 if problem.time else float(np.clip(spans[up] / spans[across], 0.15, 1.2))


def _frame(ax: Axes, problem: Problem, across: int, up: int) -> None:
    """Set limits to the domain with a little room, and outline it if it is no rectangle."""
    (h, v), _, inside = _grid(problem, across, up, 401)
    limits = [
        ends[[0, -1]] + 0.03 * np.ptp(ends) * np.array([-1, 1]) for ends in (h, v)
    ]
    ax.set(xlim=limits[0], ylim=limits[1])
    if not inside.all():
        ax.contour(h, v, inside, levels=[0.5], colors="0.5", linewidths=0.8)
    ax.set_aspect("auto" if problem.time else "equal")


def _plane(names: Sequence[str], time: str | None) -> tuple[int, int]:
    """Return which columns go across and up: time across, where there is one."""
    if len(names) != 2:
        raise ValueError(
            f"this figure needs two coordinates, got {', '.join(names) or 'none'}"
        )
    return (1, 0) if names[1] == time else (0, 1)
