"""Figures and sentences on where the influential points are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from whence import _checks
from whence.pinn.pde.problem import Problem
from whence.plots.influence_scale import InfluenceScale
from whence.plots.looks import legend_columns, legend_inches, mark_looks
from whence.plots.plane import Plane
from whence.plots.style import (
    GREEN,
    MAX_SHARP_MARKS,
    TEXT,
    Array,
    Look,
    caption,
    draw_star,
    dress,
    legend_mark,
    title,
)
from whence.plots.text import (
    Story,
    coordinates,
    describe_location,
    one_target,
    terms_of,
)

LEGEND_WIDTH = 5.0
"""Width in inches of the legend above a map."""


def influence_map(
    attribution: xr.DataArray, problem: Problem | None = None, term: str | None = None
) -> Figure:
    """Draw the influence of each point on one target, where the points are.

    The attribution must be of one target, such as ``influence.attribute(...).isel(target=0)``, at
    points of two coordinates. ``problem`` says which of them is time (otherwise ``"t"``) and
    outlines the domain; ``term`` draws the points of that term only.

    Examples
    --------
    >>> from whence import plots
    >>> from whence.attribution.result import Attribution
    >>> coords = {"x": ("point", [0.2, 0.8]), "t": ("point", [0.1, 0.9])}
    >>> coords |= {"term": ("point", ["pde", "pde"]), "target_x": 0.5, "target_t": 0.9}
    >>> figure = plots.influence_map(Attribution([2.0, -1.0], coords, ("point",)))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('t', 'x')
    """
    data = one_target(attribution)
    names = coordinates(data)
    if problem is None:
        plane = Plane.of(names, "t")
        slope = 0.75
    else:
        plane = Plane.of(problem.coordinates, problem.time)
        slope = plane.slope(problem)
    for name in plane.names:
        _checks.one_of("coordinate of the attribution", name, names)

    if term is not None:
        _checks.one_of("term", term, dict.fromkeys(terms_of(data)))
        data = data.isel(point=terms_of(data) == term)

    story = Story.of(data)
    marks = _Marks(data, plane)
    # Two lines of a legend fit beside title and caption; more would take the panel's room.
    legend = legend_inches(list(marks.looks), LEGEND_WIDTH)
    height = 1.8 + 4.8 * slope + max(0.0, legend - 0.4)
    figure = Figure((6.6, height), layout="constrained")
    ax = figure.add_subplot()
    dress(ax, plane.names)
    if problem is not None:
        plane.frame(ax, problem)

    marks.draw(ax)
    handles = marks.legend()
    # An aggregate over several targets is nowhere.
    if set(plane.names) <= set(story.location):
        handles.insert(0, marks.draw_star(ax, story.location))
    marks.draw_legend(ax, handles)
    marks.scale.draw_bar(figure, ax, f"influence on {story.name}")

    title(figure, f"Influence of each point on {story}", inches=5.8)
    sign = str(data.attrs.get("sign", ""))
    caption(figure, story.caption(sign), inches=6.0, size=TEXT)
    return figure


class _Marks:
    """Points as marks: color is the influence, area its size, shape the term."""

    def __init__(self, data: xr.DataArray, plane: Plane) -> None:
        self.data = data
        self.plane = plane
        self.values = data.values
        self.sizes = np.abs(data.values)
        self.terms = terms_of(data)

        names = [str(name) for name in dict.fromkeys(self.terms)]
        self.looks = mark_looks(names)

        largest = float(self.sizes.max())
        self.scale = InfluenceScale(largest, n_marks=len(self.values))

    def draw(self, ax: Axes) -> None:
        """Draw the weakest points first, so that the strongest are on top."""
        horizontal, vertical = (self.data.coords[n].values for n in self.plane.names)
        colors = self.scale.colors.to_rgba(self.values)
        areas = self.scale.areas(self.values)
        order = np.argsort(self.sizes, kind="stable")
        is_raster = len(self.values) > MAX_SHARP_MARKS
        # A call draws marks of one shape; the term of the strongest point comes last.
        for name in sorted(self.looks, key=self._strongest):
            shown = order[self.terms[order] == name]
            ax.scatter(
                horizontal[shown],
                vertical[shown],
                s=areas[shown],
                c=colors[shown],
                rasterized=is_raster,
                zorder=3,
                **self.looks[name],
            )

    def _strongest(self, term: str) -> float:
        sizes = self.sizes[self.terms == term]
        return float(sizes.max())

    def legend(self) -> list[Line2D]:
        """Return a mark for each term; none where there is only one."""
        if len(self.looks) == 1:
            return []

        handles = []
        for name, look in self.looks.items():
            shape = look["marker"]
            edge = look["edgecolors"]
            handles.append(legend_mark(shape, name, "0.85", edge=edge))
        return handles

    def draw_star(self, ax: Axes, location: Mapping[str, float]) -> Line2D:
        """Draw a star at the target; return one for the legend."""
        horizontal, vertical = self.plane.names
        draw_star(ax, location[horizontal], location[vertical])
        return legend_mark("*", "target", GREEN, size=11, edge="black")

    @staticmethod
    def draw_legend(ax: Axes, handles: Sequence[Line2D]) -> None:
        """Draw the legend above the panel, as points are everywhere in it."""
        if not handles:
            return

        labels = [str(handle.get_label()) for handle in handles]
        place: Look = {
            "loc": "lower left",
            "bbox_to_anchor": (0, 1),
            "ncols": legend_columns(labels, LEGEND_WIDTH),
            "handletextpad": 0.2,
            "columnspacing": 1.0,
            "borderaxespad": 0.2,
        }
        ax.legend(handles=handles, fontsize=TEXT, frameon=False, **place)


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
    story = Story.of(data)
    sizes = np.abs(data.values)
    if not sizes.any():  # and there is no strongest
        return f"None of the {data.size} points has any influence on {story}."

    text = (
        f"The {_concentration(sizes)} of the total absolute influence on {story}; "
        f"{_describe_strongest(data, story)}"
    )
    if story.warning:
        text += f" (but {story.warning})"
    return f"{text}."


def _concentration(sizes: Array) -> str:
    """Return what share the strongest tenth of the points carries."""
    n = len(sizes)
    k = math.ceil(n / 10)
    strongest = np.sort(sizes)[-k:]
    share = strongest.sum() / sizes.sum()

    percent = f"{100 * share:.0f} %"
    if share >= 0.995 and k < n:  # "100 %" would deny the others any
        percent = "more than 99 %"

    if k > 1:
        part = f"{100 * k / n:.0f} %"
        return f"{k} most influential of {n} points ({part}) carry {percent}"

    points = "points" if n > 1 else "point"
    return f"most influential of {n} {points} carries {percent}"


def _describe_strongest(data: xr.DataArray, story: Story) -> str:
    """Return which point is the strongest, where it is and what it does."""
    strongest = int(np.argmax(np.abs(data.values)))
    point = data.isel(point=strongest)
    value = float(point)

    location = {}
    for name in coordinates(data):
        location[name] = float(point.coords[name])
    place = f"number {strongest}"
    if location:
        place = f"at {describe_location(location)}"

    of_term = ""
    terms = terms_of(data)
    if len(set(terms)) > 1:
        of_term = f", of term {terms[strongest]},"

    # Without a verb the sign has no meaning that could be put into words.
    effect = f"its value is {value:+.1e}"
    if story.verb:
        change = "raise" if value > 0 else "lower"
        effect = (
            f"{story.verb} it would {change} {story.name} by a predicted "
            f"{abs(value):.1e}"
        )
    return f"the strongest{of_term} is {place}, and {effect}"
