"""Sets of training points: what removing all of a set at once does, from one factorisation.

With J the scaled Jacobian (``JᵀJ = A``, ``Jᵀρ = ∇L``), ``B = A + λI``, S the rows of the removed
points, ``Q = J_S B⁻¹ J_Sᵀ`` and ``e = ρ − J B⁻¹∇L`` what ρ is where the Gauss–Newton model has its
minimum (ρ itself, at one), removing them moves that minimum by ``Δθ = B⁻¹ J_Sᵀ (I − Q)⁻¹ e_S``
(Cook & Weisberg 1982; Woodbury). The sum of influences has ρ for e and leaves ``(I − Q)⁻¹`` out:
it forgets that the points of a set stand in for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution import labels
from whence.attribution.influence import Influence
from whence.attribution.method import Solved
from whence.attribution.quantities import Quantity
from whence.curvature.operators import GaussNewtonMatrix
from whence.jacobian import Jacobian
from whence.losses import NO_SPAN
from whence.objective import Objective
from whence.points import MAX_ROW_BYTES, Points

if TYPE_CHECKING:
    import xarray as xr

Indices = Sequence[int] | np.ndarray | Tensor
"""Which points of a term: their indices, or a boolean mask of its length."""

Members = Mapping[str, Indices] | Indices
"""Which points of an objective: indices by term, or of the only term."""

Chosen = Mapping[str, np.ndarray]
"""Checked indices by term, ascending, terms in the order of the objective."""

COPIES = 8
"""Matrices of the size of a block of right-hand sides that solving for it may take."""
UNCERTAIN = 1e-6
"""Most that a solver's residual may blur a leverage: approximate solvers would blur all."""


# --- which points ------------------------------------------------------------------------------


def members(objective: Objective, what: str, given: Members) -> dict[str, np.ndarray]:
    """Return checked indices by term, ascending, in the order of the objective's terms.

    A term that is unknown, an index that repeats or is out of range, a mask of another length and
    no points at all are errors that begin with ``what``.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.groups import members
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"]
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> objective = wh.Objective(network, [wh.Term("data", residual, torch.ones(4, 1))])
    >>> members(objective, "the group 'a'", [2, 0])
    {'data': array([0, 2])}
    """
    if not isinstance(given, Mapping):
        if len(objective.terms) > 1:
            raise ValueError(
                f"{what}: the objective has terms {', '.join(objective.terms)}; give indices by "
                f"term, such as {{{next(iter(objective.terms))!r}: [0, 1]}}"
            )
        given = {next(iter(objective.terms)): given}
    for name in given:
        objective.term(name)
    found = {
        name: _indices(f"{what}, term {name!r}", given[name], len(term.points))
        for name, term in objective.terms.items()
        if name in given
    }
    kept = {name: indices for name, indices in found.items() if len(indices)}
    if not kept:
        raise ValueError(f"{what} has no points: name at least one")
    return kept


def _indices(what: str, given: Indices, n: int) -> np.ndarray:
    table = (
        given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    )
    if table.ndim != 1:
        raise ValueError(
            f"{what}: indices must be a list or a vector, got {_checks.describe(given)}"
        )
    if not table.size:
        return np.empty(0, dtype=np.int64)
    if table.dtype.kind == "b":
        if len(table) != n:
            raise ValueError(f"{what}: a mask must have length {n}, got {len(table)}")
        return np.flatnonzero(table)
    if table.dtype.kind not in "iu":
        raise TypeError(
            f"{what}: indices must be integers or booleans, got {table.dtype}"
        )
    outside = table[(table < 0) | (table >= n)]
    if len(outside):
        raise ValueError(f"{what}: indices must lie in 0 … {n - 1}, got {outside[0]}")
    unique, counts = np.unique(table, return_counts=True)
    if len(unique) < len(table):
        twice = unique[counts > 1][0]
        raise ValueError(
            f"{what}: each point once, got index {twice} {counts.max()} times"
        )
    return unique.astype(np.int64)


def subset(objective: Objective, kept: Mapping[str, np.ndarray]) -> Objective:
    """Return the objective of some of its points only, each with the factor w/N it had.

    A term of n points out of N gets the weight ``w·n/N``; one that is not named is left out.
    """
    device = objective.parameters.device
    fewer = objective.subset(
        {n: torch.as_tensor(i, device=device) for n, i in kept.items()}
    )
    weights = {
        name: objective.terms[name].scale * len(indices)
        for name, indices in kept.items()
    }
    return fewer.with_terms(
        [replace(fewer.terms[n], weight=w) for n, w in weights.items()]
    )


