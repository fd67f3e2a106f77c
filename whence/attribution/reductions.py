"""Summaries of attributions that never hold the matrix: extremes, means and sums, by label.

They take a method's tiles one by one, so memory does not grow with targets times points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.arguments import PointsByTerm
from whence.attribution.by_band import of_tiles
from whence.attribution.labels import Coordinates, Effect
from whence.attribution.method import Method
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.tiles import Solved, Tile

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

How = Literal["mean", "sum", "mean_abs"]
Dimension = Literal["target", "point"]


def top(
    method: Method,
    quantity: Quantities,
    k: int = 10,
    points: PointsByTerm | None = None,
    effect: Effect = "remove",
    client: Client | None = None,
) -> xr.Dataset:
    """Return, for each target, the k points of highest and the k of lowest effect.

    Parameters
    ----------
    method:
        Any attribution method, such as ``wh.Influence(objective)``.
    quantity:
        What to explain.
    k:
        How many of each; all, if there are fewer points.
    points, effect:
        As in the method's ``attribute``.
    client:
        Of a dask cluster whose workers make the tiles and reduce them; None makes them here. But
        for sums of :class:`whence.EmpiricalInfluence`, which come in another order, the result is
        the same to the last bit.

    Returns
    -------
    xarray.Dataset
        Dimensions (target, rank), rank 0 the most extreme: ``highest``, ``lowest`` the effects,
        ``highest_point``, ``lowest_point`` the places of the points among all, and with
        ``highest_`` or ``lowest_`` in front whatever is known of them.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.reductions import top
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.arange(5.0).double()[:, None], torch.ones(5, 1).double()
    >>> extremes = top(wh.GradDot(model, (x, y), wh.Squared()), wh.Loss(), k=2)
    >>> extremes.highest_point.sel(target=1).values
    array([4, 3])
    """
    import xarray as xr  # slow to import

    _checks.count("k", k)
    quantity = as_quantity(quantity)
    prepared = method.prepare_points(points)
    n_targets = method.n_targets(quantity)
    k = min(k, len(prepared))

    sides = {
        "highest": _Ranks(n_targets, k, largest=True),
        "lowest": _Ranks(n_targets, k, largest=False),
    }
    extremes = partial(_extremes, k=k)
    for found in of_tiles(method, quantity, points, effect, extremes, client):
        for ranks, of_tile in zip(sides.values(), found, strict=True):
            ranks.add(*of_tile)

    coordinates = method.coordinates(quantity, prepared)
    of_points = _of_dimension(coordinates, "point")
    variables = {}
    for side, ranks in sides.items():
        places = ranks.places.numpy()
        variables[side] = (("target", "rank"), ranks.values.numpy())
        variables[f"{side}_point"] = (("target", "rank"), places)
        for name, (_, values) in of_points.items():
            variables[f"{side}_{name}"] = (("target", "rank"), values[places])

    return xr.Dataset(
        variables,
        coords={**_of_dimension(coordinates, "target"), "rank": np.arange(k)},
        attrs=method.attributes(quantity, effect, Solved()),
    )


Extreme = tuple[slice, Tensor, Tensor]
"""Targets, the most extreme values of each (t, k), and the places of their points."""


def _extremes(tile: Tile, k: int) -> list[Extreme]:
    """Return the k highest and the k lowest values of a tile."""
    n = min(k, tile.values.shape[1])
    sides = []
    for largest in (True, False):
        best, columns = tile.values.topk(n, dim=1, largest=largest)
        places = columns.cpu() + tile.points.start
        sides.append((tile.targets, best.double().cpu(), places))
    return sides


class _Ranks:
    """The k largest (or smallest) values of each target so far, and where they are."""

    def __init__(self, n_targets: int, k: int, *, largest: bool) -> None:
        self.largest = largest
        # Anything is more extreme than what no point has reached yet.
        worst = -torch.inf if largest else torch.inf
        self.values = torch.full((n_targets, k), worst, dtype=torch.float64)
        self.places = torch.zeros(n_targets, k, dtype=torch.long)

    def add(self, rows: slice, best: Tensor, of_best: Tensor) -> None:
        """Take more values of some targets into account, with their places."""
        k = self.values.shape[1]
        # The k best of those known and these.
        values = torch.cat([self.values[rows], best], dim=1)
        places = torch.cat([self.places[rows], of_best], dim=1)

        self.values[rows], kept = values.topk(k, dim=1, largest=self.largest)
        self.places[rows] = places.gather(1, kept)


def reduced(
    method: Method,
    quantity: Quantities,
    how: How = "mean",
    over: Dimension = "target",
    by: str | None = None,
    points: PointsByTerm | None = None,
    effect: Effect = "remove",
    client: Client | None = None,
) -> xr.DataArray:
    """Return the mean or the sum of an attribution over its targets or its points.

    Parameters
    ----------
    method:
        Any attribution method, such as ``wh.Influence(objective)``.
    quantity:
        What to explain.
    how:
        ``"mean"``, ``"sum"`` or ``"mean_abs"``, the mean of absolute values.
    over:
        Which dimension goes: ``"target"``, which leaves one number for each point, or ``"point"``.
    by:
        A coordinate of that dimension, such as ``"label"`` (``"target_label"`` for targets): then
        there is a number for each of its values.
    points, effect:
        As in the method's ``attribute``.
    client:
        Of a dask cluster whose workers make the tiles and reduce them; None makes them here. But
        for sums of :class:`whence.EmpiricalInfluence`, which come in another order, the result is
        the same to the last bit.

    Returns
    -------
    xarray.DataArray
        Dimension (point,) or (target,), and ``by`` where it is given.

    Raises
    ------
    ValueError
        If the dimension has no such coordinate.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.reductions import reduced
    >>> model = torch.nn.Linear(2, 2, dtype=torch.float64)
    >>> x, y = torch.rand(6, 2).double(), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> method = wh.GradDot(model, (x, y), wh.CrossEntropy())
    >>> reduced(method, wh.Loss(), over="point", by="label").dims
    ('target', 'label')
    """
    import xarray as xr  # slow to import

    _checks.one_of("reduction", how, ("mean", "sum", "mean_abs"))
    _checks.one_of("dimension", over, ("target", "point"))
    quantity = as_quantity(quantity)
    prepared = method.prepare_points(points)
    coordinates = method.coordinates(quantity, prepared)
    sizes = {"target": method.n_targets(quantity), "point": len(prepared)}

    kept: Dimension = "point" if over == "target" else "target"
    groups = _Groups.of(by, _of_dimension(coordinates, over), sizes[over])

    like = method.objective.parameters.vector()
    total = like.new_zeros(sizes[kept], len(groups.values))
    sums = partial(_sums, how=how, over=over, groups=groups)
    for rows, of_tile in of_tiles(method, quantity, points, effect, sums, client):
        total[rows] += of_tile.to(total)

    if how != "sum":
        total = total / groups.counts().to(total)

    labels = _of_dimension(coordinates, kept)
    if by is not None:
        labels[by] = (by, groups.values)
    array = xr.DataArray(
        total.cpu().numpy(),
        dims=(kept, by or "all"),
        coords=labels,
        name="influence",
        attrs={
            **method.attributes(quantity, effect, Solved()),
            "reduction": f"{how} over {over}s",
        },
    )
    return array if by else array.isel(all=0)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups of the entries of a dimension, by the value that a coordinate has there.

    Parameters
    ----------
    values:
        Value of each group.
    group_of:
        The group of each entry.
    """

    values: np.ndarray
    group_of: np.ndarray

    @classmethod
    def of(cls, by: str | None, coordinates: Coordinates, n: int) -> _Groups:
        """Return the groups by one of the coordinates; without one all n entries are a group."""
        if by is None:
            return cls(np.zeros(1), np.zeros(n, dtype=np.int64))

        _checks.one_of("coordinate to group by", by, coordinates)
        _, of_entries = coordinates[by]
        values, group_of = np.unique(of_entries, return_inverse=True)
        return cls(values, group_of)

    def counts(self) -> Tensor:
        """Return the number of entries of each group."""
        counts = np.bincount(self.group_of, minlength=len(self.values))
        return torch.as_tensor(counts)


def _sums(
    tile: Tile, how: How, over: Dimension, groups: _Groups
) -> tuple[slice, Tensor]:
    """Return a tile's sums over a dimension, (kept, groups), and where they belong."""
    values = tile.values
    if how == "mean_abs":
        values = values.abs()

    kept, summed = tile.targets, tile.points
    if over == "target":
        values = values.T
        kept, summed = tile.points, tile.targets

    of_entries = torch.as_tensor(groups.group_of[summed], device=values.device)
    zero = values.new_zeros(len(values), len(groups.values))
    return kept, zero.index_add_(1, of_entries, values).cpu()


def _of_dimension(coordinates: Coordinates, dimension: Dimension) -> Coordinates:
    """Return the coordinates of one dimension."""
    return {
        name: coordinate
        for name, coordinate in coordinates.items()
        if coordinate[0] == dimension
    }
