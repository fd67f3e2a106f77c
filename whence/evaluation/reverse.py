"""The reverse check: whether points that matter to a target find that it matters to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from whence import _checks
from whence.attribution.method import Method
from whence.attribution.quantities import Loss
from whence.objective import PointsLike

if TYPE_CHECKING:
    import xarray as xr


def reverse_check(
    method: Method, target: PointsLike | Mapping[str, PointsLike], share: float = 0.01
) -> xr.Dataset:
    """Return influences of extreme training points on a target's loss, and the reverse ones.

    The reverse influence takes the target for a training point and the training point's loss for
    the target. Influence functions and gradient products are symmetric, so for them the two are
    equal up to the terms' factors, and a difference shows how badly a system is solved; methods
    that take finite steps, as EmpiricalIF does, are not (Liu et al. 2022).

    Parameters
    ----------
    method:
        Any attribution method.
    target:
        One point with its target, ``(inputs, targets)`` of length one; points by term for others.
    share:
        Share of the training points to check at either end, at least two each.

    Returns
    -------
    xarray.Dataset
        Dimension (point,), from the most helpful to the most harmful: ``influence``, ``reverse``
        and what is known of the points; the attribute ``rank_correlation`` is Spearman's, over
        all that were checked.

    Raises
    ------
    ValueError
        If there is not one target, or the share is not in (0, 0.5].

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation.reverse import reverse_check
    >>> model = torch.nn.Linear(2, 1, dtype=torch.float64)
    >>> x, y = torch.rand(50, 2).double(), torch.rand(50, 1).double()
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> check = reverse_check(wh.GradDot(objective), (x[:1] + 1, y[:1]), share=0.1)
    >>> check.sizes["point"], round(check.attrs["rank_correlation"], 6)
    (10, 1.0)
    """
    from scipy.stats import spearmanr  # slow to import

    if not 0 < _checks.number("share", share) <= 0.5:
        raise ValueError(f"share must lie in (0, 0.5], got {_checks.describe(share)}")
    loss = Loss(target)
    row = method.attribute(loss)
    if row.sizes["target"] != 1:
        raise ValueError(
            f"reverse_check takes one target at a time, got {row.sizes['target']}"
        )

    # The most helpful, then the most harmful; no point is at both ends.
    values = row.values[0]
    order = np.argsort(-values, kind="stable")
    n_all = len(order)
    n = max(2, round(share * n_all))
    n = min(n, n_all // 2)
    places = np.concatenate([order[:n], order[n_all - n :]])

    reverse = []
    for place in places:
        reverse.append(_reverse(method, loss, row, int(place)))
    correlation, _ = spearmanr(values[places], reverse)

    # Without what describes the one target.
    of_target = []
    for name, coordinate in row.coords.items():
        if "target" in coordinate.dims:
            of_target.append(name)
    extremes = row.isel(target=0, point=places)
    extremes = extremes.drop_vars(of_target)

    check = extremes.rename("influence").to_dataset()
    check["reverse"] = ("point", np.asarray(reverse))
    check.attrs = {
        **row.attrs,
        "rank_correlation": float(correlation),
    }
    return check


def _reverse(method: Method, target: Loss, row: xr.DataArray, place: int) -> float:
    """Return the effect of the target, as if it were trained on, on one training point's loss."""
    objective = method.objective
    name = str(row["term"].values[place])
    index = int(row["index"].values[place])
    points = objective.terms[name].points

    # The target takes the place of the training points, and the point that of the target.
    loss = Loss({name: points[index : index + 1]})
    trained = target.prepared(objective)
    reverse = method.attribute(loss, trained)
    return float(reverse.values[0, 0])
