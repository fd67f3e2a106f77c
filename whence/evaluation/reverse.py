"""The reverse check: whether points that matter to a target find that it matters to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from whence import _checks
from whence.arrays import ArrayLike
from whence.attribution.labels import Coordinates, Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Loss
from whence.objective import PointsLike

if TYPE_CHECKING:
    import xarray as xr


def reverse_check(
    method: Method,
    target: PointsLike | Mapping[str, PointsLike],
    share: float = 0.01,
    *,
    values: ArrayLike | xr.DataArray | None = None,
) -> xr.Dataset:
    """Return influences of extreme training points on a target's loss, and the reverse ones.

    The reverse influence takes the target for a training point and the training point's loss for
    the target. Influence functions and gradient products are symmetric, so for them the two are
    equal up to the terms' factors, and a difference shows how badly a system is solved; methods
    that take finite steps, as EmpiricalIF does, are not (Liu et al. 2022).

    Parameters
    ----------
    method:
        Any attribution method; of given values the one that gives the reverse ones.
    target:
        One point with its target, ``(inputs, targets)`` of length one; points by term for others.
    share:
        Share of the training points to check at either end, at least two each.
    values:
        Influences on this target that were computed elsewhere, to be checked in place of the
        method's: an attribution of the target to all training points in their order, or numbers
        (n,), positive where a point helps.

    Returns
    -------
    xarray.Dataset
        Dimension (point,), from the most helpful to the most harmful: ``influence``, ``reverse``
        and what is known of the points; the attribute ``rank_correlation`` is Spearman's, over
        all that were checked, and ``reverse_method`` the name of the method.

    Raises
    ------
    TypeError
        If the values are no numbers.
    ValueError
        If there is not one target, the share is not in (0, 0.5], or the values are not finite or
        not one for each training point.

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

    Values of another library:

    >>> values = torch.linspace(1, -1, 50)
    >>> check = reverse_check(wh.GradDot(objective), (x[:1] + 1, y[:1]), values=values)
    >>> check["index"].values
    array([ 0,  1, 48, 49])
    """
    from scipy.stats import spearmanr  # slow to import

    if not 0 < _checks.number("share", share) <= 0.5:
        raise ValueError(f"share must lie in (0, 0.5], got {_checks.describe(share)}")
    loss = Loss(target)
    n_targets = method.n_targets(loss)
    if n_targets != 1:
        raise ValueError(f"reverse_check takes one target at a time, got {n_targets}")

    row: xr.DataArray
    row = method.attribute(loss) if values is None else given_row(method, loss, values)

    # The most helpful, then the most harmful; no point is at both ends.
    influences = row.values[0]
    effect = effect_of(row)
    helps = influences if effect == "remove" else -influences
    order = np.argsort(-helps, kind="stable")
    n_all = len(order)
    n = max(2, round(share * n_all))
    n = min(n, n_all // 2)
    places = np.concatenate([order[:n], order[n_all - n :]])

    reverse = []
    for place in places:
        reverse.append(_reverse(method, loss, row, int(place)))
    correlation, _ = spearmanr(influences[places], reverse)

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
        "reverse_method": method.name,
    }
    return check


def given_row(
    method: Method, loss: Loss, values: ArrayLike | xr.DataArray
) -> xr.DataArray:
    """Return given influences of all training points on one target, labelled, (1, n)."""
    import xarray as xr  # slow to import

    prepared = method.prepare_points(None)
    coordinates = method.coordinates(loss, prepared)
    attributes: dict[str, object] = {}
    if isinstance(values, xr.DataArray):
        attributes = {str(name): value for name, value in values.attrs.items()}
        check_same_points(values, coordinates)

    numbers = read_influences(values, len(prepared))
    labelled = xr.DataArray(
        numbers[None],
        dims=("target", "point"),
        coords=coordinates,
        name="influence",
        attrs=attributes,
    )
    return labelled.set_xindex("term")


def check_same_points(values: xr.DataArray, coordinates: Coordinates) -> None:
    """Raise ``ValueError`` where an attribution is labelled with other points."""
    for name in ("term", "index"):
        if name not in values.coords:
            continue
        labels = np.asarray(values.coords[name].values)
        _, expected = coordinates[name]
        if labels.shape != expected.shape or not (labels == expected).all():
            raise ValueError(
                "the values must be of all training points in their order, but their coordinate "
                f"{name!r} is another: attribute the target without points="
            )


def read_influences(values: ArrayLike | xr.DataArray, n: int) -> np.ndarray:
    """Return n finite influences, (n,), from an array of shape (n,) or (1, n)."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "fiu":
        raise TypeError(
            f"values must be influences as numbers, got {_checks.describe(values)}"
        )
    if numbers.shape not in ((n,), (1, n)):
        raise ValueError(
            f"values must have one influence for each of the {n} training points, shape ({n},), "
            f"got shape {numbers.shape}"
        )
    _checks.finite("values", numbers)
    return numbers.reshape(n).astype(float)


def effect_of(row: xr.DataArray) -> Effect:
    """Return which effect influences are of: what is not known is of removal."""
    effect: Effect = "add" if row.attrs.get("effect") == "add" else "remove"
    return effect


def _reverse(method: Method, target: Loss, row: xr.DataArray, place: int) -> float:
    """Return the effect of the target, as if it were trained on, on one training point's loss."""
    objective = method.objective
    name = str(row["term"].values[place])
    index = int(row["index"].values[place])
    points = objective.terms[name].points

    # The target takes the place of the training points, and the point that of the target.
    loss = Loss({name: points[index : index + 1]})
    trained = target.prepared(objective)
    reverse = method.attribute(loss, trained, effect_of(row))
    return float(reverse.values[0, 0])
