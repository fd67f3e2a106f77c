"""Figures of several panels over one plane: how many in a row, how large, what frames them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.plots.influence_scale import InfluenceScale
from whence.plots.plane import Plane
from whence.plots.style import TEXT, caption, dress, title

MAX_LONG_SLOPE = 0.5
"""Height over width below which panels are long: they stand above each other."""
MAX_STACKED = 4
"""Long panels that make one column; more make two."""
MAX_LONG_COLUMNS = 2
"""Long panels that fit side by side: more stand above each other."""
LONG_WIDTH = 6.6
"""Width of a long panel in inches, with what stands beside it."""
WIDTH = 3.1
FREE_SLOPE = 0.75
"""Height over width where no problem says how large a domain is."""


@dataclass(frozen=True)
class PanelLayout:
    """How the panels of a figure lie, all of one plane.

    Parameters
    ----------
    plane:
        Which coordinate goes across.
    problem:
        Whose domain is outlined; None for no outline.
    n_panels:
        How many there are.
    n_columns:
        How many stand side by side.
    """

    plane: Plane
    problem: Problem | None
    n_panels: int
    n_columns: int

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        problem: Problem | None,
        n_panels: int,
        columns: int | None = None,
    ) -> PanelLayout:
        """Lay out panels over the named coordinates, by default as the shape of the domain asks.

        Raises
        ------
        ValueError
            If there are not two coordinates, or those of the problem are others.
        """
        # A problem knows which of its coordinates is time.
        if problem is None:
            plane = Plane.of(names, "t")
        else:
            plane = Plane.of(problem.coordinates, problem.time)
        for name in plane.names:
            _checks.one_of("coordinate of the attribution", name, names)

        # The shape of a panel decides how many go side by side.
        layout = cls(plane, problem, n_panels, n_columns=1)
        if columns is None:
            columns = layout.best_columns()
        # Three long panels side by side would be too wide to read on a page.
        if layout.is_long and columns > MAX_LONG_COLUMNS:
            columns = 1
        return replace(layout, n_columns=columns)

    @property
    def n_rows(self) -> int:
        """How many panels stand above each other."""
        return math.ceil(self.n_panels / self.n_columns)

    @property
    def slope(self) -> float:
        """Height of a panel over its width."""
        return FREE_SLOPE if self.problem is None else self.plane.slope(self.problem)

    @property
    def is_long(self) -> bool:
        """Whether panels are as long as those of a channel."""
        return self.slope < MAX_LONG_SLOPE

    def best_columns(self) -> int:
        """Return how many panels go side by side."""
        if self.is_long:
            return 1 if self.n_panels <= MAX_STACKED else MAX_LONG_COLUMNS
        # Four make a square, others go three in a row.
        return 2 if self.n_panels == 4 else min(3, self.n_panels)

    def figure(self, heading: str, note: str) -> Figure:
        """Return an empty figure with a title and a caption, whose panels have room."""
        # Sizes in inches: what does not grow with the panel is titles, ticks and the color bar.
        if self.is_long:
            width = LONG_WIDTH * self.n_columns
            panel = 0.62 + 0.88 * LONG_WIDTH * self.slope
        else:
            width = max(WIDTH * self.n_columns + 0.9, 5.4)
            panel = 0.62 + 0.76 * WIDTH * self.slope

        # A character of the caption takes 0.0675 inches, a line of it 0.17.
        n_lines = math.ceil(len(note) * 0.0675 / width)
        height = self.n_rows * panel + 0.9 + 0.17 * n_lines
        figure = Figure((width, height), layout="constrained")
        title(figure, heading, inches=width - 0.8)
        caption(figure, note, inches=width - 0.6, size=TEXT)
        return figure

    def panel(self, figure: Figure, k: int, text: str) -> Axes:
        """Return panel k with its title, framed by the domain."""
        ax = figure.add_subplot(self.n_rows, self.n_columns, k + 1)
        ax.set_title(text, fontsize=TEXT)
        across, up = self.plane.names

        # Panels share their axes: names stand at the outer ones alone.
        is_left = k % self.n_columns == 0
        has_none_below = k + self.n_columns >= self.n_panels
        dress(ax, (across if has_none_below else "", up if is_left else ""))
        if self.problem is not None:
            self.plane.frame(ax, self.problem)
        if self.is_long:
            ax.locator_params("y", nbins=3)
        return ax

    def draw_bar(self, figure: Figure, scale: InfluenceScale, label: str) -> None:
        """Draw one color bar for all panels: below long ones, beside others."""
        panels = list(figure.axes)
        if not self.is_long:
            # Of the room of a row, a share that is as wide for one panel as for three.
            share = 0.12 / self.n_columns
            scale.draw_bar(figure, panels, label, fraction=share)
            return

        # As wide as it need be to read it, however wide the figure is.
        share = min(0.6, 4.5 / figure.get_figwidth())
        scale.draw_bar(
            figure,
            panels,
            label,
            location="bottom",
            shrink=share,
            aspect=40,
            pad=0.02,
        )
