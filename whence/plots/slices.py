"""The solution on lines through the middle of a domain, one along each coordinate.

What a plane cannot show, of one coordinate or of more than two, is drawn in this way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import Module

from whence import _checks
from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.problem import Problem
from whence.plots.style import (
    BLUE,
    INK,
    TEXT,
    VERMILION,
    Array,
    Look,
    dress,
    title,
)
from whence.plots.text import describe_location
from whence.plots.values import predicted_values

MAX_ACROSS = 5
"""Slices that stand side by side; more go below each other."""
MIDDLE_CANDIDATES = 1000
"""Points among which the middle of a domain is sought that has a hole there."""
MIN_ERROR = 1e-17
"""Least error that is drawn, for an exact network."""
WIDTH = 2.3
"""Width of a slice in inches."""
HEIGHT = 2.8
"""Height of a slice with its error, in inches."""


def slices(problem: Problem, network: Module, resolution: int = 201) -> Figure:
    """Draw the network and the reference on a line along each coordinate through the middle.

    The other coordinates are those of the middle of the domain's bounds, or of a point of the
    domain near it. Below each slice is the absolute error, where a reference is known.

    Examples
    --------
    >>> from whence import pinn, plots
    >>> problem = pinn.zoo.load("poisson_5d")
    >>> figure = plots.slices(problem, problem.network(seed=0), resolution=21)
    >>> [axes.get_xlabel() for axes in figure.axes[5:]]
    ['x1', 'x2', 'x3', 'x4', 'x5']
    """
    _checks.count("resolution", resolution)
    middle = middle_of(problem.domain)
    lines = []
    for column in range(len(middle)):
        points = _points_along(problem.domain, middle, column, resolution)
        lines.append(_Slice.of(problem, network, points, column))

    panels = _SlicePanels(problem, lines)
    panels.draw()
    panels.draw_legend()
    title(panels.figure, _title(problem, middle, lines), panels.width - 0.4)
    return panels.figure


def middle_of(domain: Domain) -> Array:
    """Return the middle of a domain's bounds (d,), or the point of the domain nearest to it."""
    low, high = domain.bounds
    middle: Array = (low + high) / 2
    is_inside = domain.contains(middle[None])
    if is_inside[0]:
        return middle

    # In units of the extents, as coordinates need not have one scale.
    candidates = domain.sample(MIDDLE_CANDIDATES)
    points = candidates.numpy()
    extents = high - low
    offsets = (points - middle) / extents
    distances = np.linalg.norm(offsets, axis=1)
    nearest = distances.argmin()
    return np.asarray(points[nearest])


def _points_along(domain: Domain, middle: Array, column: int, n: int) -> Array:
    """Return points (n, d) on the line through the middle along one coordinate."""
    low, high = domain.bounds[:, column]
    points = np.tile(middle, (n, 1))
    points[:, column] = np.linspace(low, high, n)
    return points


@dataclass(frozen=True)
class _Slice:
    """A line along one coordinate, and the values of all outputs on it."""

    coordinate: str
    places: Array
    """Coordinates along the line, (n,)."""
    network: Array
    """Outputs (n, outputs), NaN outside the domain."""
    reference: Array | None
    """Those of the reference solution, where it is known."""

    @classmethod
    def of(
        cls, problem: Problem, network: Module, points: Array, column: int
    ) -> _Slice:
        inside = problem.domain.contains(points)
        asked = torch.from_numpy(points[inside])

        # What lies outside the domain leaves a gap in the line.
        shape = (len(points), len(problem.outputs))
        values = np.full(shape, np.nan)
        reference = None
        if problem.solution is not None:
            reference = values.copy()
            reference[inside] = problem.reference(asked).numpy()

        values[inside] = predicted_values(problem, network, asked)
        name = problem.coordinates[column]
        return cls(name, points[:, column], values, reference)


