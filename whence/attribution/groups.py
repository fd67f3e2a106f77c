"""Sets of training points: what removing all of a set at once does, from one factorization.

The algebra, and how it differs from a sum of influences, is in
:mod:`whence.attribution.solved_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.labels import Coordinates, target_coordinates
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.solved_rows import (
    SolvedRows,
    check_gauss_newton,
    check_spans,
)
from whence.jacobian import Jacobian
from whence.subsets import Chosen, Members, check_groups, n_members

if TYPE_CHECKING:
    import xarray as xr

Model = Literal["exact", "first_order"]


def group_influence(
    influence: Influence,
    quantity: Quantities,
    groups: Mapping[str, Members],
    method: Model = "exact",
) -> xr.DataArray:
    """Return the predicted change of a quantity when whole groups of points are removed.

    ``∇fᵀ B⁻¹ J_Sᵀ (I − Q)⁻¹ e_S`` with ``Q = J_S B⁻¹ J_Sᵀ`` for the group S and
    ``e = ρ − J B⁻¹∇L``; the other points keep their weight w/N. It is exact for linear least
    squares without damping (Cook & Weisberg 1982, *Residuals and Influence in Regression*). With
    damping λ, and away from a minimum, it is the difference that the group makes to the minimizer
    of ``L + (λ/2)·‖θ − θ̂‖²``, which ``leave_out(…, anchor=λ)`` finds by refitting. A penalty
    ``(c/2)‖θ‖²`` of the objective is part of L, so that B is ``A + (c + λ)I``, and stays. Positive:
    removing the group raises f.

    Parameters
    ----------
    influence:
        Whose objective, factorization, damping and solver to use, with Gauss–Newton curvature.
    quantity:
        What to explain, see :mod:`whence.attribution.quantities`; one, or a list of several.
    groups:
        Indices or a boolean mask of training points by term, for each name; of an objective with
        one term, just indices or a mask. Groups may overlap.
    method:
        ``"exact"``, or ``"first_order"`` for the sum of the members' influences.

    Returns
    -------
    xarray.DataArray
        Dimensions (target, group), coordinates of the targets as in an attribution, ``size`` of
        each group; attributes say method, solver, damping and how well the systems were solved.

    Raises
    ------
    ValueError
        If the curvature is a Hessian, a group is empty, names an unknown term, or an index twice
        or out of range, or removing a group leaves something undetermined (I − Q singular).
    MemoryError
        If a group's rows, or the result, exceed ``influence.memory_budget``, before any work.

    Examples
    --------
    A least-squares line through the origin:

    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    >>> def fields(names):
    ...     return lambda tensors, z: torch.func.functional_call(network, tensors, (z[:, :1],))
    >>> objective = wh.Objective(
    ...     network, [wh.Term("data", residual, xy)],
    ...     space=wh.Space(coordinates=("x", "y"), evaluate=fields))
    >>> objective.parameters.assign(torch.tensor([1.5], dtype=torch.float64))   # Σxy / Σx² = 9/6
    >>> influence = wh.Influence(objective, damping=0.0)
    >>> effects = wh.group_influence(influence, wh.Output(xy[:1]), {"a": [0], "b": [1, 2]})
    >>> effects.round(9).values                    # 7/5 − 9/6 and 2/1 − 9/6
    array([[-0.1,  0.5]])
    """
    import xarray as xr  # slow to import

    _checks.one_of("method", method, ("exact", "first_order"))
    check_gauss_newton(influence)
    quantity = as_quantity(quantity)
    is_exact = method == "exact"
    if is_exact:
        check_spans(influence)

    objective = influence.objective
    chosen = check_groups(objective, groups)
    targets = target_coordinates(quantity.targets(objective))
    _, labels = next(iter(targets.values()))
    n_targets = len(labels)
    _check_size(influence, chosen, n_targets, is_exact)

    rows = SolvedRows(influence)
    by_model = rows.exact_changes if is_exact else rows.first_order_changes
    changes = by_model(chosen)  # Δθ, (P, groups)

    # ∇fᵀΔθ of each group, (targets, groups)
    matrix = changes.new_empty(n_targets, len(chosen))
    start = 0
    for gradients in quantity.gradients(objective):
        stop = start + len(gradients)
        matrix[start:stop] = gradients @ changes
        start = stop

    return xr.DataArray(
        matrix.detach().cpu().numpy(),
        dims=("target", "group"),
        coords={**targets, **group_coordinates(chosen)},
        name="group_influence",
        attrs={
            "method": "group_influence",
            "model": method,
            "quantity": quantity.label(),
            "effect": "remove",
            "sign": "predicted change of the target when the group is removed from training",
            "scale": "w/N: change caused by the whole group",
            **rows.attributes(),
        },
    )


def group_coordinates(groups: Mapping[str, Chosen]) -> Coordinates:
    """Return the names and sizes of groups as coordinates of dimension group."""
    sizes = [n_members(chosen) for chosen in groups.values()]
    return {
        "group": ("group", np.asarray(list(groups), dtype=object)),
        "size": ("group", np.asarray(sizes)),
    }


def _check_size(
    influence: Influence, groups: Mapping[str, Chosen], n_targets: int, is_exact: bool
) -> None:
    """Raise unless the result, every Δθ, and the rows and Q of the largest group fit."""
    parameters = influence.objective.parameters
    m = Jacobian(influence.objective, scaled=True).components()
    n_rows = []
    for chosen in groups.values():
        n_rows.append(sum(m[name] * len(places) for name, places in chosen.items()))
    largest = max(n_rows)

    # Right-hand sides and Δθ of all groups, and the result.
    numbers = len(groups) * (2 * parameters.size + n_targets)
    if is_exact:
        # Rows, then Q, I − Q, its factor and a copy for its eigenvalues.
        numbers += largest * (parameters.size + 4 * largest)

    if parameters.dtype.itemsize * numbers > influence.memory_budget:
        raise MemoryError(
            f"{n_targets} targets × {len(groups)} groups, of up to {largest} rows of "
            f"{parameters.size} parameters, need {8 * numbers / 2**30:.2g} GiB, above the memory "
            f"budget of {influence.memory_budget / 2**30:.2g} GiB: ask for fewer or smaller "
            "groups, use method='first_order', or raise memory_budget"
        )
