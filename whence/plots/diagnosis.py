"""Where to look: relative residuals over the domain, and those of each term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from whence.diagnosis.finding import Finding
from whence.pinn.pde.problem import Problem
from whence.plots.plane import Plane, is_plane
from whence.plots.style import (
    BLUE,
    INK,
    SKY,
    TEXT,
    TICK,
    VERMILION,
    caption,
    color_bar,
    dress,
    title,
    trimmed_colormap,
)

DECADES = 3
"""Orders of magnitude of the color scale."""
MAP_WIDTH = 5.0
"""Inches of the map."""
BARS_WIDTH = 5.4
"""Inches of the bars beside it."""
HEIGHT = 4.2
SMALL = 1e-12
"""Least relative residual that is drawn."""


def diagnosis(
    problem: Problem,
    findings: Sequence[Finding],
    relative: Mapping[str, tuple[float, float]],
    points: Mapping[str, Tensor],
    sizes: Mapping[str, Tensor],
) -> Figure:
    """Draw where the residuals of a run are large, the regions named, and each term's residual.

    Parameters
    ----------
    problem:
        What was solved.
    findings:
        What looks wrong, the worst first; their regions are framed.
    relative:
        Relative residual of each term where training ended and after a few more steps.
    points, sizes:
        Fresh points (n, d) by term, and the relative squared residual (n,) at each.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=9, schedule=pinn.GaussNewton(5), progress=False)
    >>> figure = pinn.diagnose(result, checks=["few_points"]).plot()
    >>> [axes.get_xlabel() for axes in figure.axes][:2]
    ['t', 'relative residual (rms at fresh points)']
    """
    has_map = is_plane(problem.coordinates) and bool(points)
    width = MAP_WIDTH + BARS_WIDTH
    n_panels = 2
    if not has_map:
        # Of other than two coordinates there is no map.
        width = BARS_WIDTH
        n_panels = 1

    # Of its own, without pyplot's global state.
    figure = Figure((width, HEIGHT), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    if has_map:
        draw_map(
            figure,
            panels[0],
            problem,
            findings,
            points,
            sizes,
        )
    draw_bars(panels[-1], findings, relative)

    n_serious = sum(f.severity == "serious" for f in findings)
    title(
        figure,
        f"{problem.label}: {n_serious} serious of {len(findings)} findings",
        inches=0.8 * width,
    )
    caption(
        figure,
        "Residuals over the rms of their term's largest part. Frames: regions that findings "
        "name, with their numbers.",
        inches=0.95 * width,
    )
    return figure


def draw_map(
    figure: Figure,
    ax: Axes,
    problem: Problem,
    findings: Sequence[Finding],
    points: Mapping[str, Tensor],
    sizes: Mapping[str, Tensor],
) -> None:
    """Draw fresh points in the color of their residual, and the regions named."""
    places = torch.cat(list(points.values())).detach().cpu().numpy()
    values = torch.cat(list(sizes.values())).sqrt().cpu().numpy()
    values = np.maximum(values, SMALL)

    plane = Plane.of(problem.coordinates, problem.time)
    # The largest on top.
    order = np.argsort(values)
    # Few decades below the largest, or all would be the same color.
    highest = float(values[order[-1]])
    marks = ax.scatter(
        places[order, plane.across],
        places[order, plane.up],
        c=values[order],
        s=7,
        norm=LogNorm(highest / 10**DECADES, highest),
        cmap=trimmed_colormap("viridis_r", 0.0, 0.95),
        linewidths=0,
        rasterized=True,
    )
    dress(ax, plane.names, grid=False)
    plane.frame(ax, problem)
    color_bar(figure, marks, "relative residual", ax=ax)

    for number, finding in enumerate(findings, 1):
        region = finding.region
        if region is None:
            continue
        color = INK
        if finding.severity == "serious":
            color = VERMILION
        # A point has a frame of no extent, of which the number is left.
        corner = (region.low[plane.across], region.low[plane.up])
        spans = np.subtract(region.high, region.low)
        frame = Rectangle(
            corner,
            spans[plane.across],
            spans[plane.up],
            fill=False,
            edgecolor=color,
            linewidth=1.6,
            zorder=4,
        )
        ax.add_patch(frame)
        ax.annotate(
            str(number),
            corner,
            xytext=(3, 3),
            textcoords="offset points",
            color=color,
            fontsize=TEXT,
            fontweight="bold",
        )


def draw_bars(
    ax: Axes,
    findings: Sequence[Finding],
    relative: Mapping[str, tuple[float, float]],
) -> None:
    """Draw the relative residual of each term, before and after a few more steps."""
    # The term that a finding names first.
    serious: set[str] = set()
    for finding in findings:
        if finding.severity == "serious":
            serious.update(finding.terms[:1])

    names = list(relative)
    # Two bars a term, side by side about its row.
    rows = np.arange(len(names))
    # A residual of exactly zero has no place on a scale of powers.
    pairs = np.array([relative[name] for name in names])
    before, after = np.maximum(pairs, SMALL).T
    colors = [BLUE] * len(names)
    for k, name in enumerate(names):
        if name in serious:
            colors[k] = VERMILION
    ax.barh(rows - 0.2, before, height=0.36, color=colors, label="where training ended")
    ax.barh(rows + 0.2, after, height=0.36, color=SKY, label="after a few more steps")

    ax.set_xscale("log")
    # From one power of ten to another, so that ticks have room.
    ends = np.log10([pairs.min().clip(SMALL), pairs.max().clip(SMALL)])
    ax.set_xlim(10 ** np.floor(ends[0]), 10 ** np.floor(ends[1] + 1))
    dress(ax, ("relative residual (rms at fresh points)", ""))
    ax.set_yticks(rows, names, fontsize=TICK)
    ax.invert_yaxis()
    # Room for the legend above the first bar.
    ax.set_ylim(len(names) - 0.4, -1.1)
    ax.legend(loc="upper right", fontsize=TICK, frameon=False, ncols=2)
