"""What really happens when training points are left out: the network refitted without them.

Predictions are held against these refits, and ``damping_from_refits`` chooses the damping by them.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution import groups as sets
from whence.attribution.groups import Members, singles, without
from whence.attribution.influence import Influence
from whence.attribution.quality import FarFromMinimum
from whence.attribution.quantities import Quantity, Residual
from whence.curvature.exact import Exact
from whence.curvature.failures import SingularSystem
from whence.curvature.solvers import Damping, Solver
from whence.jacobian import Jacobian, self_product
from whence.ntk import TangentKernel
from whence.objective import Objective
from whence.parameters import Parameters
from whence.points import Points

if TYPE_CHECKING:
    import xarray as xr

Values = Callable[[Objective], Tensor]
"""``values(objective)`` returns targets (T,) at the network's parameters."""

Changes = tuple[Tensor, Tensor, float]
"""True changes (T, groups), the drift (T,) that was taken off, and the stability of the former."""

DAMPINGS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13)
LEAST_POINTS = 3
"""A rank correlation over fewer says nothing."""
STABLE = 0.5
"""Least stability of refits that a damping is chosen by."""


@dataclass(frozen=True, eq=False)
class Refit:
    """Where a refit ended.

    Parameters
    ----------
    theta:
        The parameters found, (P,).
    loss:
        L there, the anchor not included.
    gradient_norm:
        Norm of the gradient of what was minimised, the anchor included.
    steps:
        Steps taken.
    converged:
        Whether the gradient, or a whole step, fell to the tolerance.
    """

    theta: Tensor
    loss: float
    gradient_norm: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class _Options:
    steps: int = 50
    tolerance: float = 1e-10
    damping: float = 1e-8
    anchor: float = 0.0

    def __post_init__(self) -> None:
        _checks.count("steps", self.steps)
        _checks.positive("tolerance", self.tolerance, zero=True)
        _checks.positive("damping", self.damping)
        _checks.positive("anchor", self.anchor, zero=True)


def refit(
    objective: Objective,
    *,
    steps: int = 50,
    tolerance: float = 1e-10,
    damping: float = 1e-8,
    anchor: float = 0.0,
) -> Refit:
    """Minimise an objective from the network's current parameters θ₀ by damped Gauss–Newton.

    What is minimised is ``L(θ) + (anchor/2)·‖θ − θ₀‖²``; a step is ``−(JᵀJ + (anchor + μ)I)⁻¹∇``,
    primal or dual by size, with μ changed from step to step (Levenberg 1944; Marquardt 1963).
    With ``anchor`` the absolute λ of an influence this is what a damped prediction predicts
    (a proximal refit, Bae et al. 2022, arXiv 2209.05364). The same call gives the same result,
    and the network has the parameters again that it had, also after an error.

    Parameters
    ----------
    objective:
        What to minimise.
    steps:
        Most steps to take.
    tolerance:
        It has converged where ``‖∇‖ ≤ tolerance·‖J‖·‖ρ‖``, or where a step with no more than the
        first damping is at most ``tolerance·‖θ‖``.
    damping:
        First μ, relative to the mean diagonal entry of JJᵀ.
    anchor:
        Weight of the distance from θ₀, absolute.

    Raises
    ------
    ValueError
        If an option is out of range, or the loss is not finite at the start.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.refitting import refit
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> found = refit(objective)
    >>> round(float(found.theta), 9), found.converged              # Σxy / Σx²
    (1.6, True)
    """
    options = _Options(steps, tolerance, damping, anchor)
    with _restored(objective.parameters):
        return _Descent(objective, options).run(steps)


@contextlib.contextmanager
def _restored(parameters: Parameters) -> Iterator[None]:
    """Put the parameters back at the end, whatever happened."""
    theta = parameters.vector()
    try:
        yield
    finally:
        parameters.assign(theta)