def without(objective: Objective, points: Members) -> Objective:
    """Return the same objective with these points removed; the others keep their weight w/N.

    A term that loses n of its N points gets the weight ``w·(N−n)/N``, so that
    ``L_without(θ) = L(θ) − Σ_removed (w/N) ℓ(z)`` at every θ; one that loses all is dropped.

    ``points`` are indices (or a mask) by term, or of the only term.

    Raises
    ------
    ValueError
        If nothing would be left, or an index is out of range, repeated, or its term unknown.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.attribution.groups import without
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"]
    >>> objective = wh.Objective(network, [wh.Term("data", residual, torch.ones(4, 1))])
    >>> fewer = without(objective, [1])
    >>> len(fewer.term("data").points), fewer.term("data").weight, fewer.term("data").scale
    (3, 0.75, 0.25)
    """
    removed = members(objective, "the points to leave out", points)
    kept = {
        name: np.setdiff1d(np.arange(len(term.points)), removed.get(name, ()))
        for name, term in objective.terms.items()
    }
    kept = {name: indices for name, indices in kept.items() if len(indices)}
    if not kept:
        raise ValueError(
            f"nothing would be left: all {objective.n_points} points of the objective are to be "
            "removed; keep at least one"
        )
    return subset(objective, kept)


def singles(chosen: Chosen) -> list[dict[str, np.ndarray]]:
    """Return each point as a set of its own."""
    return [
        {n: indices[i : i + 1]}
        for n, indices in chosen.items()
        for i in range(len(indices))
    ]


def points_at(objective: Objective, chosen: Chosen) -> dict[str, Points]:
    """Return the chosen training points by term."""
    return {n: objective.terms[n].points[torch.as_tensor(i)] for n, i in chosen.items()}


def checked_groups(
    objective: Objective, groups: Mapping[str, Members]
) -> dict[str, dict[str, np.ndarray]]:
    """Return every group's indices by term; errors name the group."""
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(
            "groups must map names to points, such as {'left': [0, 1]} or "
            f"{{'left': {{'pde': mask}}}}, got {_checks.describe(groups)}"
        )
    return {
        name: members(objective, f"the group {name!r}", g) for name, g in groups.items()
    }


# --- labels ------------------------------------------------------------------------------------


def group_coordinates(
    groups: Mapping[str, Chosen],
) -> dict[str, tuple[str, np.ndarray]]:
    """Return the names and sizes of groups as coordinates of dimension group."""
    sizes = np.asarray([sum(map(len, chosen.values())) for chosen in groups.values()])
    return {
        "group": ("group", np.asarray(list(groups), dtype=object)),
        "size": ("group", sizes),
    }


def point_coordinates(objective: Objective, chosen: Chosen) -> labels.Coordinates:
    """Return the coordinates, term and index of training points as those of dimension point."""
    return labels.point_coordinates(objective, points_at(objective, chosen), chosen)


def target_coordinates(objective: Objective, quantity: Quantity) -> labels.Coordinates:
    """Return the coordinates of a quantity's targets under the names that attributions use."""
    return labels.target_coordinates(quantity.targets(objective))


def _attributes(rows: _SolvedRows) -> dict[str, str | int | float]:
    influence = rows.influence
    loss, gradient = influence.objective.loss_and_gradient()
    return {
        "curvature": influence.curvature,
        "solver": influence.solver.name,
        "solver_residual": rows.quality.residual,
        "solver_converged": int(rows.quality.converged),
        "solver_message": rows.quality.message,
        **influence.state().spectrum.attributes(),
        "gradient_norm": float(gradient.norm()),
        "loss": loss,
    }


# --- effects of groups -------------------------------------------------------------------------


