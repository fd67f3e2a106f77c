"""Figures of physics-informed networks over their domain: solutions and training points.

Time, where there is one, is the horizontal axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import Module

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.plots.plane import Plane, is_plane
from whence.plots.slices import slices
from whence.plots.style import (
    GRAY,
    GREEN,
    MAX_SHARP_MARKS,
    TEXT,
    TITLE,
    Array,
    Look,
    color_bar,
    dress,
    legend_mark,
    trimmed_colormap,
)
from whence.plots.values import predicted_values

ERROR_DECADES = 4
"""Decades of errors, below the largest, that the color scale resolves."""
MIN_ERROR = 1e-16
"""Least upper end of the scale of errors, which an exact network needs."""


def solution(problem: Problem, network: Module, resolution: int = 201) -> Figure:
    """Draw the reference solution, the network and the absolute error of each output.

    Without a reference solution, the network alone. What lies outside the domain stays blank. Of a
    problem that has not two coordinates these are :func:`slices`.

    Examples
    --------
    >>> from whence import pinn, plots
    >>> problem = pinn.zoo.load("diffusion")
    >>> figure = plots.solution(problem, problem.network(seed=0), resolution=21)
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['u: reference', 'u: network', 'u: absolute error']
    """
    _checks.count("resolution", resolution)
    if not is_plane(problem.coordinates):
        return slices(problem, network, resolution)

    panels = _SolutionPanels(problem, resolution)
    points = panels.points
    predicted = predicted_values(problem, network, points)

    values = {"network": predicted}
    title = problem.label
    if problem.solution is not None:
        reference = problem.reference(points).numpy()
        difference = predicted - reference
        error = np.linalg.norm(difference) / np.linalg.norm(reference)
        title += (
            f": relative L2 error {error:.2e} on a {resolution} × {resolution} grid"
        )
        values = {
            "reference": reference,
            "network": predicted,
            "absolute error": np.abs(difference),
        }

    figure, rows = panels.lay_out(len(problem.outputs), list(values))
    for j, output in enumerate(problem.outputs):
        fields = {name: columns[:, j] for name, columns in values.items()}
        panels.draw(figure, rows[j], output, fields)

    figure.suptitle(title, fontsize=TITLE)
    return figure


class _SolutionPanels:
    """The panels of :func:`solution`, all on one grid."""

    def __init__(self, problem: Problem, resolution: int) -> None:
        self.problem = problem
        self.plane = Plane.of(problem.coordinates, problem.time)
        self.grid = self.plane.grid(problem, resolution)

    @property
    def points(self) -> Tensor:
        """The points of the grid that are in the domain, (n, 2)."""
        inside = self.grid.inside.ravel()
        return torch.from_numpy(self.grid.points[inside])

    def lay_out(
        self, n_outputs: int, names: Sequence[str]
    ) -> tuple[Figure, list[list[Axes]]]:
        """Return an empty figure and the panels of each output."""
        n_panels = len(names)
        slope = self.plane.slope(self.problem)
        is_long = slope < 0.5
        # Long panels of an output go below each other, others side by side. Sizes in inches: the
        # first number of a height is the room for title and ticks.
        if is_long:
            n_rows = n_panels
            n_columns = n_outputs
            width = 5.5
            height = 0.7 + 4.6 * slope
        else:
            n_rows = n_outputs
            n_columns = n_panels
            width = 3.1
            height = 0.8 + 2.3 * slope

        size = (
            max(n_columns * width, 4.5),
            n_rows * height + 0.4,
        )
        figure = Figure(size, layout="constrained")
        table = figure.subplots(n_rows, n_columns, squeeze=False)
        if is_long:
            table = table.T
        return figure, [list(row) for row in table]

    def draw(
        self, figure: Figure, axes: list[Axes], output: str, fields: dict[str, Array]
    ) -> None:
        """Draw the fields of one output, each in its panel."""
        # The reference and the network share a scale, so that equal colors are equal values.
        compared = list(fields.values())[:2]
        scale = self._linear_scale(np.concatenate(compared))

        for ax, (name, values) in zip(axes, fields.items(), strict=True):
            ax.set_title(f"{output}: {name}", fontsize=TEXT + 1)

            if name == "absolute error":
                errors = self._error_scale(values)
                mesh = self._draw_field(ax, values, errors, "magma")
                color_bar(figure, mesh, ax=ax, extend="min")
                continue

            mesh = self._draw_field(ax, values, scale, "viridis")
            if name == "network":  # the last of those compared
                color_bar(figure, mesh, ax=axes[:2])

    def _draw_field(
        self, ax: Axes, values: Array, norm: Normalize, colors: str
    ) -> QuadMesh:
        grid = self.grid
        table = np.full(grid.inside.shape, np.nan)  # blank outside the domain
        table[grid.inside] = values

        mesh = ax.pcolormesh(
            grid.horizontal,
            grid.vertical,
            table,
            norm=norm,
            cmap=colors,
            shading="nearest",
            # A path for each of 40 000 cells would make an SVG of many megabytes.
            rasterized=True,
        )
        dress(ax, self.plane.names, grid=False)
        # Cells are drawn around their points: half of the outermost ones is cut off.
        ax.set_xlim(grid.horizontal[0], grid.horizontal[-1])
        ax.set_ylim(grid.vertical[0], grid.vertical[-1])
        self.plane.scale(ax, self.problem)
        return mesh

    @staticmethod
    def _linear_scale(values: Array) -> Normalize:
        finite = values[np.isfinite(values)]
        if not len(finite):  # of a network that diverged
            return Normalize(0, 1)

        low = float(finite.min())
        high = float(finite.max())
        return Normalize(low, high)

    @staticmethod
    def _error_scale(errors: Array) -> LogNorm:
        finite = errors[np.isfinite(errors)]
        largest = float(finite.max(initial=MIN_ERROR))
        smallest = largest * 10.0**-ERROR_DECADES
        return LogNorm(smallest, largest)


def rounds(problem: Problem, arrays: Mapping[str, Array]) -> Figure:
    """Draw where the training points are and when they entered, one panel per term.

    ``arrays`` is what :meth:`whence.pinn.RunFolder.points` returns: TERM, TERM:entered, TERM:left.
    The problem must have two coordinates.
    """
    plane = Plane.of(problem.coordinates, problem.time)
    terms = [name for name in problem.terms if f"{name}:entered" in arrays]
    if not terms:
        raise ValueError(
            f"the arrays hold no points of {', '.join(problem.terms)}: give what "
            f"RunFolder.points() returns, got {list(arrays)}"
        )

    points_of_terms = [_TermPoints.of(arrays, name) for name in terms]
    latest = max(points.latest for points in points_of_terms)
    was_resampled = latest > 0
    colors = ScalarMappable(
        Normalize(0, max(latest, 1)),
        # Without its yellow end, which is too light on white.
        trimmed_colormap("viridis", 0.0, 0.92),
    )

    # Four panels make a square, others go three in a row.
    n_columns = min(3, len(terms))
    if len(terms) == 4:
        n_columns = 2
    n_rows = math.ceil(len(terms) / n_columns)
    panel_height = 0.9 + 2.6 * plane.slope(problem)
    size = (
        max(3.2 * n_columns + 0.9, 5.5),
        n_rows * panel_height + 0.7,
    )
    figure = Figure(size, layout="constrained")

    for k, points in enumerate(points_of_terms):
        ax = figure.add_subplot(n_rows, n_columns, k + 1)
        dress(ax, plane.names)
        plane.frame(ax, problem)
        points.draw(ax, plane, colors)
        ax.set_title(points.describe(was_resampled), fontsize=TEXT)

    title = f"{problem.label}: training points (there was no resampling)"
    if was_resampled:
        title = f"{problem.label}: where resampling put its points"
        color_bar(
            figure,
            colors,
            "entered at iteration",
            ax=figure.axes,
            fraction=0.04,
        )
        some_left = any(points.gone.any() for points in points_of_terms)
        _draw_points_legend(figure, some_left)

    figure.suptitle(title, fontsize=TITLE)
    return figure


def _draw_points_legend(figure: Figure, some_left: bool) -> None:
    marks = [
        legend_mark("o", "at the start", GRAY),
        legend_mark("o", "came later", GREEN),
    ]
    if some_left:
        label = "has left (smaller, fainter)"
        marks.append(legend_mark("o", label, GRAY, size=3, alpha=0.4))

    figure.legend(
        handles=marks,
        fontsize=TEXT,
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )


class _TermPoints:
    """The training points of one term, those that have left among them."""

    def __init__(self, name: str, points: Array, entered: Array, left: Array) -> None:
        self.name = name
        self.points = points
        self.entered = entered
        self.initial = entered == 0
        """Which points were there at the start, (n,)."""
        self.gone = left >= 0  # −1 of those that stayed
        """Which points have left, (n,)."""

    @classmethod
    def of(cls, arrays: Mapping[str, Array], name: str) -> _TermPoints:
        return cls(
            name,
            arrays[name],
            arrays[f"{name}:entered"],
            arrays[f"{name}:left"],
        )

    @property
    def latest(self) -> int:
        """The last iteration at which points entered."""
        return int(self.entered.max(initial=0))

    def describe(self, was_resampled: bool) -> str:
        """Return the title of the panel: the term and how many points came and left."""
        n_initial = self.initial.sum()
        text = f"{self.name}\n{n_initial} at the start"
        if was_resampled:
            n_later = len(self.points) - n_initial
            text += f", {n_later} came, {self.gone.sum()} left"
        return text

    def draw(self, ax: Axes, plane: Plane, colors: ScalarMappable) -> None:
        """Mark the points, gray from the start and by color later, those that left below."""
        for is_gone in (True, False):
            for is_initial in (True, False):
                shown = (self.initial == is_initial) & (self.gone == is_gone)
                look = self._look(is_gone, is_initial)
                look["c"] = GRAY
                if not is_initial:
                    look["c"] = colors.to_rgba(self.entered[shown])

                ax.scatter(
                    self.points[shown, plane.across],
                    self.points[shown, plane.up],
                    **look,
                )

    def _look(self, is_gone: bool, is_initial: bool) -> Look:
        # The more points, the smaller, in square points of print.
        n = max(len(self.points), 1)
        area = float(np.clip(4000 / n, 6, 22))
        if not is_initial:
            area *= 1.4
        if is_gone:
            area *= 0.35

        return {
            "s": area,
            "alpha": 0.4 if is_gone else 1.0,
            "linewidths": 0,
            "clip_on": False,
            "rasterized": n > MAX_SHARP_MARKS,
            "zorder": 3,
        }
