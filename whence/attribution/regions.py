"""Regions by which points are told apart: boxes, domains, and functions of coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks

Mask = np.ndarray
"""Which points are in a region, booleans (n,)."""


@runtime_checkable
class Container(Protocol):
    """What knows which points lie in it, as every domain of :mod:`whence.pinn` does."""

    def contains(self, points: Tensor) -> Tensor:
        """Return which of the points (n, d) are inside, booleans (n,)."""


Box = Mapping[str, tuple[float, float]]
"""Lowest and highest value by coordinate; others may have any value."""
AnyRegion = Box | Container | Callable[..., object]
"""A box, a domain, or a function of coordinates by argument name that returns booleans (n,)."""


def region_masks(
    regions: Mapping[str, AnyRegion],
    names: Sequence[str],
    points: np.ndarray,
    what: str,
) -> dict[str, Mask]:
    """Return which points lie in each region.

    Parameters
    ----------
    regions:
        By name: a box such as ``{"x": (0, 1)}``, a domain such as ``pinn.Disk``, or a function of
        coordinates by argument name that returns booleans (n,). They may overlap.
    names:
        Names of the coordinates.
    points:
        The points, (n, d); rows that are not finite are nowhere.
    what:
        What the points are, for messages: ``"training points"``.

    Raises
    ------
    TypeError
        If a region is none of these.
    ValueError
        If there are no regions or no coordinates, a region has no points, names an unknown
        coordinate, or its function returns something else.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.attribution.regions import region_masks
    >>> points = np.array([[0.1, 0.0], [0.9, 0.5]])
    >>> regions = {"left": {"x": (0.0, 0.5)}, "late": lambda t: t > 0.2}
    >>> region_masks(regions, ("x", "t"), points, "points")["late"]
    array([False,  True])
    """
    if not isinstance(regions, Mapping) or not regions:
        raise ValueError(
            "regions must map names to regions, such as {'wake': {'x': (2.5, 8.0)}}, got "
            f"{_checks.describe(regions)}"
        )
    # Samples of supervised data have none.
    if not names:
        raise ValueError(f"the {what} have no coordinates: no region tells them apart")

    # An aggregate has no place: its coordinates are NaN.
    is_somewhere = np.isfinite(points).all(axis=1)
    places = points[is_somewhere]
    masks = {}
    for region_name, region in regions.items():
        in_region = inside_region(region_name, region, names, places)
        # An average over no points would be no number.
        if not in_region.any():
            raise ValueError(
                f"the region {region_name!r} has none of the {len(points)} {what}, which lie in "
                f"{extent_in_words(names, places)}: make it larger, or leave it out"
            )

        mask = np.zeros(len(points), dtype=bool)
        mask[is_somewhere] = in_region
        masks[region_name] = mask
    return masks


def inside_region(
    region_name: str,
    region: AnyRegion,
    names: Sequence[str],
    points: np.ndarray,
) -> Mask:
    """Return which of some finite points (n, d) are in one region."""
    where = f"the region {region_name!r}"
    columns = {name: points[:, k] for k, name in enumerate(names)}
    if isinstance(region, Mapping):
        return in_box(where, region, columns)

    # Before functions, as a domain might be callable too.
    if isinstance(region, Container):
        inside = region.contains(torch.as_tensor(points))
        return np.asarray(inside, dtype=bool)

    if not callable(region):
        raise TypeError(
            f"{where} must be a box such as {{'x': (0, 1)}}, a domain, or a function of "
            f"coordinates, got {_checks.describe(region)}"
        )
    return where_true(where, region, columns)


def in_box(where: str, box: Box, columns: Mapping[str, np.ndarray]) -> Mask:
    """Return which points are in a box, its sides included."""
    # A coordinate that the box does not name may have any value.
    first = next(iter(columns.values()))
    mask = np.ones(len(first), dtype=bool)
    for name, ends in box.items():
        _checks.one_of(f"coordinate of {where}", name, columns)
        low, high = _checks.pair(f"{name} of {where}", ends, "end")
        column = columns[name]
        mask &= column >= low
        mask &= column <= high
    return mask


def where_true(
    where: str,
    function: Callable[..., object],
    columns: Mapping[str, np.ndarray],
) -> Mask:
    """Return at which points a function of coordinates holds."""
    arguments = []
    for name in _checks.arguments(where, function):
        _checks.one_of(f"coordinate of {where}", name, columns)
        # Tensors, as functions of coordinates get them everywhere else; a copy may be changed.
        column = columns[name].copy()
        arguments.append(torch.from_numpy(column))

    mask = np.asarray(function(*arguments))
    first = next(iter(columns.values()))
    if mask.dtype != bool or mask.shape != first.shape:
        raise ValueError(
            f"the function of {where} must return {len(first)} booleans, one for each point, got "
            f"{mask.dtype} of shape {mask.shape}"
        )
    return mask


def extent_in_words(names: Sequence[str], points: np.ndarray) -> str:
    """Return where points lie, in words."""
    # Of aggregates alone there is nothing to take a least number of.
    if not len(points):
        return "no place"

    # The box around them.
    sides = []
    lows = points.min(axis=0)
    highs = points.max(axis=0)
    for name, low, high in zip(names, lows, highs, strict=True):
        sides.append(f"{name} = {low:.4g} … {high:.4g}")
    return ", ".join(sides)