class _SlicePanels:
    """A figure of slices: for each output a block of panels, or several below each other."""

    def __init__(self, problem: Problem, lines: list[_Slice]) -> None:
        self.outputs = problem.outputs
        self.lines = lines
        self.has_error = problem.solution is not None
        self.n_across = min(len(lines), MAX_ACROSS)
        self.n_blocks = math.ceil(len(lines) / self.n_across)
        """Blocks of each output."""

        # Values, and the error below them.
        heights = [1.0]
        if self.has_error:
            heights = [2.0, 1.2]
        n_rows = self.n_blocks * len(self.outputs)

        # Room for the labels at the left, and for title and legend.
        self.width = max(self.n_across * WIDTH + 0.6, 4.5)
        height = n_rows * HEIGHT + 0.9
        self.figure = Figure((self.width, height), layout="constrained")
        self.table = self.figure.subplots(
            n_rows * len(heights),
            self.n_across,
            squeeze=False,
            # Slices side by side have one scale.
            sharey="row",
            height_ratios=heights * n_rows,
        )

    def draw(self) -> None:
        """Draw every slice of every output."""
        n_blocks = self.n_blocks * len(self.outputs)
        # Of all outputs in turn: each is some rows of panels.
        all_blocks = np.split(self.table, n_blocks)

        for output, name in enumerate(self.outputs):
            for block in range(self.n_blocks):
                rows = all_blocks.pop(0)
                self._draw_block(rows, block, output)

                # What a row shows is said once, at its left.
                rows[0, 0].set_ylabel(name, fontsize=TEXT)
                if self.has_error:
                    rows[1, 0].set_ylabel("error", fontsize=TEXT)

        self.figure.align_ylabels()

    def _draw_block(self, rows: Array, block: int, output: int) -> None:
        """Draw the slices of one block of an output, a column of panels for each."""
        for column in range(self.n_across):
            number = block * self.n_across + column
            axes = list(rows[:, column])
            if number < len(self.lines):
                _draw(axes, self.lines[number], output)
                continue

            # The last block may have fewer slices than the others.
            for ax in axes:
                ax.remove()

    def draw_legend(self) -> None:
        handles, labels = self.table[0, 0].get_legend_handles_labels()
        self.figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=len(labels),
            fontsize=TEXT,
            frameon=False,
        )


def _draw(axes: list[Axes], line: _Slice, output: int) -> None:
    """Draw one output on a slice, and its absolute error below where it is known."""
    above = axes[0]
    places = line.places
    predicted = line.network[:, output]

    if line.reference is not None:
        known = line.reference[:, output]
        # Wide and light: where both agree, the network's line lies within it.
        look: Look = {"color": INK, "linewidth": 3.5, "alpha": 0.35}
        above.plot(places, known, label="reference", **look)

        # No logarithmic axis shows an error of zero.
        errors = np.abs(predicted - known)
        shown = np.maximum(errors, MIN_ERROR)
        below = axes[1]
        below.plot(places, shown, color=VERMILION, linewidth=1.2)
        below.set_yscale("log")
        above.tick_params(labelbottom=False)

    above.plot(places, predicted, color=BLUE, linewidth=1.5, label="network")
    for ax in axes:
        dress(ax, ("", ""))
        ax.set_xlim(places[0], places[-1])
    axes[-1].set_xlabel(line.coordinate, fontsize=TEXT)


def _title(problem: Problem, middle: Array, lines: list[_Slice]) -> str:
    """Return what is drawn, where, and how large its error is."""
    text = problem.label
    if len(middle) > 1:
        pairs = zip(problem.coordinates, middle, strict=True)
        place = describe_location(dict(pairs))
        text += f": slices through {place}"

    known = [line.reference for line in lines if line.reference is not None]
    if not known:
        return text

    reference = np.concatenate(known)
    predicted = np.concatenate([line.network for line in lines])
    difference = predicted - reference
    # Sums over all slices and outputs; NaN is outside the domain.
    missed = np.nansum(difference**2)
    whole = np.nansum(reference**2)
    error = math.sqrt(missed / whole)
    return f"{text}; relative L2 error {error:.2e} on them"
