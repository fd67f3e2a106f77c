"""Labels of many different values as a few groups, so that each may have a panel of a figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from whence import _checks
from whence.arrays import ArrayLike
from whence.plots.style import Array

MAX_GROUPS = 20
"""Classes that are kept where there are too many: those of the most points."""
MAX_PANELS = 50
"""Classes up to which all are shown."""
MAX_VALUES = 12
"""Different numbers with a fraction above which they are put into ranges."""
BINS = 8
"""Ranges that numbers are put into, of about as many samples each."""


def in_ranges(
    attribution: xr.DataArray, label: str = "value", bins: int = BINS
) -> tuple[xr.DataArray, list[str]]:
    """Return an attribution whose points have a range of values in place of their own value.

    Ranges hold about as many points each, between quantiles of the values, and are numbered from
    the lowest; those without points are left out. The coordinate ``target_{label}``, where there is
    one, becomes the number of the target's range.

    Parameters
    ----------
    attribution:
        With the dimension ``point``.
    label:
        The coordinate of the points that has their values.
    bins:
        How many ranges; of equal values there may be fewer.

    Returns
    -------
    tuple
        The attribution, and each range in words.

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
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values, shares))

    places = np.searchsorted(edges, values, side="right")
    present, numbers = np.unique(places, return_inverse=True)
    names = [range_in_words(values[places == place]) for place in present]

    coordinates: dict[str, object] = {label: ("point", numbers)}
    of_target = f"target_{label}"
    if of_target in attribution.coords:
        targets = attribution.coords[of_target]
        target_values = targets.values.astype(float)
        target_places = np.searchsorted(edges, target_values, side="right")

        # A target outside of all ranges that have points belongs to the nearest.
        distances = np.abs(target_places[..., None] - present)
        coordinates[of_target] = (targets.dims, distances.argmin(axis=-1))
    return attribution.assign_coords(coordinates), names


def range_in_words(values: Array) -> str:
    """Return from which to which number these go.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.plots.grouping import range_in_words
    >>> range_in_words(np.array([0.25, 1.0, 0.5])), range_in_words(np.array([2.0, 2.0]))
    ('0.25 … 1', '2')
    """
    low = values.min()
    high = values.max()
    if low == high:
        return f"{low:.3g}"
    return f"{low:.3g} … {high:.3g}"


def largest_groups(
    attribution: xr.DataArray, label: str = "label", count: int = MAX_GROUPS
) -> tuple[xr.DataArray, int]:
    """Return the points of the labels that most points have, and how many labels there were.

    The label of the target, where all targets share one, is kept in any case.

    Parameters
    ----------
    attribution:
        With the dimension ``point``.
    label:
        The coordinate of the points that has their labels.
    count:
        How many labels are kept.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence.plots.grouping import largest_groups
    >>> row = xr.DataArray(np.arange(4), {"label": ("point", [7, 7, 5, 6])}, "point")
    >>> some, n = largest_groups(row, count=2)
    >>> some.values, n
    (array([0, 1, 2]), 3)
    """
    labels: Array = attribution.coords[label].values
    present, n_points = np.unique(labels, return_counts=True)
    if len(present) <= count:
        return attribution, len(present)

    order = np.argsort(-n_points, kind="stable")
    chosen = present[order[:count]]
    of_targets = attribution.coords.get(f"target_{label}")
    if of_targets is not None:
        shared = np.unique(of_targets)
        if len(shared) == 1 and shared[0] not in chosen:
            chosen = np.append(chosen[: count - 1], shared)

    is_chosen = np.isin(labels, chosen)
    kept = attribution.isel(point=np.flatnonzero(is_chosen))
    return kept, len(present)


def with_coordinate(
    attribution: xr.DataArray, label: str | ArrayLike
) -> tuple[xr.DataArray, str]:
    """Return an attribution with the coordinate that separates its points, and its name.

    Parameters
    ----------
    attribution:
        With the dimension ``point``.
    label:
        A coordinate's name, or the values themselves, one for each point; these are called by their
        own name where they have one, as a column of a table does, or else ``group``.

    Raises
    ------
    ValueError
        If values are not one for each point.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence.plots.grouping import with_coordinate
    >>> row, name = with_coordinate(xr.DataArray([0.5, 0.1], dims="point"), ["cat", "dog"])
    >>> name, row[name].values.tolist()
    ('group', ['cat', 'dog'])
    """
    if isinstance(label, str):
        return attribution, label

    name = getattr(label, "name", None)
    if not isinstance(name, str):
        name = "group"

    # A tensor may have a graph, or lie on a device.
    if hasattr(label, "detach"):
        label = label.detach().cpu()
    values = np.asarray(label)

    n_points = attribution.sizes.get("point", 0)
    if values.shape != (n_points,):
        raise ValueError(
            "what separates the points must be a coordinate's name or a value for each of the "
            f"{n_points} points, got {_checks.describe(label)}"
        )
    return attribution.assign_coords({name: ("point", values)}), name


@dataclass(frozen=True)
class Groups:
    """Points by a coordinate of few values.

    Parameters
    ----------
    attribution:
        Of the points that are shown.
    label:
        The coordinate's name.
    names:
        Its values in words, where they are ranges.
    note:
        What is not shown as it is, in a sentence; empty if all is.
    """

    attribution: xr.DataArray
    label: str
    names: list[str] | None = None
    note: str = ""

    @classmethod
    def of(cls, attribution: xr.DataArray, label: str) -> Groups:
        """Put points into few groups: floating-point numbers into ranges, of others the largest.

        Raises
        ------
        ValueError
            If some of the numbers are not finite.

        Examples
        --------
        >>> import numpy as np, xarray as xr
        >>> from whence.plots.grouping import Groups
        >>> row = xr.DataArray(np.zeros(80), {"age": ("point", np.arange(80) / 2)}, "point")
        >>> groups = Groups.of(row, "age")
        >>> groups.note, groups.names[0]
        ('80 values of age are put into 8 ranges', '0 … 4.5')
        """
        values: Array = attribution.coords[label].values
        is_floating = values.dtype.kind == "f"
        if is_floating:
            check_finite(label, values)

        n_values = len(np.unique(values))
        if is_floating and n_values > MAX_VALUES:
            grouped, names = in_ranges(attribution, label)
            note = f"{n_values} values of {label} are put into {len(names)} ranges"
            return cls(grouped, label, names, note)

        if n_values > MAX_PANELS:
            largest, _ = largest_groups(attribution, label)
            n_shown = len(np.unique(largest.coords[label].values))
            which = f"the {n_shown} most frequent are shown"
            return cls(largest, label, note=f"of {n_values} values of {label} {which}")

        return cls(attribution, label)


def check_finite(label: str, values: Array) -> None:
    """Raise ``ValueError`` unless all numbers that points are separated by are finite."""
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        raise ValueError(
            f"{label!r} must be finite to separate points by it: {n_bad} of {len(values)} are not; "
            "select points that have it, attribution.isel(point=...)"
        )
