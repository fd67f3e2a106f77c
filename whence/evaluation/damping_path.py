"""How influences change over a grid of dampings: where rankings are stable, and which predict."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from whence import _checks
from whence.attribution.factored import Factored
from whence.attribution.quality import FarFromMinimum
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.curvature.failures import SingularSystem
from whence.curvature.solvers import Damping
from whence.evaluation.lds import linear_datamodeling_score
from whence.evaluation.ranks import rank_agreement

if TYPE_CHECKING:
    import xarray as xr

DECADES = 4
"""Decades to either side of the influence's own damping that are tried by default."""


def damping_path(
    influence: Factored,
    quantity: Quantities,
    dampings: Sequence[float] | None = None,
    *,
    retrained: xr.DataArray | None = None,
    subsets: ArrayLike | None = None,
    actual: ArrayLike | None = None,
) -> xr.Dataset:
    """Return how influences of all training points change with the damping.

    What was factored serves all of them where the solver allows (``influence.with_damping``).
    :func:`whence.plots.damping` draws it.

    Parameters
    ----------
    influence:
        Whose objective, solver and curvature.
    quantity:
        What to explain.
    dampings:
        Relative to the largest eigenvalue; by default nine, a decade apart, around its own.
    retrained:
        True changes when points are left out, of the same targets, as
        :func:`whence.leave_one_out` returns them.
    subsets, actual:
        Which samples models were trained on and their targets, for the linear datamodeling score,
        as in :func:`whence.evaluation.linear_datamodeling_score`.

    Returns
    -------
    xarray.Dataset
        Dimension (damping,), rising: ``size``, the root mean square of the influences;
        ``agreement`` (damping, other), the mean over targets of Spearman's correlation over points
        between two dampings; ``residual``, the relative residual of the solves; ``retraining`` and
        ``lds`` where there is something to compare with. NaN where the system was singular.
        Attribute ``damping`` is that of the influence, relative.

    Raises
    ------
    MemoryError
        If all influences together exceed the influence's ``memory_budget``.
    TypeError
        If the method has no damping.
    ValueError
        If a damping is not positive, there are fewer than two, subsets come without ``actual``, a
        point was left out that is not predicted, or all systems are singular.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation import damping_path
    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(20, 3), torch.arange(20) % 2
    >>> influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss())
    >>> path = damping_path(influence, wh.Loss(x[:4], y[:4]), [1e-3, 1e-1, 10])
    >>> path.sizes["damping"], float(path["agreement"][0, 0].round(6))
    (3, 1.0)
    >>> bool(path["size"][0] > path["size"][2])             # damping makes influences small
    True
    """
    import xarray as xr  # slow to import

    if not isinstance(influence, Factored):
        raise TypeError(
            "a damping path is of a method that solves with a damping, such as wh.Influence(...), "
            f"got {_checks.describe(influence)}"
        )
    if (subsets is None) != (actual is None):
        raise ValueError(
            "the linear datamodeling score needs subsets= and actual= together"
        )
    whole = as_quantity(quantity)
    values = checked_dampings(influence, dampings)
    n_points = influence.objective.n_points
    influence.check_size(len(values) * influence.n_targets(whole), n_points)

    tables, absolute = tables_over(influence, quantity, values)
    known = [table for table in tables if table is not None]
    if not known:
        raise ValueError(
            f"the system is singular at all of these dampings, {values}: give larger ones"
        )

    variables = {
        "size": ("damping", [size_of(table) for table in tables]),
        "residual": ("damping", [residual_of(table) for table in tables]),
        "agreement": (("damping", "other"), agreements(tables)),
    }
    if retrained is not None:
        columns = [agreement_with(table, retrained) for table in tables]
        variables["retraining"] = ("damping", columns)
    if subsets is not None and actual is not None:
        scores = [lds_of(table, subsets, actual) for table in tables]
        variables["lds"] = ("damping", scores)

    first = known[0]
    return xr.Dataset(
        variables,
        coords={
            "damping": values,
            "other": values,
            "absolute": ("damping", absolute),
        },
        attrs={
            "damping": own_damping(influence),
            "solver": first.attrs["solver"],
            "targets": first.sizes["target"],
            "points": first.sizes["point"],
            "quantity": whole.label(),
        },
    )


