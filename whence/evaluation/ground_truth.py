"""How well attribution methods predict what really happens: one point left out, or half of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whence import _checks
from whence._files import PathLike
from whence.attribution.arguments import TrainingPoints
from whence.attribution.method import Method
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.evaluation.lds import linear_datamodeling_score, random_subsets
from whence.evaluation.leaving_out import leave_one_out, leave_out
from whence.evaluation.ranks import spearman_rows
from whence.objective import Objective
from whence.subsets import Members, members

if TYPE_CHECKING:
    import xarray as xr


def leave_one_out_scores(
    methods: Mapping[str, Method],
    quantity: Quantities,
    points: Members,
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Return how well methods predict what leaving single training points out does.

    The points are left out one by one and the network refitted, see
    :func:`whence.leave_one_out`; the score of a method is the Spearman correlation, over these
    points, of what it predicts with what happened (Koh & Liang 2017, section 4.1).

    Parameters
    ----------
    methods:
        By names of your own, all of one objective.
    quantity:
        What to follow, of several targets or one.
    points:
        Which points to leave out: indices by term, or of the only term.
    out, progress, options:
        As in :func:`whence.leave_one_out`: a file that keeps finished refits, and how these go.

    Returns
    -------
    xarray.Dataset
        ``score`` (predictor, target), ``predicted`` (predictor, target, point) and ``actual``
        (target, point), with the labels of targets and points; attributes ``drift`` and
        ``stability`` of the refits.

    Raises
    ------
    ValueError
        If there are no methods, they are of several objectives, or points or options are wrong.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation import leave_one_out_scores
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]
    >>> z = torch.rand(20, 3, dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, z)])
    >>> objective.parameters.assign(wh.refit(objective).theta)
    >>> numbers = leave_one_out_scores(
    ...     {"influence": wh.Influence(objective)}, wh.Loss({"data": z[:4]}), [0, 1, 2, 3, 4])
    >>> numbers.score.dims, numbers.actual.shape
    (('predictor', 'target'), (4, 5))
    """
    import xarray as xr  # slow to import

    objective = objective_of(methods)
    what = as_quantity(quantity)
    chosen = members(objective, "the points to leave out", points)
    actual = leave_one_out(
        objective, what, chosen, out=out, progress=progress, **options
    )

    predicted = []
    scores = []
    for method in methods.values():
        values = method.attribute(what, TrainingPoints(chosen)).values
        predicted.append(values)
        scores.append(spearman_rows(actual.values, values))

    names = list(methods)
    table = xr.Dataset(
        {
            "score": (("predictor", "target"), np.stack(scores)),
            "predicted": (("predictor", "target", "point"), np.stack(predicted)),
            "actual": actual,
        },
        coords={"predictor": names},
    )
    return table.assign_attrs(actual.attrs)


def lds_scores(
    methods: Mapping[str, Method],
    quantity: Quantities,
    *,
    subsets: int = 20,
    share: float = 0.5,
    seed: int = 0,
    out: PathLike | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Return the linear datamodeling scores of methods on an objective.

    The network is refitted on random subsets of all training points, from its present parameters,
    and the drift of a refit on all of them taken off. What a method predicts of a subset is the sum
    of its entries over the points left out; the score is the Spearman correlation over subsets
    (Park et al. 2023, arXiv 2303.14186).

    Parameters
    ----------
    methods:
        By names of your own, all of one objective.
    quantity:
        What to follow, of several targets or one.
    subsets, share, seed:
        How many subsets, the share of all points that each keeps, and what draws them.
    out, progress, options:
        As in :func:`whence.leave_one_out`.

    Returns
    -------
    xarray.Dataset
        ``score`` (predictor, target); attributes ``drift`` and ``stability`` of the refits.

    Raises
    ------
    ValueError
        If there are no methods, they are of several objectives, or an option is out of range.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation import lds_scores
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :2],)) - z[:, 2:]
    >>> z = torch.rand(60, 3, dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, z)])
    >>> objective.parameters.assign(wh.refit(objective).theta)
    >>> numbers = lds_scores(
    ...     {"influence": wh.Influence(objective)}, wh.Loss({"data": z[:4]}), share=0.8)
    >>> numbers.score.dims, bool(numbers.score.mean() > 0.5)
    (('predictor', 'target'), True)
    """
    import xarray as xr  # slow to import

    objective = objective_of(methods)
    what = as_quantity(quantity)
    masks = random_subsets(objective.n_points, subsets, share, seed)
    groups = {str(k): left_out(objective, mask) for k, mask in enumerate(masks)}
    changes = leave_out(objective, what, groups, out=out, progress=progress, **options)

    scores = []
    for method in methods.values():
        effects = method.attribute(what)
        scores.append(linear_datamodeling_score(effects, masks, changes.values.T))

    stacked = np.stack([score.values for score in scores])
    return xr.Dataset(
        {"score": (("predictor", "target"), stacked)},
        coords={"predictor": list(methods)},
        attrs=changes.attrs,
    )


def objective_of(methods: Mapping[str, Method]) -> Objective:
    """Return the objective that all methods explain."""
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError(
            'give methods by name, such as {"influence": wh.Influence(objective)}, got '
            f"{_checks.describe(methods)}"
        )

    first = next(iter(methods.values())).objective
    for name, method in methods.items():
        if method.objective is not first:
            raise ValueError(
                f"the methods must explain one objective, but {name!r} has another: make all of "
                "them from the same"
            )
    return first


def left_out(objective: Objective, mask: np.ndarray) -> dict[str, torch.Tensor]:
    """Return by term which points a subset of all points, booleans (n,), leaves out."""
    parts = {}
    first = 0
    for name, term in objective.data_terms.items():
        n = len(term.points)
        of_term = ~mask[first : first + n]
        # A term of which nothing is left out is not named.
        if of_term.any():
            parts[name] = torch.as_tensor(of_term)
        first += n
    return parts
