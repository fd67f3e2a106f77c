"""Diagnostics of single points from regression: leverages and Cook's distances.

The algebra of removing a point is in :mod:`whence.attribution.solved_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whence.attribution.influence import Influence
from whence.attribution.labels import point_coordinates
from whence.attribution.solved_rows import (
    SolvedRows,
    check_gauss_newton,
    check_spans,
)
from whence.curvature.operators import GaussNewtonMatrix
from whence.subsets import all_points, points_at

if TYPE_CHECKING:
    import xarray as xr

MIN_FREEDOM = 1e-9
"""Least share of the residuals that the parameters must leave free: less is rounding."""


def leverage(influence: Influence) -> xr.DataArray:
    """Return the leverage of every training point, ``tr(Jᵢ B⁻¹ Jᵢᵀ)``, from 0 to m.

    How many of the effective parameters a point determines by itself; a point of leverage m is
    fitted whatever it says. The attribute ``effective_parameters`` is their sum ``tr(A B⁻¹)``
    (Hoaglin & Welsch 1978; the effective number of parameters, MacKay 1992).

    Parameters
    ----------
    influence:
        Whose objective, factorization, damping and solver to use, with Gauss–Newton curvature.

    Returns
    -------
    xarray.DataArray
        Dimension (point,), with the coordinates, ``term`` and ``index`` of an attribution.

    Raises
    ------
    ValueError
        If the curvature is a Hessian.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,)) - 1
    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, wh.Term("data", residual, x))
    >>> leverages = wh.leverage(wh.Influence(objective, damping=0.0))
    >>> leverages.round(9).values, round(leverages.attrs["effective_parameters"], 9)    # x² / Σx²
    (array([0.2, 0.8]), 1.0)
    """
    check_gauss_newton(influence)
    check_spans(influence)
    rows = SolvedRows(influence)
    values = torch.cat([part.leverage() for part in rows.points()])
    return _labelled(values, rows, "leverage", float(values.sum()))


def cooks_distance(influence: Influence) -> xr.DataArray:
    """Return Cook's distance of every training point, ``‖J Δθᵢ‖² / (p s²)``.

    Δθᵢ is the exact change of the parameters when point i is removed, ``p = tr(A B⁻¹)`` the
    effective number of parameters and ``s² = ‖e‖² / (R − p)`` the variance of the R scaled
    residuals e at the minimum. In linear regression without damping this is
    ``eᵢ² hᵢ / (p s² (1 − hᵢ)²)`` (Cook 1977, Technometrics 19). Above 1: the fit hangs on it.

    Parameters
    ----------
    influence:
        Whose objective, factorization, damping and solver to use, with Gauss–Newton curvature.

    Returns
    -------
    xarray.DataArray
        Dimension (point,), with the coordinates, ``term`` and ``index`` of an attribution.

    Raises
    ------
    ValueError
        If the curvature is a Hessian, removing a point leaves something undetermined, or there
        are no more residuals than effective parameters, or all are zero.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, wh.Term("data", residual, xy))
    >>> objective.parameters.assign(torch.tensor([1.5], dtype=torch.float64))
    >>> wh.cooks_distance(wh.Influence(objective, damping=0.0)).round(6).values
    array([0.24, 0.  , 0.24])
    """
    check_gauss_newton(influence)
    check_spans(influence)
    rows = SolvedRows(influence)
    budget = influence.memory_budget // 2
    terms_alone = influence.objective.with_weight_decay(0.0)
    operator = GaussNewtonMatrix(terms_alone).cached(budget)

    squares = []
    leverages = []
    residuals = []
    for part in rows.points():
        changes = part.changes(rows.damping)  # Δθᵢ, (P, n)
        # ‖JΔθᵢ‖² = ΔθᵢᵀAΔθᵢ
        squares.append((changes * operator.matmat(changes)).sum(0))
        leverages.append(part.leverage())
        residuals.append(part.residual.reshape(-1))

    effective = float(torch.cat(leverages).sum())  # p
    residual = torch.cat(residuals)  # e, (R,)
    variance = _variance(residual, effective)
    values = torch.cat(squares) / (effective * variance)
    return _labelled(values, rows, "cooks_distance", effective)


def _variance(residual: Tensor, effective: float) -> float:
    """Return ``s² = ‖e‖² / (R − p)``; none left, or none at all, are errors."""
    free = len(residual) - effective
    if not free > MIN_FREEDOM * len(residual):
        raise ValueError(
            f"Cook's distance needs more residuals than effective parameters, got "
            f"{len(residual)} and {effective:.6g}: raise the damping, or train on more points"
        )
    variance = float(residual.square().sum()) / free
    if not variance:
        raise ValueError(
            "Cook's distance compares with the size of the residuals, and all of them are zero"
        )
    return variance


def _labelled(
    values: Tensor, rows: SolvedRows, name: str, effective: float
) -> xr.DataArray:
    """Return a number for each training point with the labels of an attribution."""
    import xarray as xr  # slow to import

    objective = rows.objective
    everything = all_points(objective)
    points = points_at(objective, everything)
    array = xr.DataArray(
        values.detach().cpu().numpy(),
        dims="point",
        coords=point_coordinates(objective, points, everything),
        name=name,
        attrs={"method": name, "effective_parameters": effective, **rows.attributes()},
    )
    return array.set_xindex("term")
