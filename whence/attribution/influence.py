"""Influence functions: what each training point does to each answer (Koh & Liang 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.attribution.quality import FAR, FarFromMinimum, far_from_minimum
from whence.attribution.quantities import Quantity, aggregate_gradient, coordinate_arrays
from whence.curvature.automatic import Automatic
from whence.curvature.operators import Curvature, GaussNewton, Hessian
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Redamped,
    RowSolution,
    RowState,
    Solution,
    Solver,
    State,
    default_damping,
)
from whence.gradient import loss_and_gradient
from whence.jacobian import CHUNK_BYTES, Jacobian, gradient_products
from whence.objective import Objective

if TYPE_CHECKING:
    import xarray as xr

    from whence.attribution.result import Attribution

Points = Mapping[str, Tensor] | Tensor | None
Effect = Literal["remove", "add"]
TARGET_BLOCK = 512
STEP_DAMPING = 1e-6

SIGN = {
    "remove": "predicted change of the target when the point is removed from training",
    "add": "predicted change of the target when the point is added to training",
}


@dataclass(frozen=True)
class Solved:
    """How well several systems were solved: as well as the worst of them."""

    residual: float = 0.0
    converged: bool = True
    message: str = ""

    def and_also(self, solution: Solution | RowSolution) -> Solved:
        """Return the same with one more."""
        residual = float(np.maximum(self.residual, solution.residual))  # which keeps a NaN
        message = self.message or getattr(solution, "message", "")
        return Solved(residual, self.converged and solution.converged, message)


class Influence:
    """Influence functions of an objective at its current parameters.

    Entry (target f, point z of term k) is ``(w_k/N_k) · ∇f(θ̂)ᵀ (A + λI)⁻¹ ∇ℓ_k(z; θ̂)``: the
    predicted change of f when z is *removed* from training; ``effect="add"`` is its negative.
    Positive for a loss: the point helps. For a point that is not in training the same formula
    predicts what adding one copy of it would do (Koh & Liang 2017, arXiv 1703.04730; for PINNs
    Naujoks et al. 2024, arXiv 2409.08958).

    Parameters
    ----------
    objective:
        What was trained; results hold at its network's current parameters.
    solver:
        How to apply ``(A + λI)⁻¹``: a solver, or ``"auto"`` (the default), which takes
        :class:`whence.Exact` while it fits in ``memory_budget``, see :class:`whence.Automatic`.
    damping:
        λ: a number is relative to the largest eigenvalue of A, ``wh.Damping(value,
        relative=False)`` is absolute. By default 1e-11 relative (1e-4 in float32), which predicts
        retraining best. ``"loo"`` chooses the value that best predicts a few refits without a
        point each, see :func:`whence.damping_from_refits`.
    curvature:
        ``"gauss_newton"`` (the default) or ``"hessian"``.
    memory_budget:
        Bytes that a result, or the default solver's matrices, may take (2 GiB).

    Examples
    --------
    A least-squares line through the origin, where everything is known in closed form:

    >>> import torch, whence as wh
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z[:, :1],)) - z[:, 1:]
    >>> xy = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    >>> def fields(names):
    ...     return lambda tensors, z: torch.func.functional_call(network, tensors, (z[:, :1],))
    >>> objective = wh.Objective(
    ...     network, [wh.Term("data", residual, xy)], coordinates=("x", "y"), fields=fields)
    >>> objective.parameters.assign(torch.tensor([1.6], dtype=torch.float64))   # Σxy / Σx²
    >>> influence = wh.Influence(objective, damping=0.0)
    >>> row = influence.attribute(wh.Output(xy[:1]))
    >>> row.dims, [round(float(v), 6) for v in row[0]]       # −x·e/Σx² at each point
    (('target', 'point'), [-0.08, 0.08])
    """

    def __init__(
        self,
        objective: Objective,
        *,
        solver: Solver | Literal["auto"] = "auto",
        damping: float | Damping | Literal["loo"] | None = None,
        curvature: Literal["gauss_newton", "hessian"] = "gauss_newton",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        _checks.one_of("curvature", curvature, ("gauss_newton", "hessian"))
        self.objective = objective
        self.solver = _solver(solver, memory_budget)
        self.damping = _damping(damping, objective, curvature, self.solver)
        self.curvature = curvature
        self.memory_budget = memory_budget
        self._state: State | None = None
        self._seen: dict[str, Tensor] = {}
        self._decrease: float | None = None

    def state(self) -> State:
        """Return the factored curvature; made at first use and again when the network changed."""
        network = self.objective.network
        now = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        if self._state is None or not _same(now, self._seen):
            operator: Curvature = (
                GaussNewton(self.objective)
                if self.curvature == "gauss_newton"
                else Hessian(self.objective)
            )
            self._state = self.solver.factor(operator, self.damping)
            self._decrease = None
            self._seen = {name: tensor.detach().clone() for name, tensor in now.items()}
        return self._state

    def attribute(
        self, quantity: Quantity, points: Points = None, effect: Effect = "remove"
    ) -> Attribution:
        """Return the influence of every point on every target.

        Parameters
        ----------
        quantity:
            What to explain, see :mod:`whence.attribution.quantities`.
        points:
            Points by term, or one tensor where there is one term; by default the training points.
        effect:
            ``"remove"`` or ``"add"``.

        Returns
        -------
        Attribution
            An xarray.DataArray with dimensions (target, point). Coordinates of points under their
            own names, of targets with ``target_`` in front; ``term`` and ``index`` (within its
            term) of each point;
            attributes say sign, scale, solver, damping, how well the system was solved, what is
            known of the spectrum, and how near the network is to a minimum; ``quality()`` puts it
            in words.

        Warns
        -----
        FarFromMinimum
            If a Gauss–Newton step would take away more than half of the loss.

        Raises
        ------
        MemoryError
            If the result exceeds ``memory_budget``, before any work: :meth:`attribute_blocks`
            yields it in parts, :meth:`attribute_sum` needs no matrix.
        """
        _check(quantity, effect)
        chosen = self._points(points)
        self._check_size(quantity, chosen)
        given = None if points is None else chosen
        columns = sum(len(points) for points in chosen.values())
        matrix = self.objective.parameters.vector().new_empty(self._rows_of(quantity), columns)
        done, solved = 0, Solved()
        for block, solution in self._blocks(quantity, given, effect):
            solved = solved.and_also(solution)
            matrix[done : done + len(block)] = block
            done += len(block)
        return self._label(matrix, quantity, chosen, effect, solved)

    def _check_size(self, quantity: Quantity, points: Mapping[str, Tensor]) -> None:
        rows = self._rows_of(quantity)
        columns = sum(len(given) for given in points.values())
        needed = rows * columns * self.objective.parameters.dtype.itemsize
        if needed > self.memory_budget:
            raise MemoryError(
                f"{rows} targets × {columns} points need {needed / 2**30:.1f} GiB, above the "
                f"memory budget of {self.memory_budget / 2**30:.1f} GiB: use attribute_blocks or "
                "attribute_sum, or raise memory_budget"
            )

    def attribute_blocks(
        self,
        quantity: Quantity,
        points: Points = None,
        effect: Effect = "remove",
        block: int = TARGET_BLOCK,
    ) -> Iterator[Tensor]:
        """Yield the same matrix in blocks of targets, each (block, n), for what exceeds memory."""
        _check(quantity, effect)
        _checks.count("block", block)
        given = None if points is None else self._points(points)
        yield from _regrouped((b for b, _ in self._blocks(quantity, given, effect)), block)

    def _blocks(
        self, quantity: Quantity, points: Mapping[str, Tensor] | None, effect: Effect
    ) -> Iterator[tuple[Tensor, Solution | RowSolution]]:
        """Yield blocks of the matrix, (targets, n), and how well each was solved."""
        state, rows = self.state(), self._rows_of(quantity)
        blocks = _packed(quantity.gradients(self.objective), self._block_size(rows))
        if points is None and isinstance(state, RowState) and self._suits(state, rows):
            solution = state.solve_rows()
            coefficients = self._for_points(solution.coefficients, effect)
            for block in blocks:
                yield (block @ solution.basis) @ coefficients, solution
            return
        chosen = self._points(points)
        for block in blocks:
            solved = state.solve(block.T)
            yield self._products(chosen, solved.value, effect).T, solved

    def _rows_of(self, quantity: Quantity) -> int:
        return len(next(iter(quantity.targets(self.objective).values())))

    def _block_size(self, rows: int) -> int:
        """Return how many targets' gradients to hold at a time."""
        fit = CHUNK_BYTES // (
            self.objective.parameters.dtype.itemsize * self.objective.parameters.size
        )
        return max(1, min(rows, fit, TARGET_BLOCK))

    def _suits(self, state: RowState, targets: int) -> bool:
        """Tell whether one solve for every training point fits, and is cheaper than by target."""
        return state.row_bytes <= self.memory_budget and 3 * targets > self.objective.n_points

    def _for_points(self, solved: Tensor, effect: Effect) -> Tensor:
        """Return coefficients of ``(A + λI)⁻¹∇ℓ·w/N`` of every training point from those of rows.

        As ``Jᵀρ = ∇L``, the gradient of point i, weight and 1/N included, is ``Jᵢᵀρᵢ``.
        """
        jacobian = Jacobian(self.objective, scaled=True)
        weights = jacobian.residual() if effect == "remove" else -jacobian.residual()
        solved.mul_(weights)
        one_each = len(weights) == self.objective.n_points  # whose sum is a copy for nothing
        return solved if one_each else jacobian.by_point(solved.T).T

    def attribute_sum(
        self, quantity: Quantity, points: Points = None, effect: Effect = "remove"
    ) -> xr.DataArray:
        """Return the influence of every point on the *sum* of the targets, dimension (point,).

        One solve and one product ``J v``: no row of a candidate is ever materialised, so
        a million candidates cost memory for their coordinates only.
        """
        _check(quantity, effect)
        chosen = self._points(points)
        gradient = aggregate_gradient(quantity, self.objective)
        solution = self.state().solve(gradient.unsqueeze(1))
        vector = self._products(chosen, solution.value, effect).T
        solved = Solved().and_also(solution)
        labelled = self._label(vector, None, chosen, effect, solved)
        return labelled.isel(target=0).assign_attrs(quantity=f"sum of {quantity.label()}")

    def _predicted_decrease(self, loss: float, gradient: Tensor) -> float | None:
        """Return the share of the loss that a Gauss–Newton step would take away.

        ``½ ∇Lᵀ(A + μI)⁻¹∇L / L``, μ at least 1e-6 of the largest eigenvalue: with less damping even
        a well-trained network seems to have far to go. None where the solver cannot tell cheaply.
        """
        state = self.state()
        if not isinstance(state, Redamped):
            return None
        if self._decrease is None:
            lowest = STEP_DAMPING * float(state.description["largest_eigenvalue"])
            if float(state.description["damping"]) < lowest:
                state = state.redamped(lowest)
            step = state.solve(gradient.unsqueeze(1)).value.squeeze(1)
            self._decrease = 0.5 * float(gradient @ step) / loss if loss else 0.0
        return self._decrease

    def solve(self, vectors: Tensor) -> Solution:
        """Return ``(A + λI)⁻¹ V`` for the columns of ``vectors``, (P, K)."""
        return self.state().solve(vectors)

    def _points(self, points: Points) -> dict[str, Tensor]:
        terms = self.objective.terms
        if points is None:
            return {name: term.points for name, term in terms.items()}
        if isinstance(points, Tensor):
            if len(terms) > 1:
                raise ValueError(
                    f"the objective has terms {', '.join(terms)}: give points by term, such as "
                    f"{{{next(iter(terms))!r}: points}}"
                )
            points = {next(iter(terms)): points}
        if not isinstance(points, Mapping):
            raise TypeError(
                f"points must be a torch.Tensor, or such tensors by term, got {type(points)}"
            )
        for name in points:
            self.objective.term(name)
        return {
            name: self.objective.placed(f"the points of term {name!r}", given, name)
            for name, given in points.items()
        }

    def _products(self, points: Mapping[str, Tensor], vectors: Tensor, effect: str) -> Tensor:
        sign = 1.0 if effect == "remove" else -1.0
        parts = []
        for name, given in points.items():
            term = self.objective.terms[name]
            product = gradient_products(term, self.objective.parameters, given, vectors)
            parts.append(product.mul_(sign * term.scale))
        return torch.cat(parts)

    def _label(
        self,
        matrix: Tensor,
        quantity: Quantity | None,
        points: Mapping[str, Tensor],
        effect: str,
        solved: Solved,
    ) -> Attribution:
        from whence.attribution.result import Attribution  # xarray is slow to import

        loss, gradient = loss_and_gradient(self.objective)
        targets = quantity.targets(self.objective) if quantity is not None else {}
        coords = {
            f"target_{n}" if n != "quantity" else n: ("target", _portable(v))
            for n, v in targets.items()
        }
        joined = torch.cat(list(points.values()))
        point_coords = {
            n: ("point", v) for n, v in coordinate_arrays(self.objective, joined).items()
        }
        terms = np.asarray([n for n, p in points.items() for _ in range(len(p))], dtype=object)
        index = np.concatenate([np.arange(len(p)) for p in points.values()])
        decrease = self._predicted_decrease(loss, gradient)
        if decrease is not None and decrease > FAR:
            warnings.warn(far_from_minimum(decrease), FarFromMinimum, stacklevel=3)
        return Attribution(
            matrix.detach().cpu().numpy(),
            dims=("target", "point"),
            coords={**coords, **point_coords, "term": ("point", terms), "index": ("point", index)},
            name="influence",
            attrs={
                "method": "influence",
                "quantity": quantity.label() if quantity is not None else "",
                "effect": effect,
                "sign": SIGN[effect],
                "scale": "w/N: change caused by one point",
                "curvature": self.curvature,
                "solver": self.solver.name,
                "solver_residual": solved.residual,
                "solver_converged": int(solved.converged),
                "solver_message": solved.message,
                **self.state().description,
                "gradient_norm": float(gradient.norm()),
                "loss": loss,
                **({} if decrease is None else {"predicted_decrease": decrease}),
            },
        ).set_xindex("term")


