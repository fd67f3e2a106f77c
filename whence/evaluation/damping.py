"""The damping by which influences predict refits best: a choice by experiment."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.influence import CurvatureName, Influence
from whence.attribution.quality import FarFromMinimum
from whence.attribution.quantities import Residual
from whence.curvature.exact import Exact
from whence.curvature.failures import SingularSystem
from whence.curvature.solvers import Damping, Solver
from whence.evaluation.leaving_out import (
    Changes,
    changes_without,
    root_mean_square,
)
from whence.evaluation.ranks import rank_agreement
from whence.objective import Objective
from whence.points import Points
from whence.refits import RefitOptions
from whence.subsets import Chosen, all_points, points_at, single_points

DAMPINGS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13)
"""Relative dampings that are tried by default."""
MIN_POINTS = 3
"""A rank correlation over fewer says nothing."""
MIN_STABILITY = 0.5
"""Least stability of refits that a damping is chosen by."""


@dataclass(frozen=True)
class DampingChoice:
    """The damping whose predictions agree best with refits, and how well each did.

    Parameters
    ----------
    damping:
        The relative damping chosen.
    scores:
        Mean over targets of the Spearman correlation over points, by relative damping, falling;
        NaN where the system was singular.
    points, targets:
        How many points were left out, and how many scalars were followed.
    stability:
        The same correlation between the true changes after half of the steps and after all:
        no prediction can be expected to score more.

    Examples
    --------
    >>> import whence as wh
    >>> from whence.evaluation.damping import DampingChoice
    >>> print(DampingChoice(wh.Damping(1e-8), {1e-4: 0.5, 1e-8: 0.9}, 10, 50, 0.97))
    relative damping 1e-08, by leaving out 10 points and following 50 targets (stability 0.97)
      1e-04   0.500
      1e-08   0.900  <-
    """

    damping: Damping
    scores: Mapping[float, float]
    points: int
    targets: int
    stability: float

    def __str__(self) -> str:
        lines = [
            f"relative damping {self.damping.value:.0e}, by leaving out {self.points} points "
            f"and following {self.targets} targets (stability {self.stability:.2f})"
        ]
        for value, score in self.scores.items():
            mark = "  <-" if value == self.damping.value else ""
            lines.append(f"  {value:.0e}  {score: .3f}{mark}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LeaveOneOut:
    """A rule for the damping: the one that predicts leaving single points out best.

    ``wh.Influence(objective, damping=wh.LeaveOneOut())`` refits the network without ten points,
    one at a time, and takes the damping whose predictions agree best, see
    :func:`whence.damping_from_refits`.

    Parameters
    ----------
    values:
        Relative dampings to try.
    points, targets:
        How many training points to leave out, and at how many others to follow the residual.
    seed:
        Of the draw.
    steps:
        Most steps of a refit.

    Raises
    ------
    ValueError
        When the damping is chosen: as :func:`whence.damping_from_refits`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z @ tensors["weight"].T - torch.exp(z)
    >>> z = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, z)])
    >>> objective.parameters.assign(wh.refit(objective).theta)
    >>> rule = wh.LeaveOneOut(values=(1.0, 1e-10), points=5)
    >>> wh.Influence(objective, damping=rule).damping
    Damping(value=1.0, relative=True)
    """

    values: Sequence[float] = DAMPINGS
    points: int = 10
    targets: int = 50
    seed: int = 0
    steps: int = 50

    def choose(
        self, objective: Objective, curvature: CurvatureName, solver: Solver
    ) -> Damping:
        """Return the damping for this objective, curvature and solver."""
        choice = damping_from_refits(
            objective,
            values=self.values,
            points=self.points,
            targets=self.targets,
            seed=self.seed,
            curvature=curvature,
            solver=solver,
            steps=self.steps,
        )
        return choice.damping


def damping_from_refits(
    objective: Objective,
    *,
    values: Sequence[float] = DAMPINGS,
    points: int = 10,
    targets: int = 50,
    seed: int = 0,
    curvature: CurvatureName = "gauss_newton",
    solver: Solver | None = None,
    steps: int = 50,
) -> DampingChoice:
    """Choose the relative damping that predicts leave-one-out best on this very objective.

    Training points drawn at random are left out one by one and the network refitted from its
    current parameters (:func:`leave_one_out`). The damping chosen has the largest mean, over
    targets, of the Spearman correlation over these points between influence and true change; of
    equals it is the largest damping. Targets are the residual components at other training
    points, so nothing but the objective is needed.

    Parameters
    ----------
    objective:
        What was trained, at a minimum or near one.
    values:
        Relative dampings to try.
    points, targets:
        How many training points to leave out, and at how many others to follow the residual.
    seed:
        Of the draw.
    curvature, solver:
        As in :class:`whence.Influence`; by default :class:`whence.Exact`.
    steps:
        Most steps of a refit.

    Raises
    ------
    ValueError
        If there are too few points, the network is so far from a minimum that what leaving a
        point out does still changes with the steps of the refit, or every damping is singular.
        A drift above the changes is a warning.

    Examples
    --------
    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     x = torch.cat([z, 1e-3 * z**2], 1)
    ...     return x @ tensors["weight"].T - torch.exp(z)
    >>> z = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, z)])
    >>> objective.parameters.assign(wh.refit(objective).theta)
    >>> wh.damping_from_refits(objective, values=(1e-1, 1e-10)).damping.value
    1e-10
    """
    # Falling, each once.
    dampings = sorted(set(values), reverse=True)
    if not dampings:
        raise ValueError("values must name at least one relative damping, got none")
    for value in dampings:
        _checks.positive("a relative damping", value)

    left_out, followed = draw_points(objective, points, targets, seed)
    residuals = []
    for name, of_term in _by_term(objective, followed).items():
        residuals.append(Residual(of_term, name))

    def followed_values(some_points: Objective) -> Tensor:
        return torch.cat([residual.values(some_points) for residual in residuals])

    changes = changes_without(objective, followed_values, left_out, RefitOptions(steps))
    check_changes(changes, steps)

    actual = changes.values.cpu().numpy()
    removed = _by_term(objective, left_out)
    scores: dict[float, float] = {}
    failure: SingularSystem | None = None
    for value in dampings:
        influence = Influence(
            objective,
            damping=value,
            curvature=curvature,
            solver=solver or Exact(),
        )
        try:
            predicted = _predicted(influence, residuals, removed)
        except SingularSystem as error:  # which a larger damping is not
            scores[value] = math.nan
            failure = error
        else:
            scores[value] = rank_agreement(actual, predicted)

    usable = [value for value in dampings if not math.isnan(scores[value])]
    if not usable:
        raise ValueError(
            f"none of the dampings {dampings} gives a prediction: {failure}"
        ) from failure
    # They fall from one to the next, and of equals max takes the first.
    best = max(usable, key=lambda value: scores[value])
    return DampingChoice(Damping(best), scores, points, len(actual), changes.stability)


def _predicted(
    influence: Influence,
    residuals: Sequence[Residual],
    removed: Mapping[str, Points],
) -> np.ndarray:
    """Return the influences of removed points on the followed residuals, (T, points)."""
    with warnings.catch_warnings():
        # How far the network is from a minimum the refits say better.
        warnings.simplefilter("ignore", FarFromMinimum)
        rows = [influence.attribute(residual, removed) for residual in residuals]
    return np.concatenate(rows)


def draw_points(
    objective: Objective, points: int, targets: int, seed: int
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return the points to leave out and those to follow, each a set of its own."""
    _checks.count("points", points)
    _checks.count("targets", targets)
    n = objective.n_points
    if not MIN_POINTS <= points < n:
        raise ValueError(
            f"points must lie in {MIN_POINTS} … {n - 1} for an objective of {n} training "
            f"points, got {points}: ranks need a few, and some must be left to watch"
        )

    singles = single_points(all_points(objective))
    # Both are cut from one permutation, so that no point is left out and followed.
    order = np.random.default_rng(seed).permutation(n)
    left_out = np.sort(order[:points])
    followed = np.sort(order[points : points + targets])
    return [singles[i] for i in left_out], [singles[i] for i in followed]


