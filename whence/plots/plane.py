"""Domains of two coordinates on paper: which goes across, how high a panel is, where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from whence.pinn.pde.problem import Problem
from whence.plots.style import Array

OUTLINE_RESOLUTION = 401
"""Points along each axis of the grid on which the outline of a domain is found."""
OUTSIDE = 1e-3
"""Distance outside the domain, in cells, at which its outline is drawn: not along the axes."""


@dataclass(frozen=True)
class Grid:
    """A regular grid over the box around a domain."""

    horizontal: Array
    """Coordinates along the horizontal axis, (n,)."""
    vertical: Array
    points: Array
    """All points in the problem's order of coordinates, (n², 2)."""
    inside: Array
    """Which points are in the domain, (n, n): rows along the vertical axis."""

    def levels(self, problem: Problem) -> Array:
        """Return how far outside the domain points are, in cells and from −1 to 1, (n, n)."""
        across = self.horizontal[1] - self.horizontal[0]
        up = self.vertical[1] - self.vertical[0]
        cell = max(float(across), float(up))

        # What is far away may be infinitely far, which no line could be drawn between.
        levels = problem.domain.level(self.points) / cell
        clipped: Array = np.clip(levels, -1.0, 1.0)
        return clipped.reshape(self.inside.shape)


@dataclass(frozen=True)
class Plane:
    """Which of two coordinates goes across a figure and which up: time goes across."""

    names: tuple[str, str]
    """Names of the horizontal and the vertical coordinate."""
    across: int
    """Column of the horizontal coordinate in an array of points."""
    up: int

    @classmethod
    def of(cls, coordinates: Sequence[str], time: str | None) -> Plane:
        """Place two coordinates; any other number of them is an error."""
        if not is_plane(coordinates):
            listed = ", ".join(coordinates) or "none"
            raise ValueError(f"this figure needs two coordinates, got {listed}")

        first, second = coordinates
        if second == time:
            return cls((second, first), across=1, up=0)

        return cls((first, second), across=0, up=1)

    def grid(self, problem: Problem, n: int) -> Grid:
        """Return an n × n grid over the box around a problem's domain."""
        low, high = problem.domain.bounds
        horizontal = np.linspace(low[self.across], high[self.across], n)
        vertical = np.linspace(low[self.up], high[self.up], n)

        # Row k of both tables is at the height vertical[k].
        columns, rows = np.meshgrid(horizontal, vertical)
        points = np.zeros((n * n, 2))
        points[:, self.across] = columns.ravel()
        points[:, self.up] = rows.ravel()

        is_inside = problem.domain.contains(points)
        return Grid(
            horizontal,
            vertical,
            points,
            is_inside.reshape(n, n),
        )

    def slope(self, problem: Problem) -> float:
        """Return the height of a panel over its width: to scale if both coordinates are space."""
        if problem.time:
            return 0.8  # space and time have no common scale

        spans = np.ptp(problem.domain.bounds, axis=0)
        slope = float(spans[self.up] / spans[self.across])
        # Even of a pipe or a tower there must be something to see.
        return min(max(slope, 0.15), 1.2)

    def scale(self, ax: Axes, problem: Problem) -> None:
        """Give both coordinates one scale if both are space."""
        ax.set_aspect("auto" if problem.time else "equal")

    def frame(self, ax: Axes, problem: Problem) -> None:
        """Set limits to the domain with a little room, and outline it if it is no rectangle."""
        grid = self.grid(problem, OUTLINE_RESOLUTION)
        ax.set_xlim(*_with_margin(grid.horizontal))
        ax.set_ylim(*_with_margin(grid.vertical))
        self.scale(ax, problem)

        if not grid.inside.all():
            ax.contour(
                grid.horizontal,
                grid.vertical,
                grid.levels(problem),
                levels=[OUTSIDE],
                colors="0.5",
                linewidths=0.8,
            )


def is_plane(coordinates: Sequence[str]) -> bool:
    """Whether a figure has room for all coordinates: there are two."""
    return len(coordinates) == 2


def _with_margin(ends: Array) -> tuple[float, float]:
    """Return limits of an axis, 3 % of its length beyond the first and the last coordinate."""
    first = float(ends[0])
    last = float(ends[-1])
    margin = 0.03 * (last - first)
    return first - margin, last + margin
