"""Tail patches: whether a step on the samples that an answer came from makes it more likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from whence import _checks
from whence.attribution.quantities import Quantity
from whence.attribution.quantities.base import check_quantity
from whence.objective import Objective

if TYPE_CHECKING:
    import xarray as xr


def tail_patch(
    objective: Objective,
    quantity: Quantity,
    attribution: ArrayLike | xr.DataArray,
    *,
    k: int = 1,
    rate: float = 1e-3,
) -> xr.DataArray:
    """Return by how much one step on each target's k strongest samples lowers the target.

    ``f(θ) − f(θ − η ∇ (1/k) Σ_{top k} ℓ_i)`` from the trained parameters (Chang et al. 2024, arXiv
    2410.17413): for a loss, how much more likely the answer becomes. It asks no retraining, so it
    is what is measured of language models; it favors gradient products, which predict just that.

    Parameters
    ----------
    objective:
        What was trained, of one term.
    quantity:
        The targets, such as the losses of some samples.
    attribution:
        Effects of removal on them, (target, point), of all training points.
    k:
        How many of the largest entries to step on.
    rate:
        η.

    Returns
    -------
    xarray.DataArray
        Dimension (target,); the attribute ``mean`` is the score.

    Raises
    ------
    ValueError
        If the objective has several terms, shapes do not fit, or effects are not finite.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation import tail_patch
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
    >>> objective = wh.Objective.supervised(model, (x, y), wh.Squared())
    >>> lowered = tail_patch(objective, wh.Loss((x[:1], y[:1])), [[1.0, 0.0]], rate=0.1)
    >>> lowered.values.round(3)                   # 1² − (1 − 0.2)²
    array([0.36])
    """
    import xarray as xr  # slow to import

    check_quantity(quantity)
    _checks.count("k", k)
    _checks.positive("rate", rate)
    if len(objective.data_terms) != 1:
        listed = ", ".join(objective.data_terms)
        raise ValueError(f"a tail patch is of one term, the objective has {listed}")
    (name,) = objective.data_terms
    before = quantity.values(objective)
    effects = np.asarray(attribution, dtype=float)
    expected = (len(before), objective.n_points)
    if effects.shape != expected or k > objective.n_points:
        raise ValueError(
            f"give effects (target, point) of shape {expected}, and k of at most "
            f"{objective.n_points}, got {effects.shape} and {k}"
        )
    _checks.finite("attribution", effects)

    parameters = objective.parameters
    theta = parameters.vector()
    lowered = []
    for target, row in enumerate(effects):
        strongest = np.argsort(-row, kind="stable")[:k]
        # A step on the samples alone, without the pull of a penalty.
        chosen = objective.subset({name: torch.as_tensor(strongest.copy())})
        _, gradient = chosen.with_weight_decay(0.0).loss_and_gradient()
        with parameters.at(theta - rate * gradient):
            after = quantity.values(objective)[target]
        lowered.append(float(before[target] - after))

    values = np.asarray(lowered)
    return xr.DataArray(
        values,
        dims="target",
        name="tail_patch",
        attrs={"mean": float(values.mean()), "k": k},
    )
