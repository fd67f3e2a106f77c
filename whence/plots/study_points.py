"""Where the training points of a study's methods ended up, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from whence.pinn.pde.problem import Problem
from whence.plots.looks import LINE_COLORS
from whence.plots.panels import MAX_LONG_SLOPE
from whence.plots.plane import Plane
from whence.plots.study_panels import draw_legend_beside, legend_height, legend_width
from whence.plots.style import (
    MARKERS,
    MAX_SHARP_MARKS,
    TEXT,
    Array,
    Look,
    caption,
    dress,
    legend_mark,
    title,
)

PANEL_WIDTH = 2.3
"""Width of a panel in inches, with its ticks."""
MIN_WIDTH = 5.4
"""Width of a figure of one panel: its title has to fit."""
NOTE = "The points that each run ended with; one seed of each method."


@dataclass(frozen=True)
class StudyPoints:
    """The points that one run ended with.

    Parameters
    ----------
    problem:
        What was solved, of two coordinates.
    name:
        What the study calls the problem.
    method:
        What the study calls the run's method.
    points:
        Points (n, 2) of each term.
    """

    problem: Problem
    name: str
    method: str
    points: Mapping[str, Array]


def study_points(runs: Sequence[StudyPoints]) -> Figure:
    r"""Draw the last training points of several runs: problems below, methods beside each other.

    Raises
    ------
    ValueError
        If there are no runs, or a problem has not two coordinates.

    Examples
    --------
    >>> from whence import pinn, plots
    >>> from whence.plots.study_points import StudyPoints
    >>> problem = pinn.zoo.load("diffusion")
    >>> grid = problem.domain.sample(20, "grid").numpy()
    >>> runs = [StudyPoints(problem, "diffusion", name, {"pde": grid}) for name in "ab"]
    >>> [ax.get_title() for ax in plots.study_points(runs).axes]
    ['diffusion\na', 'diffusion\nb']
    """
    if not runs:
        raise ValueError("there are no runs whose points could be drawn")

    # Each in order of first appearance.
    problems = {run.name: run.problem for run in runs}
    methods = unique(run.method for run in runs)
    planes = {}
    for name, problem in problems.items():
        planes[name] = Plane.of(problem.coordinates, problem.time)
    looks = looks_of_terms(runs)

    heights = []
    for name, plane in planes.items():
        slope = plane.slope(problems[name])
        # Beside the panel proper, which is 0.8 as wide, ticks and names take 0.8 inches.
        height = 0.8 + 0.8 * PANEL_WIDTH * slope
        heights.append(height)
    width = max(MIN_WIDTH, PANEL_WIDTH * len(methods) + 0.7)
    figure = empty_figure(width, sum(heights), list(looks))
    grid = GridSpec(
        len(problems),
        len(methods),
        figure=figure,
        height_ratios=heights,
    )

    names = list(problems)
    for run in runs:
        row = names.index(run.name)
        column = methods.index(run.method)
        ax = figure.add_subplot(grid[row, column])
        plane = planes[run.name]

        across, up = plane.names
        dress(ax, (across, up if column == 0 else ""))
        ax.set_title(f"{run.name}\n{run.method}", fontsize=TEXT)
        plane.frame(ax, run.problem)
        # Panels of a row share their axis, and are narrow; those of a channel are low, too.
        ax.tick_params(labelleft=column == 0)
        ax.locator_params("x", nbins=3)
        if plane.slope(run.problem) < MAX_LONG_SLOPE:
            ax.locator_params("y", nbins=2)
        draw_points(ax, run, plane, looks)

    draw_legend(figure, looks)
    return figure


def empty_figure(width: float, height: float, terms: Sequence[str]) -> Figure:
    """Return a figure with its words and room for panels of a height."""
    # One term alone has no legend.
    if len(terms) > 1:
        width += legend_width(terms)
        height = max(height, legend_height(terms))
    height += 0.7
    figure = Figure((width, height), layout="constrained")
    title(figure, "Training points at the end", inches=width - 0.6)
    caption(figure, NOTE, inches=width - 0.6, size=TEXT)
    return figure


def looks_of_terms(runs: Sequence[StudyPoints]) -> dict[str, Look]:
    """Return a color and a shape for each term of any problem."""
    terms = unique(term for run in runs for term in run.points)
    looks: dict[str, Look] = {}
    for k, term in enumerate(terms):
        # As many shapes as colors and one more, so that both together repeat late.
        color = LINE_COLORS[k % len(LINE_COLORS)]
        marker = MARKERS[k % len(MARKERS)]
        looks[term] = {"color": color, "marker": marker}
    return looks


def unique(names: Iterable[str]) -> list[str]:
    """Return names once each, in order of first appearance."""
    # A dict keeps the order, a set does not.
    return list(dict.fromkeys(names))


def draw_points(
    ax: Axes, run: StudyPoints, plane: Plane, looks: Mapping[str, Look]
) -> None:
    """Draw the points of each term."""
    n = 1
    for points in run.points.values():
        n += len(points)

    # The more points, the smaller, in square points of print.
    area = float(np.clip(2500 / n, 3, 14))
    for term, points in run.points.items():
        ax.scatter(
            points[:, plane.across],
            points[:, plane.up],
            s=area,
            linewidths=0,
            # Those on the boundary are whole, too.
            clip_on=False,
            rasterized=n > MAX_SHARP_MARKS,
            zorder=3,
            **looks[term],
        )


def draw_legend(figure: Figure, looks: Mapping[str, Look]) -> None:
    """Name the terms beside the panels; one alone needs no name."""
    if len(looks) == 1:
        return

    handles: list[Line2D] = []
    for term, look in looks.items():
        mark = legend_mark(look["marker"], term, look["color"])
        handles.append(mark)
    draw_legend_beside(figure, handles)
