"""Summaries of attributions that never hold the matrix: extremes, means and sums, by label.

They take a method's tiles one by one, so memory does not grow with targets times points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.arguments import PointsByTerm
from whence.attribution.labels import Coordinates, Effect
from whence.attribution.method import Method
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.tiles import Solved, Tile

if TYPE_CHECKING:
    import xarray as xr

How = Literal["mean", "sum", "mean_abs"]
Dimension = Literal["target", "point"]


def top(
    method: Method,
    quantity: Quantities,
    k: int = 10,
    points: PointsByTerm | None = None,
    effect: Effect = "remove",
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
    shape = (method.n_targets(quantity), len(prepared))
    n_targets, n_all = shape
    k = min(k, n_all)

    sides = {
        "highest": _Ranks(n_targets, k, largest=True),
        "lowest": _Ranks(n_targets, k, largest=False),
    }
    tiles = method.tiles(quantity, points, effect)
    for tile in method.with_progress(tiles, shape):
        for ranks in sides.values():
            ranks.add(tile)

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


class _Ranks:
    """The k largest (or smallest) values of each target so far, and where they are."""

    def __init__(self, n_targets: int, k: int, *, largest: bool) -> None:
        self.largest = largest
        # Anything is more extreme than what no point has reached yet.
        worst = -torch.inf if largest else torch.inf
        self.values = torch.full((n_targets, k), worst, dtype=torch.float64)
        self.places = torch.zeros(n_targets, k, dtype=torch.long)

    def add(self, tile: Tile) -> None:
        """Take the values of a tile into account."""
        k = self.values.shape[1]
        n_best = min(k, tile.values.shape[1])
        best, columns = tile.values.topk(n_best, dim=1, largest=self.largest)

        # The k best of those known and those of this tile.
        rows = tile.targets
        values = torch.cat([self.values[rows], best.double().cpu()], dim=1)
        new_places = columns.cpu() + tile.points.start
        places = torch.cat([self.places[rows], new_places], dim=1)

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
    shape = (method.n_targets(quantity), len(prepared))

    kept: Dimension = "point" if over == "target" else "target"
    sizes = {"target": shape[0], "point": shape[1]}
    sums = _Sums(how, over, by, _of_dimension(coordinates, over), sizes[over])

    like = method.objective.parameters.vector()
    total = like.new_zeros(sizes[kept], len(sums.groups))
    tiles = method.tiles(quantity, points, effect)
    for tile in method.with_progress(tiles, shape):
        sums.add(total, tile)

    if how != "sum":
        total = total / sums.counts().to(total)

    labels = _of_dimension(coordinates, kept)
    if by is not None:
        labels[by] = (by, sums.groups)
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


class _Sums:
    """Sums over one dimension, a number for each value of one of its coordinates."""

    def __init__(
        self,
        how: How,
        over: Dimension,
        by: str | None,
        coordinates: Coordinates,
        n: int,
    ) -> None:
        self._how = how
        self._over = over

        # Without a coordinate all of the n entries are one group.
        self.groups = np.zeros(1)
        self._group_of = np.zeros(n, dtype=np.int64)
        if by is not None:
            _checks.one_of("coordinate to group by", by, coordinates)
            _, values = coordinates[by]
            self.groups, self._group_of = np.unique(values, return_inverse=True)

    def counts(self) -> Tensor:
        """Return the number of entries of each group."""
        counts = np.bincount(self._group_of, minlength=len(self.groups))
        return torch.as_tensor(counts)

    def add(self, total: Tensor, tile: Tile) -> None:
        """Add a tile's values to the sums (kept, groups) in place."""
        values = tile.values
        if self._how == "mean_abs":
            values = values.abs()

        kept = tile.targets
        summed = tile.points
        if self._over == "target":
            values = values.T
            kept = tile.points
            summed = tile.targets

        groups = torch.as_tensor(self._group_of[summed], device=values.device)
        total[kept] = total[kept].index_add(1, groups, values)


def _of_dimension(coordinates: Coordinates, dimension: Dimension) -> Coordinates:
    """Return the coordinates of one dimension."""
    return {
        name: coordinate
        for name, coordinate in coordinates.items()
        if coordinate[0] == dimension
    }