def group_influence(
    influence: Influence,
    quantity: Quantity,
    groups: Mapping[str, Members],
    method: Literal["exact", "first_order"] = "exact",
) -> xr.DataArray:
    """Return the predicted change of a quantity when whole groups of points are removed.

    ``∇fᵀ B⁻¹ J_Sᵀ (I − Q)⁻¹ e_S`` with ``Q = J_S B⁻¹ J_Sᵀ`` for the group S and
    ``e = ρ − J B⁻¹∇L``; the other points keep their weight w/N. It is exact for linear least
    squares without damping (Cook & Weisberg 1982, *Residuals and Influence in Regression*). With
    damping λ, and away from a minimum, it is the difference that the group makes to the minimiser
    of ``L + (λ/2)·‖θ − θ̂‖²``, which ``leave_out(…, anchor=λ)`` finds by refitting. Positive:
    removing the group raises f.

    Parameters
    ----------
    influence:
        Whose objective, factorisation, damping and solver to use, with Gauss–Newton curvature.
    quantity:
        What to explain, see :mod:`whence.attribution.quantities`.
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
    >>> from whence.attribution.groups import group_influence
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
    >>> found = group_influence(influence, wh.Output(xy[:1]), {"a": [0], "b": [1, 2]})
    >>> found.round(9).values                    # 7/5 − 9/6 and 2/1 − 9/6
    array([[-0.1,  0.5]])
    """
    import xarray as xr  # slow to import

    _checks.one_of("method", method, ("exact", "first_order"))
    _check_gauss_newton(influence)
    if not isinstance(quantity, Quantity):
        raise TypeError(
            "what to explain must be a quantity, such as wh.Output(points) or wh.Loss(), got "
            f"{quantity!r}"
        )
    if method == "exact":
        _check_spans(influence)
    objective = influence.objective
    chosen = checked_groups(objective, groups)
    targets = target_coordinates(objective, quantity)
    n_targets = len(next(iter(targets.values()))[1])
    _check_size(influence, chosen, n_targets, exact=method == "exact")
    rows = _SolvedRows(influence)
    changes = (
        _changes(rows, chosen) if method == "exact" else _first_order(rows, chosen)
    )
    matrix = changes.new_empty(n_targets, len(chosen))
    start = 0
    for block in quantity.gradients(objective):
        matrix[start : start + len(block)] = block @ changes
        start += len(block)
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
            **_attributes(rows),
        },
    )


def _check_gauss_newton(influence: Influence) -> None:
    if influence.curvature != "gauss_newton":
        raise ValueError(
            "effects of groups and leverages are algebra on the rows of the Gauss–Newton matrix, "
            f"got an influence with curvature={influence.curvature!r}: use "
            "Influence(objective, curvature='gauss_newton')"
        )


def _check_spans(influence: Influence) -> None:
    if not all(term.loss.spans for term in influence.objective.terms.values()):
        raise ValueError(NO_SPAN)


def _changes(rows: _SolvedRows, groups: Mapping[str, Chosen]) -> Tensor:
    """Return Δθ of every group, (P, groups)."""
    rights = []
    for name, chosen in groups.items():
        dense, e = rows.system(chosen)
        weights = _weighted(*rows.gram(dense), e)
        if weights is None:
            raise ValueError(
                f"removing the group {name!r} leaves a direction of the parameters that no other "
                f"point determines (I − Q is singular to working precision with damping "
                f"λ = {rows.damping:.3g}): raise the damping, or use method='first_order'"
            )
        rights.append(dense.T @ weights)
    return rows.solve(torch.stack(rights, dim=1))


def _first_order(rows: _SolvedRows, groups: Mapping[str, Chosen]) -> Tensor:
    gradients = [
        subset(rows.objective, g).loss_and_gradient()[1] for g in groups.values()
    ]
    return rows.solve(torch.stack(gradients, dim=1))


def _weighted(gram: Tensor, floor: float, e: Tensor) -> Tensor | None:
    """Return ``(I − Q)⁻¹e``, or None where an eigenvalue of I − Q is lost in rounding."""
    left = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - gram
    least = max(floor, 10 * len(gram) * torch.finfo(gram.dtype).eps)
    if not float(torch.linalg.eigvalsh(left)[0]) > least:
        return None
    return torch.cholesky_solve(e.unsqueeze(1), torch.linalg.cholesky(left)).squeeze(1)


# --- single points -----------------------------------------------------------------------------


