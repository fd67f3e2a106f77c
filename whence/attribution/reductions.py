"""Summaries of attributions that never hold the matrix: extremes, means and sums, by label.

They take a method's tiles one by one, so memory does not grow with targets times points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.method import Effect, Method, Solved, count
from whence.attribution.quantities import Quantity

if TYPE_CHECKING:
    import xarray as xr

How = Literal["mean", "sum", "mean_abs"]


def top(
    method: Method,
    quantity: Quantity,
    k: int = 10,
    points: Any = None,
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
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> found = top(wh.GradDot(objective), wh.Loss(), k=2)
    >>> found.highest_point.sel(target=1).values
    array([4, 3])
    """
    import xarray as xr  # slow to import

    _checks.count("k", k)
    chosen = method._chosen(points)
    shape = method._rows_of(quantity), count(chosen)
    k = min(k, shape[1])
    ranks = [_Ranks(shape[0], k, largest=largest) for largest in (True, False)]
    for tile in method.shown(method.tiles(quantity, points, effect), shape):
        for one in ranks:
            one.add(tile.targets, tile.points, tile.values)
    known = method.coordinates(quantity, chosen)
    found: dict[str, Any] = {}
    for side, one in zip(("highest", "lowest"), ranks, strict=True):
        places = one.places.numpy()
        found[side] = (("target", "rank"), one.values.numpy())
        found[f"{side}_point"] = (("target", "rank"), places)
        for name, (dimension, values) in known.items():
            if dimension == "point":
                found[f"{side}_{name}"] = (("target", "rank"), values[places])
    targets = {name: one for name, one in known.items() if one[0] == "target"}
    attributes = method.attributes(quantity, effect, Solved())
    return xr.Dataset(found, coords={**targets, "rank": np.arange(k)}, attrs=attributes)


class _Ranks:
    """The k largest (or smallest) values of each target so far, and where they are."""

    def __init__(self, targets: int, k: int, *, largest: bool) -> None:
        self.largest = largest
        self.values = torch.full(
            (targets, k), -torch.inf if largest else torch.inf
        ).double()
        self.places = torch.zeros(targets, k, dtype=torch.long)

    def add(self, targets: slice, points: slice, values: Tensor) -> None:
        k = self.values.shape[1]
        best, where = values.topk(min(k, values.shape[1]), dim=1, largest=self.largest)
        joined = torch.cat([self.values[targets], best.double().cpu()], dim=1)
        places = torch.cat([self.places[targets], where.cpu() + points.start], dim=1)
        self.values[targets], kept = joined.topk(k, dim=1, largest=self.largest)
        self.places[targets] = places.gather(1, kept)


def reduced(
    method: Method,
    quantity: Quantity,
    how: How = "mean",
    over: Literal["target", "point"] = "target",
    by: str | None = None,
    points: Any = None,
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
    >>> objective = wh.Objective.supervised(model, (x, y), wh.CrossEntropy())
    >>> reduced(wh.GradDot(objective), wh.Loss(), over="point", by="label").dims
    ('target', 'label')
    """
    import xarray as xr  # slow to import

    _checks.one_of("reduction", how, ("mean", "sum", "mean_abs"))
    _checks.one_of("dimension", over, ("target", "point"))
    chosen = method._chosen(points)
    known = method.coordinates(quantity, chosen)
    coords = {
        d: {n: c for n, c in known.items() if c[0] == d} for d in ("target", "point")
    }
    sizes = {"target": method._rows_of(quantity), "point": count(chosen)}
    groups, place = _groups(coords[over], by, sizes[over])
    kept = "point" if over == "target" else "target"
    like = method.objective.parameters.vector()
    total = like.new_zeros(sizes[kept], len(groups))
    for tile in method.shown(
        method.tiles(quantity, points, effect), (sizes["target"], sizes["point"])
    ):
        values = tile.values.abs() if how == "mean_abs" else tile.values
        rows, columns = tile.targets, tile.points
        if over == "target":
            values, rows, columns = values.T, columns, rows
        where = torch.as_tensor(place[columns], device=values.device)
        total[rows] = total[rows].index_add(1, where, values)
    if how != "sum":
        counts = np.bincount(place, minlength=len(groups))
        total = total / torch.as_tensor(counts).to(total)
    array = xr.DataArray(
        total.cpu().numpy(),
        dims=(kept, by or "all"),
        coords={**coords[kept], **({by: groups} if by else {})},
        name="influence",
        attrs={
            **method.attributes(quantity, effect, Solved()),
            "reduction": f"{how} over {over}s",
        },
    )
    return array if by else array.isel(all=0)


def _groups(
    coords: dict[str, tuple[str, np.ndarray]], by: str | None, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a coordinate and which of them each entry has."""
    if by is None:
        return np.zeros(1), np.zeros(n, dtype=np.int64)
    _checks.one_of("coordinate to group by", by, coords)
    groups, place = np.unique(coords[by][1], return_inverse=True)
    return groups, place