class _Descent:
    """Levenberg–Marquardt on ``L + (anchor/2)·‖θ − θ₀‖²``, moving the network."""

    TRIES = 20
    GOOD, POOR = 0.5, 0.1
    """Gain ratios above which damping falls, and below which it rises."""
    DECREASE, INCREASE = 3.0, 2.0

    def __init__(self, objective: Objective, options: _Options) -> None:
        self._objective = objective
        self._parameters = objective.parameters
        self._options = options
        self._start = objective.parameters.vector()
        self._mu, self._done = 0.0, 0
        self._value = self._value_at(self._start)
        if not math.isfinite(self._value):
            raise ValueError(
                f"the loss is {self._value} at the network's parameters: a refit needs one that "
                "is finite"
            )

    def run(self, steps: int) -> Refit:
        """Go on until it has converged, no step helps, or it has taken so many in all."""
        settled = False
        while True:
            theta = self._parameters.vector()
            system = _System(self._objective, self._options.anchor, theta - self._start)
            if not self._mu:
                self._mu = self._options.damping * system.mean_diagonal
            settled |= system.gradient_norm <= self._options.tolerance * system.scale
            if settled or self._done >= steps:
                break
            moved, settled = self._step(system, theta)
            if not moved:
                break
            self._done += 1
        loss = float(self._objective.loss())
        return Refit(theta, loss, system.gradient_norm, self._done, settled)

    def _step(self, system: _System, theta: Tensor) -> tuple[bool, bool]:
        """Take one accepted step; return whether there was one, and whether it was tiny."""
        tiny = self._options.tolerance * (self._options.tolerance + float(theta.norm()))
        first = self._options.damping * system.mean_diagonal
        settled, grow = False, self.INCREASE
        for _ in range(self.TRIES):
            delta = system.solve(self._mu)
            if delta is not None:
                settled |= self._mu <= first and float(delta.norm()) <= tiny
                value = self._value_at(theta + delta)
                if self._helps(value, theta + delta, system.gradient_norm):
                    self._parameters.assign(theta + delta)
                    gain = (self._value - value) / system.promised(delta, self._mu)
                    if gain > self.GOOD:
                        self._mu /= self.DECREASE
                    elif gain < self.POOR:
                        self._mu *= self.INCREASE
                    self._value = value
                    return True, settled
            self._mu, grow = self._mu * grow, 2 * grow
        return False, settled

    def _value_at(self, theta: Tensor) -> float:
        """Return what is minimised."""
        distance = float((theta - self._start).square().sum())
        loss = float(self._objective.loss(self._parameters.substituted(theta)))
        return loss + 0.5 * self._options.anchor * distance

    def _helps(self, value: float, theta: Tensor, norm: float) -> bool:
        """Tell whether the loss falls, or where that is lost in rounding, whether ‖∇‖ does."""
        gained = self._value - value
        rounding = 8 * torch.finfo(theta.dtype).eps * self._value
        if not abs(gained) <= rounding:  # as it is for a value that is not finite
            return gained > 0
        with _restored(self._parameters):
            self._parameters.assign(theta)
            gradient = self._objective.loss_and_gradient()[1]
        return (
            float((gradient + self._options.anchor * (theta - self._start)).norm())
            < norm
        )


class _System:
    """``(A + νI) δ = −∇`` with ν = anchor + μ, from d = θ − θ₀: the smaller of primal and dual.

    Dual: ``δ = −Jᵀ(JJᵀ + νI)⁻¹(ρ − αJd) − αd`` with α = anchor/ν.
    """

    def __init__(self, objective: Objective, anchor: float, moved: Tensor) -> None:
        jacobian = Jacobian(objective, scaled=True)
        count, size = jacobian.shape
        self._anchor, self._moved, self._kernel = anchor, moved, None
        if count < size:
            self._kernel = kernel = TangentKernel(objective)
            self._matrix, rho = kernel.gram, kernel.right
            gradient = kernel.rmatvec(rho)
            # Where nothing pulls back, J d is not needed.
            self._pulled = (
                jacobian.matvec(moved) if anchor and bool(moved.any()) else 0 * rho
            )
        else:
            rows, rho = jacobian.system()
            self._matrix, gradient = self_product(rows.T), rows.T @ rho
        self._rho, self.gradient = rho, gradient + anchor * moved
        self.gradient_norm = float(self.gradient.norm())
        trace = float(self._matrix.trace())
        self.mean_diagonal, self.scale = trace / count, trace**0.5 * float(rho.norm())

    def solve(self, mu: float) -> Tensor | None:
        """Return δ, or None where the system is not positive definite to working precision."""
        shift = self._anchor + mu
        if self._kernel is None:
            return _solved(self._matrix, shift, -self.gradient)
        share = self._anchor / shift
        weights = _solved(self._matrix, shift, self._rho - share * self._pulled)
        return (
            None
            if weights is None
            else -self._kernel.rmatvec(weights) - share * self._moved
        )

    def promised(self, delta: Tensor, mu: float) -> float:
        """Return the decrease that the quadratic model promises of a solution δ."""
        return -0.5 * float(self.gradient @ delta) + 0.5 * mu * float(delta @ delta)