def leverage(influence: Influence) -> xr.DataArray:
    """Return the leverage of every training point, ``tr(Jᵢ B⁻¹ Jᵢᵀ)``, from 0 to m.

    How many of the effective parameters a point determines by itself; a point of leverage m is
    fitted whatever it says. The attribute ``effective_parameters`` is their sum ``tr(A B⁻¹)``
    (Hoaglin & Welsch 1978; the effective number of parameters, MacKay 1992).

    Parameters
    ----------
    influence:
        Whose objective, factorisation, damping and solver to use, with Gauss–Newton curvature.

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
    >>> from whence.attribution.groups import leverage
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,)) - 1
    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, wh.Term("data", residual, x))
    >>> found = leverage(wh.Influence(objective, damping=0.0))
    >>> found.round(9).values, round(found.attrs["effective_parameters"], 9)    # x² / Σx²
    (array([0.2, 0.8]), 1.0)
    """
    _check_gauss_newton(influence)
    _check_spans(influence)
    rows = _SolvedRows(influence)
    values = torch.cat([part.leverage() for part in rows.points()])
    return _pointwise(values, rows, "leverage", float(values.sum()))


def cooks_distance(influence: Influence) -> xr.DataArray:
    """Return Cook's distance of every training point, ``‖J Δθᵢ‖² / (p s²)``.

    Δθᵢ is the exact change of the parameters when point i is removed, ``p = tr(A B⁻¹)`` the
    effective number of parameters and ``s² = ‖e‖² / (R − p)`` the variance of the R scaled
    residuals e at the minimum. In linear regression without damping this is
    ``eᵢ² hᵢ / (p s² (1 − hᵢ)²)`` (Cook 1977, Technometrics 19). Above 1: the fit hangs on it.

    Parameters
    ----------
    influence:
        Whose objective, factorisation, damping and solver to use, with Gauss–Newton curvature.

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
    >>> from whence.attribution.groups import cooks_distance
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, wh.Term("data", residual, xy))
    >>> objective.parameters.assign(torch.tensor([1.5], dtype=torch.float64))
    >>> cooks_distance(wh.Influence(objective, damping=0.0)).round(6).values
    array([0.24, 0.  , 0.24])
    """
    _check_gauss_newton(influence)
    _check_spans(influence)
    rows = _SolvedRows(influence)
    operator = GaussNewtonMatrix(influence.objective).cached(
        influence.memory_budget // 2
    )
    squares, leverages, residuals = [], [], []
    for part in rows.points():
        changes = part.changes(rows.damping)
        squares.append((changes * operator.matmat(changes)).sum(0))
        leverages.append(part.leverage())
        residuals.append(part.residual.reshape(-1))
    effective, residual = float(torch.cat(leverages).sum()), torch.cat(residuals)
    free = len(residual) - effective
    if not free > 1e-9 * len(residual):
        raise ValueError(
            f"Cook's distance needs more residuals than effective parameters, got "
            f"{len(residual)} and {effective:.6g}: raise the damping, or train on more points"
        )
    variance = float(residual.square().sum()) / free
    if not variance:
        raise ValueError(
            "Cook's distance compares with the size of the residuals, and all of them are zero"
        )
    values = torch.cat(squares) / (effective * variance)
    return _pointwise(values, rows, "cooks_distance", effective)


def _pointwise(
    values: Tensor, rows: _SolvedRows, name: str, effective: float
) -> xr.DataArray:
    import xarray as xr  # slow to import

    everything = {n: np.arange(len(t.points)) for n, t in rows.objective.terms.items()}
    return xr.DataArray(
        values.detach().cpu().numpy(),
        dims="point",
        coords=point_coordinates(rows.objective, everything),
        name=name,
        attrs={"method": name, "effective_parameters": effective, **_attributes(rows)},
    ).set_xindex("term")


@dataclass(frozen=True, eq=False)
class _PointRows:
    """Of n points: solutions (P, n, m), ``Jᵢ B⁻¹ Jᵢᵀ`` (n, m, m) and their error, e (n, m)."""

    what: str
    first: int
    solved: Tensor
    grams: Tensor
    residual: Tensor
    floor: float

    def leverage(self) -> Tensor:
        return self.grams.diagonal(dim1=1, dim2=2).sum(1)

    def changes(self, damping: float) -> Tensor:
        """Return Δθ for the removal of each point alone, (P, n)."""
        weights = []
        for k, (gram, e) in enumerate(zip(self.grams, self.residual, strict=True)):
            found = _weighted(gram, self.floor, e)
            if found is None:
                raise ValueError(
                    f"removing point {self.first + k} of term {self.what!r} leaves a direction of "
                    f"the parameters that no other point determines (its leverage is 1 with "
                    f"damping λ = {damping:.3g}): raise the damping"
                )
            weights.append(found)
        return torch.einsum("pnm,nm->pn", self.solved, torch.stack(weights))