def _by_term(objective: Objective, singles: Sequence[Chosen]) -> dict[str, Points]:
    """Return single points by term, in the order in which they were drawn from each."""
    indices: dict[str, list[np.ndarray]] = {}
    for single in singles:
        for name, index in single.items():
            indices.setdefault(name, []).append(index)
    chosen = {name: np.concatenate(parts) for name, parts in indices.items()}
    return points_at(objective, chosen)


def check_changes(changes: Changes, steps: int) -> None:
    """Raise where refits are still under way; warn where the network drifts without any reason."""
    size = root_mean_square(changes.values)
    drift = root_mean_square(changes.drift)
    message = (
        f"refitted for {steps} steps without a point the targets change by {size:.2e}, with "
        f"nothing left out by {drift:.2e}, and the changes after half of the steps agree with "
        f"those after all with a rank correlation of {changes.stability:.2f}"
    )
    remedy = (
        "train further, for example by Gauss–Newton, or give the damping as a number"
    )

    # Negated, so that NaN counts as too little and too much.
    if not changes.stability >= MIN_STABILITY:
        raise ValueError(
            f"the network is too far from a minimum to refit it: {message}; {remedy}"
        )
    if not drift <= size:
        warnings.warn(
            f"the network is not at a minimum: {message}; {remedy}", stacklevel=3
        )