def _solved(matrix: Tensor, shift: float, right: Tensor) -> Tensor | None:
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    factor, info = torch.linalg.cholesky_ex(shifted)
    return (
        None
        if int(info)
        else torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
    )


def leave_out(
    objective: Objective,
    quantity: Quantity | Values,
    groups: Mapping[str, Members],
    **options: Any,
) -> xr.DataArray:
    """Return how a quantity really changes when groups of training points are removed.

    For each group the network is refitted from its current parameters without these points, the
    others keeping their weight w/N. The drift, which is what the same refit does with nothing
    left out, is taken off: ``f(θ_without) − f(θ_refitted)``.

    Parameters
    ----------
    objective:
        What was trained.
    quantity:
        What to follow, or a function of the objective that returns the targets' values (T,).
    groups:
        Points to leave out together, by name, see :func:`whence.attribution.groups.without`.
    options:
        ``steps``, ``tolerance``, ``damping`` and ``anchor``, as in :func:`refit`.

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
        If a group has no points or all, an unknown term, or an index twice or out of range.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.refitting import leave_out
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> found = leave_out(objective, lambda o: o.parameters.vector(), {"a": [0], "b": [1, 2]})
    >>> found.round(9).values                    # 7/5 − 9/6 of the first, … of the others
    array([[-0.1,  0.5]])
    """
    how = _Options(**options)
    chosen = sets.checked_groups(objective, groups)
    found = _changes(objective, quantity, list(chosen.values()), how)
    return _labelled(objective, quantity, found, how, sets.group_coordinates(chosen))


def leave_one_out(
    objective: Objective, quantity: Quantity | Values, points: Members, **options: Any
) -> xr.DataArray:
    """Return how a quantity really changes when single training points are removed.

    As :func:`leave_out` with each of ``points`` (indices by term, or of the only term) a group of
    its own; what :class:`whence.Influence` predicts (Cook 1977; Koh & Liang 2017). Dimensions
    (target, point), with the points' coordinates, ``term`` and ``index`` and in the order of the
    objective; parameters, attributes and errors are those of :func:`leave_out`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.refitting import leave_one_out
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return z[:, :1] * tensors["weight"] - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, xy)])
    >>> found = leave_one_out(objective, lambda o: o.parameters.vector(), [0, 1])
    >>> found.round(9).values                    # 3/2 − 8/5 and 2 − 8/5
    array([[-0.1,  0.4]])
    """
    how = _Options(**options)
    chosen = sets.members(objective, "the points to leave out", points)
    found = _changes(objective, quantity, singles(chosen), how)
    coords = sets.point_coordinates(objective, chosen)
    return _labelled(objective, quantity, found, how, coords).set_xindex("term")


