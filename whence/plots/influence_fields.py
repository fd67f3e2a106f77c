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
from whence.plots.style import Array, draw_star
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
    of_targets = table.coords["quantity"].values
    quantities = [str(name) for name in dict.fromkeys(of_targets)]

    layout = PanelLayout.of(names, problem, len(quantities))
    column = table.isel(point=0)
    largest = float(np.abs(column.values).max())
    scale = InfluenceScale(largest, n_marks=1)
    place = {name: float(column.coords[name]) for name in names}

    figure = layout.figure(_heading(column, place), _note(column))
    for k, name in enumerate(quantities):
        field = column.isel(target=of_targets == name)
        low = float(field.min())
        high = float(field.max())
        ax = layout.panel(figure, k, f"{name}: influence from {low:.1e} to {high:.1e}")
        _draw_targets(ax, layout.plane, field, scale)
        across, up = (place[axis] for axis in layout.plane.names)
        draw_star(ax, across, up, size=12)

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
    row = one_target(attribution)
    story = Story.of(row)
    points = TermPoints(row, terms or interior_terms(row, problem))
    scale = InfluenceScale(points.largest, points.n_marks)
    # Each term takes two panels, points to the left and their field to the right.
    n_panels = 2 * len(points.names)
    layout = PanelLayout.of(coordinates(row), problem, n_panels, columns=2)

    sign = str(row.attrs.get("sign", ""))
    figure = layout.figure(
        f"Influence on {story}, by point and smoothed",
        f"{story.caption(sign)} {SHARES}",
    )
    grid = layout.plane.grid(problem, RESOLUTION)
    for k, name in enumerate(points.names):
        ax = layout.panel(figure, 2 * k, points.title(name))
        points.draw(ax, layout.plane, name, scale)
        _mark_target(ax, layout.plane, story)

        ax = layout.panel(figure, 2 * k + 1, f"{name}: smoothed")
        of_term = row.isel(point=points.of_term(name))
        table = smoothed(of_term, problem, layout.plane, grid)
        _draw_field(ax, grid.horizontal, grid.vertical, table, scale)
        _mark_target(ax, layout.plane, story)

    layout.draw_bar(figure, scale, f"influence on {story.name}")
    return figure


def interior_terms(row: xr.DataArray, problem: Problem) -> list[str]:
    """Return the terms whose points fill the domain; none is a ``ValueError``."""
    depth = DEPTH * float(np.ptp(problem.domain.bounds, axis=0).min())
    columns = [row.coords[name].values for name in problem.coordinates]
    places = np.stack(columns, axis=1).astype(float)
    is_inside = problem.domain.contains(places, -depth)

    points = TermPoints(row)
    interior = []
    for name in points.names:
        of_term = points.of_term(name)
        n_inside = int(is_inside[of_term].sum())
        # Points of a condition lie on lines, of which no field can be made.
        if n_inside >= max(MIN_INSIDE, 0.5 * of_term.sum()):
            interior.append(name)

    if not interior:
        raise ValueError(
            f"no term has {MIN_INSIDE} points or more within the domain to smooth: the terms are "
            f"{', '.join(points.names)}"
        )
    return interior


def _heading(column: xr.DataArray, place: dict[str, float]) -> str:
    """Return what the figure of one point says above its panels."""
    of_term = ""
    if "term" in column.coords:
        of_term = f" of {column.coords['term'].item()}"
    return f"Influence of the point{of_term} at {describe_location(place)}"


def _note(column: xr.DataArray) -> str:
    """Return what the colors mean."""
    sign = str(column.attrs.get("sign", ""))
    return f"Orange: positive; purple: negative. {sign.capitalize()}. Star: the point."


def _mark_target(ax: Axes, plane: Plane, story: Story) -> None:
    """Draw a star where the target is; an aggregate is nowhere."""
    if set(plane.names) <= set(story.location):
        across, up = (story.location[name] for name in plane.names)
        draw_star(ax, across, up, size=12)


def _draw_targets(
    ax: Axes, plane: Plane, field: xr.DataArray, scale: InfluenceScale
) -> None:
    """Draw values at targets on a grid, blank where it has none."""
    across, up = (field.coords[f"target_{name}"].values for name in plane.names)
    horizontal, columns = np.unique(across, return_inverse=True)
    vertical, rows = np.unique(up, return_inverse=True)

    table = np.full((len(vertical), len(horizontal)), np.nan)
    table[rows, columns] = field.values
    _draw_field(ax, horizontal, vertical, table, scale)


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
    ax.grid(visible=False)