def _check(quantity: object, effect: str) -> None:
    if not isinstance(quantity, Quantity):
        raise TypeError(
            "what to explain must be a quantity, such as wh.Output(points) or wh.Loss(), got "
            f"{quantity!r}"
        )
    _checks.one_of("effect", effect, ("remove", "add"))


def _solver(given: object, memory_budget: int) -> Solver:
    if isinstance(given, str):
        _checks.one_of("solver", given, ("auto",))
        return Automatic(memory_budget=memory_budget)
    if not isinstance(given, Solver) or isinstance(given, type):
        raise TypeError(
            f"solver must be 'auto' or a solver, such as wh.Exact(), got {_checks.shown(given)}"
        )
    return given


def _damping(
    given: float | Damping | str | None,
    objective: Objective,
    curvature: Literal["gauss_newton", "hessian"],
    solver: Solver,
) -> Damping:
    if given is None:
        return Damping(default_damping(objective.parameters.dtype))
    if isinstance(given, str):
        _checks.one_of("damping", given, ("loo",))
        from whence.attribution.refitting import damping_from_refits  # which needs Influence

        return damping_from_refits(objective, curvature=curvature, solver=solver).damping
    return given if isinstance(given, Damping) else Damping(given)


def _portable(values: np.ndarray) -> np.ndarray:
    """Return text of fixed length as Python strings: zarr specifies no format for the former."""
    return values.astype(object) if values.dtype.kind == "U" else values


def _same(now: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> bool:
    return now.keys() == seen.keys() and all(torch.equal(now[n], seen[n]) for n in now)


def _regrouped(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows in blocks of ``size``, so that a solve sees many at a time."""
    held: list[Tensor] = []
    for block in blocks:
        for part in block.split(size):
            held.append(part)
            if sum(len(h) for h in held) >= size:
                joined = torch.cat(held)
                yield joined[:size]
                held = [joined[size:]] if len(joined) > size else []
    if held:
        yield torch.cat(held)


def _packed(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows ``size`` at a time, in one buffer that the next of them overwrite."""
    buffer, held = torch.empty(0), 0
    for block in blocks:
        if not len(buffer):
            buffer = block.new_empty(size, block.shape[1])
        start = 0
        while start < len(block):
            taken = min(len(block) - start, size - held)
            buffer[held : held + taken] = block[start : start + taken]
            start, held = start + taken, held + taken
            if held == size:
                yield buffer
                held = 0
    if held:
        yield buffer[:held]