def _changes(
    objective: Objective,
    quantity: Quantity | Values,
    groups: Sequence[sets.Chosen],
    options: _Options,
) -> Changes:
    values = quantity.values if isinstance(quantity, Quantity) else quantity
    if not callable(values):
        raise TypeError(
            "what to follow must be a quantity, such as wh.Output(points), or a function of the "
            f"objective, got {_checks.describe(quantity)}"
        )
    # Only the largest could leave nothing, and that error comes before any work.
    without(objective, max(groups, key=lambda group: sum(map(len, group.values()))))

    def refitted(one: Objective) -> Tensor:
        """Return the values after half of the steps and after all of them, (2, T)."""
        with _restored(objective.parameters):
            descent = _Descent(one, options)
            found = descent.run(options.steps // 2)
            halfway = values(objective).detach().clone()
            if not found.converged:
                descent.run(options.steps)
            return torch.stack([halfway, values(objective).detach()])

    start, whole = values(objective).detach().clone(), refitted(objective)
    refits = [refitted(without(objective, group)) - whole for group in groups]
    halfway, changes = torch.stack(refits, dim=2)
    stability = _agreement(changes.cpu().numpy(), halfway.cpu().numpy())
    return changes, whole[1] - start, stability


def _labelled(
    objective: Objective,
    quantity: Quantity | Values,
    found: Changes,
    options: _Options,
    coords: Mapping[str, tuple[str, np.ndarray]],
) -> xr.DataArray:
    import xarray as xr  # slow to import

    known = quantity if isinstance(quantity, Quantity) else None
    values, drift, stability = found
    return xr.DataArray(
        values.cpu().numpy(),
        dims=("target", next(iter(coords.values()))[0]),
        coords={
            **(sets.target_coordinates(objective, known) if known else {}),
            **coords,
        },
        name="change",
        attrs={
            "method": "refit",
            "quantity": known.label() if known else "",
            "sign": "change of the target when the points are removed from training",
            "drift": _rms(drift),
            "stability": stability,
            **asdict(options),
        },
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


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
    >>> from whence.attribution.refitting import DampingChoice
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


def damping_from_refits(
    objective: Objective,
    *,
    values: Sequence[float] = DAMPINGS,
    points: int = 10,
    targets: int = 50,
    seed: int = 0,
    curvature: Literal["gauss_newton", "hessian"] = "gauss_newton",
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
    >>> from whence.attribution.refitting import damping_from_refits, refit
    >>> network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     x = torch.cat([z, 1e-3 * z**2], 1)
    ...     return x @ tensors["weight"].T - torch.exp(z)
    >>> z = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, z)])
    >>> objective.parameters.assign(refit(objective).theta)
    >>> damping_from_refits(objective, values=(1e-1, 1e-10)).damping.value
    1e-10
    """
    tried = sorted(dict.fromkeys(values), reverse=True)
    if not tried:
        raise ValueError("values must name at least one relative damping, got none")
    for value in tried:
        _checks.positive("a relative damping", value)
    left_out, watched = _drawn(objective, points, targets, seed)
    parts = [Residual(p, name) for name, p in _points(objective, watched).items()]
    found = _changes(
        objective,
        lambda o: torch.cat([p.values(o) for p in parts]),
        left_out,
        _Options(steps),
    )
    _check_changes(found, steps)
    actual, removed = found[0].cpu().numpy(), _points(objective, left_out)
    scores, reason = {}, None
    for value in tried:
        influence = Influence(
            objective, damping=value, curvature=curvature, solver=solver or Exact()
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FarFromMinimum
                )  # the refits say it better
                predicted = np.concatenate(
                    [influence.attribute(p, removed) for p in parts]
                )
        except SingularSystem as error:  # larger dampings may do
            scores[value], reason = math.nan, error
        else:
            scores[value] = _agreement(actual, predicted)
    usable = [value for value in tried if not math.isnan(scores[value])]
    if not usable:
        raise ValueError(
            f"none of the dampings {tried} gives a prediction: {reason}"
        ) from reason
    # They fall from one to the next, and of equals max takes the first.
    best = max(usable, key=lambda value: scores[value])
    return DampingChoice(Damping(best), scores, points, len(actual), found[2])


def _drawn(
    objective: Objective, points: int, targets: int, seed: int
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return the points to leave out and those to watch, each a set of its own."""
    _checks.count("points", points)
    _checks.count("targets", targets)
    n = objective.n_points
    if not LEAST_POINTS <= points < n:
        raise ValueError(
            f"points must lie in {LEAST_POINTS} … {n - 1} for an objective of {n} training "
            f"points, got {points}: ranks need a few, and some must be left to watch"
        )
    every = singles(
        {m: np.arange(len(term.points)) for m, term in objective.terms.items()}
    )
    order = np.random.default_rng(seed).permutation(n)
    left_out, watched = (
        np.sort(order[a:b]) for a, b in ((0, points), (points, points + targets))
    )
    return [every[i] for i in left_out], [every[i] for i in watched]


def _points(objective: Objective, drawn: Sequence[sets.Chosen]) -> dict[str, Points]:
    """Return single points by term, in the order in which they were drawn from each."""
    names = dict.fromkeys(name for one in drawn for name in one)
    together = {n: np.concatenate([one[n] for one in drawn if n in one]) for n in names}
    return sets.points_at(objective, together)


def _check_changes(found: Changes, steps: int) -> None:
    change, drift, stability = _rms(found[0]), _rms(found[1]), found[2]
    said = (
        f"refitted for {steps} steps without a point the targets change by {change:.2e}, with "
        f"nothing left out by {drift:.2e}, and the changes after half of the steps agree with "
        f"those after all with a rank correlation of {stability:.2f}"
    )
    further = (
        "train further, for example by Gauss–Newton, or give the damping as a number"
    )
    if not stability >= STABLE:
        raise ValueError(
            f"the network is too far from a minimum to refit it: {said}; {further}"
        )
    if not drift <= change:
        warnings.warn(
            f"the network is not at a minimum: {said}; {further}", stacklevel=3
        )


def _agreement(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over rows of the Spearman correlation; a row without ranks counts as 0."""
    from scipy.stats import rankdata  # slow to import

    a, b = (
        rankdata(table, axis=1) - (table.shape[1] + 1) / 2
        for table in (actual, predicted)
    )
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(np.mean((a * b).sum(axis=1) / np.where(norm > 0, norm, 1)))
