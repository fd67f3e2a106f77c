"""Numbers at scattered points as a field: means of what is nearby."""

from __future__ import annotations

import numpy as np
import xarray as xr

from whence.pinn.pde.problem import Problem
from whence.plots.plane import Grid, Plane
from whence.plots.style import Array

WIDTH = 1.2
"""Width of the kernel, in units of the mean distance of neighboring points."""
MIN_WEIGHT = 1e-3
"""Sum of the kernel over all points below which none is near enough to say anything."""
CHUNK = 2000
"""Places at which a field is computed at once."""


def smoothed(row: xr.DataArray, problem: Problem, plane: Plane, grid: Grid) -> Array:
    """Return values at points as a field on a grid, NaN outside the domain and far from points.

    At z it is ``Σ_i K(z − z_i) v_i / Σ_i K(z − z_i)`` with ``K(d) = exp(−½‖d‖²/h²)``, h somewhat
    more than the mean distance of points (Nadaraya 1964; Watson 1964): it does not grow where
    points crowd. Space has one scale in all directions; beside time, coordinates are measured in
    units of their extent.

    Parameters
    ----------
    row:
        The values, dimension (point,), with the points' coordinates.
    problem:
        Whose domain it is.
    plane, grid:
        Where the field is taken.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence import pinn
    >>> from whence.plots.plane import Plane
    >>> from whence.plots.smoothing import smoothed
    >>> problem = pinn.zoo.load("diffusion")
    >>> plane = Plane.of(problem.coordinates, problem.time)
    >>> points = problem.sample(50, seed=0)["pde"].numpy()
    >>> coords = {"x": ("point", points[:, 0]), "t": ("point", points[:, 1])}
    >>> ones = xr.DataArray(np.ones(50), coords, "point")
    >>> bool(np.allclose(smoothed(ones, problem, plane, plane.grid(problem, 11)), 1.0))
    True
    """
    # Columns of the problem's coordinates, in the order of the plane's.
    order = [plane.across, plane.up]
    extents = np.ptp(problem.domain.bounds, axis=0)
    spans = extents[order]
    unit = spans if problem.time is not None else np.ones(2)

    columns = [row.coords[name].values for name in plane.names]
    points = np.stack(columns, axis=1)
    points = points / unit
    places = grid.points[:, order]
    places = places / unit

    # n points in an area: each has a square of its own, as wide as neighbors are apart.
    width, height = spans / unit
    share_inside = grid.inside.mean()
    area = width * height * share_inside
    distance = float(np.sqrt(area / len(points)))

    field = np.full(len(places), np.nan)
    inside = np.flatnonzero(grid.inside)
    # Some places at a time, as there is a number for each place and point.
    for start in range(0, len(inside), CHUNK):
        chunk = inside[start : start + CHUNK]
        field[chunk] = _kernel_means(
            places[chunk],
            points,
            row.values,
            WIDTH * distance,
        )
    return field.reshape(grid.inside.shape)


def _kernel_means(places: Array, points: Array, values: Array, width: float) -> Array:
    """Return means of values at points (n, 2), weighted by a Gaussian, at places (m, 2)."""
    # ‖z − z_i‖², (m, n)
    squares = np.zeros((len(places), len(points)))
    for column in range(2):
        difference = np.subtract.outer(places[:, column], points[:, column])
        squares += difference**2

    in_widths = squares / width**2
    weights = np.exp(-0.5 * in_widths)
    total = weights.sum(axis=1)
    sums = weights @ values
    # Where no point is near, rounding alone would decide.
    is_near = total >= MIN_WEIGHT
    means = np.full(len(places), np.nan)
    np.divide(
        sums,
        total,
        out=means,
        where=is_near,
    )
    return means
