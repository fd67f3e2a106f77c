"""Influence as fields: of one training point on a whole solution, and of points, smoothed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whence.pinn.pde.problem import Problem
from whence.plots.influence_scale import InfluenceScale
from whence.plots.panels import PanelLayout
from whence.plots.plane import Plane
from whence.plots.smoothing import smoothed
from whence.plots.style import Array
from whence.plots.term_panels import draw_target
from whence.plots.term_points import SHARES, TermPoints
from whence.plots.text import (
    Story,
    check_finite,
    coordinates,
    describe_location,
    one_target,
)

RESOLUTION = 201
"""Points along each axis at which a smoothed field is drawn."""
MIN_INSIDE = 20
"""Points within the domain that a term must have for a field of it."""
DEPTH = 1e-6
"""How far inside the domain, in units of its extent, a point is not on the boundary."""


def influence_field(
    attribution: xr.DataArray, problem: Problem | None = None
) -> Figure:
    """Draw what one training point does to whole fields, a panel for each quantity.

    Parameters
    ----------
    attribution:
        Of one point at targets on a grid of two coordinates, dimensions (target, point):
        ``influence.attribute(wh.Output(grid, "u"), wh.TrainingPoints({"pde": [3]}))``. Targets may
        be missing in the grid, as those outside the domain are.
    problem:
        Says which coordinate is time, and outlines the domain.

    Raises
    ------
    ValueError
        If there are several training points, targets have no place, or not two coordinates.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"target_x": ("target", [0.0, 1.0, 0.0, 1.0]),
    ...           "target_y": ("target", [0.0, 0.0, 1.0, 1.0]),
    ...           "quantity": ("target", ["u"] * 4),
    ...           "x": ("point", [0.5]), "y": ("point", [0.5])}
    >>> column = xr.DataArray([[1.0], [2.0], [0.0], [-1.0]], coords, ("target", "point"))
    >>> plots.influence_field(column).axes[0].get_title()
    'u: influence from -1.0e+00 to 2.0e+00'
    """
    if attribution.dims != ("target", "point") or attribution.sizes["point"] != 1:
        raise ValueError(
            f"a field is of one training point, dimensions (target, point), got "
            f"{dict(attribution.sizes)}: choose one, wh.TrainingPoints({{'pde': [3]}})"
        )
    table = attribution.astype(float)
    check_finite(table.values)
    names = coordinates(table.isel(target=0))
    # The one point, and where it is.
    column = table.isel(point=0)
    place = {}
    for name in names:
        place[name] = float(column.coords[name])

    # A panel for each quantity, all on one scale.
    of_targets = column.coords["quantity"].values
    quantities = list(map(str, dict.fromkeys(of_targets)))
    layout = PanelLayout.of(names, problem, len(quantities))
    largest = float(np.abs(column.values).max())
    scale = InfluenceScale(largest, n_marks=1)

    # What it does to each quantity is said above the panels.
    figure = layout.figure(heading_of_point(column, place), note_on_sign(column))
    for k, name in enumerate(quantities):
        field = column.isel(target=of_targets == name)
        low = float(field.min())
        high = float(field.max())
        text = f"{name}: influence from {low:.1e} to {high:.1e}"
        ax = layout.panel(figure, k, text)
        draw_targets(ax, layout.plane, field, scale)
        draw_target(ax, layout.plane, place)

    layout.draw_bar(figure, scale, "influence")
    return figure


def smoothed_influence(
    attribution: xr.DataArray,
    problem: Problem,
    terms: Sequence[str] | None = None,
) -> Figure:
    """Draw the influence of each point on one target, and beside it the same smoothed to a field.

    The field is the mean influence of the points nearby, weighted by a Gaussian somewhat wider than
    their distance: where points of either sign alternate they cancel, and what is left is what a
    whole neighborhood does.

    Parameters
    ----------
    attribution:
        Of one target, at points of two coordinates.
    problem:
        Whose domain the field is drawn in.
    terms:
        Which terms; by default those of which most points lie within the domain, twenty at least.

    Raises
    ------
    ValueError
        If there are several targets, not two coordinates, no such term, or no term to smooth.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence import pinn, plots
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(30, seed=0))
    >>> row = wh.GradDot(objective).attribute(wh.Output([[0.0, 0.5]], "u"))
    >>> [axes.get_title() for axes in plots.smoothed_influence(row, problem).axes[:2]]
    ['pde: 30 points, 100 %', 'pde: smoothed']
    """
    # Points on lines, as those of conditions, make no field.
    row = one_target(attribution)
    shown = terms or interior_terms(row, problem)
    points = TermPoints(row, shown)
    scale = InfluenceScale(points.largest, points.n_marks)
    # Each term takes two panels, points to the left and their field to the right.
    layout = PanelLayout.of(
        coordinates(row),
        problem,
        n_panels=2 * len(points.names),
        columns=2,
    )
    plane = layout.plane
    grid = plane.grid(problem, RESOLUTION)

    story = Story.of(row)
    sign = str(row.attrs.get("sign", ""))
    note = f"{story.caption(sign)} {SHARES}"
    figure = layout.figure(f"Influence on {story}, by point and smoothed", note)
    for k, name in enumerate(points.names):
        left = layout.panel(figure, 2 * k, points.title(name))
        points.draw(left, plane, name, scale)
        draw_target(left, plane, story.location)

        # The same colors, so that the field shows what is left of the points.
        right = layout.panel(figure, 2 * k + 1, f"{name}: smoothed")
        of_term = row.isel(point=points.of_term(name))
        table = smoothed(of_term, problem, plane, grid)
        _draw_field(
            right,
            grid.horizontal,
            grid.vertical,
            table,
            scale,
        )
        draw_target(right, plane, story.location)

    layout.draw_bar(figure, scale, f"influence on {story.name}")
    return figure


def interior_terms(row: xr.DataArray, problem: Problem) -> list[str]:
    """Return the terms whose points fill the domain; none is a ``ValueError``."""
    extents = np.ptp(problem.domain.bounds, axis=0)
    depth = DEPTH * float(extents.min())
    columns = [row.coords[name].values for name in problem.coordinates]
    places = np.stack(columns, axis=1).astype(float)
    # A negative tolerance asks for points so far inside.
    is_inside = problem.domain.contains(places, -depth)

    points = TermPoints(row)
    interior = []
    for name in points.names:
        of_term = points.of_term(name)
        n_inside = int(is_inside[of_term].sum())
        half = 0.5 * int(of_term.sum())
        # Points of a condition lie on lines, of which no field can be made.
        if n_inside >= max(MIN_INSIDE, half):
            interior.append(name)

    if not interior:
        raise ValueError(
            f"no term has {MIN_INSIDE} points or more within the domain to smooth: the terms are "
            f"{', '.join(points.names)}"
        )
    return interior


def heading_of_point(column: xr.DataArray, place: dict[str, float]) -> str:
    """Return what the figure of one point says above its panels."""
    # Points of an objective of one's own may have no term.
    where = describe_location(place)
    if "term" not in column.coords:
        return f"Influence of the point at {where}"

    term = column.coords["term"].item()
    return f"Influence of the point of {term} at {where}"


def note_on_sign(column: xr.DataArray) -> str:
    """Return what the colors mean."""
    note = "Orange: positive; purple: negative; star: the point."
    sign = str(column.attrs.get("sign", ""))
    # Numbers of the user's own making may not say what their sign means.
    return f"{note} {sign.capitalize()}." if sign else note


def draw_targets(
    ax: Axes, plane: Plane, field: xr.DataArray, scale: InfluenceScale
) -> None:
    """Draw values at targets on a grid, blank where it has none."""
    # The distinct coordinates of the targets are those of their grid.
    across, up = plane.names
    horizontal, columns = np.unique(
        field.coords[f"target_{across}"].values,
        return_inverse=True,
    )
    vertical, rows = np.unique(
        field.coords[f"target_{up}"].values,
        return_inverse=True,
    )

    # Blank where the grid has no target, as outside the domain.
    shape = (len(vertical), len(horizontal))
    table = np.full(shape, np.nan)
    table[rows, columns] = field.values
    _draw_field(
        ax,
        horizontal,
        vertical,
        table,
        scale,
    )


def _draw_field(
    ax: Axes,
    horizontal: Array,
    vertical: Array,
    table: Array,
    scale: InfluenceScale,
) -> None:
    """Draw a table of values, rows along the vertical axis."""
    ax.pcolormesh(
        horizontal,
        vertical,
        table,
        norm=scale.norm,
        cmap=scale.colors.cmap,
        shading="nearest",
        # A path for each of the cells would make an SVG of many megabytes.
        rasterized=True,
        zorder=1,
    )
    # Colors are between the lines of a grid, which would hide them.
    ax.grid(visible=False)
