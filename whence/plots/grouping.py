"""Labels of many different values as a few groups, so that each may have a panel of a figure."""

from __future__ import annotations

import numpy as np
import xarray as xr

from whence.plots.style import Array

MAX_GROUPS = 20
"""Most classes that are kept."""
BINS = 8
"""Ranges that numbers are put into, of about as many samples each."""


def in_ranges(
    attribution: xr.DataArray, label: str = "value", bins: int = BINS
) -> tuple[xr.DataArray, list[str]]:
    """Return an attribution whose points have a range of values in place of their own value.

    Ranges hold about as many points each, and are numbered from the lowest. The second entry says
    each in words.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence.plots.grouping import in_ranges
    >>> row = xr.DataArray(np.zeros(6), {"value": ("point", np.arange(6) / 2)}, "point")
    >>> grouped, names = in_ranges(row, bins=2)
    >>> grouped["value"].values, names
    (array([0, 0, 0, 1, 1, 1]), ['0 … 1', '1.5 … 2.5'])
    """
    values = attribution.coords[label].values.astype(float)
    # Inner edges; many equal values make some of them equal.
    quantiles = np.quantile(values, np.arange(1, bins) / bins)
    edges = np.unique(quantiles)
    places = np.searchsorted(edges, values, side="right")
    present, numbers = np.unique(places, return_inverse=True)

    names = []
    for place in present:
        inside = values[places == place]
        low = inside.min()
        high = inside.max()
        names.append(f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}")

    coordinates: dict[str, object] = {label: ("point", numbers)}
    of_target = f"target_{label}"
    grouped = attribution.assign_coords(coordinates)
    if of_target in grouped.coords:
        targets = grouped.coords[of_target]
        of_edges = np.searchsorted(edges, targets.values.astype(float), side="right")
        # A target outside of all ranges that have points belongs to the nearest.
        nearest = np.abs(of_edges[..., None] - present).argmin(axis=-1)
        grouped = grouped.assign_coords({of_target: (targets.dims, nearest)})
    return grouped, names


def largest_groups(
    attribution: xr.DataArray, label: str = "label", most: int = MAX_GROUPS
) -> tuple[xr.DataArray, int]:
    """Return the points of the labels that most points have, and how many labels there were.

    The label of the target, where all targets share one, is kept in any case.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence.plots.grouping import largest_groups
    >>> row = xr.DataArray(np.arange(4), {"label": ("point", [7, 7, 5, 6])}, "point")
    >>> some, n = largest_groups(row, most=2)
    >>> some.values, n
    (array([0, 1, 2]), 3)
    """
    labels: Array = attribution.coords[label].values
    present, counts = np.unique(labels, return_counts=True)
    if len(present) <= most:
        return attribution, len(present)

    order = np.argsort(-counts, kind="stable")
    chosen = present[order[:most]]
    of_targets = np.unique(attribution.coords.get(f"target_{label}", present[:0]))
    if len(of_targets) == 1:
        chosen = np.append(chosen[: most - 1], of_targets)
    return attribution.isel(point=np.flatnonzero(np.isin(labels, chosen))), len(present)
