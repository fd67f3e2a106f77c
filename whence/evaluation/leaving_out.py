"""What really happens when training points are left out: the network refitted without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence._files import PathLike
from whence.attribution.groups import group_coordinates
from whence.attribution.labels import (
    Coordinates,
    point_coordinates,
    target_coordinates,
)
from whence.attribution.quantities import Quantity
from whence.evaluation.finished_refits import ALL, FinishedRefits, key_of
from whence.evaluation.ranks import rank_agreement
from whence.objective import Objective
from whence.refits import Descent, RefitOptions
from whence.subsets import (
    Chosen,
    Members,
    check_groups,
    drop_points,
    members,
    n_members,
    points_at,
    single_points,
)

if TYPE_CHECKING:
    import xarray as xr

Values = Callable[[Objective], Tensor]
"""``values(objective)`` returns targets (T,) at the network's parameters."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What refits without some points changed.

    Parameters
    ----------
    values:
        True changes (T, groups), the drift taken off.
    drift:
        What the same refit with nothing left out changes, (T,).
    stability:
        Mean Spearman correlation of the changes after half of the steps with those after all.
    """

    values: Tensor
    drift: Tensor
    stability: float


def leave_out(
    objective: Objective,
    quantity: Quantity | Values,
    groups: Mapping[str, Members],
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.DataArray:
    """Return how a quantity really changes when groups of training points are removed.

    For each group the network is refitted from its current parameters without these points, the
    others keeping their weight w/N. The drift, which is what the same refit does with nothing
    left out, is taken off: ``f(θ_fewer) − f(θ_refitted)``.

    Parameters
    ----------
    objective:
        What was trained.
    quantity:
        What to follow, or a function of the objective that returns the targets' values (T,).
    groups:
        Points to leave out together, by name, see :func:`whence.drop_points`.
    out:
        An ``.npz`` file that keeps each refit when it is finished: called again with the same
        arguments, only those that are left are made.
    progress:
        Whether a bar is shown after two seconds.
    options:
        ``steps``, ``tolerance``, ``damping``, ``anchor`` and ``curvature``, as in :func:`refit`.

    Returns
    -------
    xarray.DataArray
        Dimensions (target, group); ``size`` is a group's number of points. Attributes: the
        options, ``drift`` (root mean square over targets) and ``stability``: the mean Spearman
        correlation with the changes after half of the steps, above which no prediction can be
        expected to correlate with them.

    Raises
    ------
    ValueError
        If a group has no points or all, an unknown term, or an index twice or out of range; if
        ``out`` holds other refits, or is no ``.npz``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.evaluation.leaving_out import leave_out
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> changes = leave_out(objective, lambda o: o.parameters.vector(), {"a": [0], "b": [1, 2]})
    >>> changes.round(9).values                    # 7/5 − 9/6 of the first, … of the others
    array([[-0.1,  0.5]])
    """
    settings = RefitOptions(**options)
    chosen = check_groups(objective, groups)
    changes = changes_without(
        objective, quantity, list(chosen.values()), settings, out, progress
    )
    coordinates = group_coordinates(chosen)
    return _labelled(objective, quantity, changes, settings, "group", coordinates)


def leave_one_out(
    objective: Objective,
    quantity: Quantity | Values,
    points: Members,
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.DataArray:
    """Return how a quantity really changes when single training points are removed.

    As :func:`leave_out` with each of ``points`` (indices by term, or of the only term) a group of
    its own; what :class:`whence.Influence` predicts (Cook 1977; Koh & Liang 2017). Dimensions
    (target, point), with the points' coordinates, ``term`` and ``index`` and in the order of the
    objective; parameters, attributes and errors are those of :func:`leave_out`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> changes = wh.leave_one_out(objective, lambda o: o.parameters.vector(), [0, 1])
    >>> changes.round(9).values                    # 3/2 − 8/5 and 2 − 8/5
    array([[-0.1,  0.4]])
    """
    settings = RefitOptions(**options)
    chosen = members(objective, "the points to leave out", points)
    singles = single_points(chosen)
    changes = changes_without(objective, quantity, singles, settings, out, progress)
    coordinates = point_coordinates(objective, points_at(objective, chosen), chosen)
    array = _labelled(objective, quantity, changes, settings, "point", coordinates)
    return array.set_xindex("term")


def changes_without(
    objective: Objective,
    quantity: Quantity | Values,
    groups: Sequence[Chosen],
    options: RefitOptions,
    out: PathLike | None = None,
    progress: bool = False,
) -> Changes:
    """Return what leaving out each group really changes, by a refit for each and one for all."""
    values = quantity.values if isinstance(quantity, Quantity) else quantity
    if not callable(values):
        raise TypeError(
            "what to follow must be a quantity, such as wh.Output(points), or a function of the "
            f"objective, got {_checks.describe(quantity)}"
        )
    # Only the largest could leave nothing, and that error comes before any work.
    drop_points(objective, max(groups, key=n_members))

    parameters = objective.parameters

    def refitted(some_points: Objective) -> Tensor:
        """Return the values after half of the steps and after all of them, (2, T)."""
        # The descent moves the network: at() puts it back where it was.
        with parameters.at(parameters.vector()):
            descent = Descent(some_points, options)
            halfway_fit = descent.run(options.steps // 2)
            halfway = values(objective).detach().clone()
            if not halfway_fit.converged:
                descent.run(options.steps)
            return torch.stack([halfway, values(objective).detach()])

    start = values(objective).detach().clone()
    # Without a file nothing is compared, so that nothing need be told apart.
    key = "" if out is None else key_of(objective, groups, options, start)
    finished = FinishedRefits(out, key)

    def values_without(number: int, some_points: Objective) -> Tensor:
        """Return the values after a refit, which is made unless it is finished already."""
        known = finished.get(number, start)
        if known is not None:
            return known
        after = refitted(some_points)
        finished.put(number, after)
        return after

    with_all = values_without(ALL, objective)
    differences = []
    bar = tqdm(groups, "refits", delay=2, leave=False, disable=not progress)
    for number, group in enumerate(bar):
        fewer = drop_points(objective, group)
        differences.append(values_without(number, fewer) - with_all)  # (2, T)

    halfway, changes = torch.stack(differences, dim=2)  # (T, groups) each
    stability = rank_agreement(changes.cpu().numpy(), halfway.cpu().numpy())
    # Row 1 of (2, T) is after all of the steps.
    return Changes(changes, with_all[1] - start, stability)


def _labelled(
    objective: Objective,
    quantity: Quantity | Values,
    changes: Changes,
    options: RefitOptions,
    dimension: str,
    coordinates: Coordinates,
) -> xr.DataArray:
    import xarray as xr  # slow to import

    label = ""
    targets: Coordinates = {}
    if isinstance(quantity, Quantity):
        label = quantity.label()
        targets = target_coordinates(quantity.targets(objective))

    return xr.DataArray(
        changes.values.cpu().numpy(),
        dims=("target", dimension),
        coords={**targets, **coordinates},
        name="change",
        attrs={
            "method": "refit",
            "quantity": label,
            "sign": "change of the target when the points are removed from training",
            "drift": root_mean_square(changes.drift),
            "stability": changes.stability,
            **asdict(options),
        },
    )


def root_mean_square(values: Tensor) -> float:
    """Return ``√mean(v²)``."""
    return float(values.square().mean().sqrt())
