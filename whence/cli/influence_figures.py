"""The figures of an attribution of a run, as ``whence influence`` and ``whence plot`` draw them."""

from __future__ import annotations

import re

import xarray as xr
from matplotlib.figure import Figure

from whence import plots
from whence.pinn.pde.problem import Problem
from whence.plots.descriptions import of_quantity, quantities_of
from whence.plots.influence_fields import interior_terms
from whence.plots.plane import is_plane
from whence.plots.text import terms_of

SMOOTHED = "smoothed"
"""What is added to the name of a figure of smoothed influences."""


def influence_figures(attribution: xr.DataArray, problem: Problem) -> dict[str, Figure]:
    """Return the figures of an attribution by what is added to the name of its file.

    Of one target a map, a panel for each term where there are several, and the same smoothed; of
    many the mean over them. Several quantities have figures of their own. Without two coordinates
    there are none.

    Parameters
    ----------
    attribution:
        Dimensions (target, point), or (point,) of one target.
    problem:
        What was solved.
    """
    # A map has room for two coordinates.
    if not is_plane(problem.coordinates):
        return {}
    if "target" not in attribution.dims:
        return figures_of_target(attribution, problem, "")

    figures: dict[str, Figure] = {}
    names = quantities_of(attribution)
    for name in names:
        part = of_quantity(attribution, name)
        # The usual single quantity needs no name of its own.
        added = f"_{file_name(name)}" if len(names) > 1 else ""
        if part.sizes["target"] == 1:
            row = part.isel(target=0)
            figures |= figures_of_target(row, problem, added)
        else:
            figures[added] = plots.mean_influence(part, problem)
    return figures


def figures_of_target(
    row: xr.DataArray, problem: Problem, added: str
) -> dict[str, Figure]:
    """Return the map of one target, and the smoothed one where points fill the domain."""
    # Several terms in one scatter hide each other.
    n_terms = len(set(terms_of(row)))
    is_of_several = n_terms > 1
    draw = plots.influence_by_term if is_of_several else plots.influence_map
    figures = {added: draw(row, problem)}

    # Points of conditions alone are no field.
    try:
        interior = interior_terms(row, problem)
    except ValueError:
        return figures
    smoothed = plots.smoothed_influence(row, problem, interior)
    figures[f"{added}_{SMOOTHED}"] = smoothed
    return figures


def file_name(quantity: str) -> str:
    """Return the name of a quantity without what a file's name should not have."""
    # As "total loss", or "f(u, v)" of a function.
    words = re.sub(r"\W+", "_", quantity)
    return words.strip("_")