def checked_dampings(
    influence: Factored, dampings: Sequence[float] | None
) -> list[float]:
    """Return relative dampings, rising, each once; by default decades around the own one."""
    if dampings is None:
        current = own_damping(influence)
        if not 0 < current < math.inf:
            raise ValueError(
                f"the influence's own damping is {current} of the largest eigenvalue, around which "
                "there are no decades: give dampings="
            )
        steps = range(-DECADES, DECADES + 1)
        return [current * 10.0**step for step in steps]

    for value in dampings:
        _checks.positive("a relative damping", value)
    values = sorted({float(value) for value in dampings})
    if len(values) < 2:
        raise ValueError(f"dampings must name two or more, got {values}")
    return values


def own_damping(influence: Factored) -> float:
    """Return the damping of an influence relative to the largest eigenvalue, without a penalty."""
    damping = influence.damping
    if damping.relative:
        return damping.value
    largest = influence.state().spectrum.largest_eigenvalue
    return damping.value / largest if largest else math.inf


def tables_over(
    influence: Factored, quantity: Quantities, dampings: Sequence[float]
) -> tuple[list[xr.DataArray | None], list[float]]:
    """Return influences at each damping, None where the system is singular, and absolute λ."""
    tables: list[xr.DataArray | None] = []
    absolute = []
    for value in dampings:
        with warnings.catch_warnings():
            # How far the network is from a minimum is the same for all.
            warnings.simplefilter("ignore", FarFromMinimum)
            try:
                other = influence.with_damping(Damping(value))
                table: xr.DataArray | None = other.attribute(quantity)
            except SingularSystem:
                table = None
        tables.append(table)
        absolute.append(math.nan if table is None else float(table.attrs["damping"]))
    return tables, absolute


def size_of(table: xr.DataArray | None) -> float:
    """Return the root mean square of influences."""
    if table is None:
        return math.nan
    return float(np.sqrt(np.mean(np.square(table.values, dtype=float))))


def residual_of(table: xr.DataArray | None) -> float:
    """Return the relative residual of the solves."""
    return math.nan if table is None else float(table.attrs["solver_residual"])


def agreements(tables: Sequence[xr.DataArray | None]) -> np.ndarray:
    """Return the rank agreement of each table with each other one."""
    n = len(tables)
    matrix = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1):
            first, second = tables[i], tables[j]
            if first is not None and second is not None:
                agreement = rank_agreement(first.values, second.values)
                matrix[i, j] = matrix[j, i] = agreement
    return matrix


def agreement_with(table: xr.DataArray | None, retrained: xr.DataArray) -> float:
    """Return the rank agreement of predictions with true changes, at the points left out."""
    if table is None:
        return math.nan
    columns = places_of_points(table, retrained)
    predicted = table.values[:, columns]
    true = np.atleast_2d(retrained.values)
    if len(true) != len(predicted):
        raise ValueError(
            f"retrained are changes of {len(true)} targets, and {len(predicted)} are predicted: "
            "give the same quantity"
        )
    return rank_agreement(true, predicted)


def places_of_points(table: xr.DataArray, others: xr.DataArray) -> list[int]:
    """Return where the points of another table stand in this one, by term and index."""
    keys = []
    for points in (table, others):
        terms = np.broadcast_to(points["term"].values, points.sizes["point"])
        keys.append(
            list(zip(terms.tolist(), points["index"].values.tolist(), strict=True))
        )
    places = {key: place for place, key in enumerate(keys[0])}
    for term, index in keys[1]:
        if (term, index) not in places:
            raise ValueError(
                f"point {index} of {term} was left out, but is no training point of this objective"
            )
    return [places[key] for key in keys[1]]


def lds_of(table: xr.DataArray | None, subsets: ArrayLike, actual: ArrayLike) -> float:
    """Return the linear datamodeling score."""
    if table is None:
        return math.nan
    score = linear_datamodeling_score(table, subsets, actual)
    return float(score.attrs["mean"])
