"""Influence where the points are, a panel for each term: on one answer, and on many.

Ten terms in one scatter hide each other; apart, on one scale of colors, each can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from whence.pinn.pde.problem import Problem
from whence.plots.influence_scale import InfluenceScale, MagnitudeScale
from whence.plots.panels import PanelLayout
from whence.plots.plane import Plane
from whence.plots.style import GREEN, draw_star
from whence.plots.term_points import SHARES, TermPoints
from whence.plots.text import Story, check_finite, coordinates, one_target


def influence_by_term(
    attribution: xr.DataArray,
    problem: Problem | None = None,
    terms: Sequence[str] | None = None,
) -> Figure:
    """Draw the influence of each point on one target, a panel for each term.

    Parameters
    ----------
    attribution:
        Of one target, at points of two coordinates.
    problem:
        Says which coordinate is time, and outlines the domain.
    terms:
        Which terms, in this order; by default all, in the order of the attribution.

    Raises
    ------
    ValueError
        If there are several targets, not two coordinates, or no such term.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray(
    ...     [1.0, -3.0], {"x": ("point", [0.0, 1.0]), "y": ("point", [0.0, 1.0]),
    ...                   "term": ("point", ["mass", "wall"])}, "point")
    >>> [axes.get_title() for axes in plots.influence_by_term(row).axes[:2]]
    ['mass: 1 point, 25 %', 'wall: 1 point, 75 %']
    """
    # One scale of colors for all panels, by the largest that any of them shows.
    row = one_target(attribution)
    story = Story.of(row)
    points = TermPoints(row, terms)
    scale = InfluenceScale(points.largest, points.n_marks)
    layout = PanelLayout.of(
        coordinates(row),
        problem,
        n_panels=len(points.names),
    )

    # What the colors mean, and the numbers above panels.
    sign = str(row.attrs.get("sign", ""))
    note = f"{story.caption(sign)} {SHARES}"
    figure = layout.figure(f"Influence of each term's points on {story}", note)
    for k, name in enumerate(points.names):
        ax = layout.panel(figure, k, points.title(name))
        points.draw(ax, layout.plane, name, scale)
        # In every panel, as each is read by itself.
        draw_target(ax, layout.plane, story.location)

    layout.draw_bar(figure, scale, f"influence on {story.name}")
    return figure


def mean_influence(
    attribution: xr.DataArray,
    problem: Problem | None = None,
    terms: Sequence[str] | None = None,
) -> Figure:
    """Draw the mean absolute influence of each point on many targets, a panel for each term.

    Absolute values, as influences of either sign would cancel. A green frame is around the targets.

    Parameters
    ----------
    attribution:
        Of one quantity at one target or more, dimensions (target, point), at points of two
        coordinates.
    problem, terms:
        As in :func:`influence_by_term`.

    Raises
    ------
    ValueError
        If there are not two coordinates, no such term, or values that are not finite.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"x": ("point", [0.0, 1.0]), "y": ("point", [0.0, 1.0])}
    >>> table = xr.DataArray([[1.0, -3.0], [-1.0, 3.0]], coords, ("target", "point"))
    >>> plots.mean_influence(table).axes[0].get_title()
    '2 points, 100 %'
    """
    # As above, of sizes in place of signed numbers.
    means = mean_sizes(attribution)
    points = TermPoints(means, terms)
    scale = MagnitudeScale(points.largest, points.n_marks)
    layout = PanelLayout.of(
        coordinates(means),
        problem,
        n_panels=len(points.names),
    )

    # Every target is of one quantity; where each of them is does not matter for its name.
    story = Story.of(attribution.isel(target=0, missing_dims="ignore"))
    n_targets = attribution.sizes.get("target", 1)
    note = (
        f"Mean of |influence| over {n_targets} targets, which lie in the green frame. Larger and "
        f"darker marks are stronger; colors resolve three decades. {SHARES}"
    )
    heading = f"Mean influence of each term's points on {story.name}"
    figure = layout.figure(heading, note)
    for k, name in enumerate(points.names):
        ax = layout.panel(figure, k, points.title(name))
        points.draw(ax, layout.plane, name, scale)
        # Where answers are, as the points that matter are mostly near.
        frame_targets(ax, layout.plane, attribution)

    layout.draw_bar(figure, scale, f"mean |influence| on {story.name}")
    return figure


def mean_sizes(attribution: xr.DataArray) -> xr.DataArray:
    """Return the mean of absolute influences over all targets, dimension (point,)."""
    # Absolute first: a mean of either sign would tell of what does not cancel alone.
    values = attribution.astype(float)
    sizes = values.copy(data=np.abs(values.values))
    check_finite(sizes.values)
    if "target" in sizes.dims:
        sizes = sizes.mean("target", keep_attrs=True)
    return sizes


def draw_target(ax: Axes, plane: Plane, location: Mapping[str, float]) -> None:
    """Draw a star where the target is; an aggregate is nowhere."""
    # A loss or a functional has no coordinates.
    horizontal, vertical = plane.names
    if horizontal in location and vertical in location:
        across = location[horizontal]
        up = location[vertical]
        draw_star(ax, across, up, size=12)


def frame_targets(ax: Axes, plane: Plane, attribution: xr.DataArray) -> None:
    """Draw a frame around the places of all targets, if they have any."""
    corner = []
    sides = []
    for name in plane.names:
        # Losses and functionals are nowhere: they have no frame.
        label = f"target_{name}"
        if label not in attribution.coords:
            return

        values = attribution.coords[label].values
        low = float(values.min())
        high = float(values.max())
        corner.append(low)
        sides.append(high - low)

    # Thin, and below the points.
    width, height = sides
    frame = Rectangle(
        (corner[0], corner[1]),
        width,
        height,
        fill=False,
        edgecolor=GREEN,
        linewidth=1.5,
        clip_on=False,
        zorder=2,
    )
    ax.add_patch(frame)