# --- rows and their solutions ------------------------------------------------------------------


class _SolvedRows:
    """Rows of the scaled Jacobian at chosen points, and ``B⁻¹`` times them, within memory."""

    def __init__(self, influence: Influence) -> None:
        self.influence, self.objective = influence, influence.objective
        self.quality = Solved()
        self._state = influence.state()
        self.damping = self._state.spectrum.damping
        parameters = self.objective.parameters
        room = min(MAX_ROW_BYTES, influence.memory_budget)
        self._width = max(
            1, room // (COPIES * parameters.dtype.itemsize * parameters.size)
        )
        self._drift: Tensor | None = None

    def system(self, chosen: Chosen) -> tuple[Tensor, Tensor]:
        """Return the chosen points' rows (r, P) and their part of e, (r,)."""
        if self._drift is None:
            gradient = self.objective.loss_and_gradient()[1]
            self._drift = self.solve(gradient.unsqueeze(1)).squeeze(1)
        dense, rho = Jacobian(subset(self.objective, chosen), scaled=True).system()
        return dense, rho - dense @ self._drift

    def solve(self, right: Tensor) -> Tensor:
        """Return ``B⁻¹ V`` of (P, K), some columns at a time."""
        return torch.cat(
            [self._solved(part)[0] for part in right.split(self._width, 1)], dim=1
        )

    def gram(self, dense: Tensor) -> tuple[Tensor, float]:
        """Return ``Q = J_S B⁻¹ J_Sᵀ`` and by how much an eigenvalue of it may be off."""
        blocks, errors = [], []
        for part in dense.split(self._width):
            solved, error = self._solved(part.T)
            blocks.append(dense @ solved)
            errors.append(error)
        gram = torch.cat(blocks, dim=1)
        return 0.5 * (gram + gram.T), max(errors)

    def _solved(self, right: Tensor) -> tuple[Tensor, float]:
        """Return ``X = B⁻¹ V`` of a few columns, and by how much an entry of VᵀX may be off."""
        found = self._state.solve(right)
        self.quality = self.quality.and_also(found)
        # What is left over points anywhere among the P directions, not along X.
        norms = (
            right.norm(dim=0).max() * found.value.norm(dim=0).max() / len(right) ** 0.5
        )
        return found.value, min(UNCERTAIN, found.residual * float(norms))

    def points(self) -> Iterator[_PointRows]:
        """Yield the rows of every training point, some points of a term at a time."""
        for name, m in Jacobian(self.objective).components().items():
            n = len(self.objective.terms[name].points)
            step = max(1, self._width // m)
            for start in range(0, n, step):
                chosen = {name: np.arange(start, min(start + step, n))}
                dense, e = self.system(chosen)
                value, floor = self._solved(dense.T)
                solved, rows = value.unflatten(1, (-1, m)), dense.unflatten(0, (-1, m))
                grams = torch.einsum("nap,pnb->nab", rows, solved)
                grams = 0.5 * (grams + grams.mT)
                yield _PointRows(name, start, solved, grams, e.view(-1, m), floor)


def _check_size(
    influence: Influence, groups: Mapping[str, Chosen], targets: int, *, exact: bool
) -> None:
    """Raise unless the result, every Δθ, and the rows and Q of the largest group fit."""
    parameters, m = (
        influence.objective.parameters,
        Jacobian(influence.objective).components(),
    )
    largest = max(
        sum(m[n] * len(i) for n, i in chosen.items()) for chosen in groups.values()
    )
    numbers = len(groups) * (2 * parameters.size + targets)
    numbers += largest * (parameters.size + 4 * largest) if exact else 0
    if parameters.dtype.itemsize * numbers > influence.memory_budget:
        raise MemoryError(
            f"{targets} targets × {len(groups)} groups, of up to {largest} rows of "
            f"{parameters.size} parameters, need {8 * numbers / 2**30:.2g} GiB, above the memory "
            f"budget of {influence.memory_budget / 2**30:.2g} GiB: ask for fewer or smaller "
            "groups, use method='first_order', or raise memory_budget"
        )
