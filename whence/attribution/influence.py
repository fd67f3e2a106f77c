"""Influence functions: what each training point does to each answer (Koh & Liang 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.method import Effect, Method, Solved, Tile
from whence.attribution.quality import FAR, FarFromMinimum, far_from_minimum
from whence.attribution.quantities import Quantity
from whence.catalogue import METHODS
from whence.curvature.automatic import Automatic
from whence.curvature.operators import Curvature, GaussNewtonMatrix, Hessian
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Redamped,
    RowState,
    Solution,
    Solver,
    State,
    default_damping,
)
from whence.jacobian import Jacobian
from whence.objective import Objective

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

CurvatureName = Literal["gauss_newton", "hessian"]
STEP_DAMPING = 1e-6


@METHODS.named()
class Influence(Method):
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
        relative=False)`` is absolute. By default 1e-11 relative (1e-4 in float32), or 1e-3 for
        supervised data: what predicts retraining best. ``"loo"`` chooses the value that best
        predicts a few refits without a point each, see :func:`whence.damping_from_refits`.
    curvature:
        ``"gauss_newton"`` or ``"hessian"``; by default the former wherever the losses are convex
        in what the network gives.
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
    ...     network, [wh.Term("data", residual, xy)],
    ...     space=wh.Space(coordinates=("x", "y"), evaluate=fields))
    >>> objective.parameters.assign(torch.tensor([1.6], dtype=torch.float64))   # Σxy / Σx²
    >>> influence = wh.Influence(objective, damping=0.0)
    >>> row = influence.attribute(wh.Output(xy[:1]))
    >>> row.dims, [round(float(v), 6) for v in row[0]]       # −x·e/Σx² at each point
    (('target', 'point'), [-0.08, 0.08])
    """

    name = "influence"

    def __init__(
        self,
        objective: Objective,
        *,
        solver: Solver | Literal["auto"] = "auto",
        damping: float | Damping | Literal["loo"] | None = None,
        curvature: CurvatureName | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(objective, memory_budget)
        curvature = _curvature(curvature, objective)
        self.solver = _solver(solver, memory_budget)
        self.damping = _damping(damping, objective, curvature, self.solver)
        self.curvature: CurvatureName = curvature
        self._state: State | None = None
        self._seen: dict[str, Tensor] = {}
        self._decrease: float | None = None

    def state(self) -> State:
        """Return the factored curvature; made at first use and again when the network changed."""
        network = self.objective.network
        now = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        if self._state is None or not _same(now, self._seen):
            operator: Curvature = (
                GaussNewtonMatrix(self.objective)
                if self.curvature == "gauss_newton"
                else Hessian(self.objective)
            )
            self._state = self.solver.factor(operator, self.damping)
            self._decrease = None
            self._seen = {name: tensor.detach().clone() for name, tensor in now.items()}
        return self._state

    def tiles(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> Iterator[Tile]:
        """Yield an attribution in tiles; of many targets by one solve for all training points."""
        state, rows = self.state(), self._rows_of(quantity)
        if points is None and isinstance(state, RowState) and self._suits(state, rows):
            solution = state.solve_rows()
            coefficients = self._for_points(solution.coefficients, effect)
            solved, first = Solved().and_also(solution), 0
            for block in self._packed_gradients(quantity):
                targets, every = (
                    slice(first, first + len(block)),
                    slice(0, coefficients.shape[1]),
                )
                yield Tile(
                    targets, every, (block @ solution.basis) @ coefficients, solved
                )
                first = targets.stop
            return
        yield from super().tiles(quantity, points, effect)

    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        solution = self.state().solve(gradients)
        return solution.value, Solved().and_also(solution)

    def _suits(self, state: RowState, targets: int) -> bool:
        """Tell whether one solve for every training point fits, and is cheaper than by target."""
        if not all(term.loss.spans for term in self.objective.terms.values()):
            return False
        return (
            state.row_bytes <= self.memory_budget
            and 3 * targets > self.objective.n_points
        )

    def _for_points(self, solved: Tensor, effect: str) -> Tensor:
        """Return coefficients of ``(A + λI)⁻¹∇ℓ·w/N`` of every training point from those of rows.

        As ``Jᵀρ = ∇L``, the gradient of point i, weight and 1/N included, is ``Jᵢᵀρᵢ``.
        """
        jacobian = Jacobian(self.objective, scaled=True)
        weights = -jacobian.residual() if effect == "add" else jacobian.residual()
        solved.mul_(weights)
        one_each = (
            len(weights) == self.objective.n_points
        )  # whose sum is a copy for nothing
        return solved if one_each else jacobian.by_point(solved.T).T

    def _predicted_decrease(self, loss: float, gradient: Tensor) -> float | None:
        """Return the share of the loss that a Gauss–Newton step would take away.

        ``½ ∇Lᵀ(A + μI)⁻¹∇L / L``, μ at least 1e-6 of the largest eigenvalue: with less damping even
        a well-trained network seems to have far to go. None where the solver cannot tell cheaply.
        """
        state = self.state()
        if not isinstance(state, Redamped):
            return None
        if self._decrease is None:
            lowest = STEP_DAMPING * state.spectrum.largest_eigenvalue
            if state.spectrum.damping < lowest:
                state = state.redamped(lowest)
            step = state.solve(gradient.unsqueeze(1)).value.squeeze(1)
            self._decrease = 0.5 * float(gradient @ step) / loss if loss else 0.0
        return self._decrease

    def solve(self, vectors: Tensor) -> Solution:
        """Return ``(A + λI)⁻¹ V`` for the columns of ``vectors``, (P, K)."""
        return self.state().solve(vectors)

    def labelled(
        self,
        matrix: Any,
        quantity: Quantity | None,
        points: Mapping[str, Any],
        effect: str,
        solved: Solved,
        dims: Sequence[str] = ("target", "point"),
        coords: Mapping[str, Any] | None = None,
    ) -> Attribution:
        """Return a matrix with its labels; far from a minimum that is said with a warning."""
        found = super().labelled(matrix, quantity, points, effect, solved, dims, coords)
        decrease = found.attrs.get("predicted_decrease", 0.0)
        if decrease > FAR:
            warnings.warn(far_from_minimum(decrease), FarFromMinimum, stacklevel=3)
        return found

    def attributes(
        self, quantity: Quantity | None, effect: str, solved: Solved
    ) -> dict[str, Any]:
        """Return what the attributes of a result say, of curvature and solver too."""
        loss, gradient = self.objective.loss_and_gradient()
        decrease = self._predicted_decrease(loss, gradient)
        return {
            **super().attributes(quantity, effect, solved),
            "curvature": self.curvature,
            "solver": self.solver.name,
            "solver_residual": solved.residual,
            "solver_converged": int(solved.converged),
            "solver_message": solved.message,
            **self.state().spectrum.attributes(),
            "gradient_norm": float(gradient.norm()),
            "loss": loss,
            **({} if decrease is None else {"predicted_decrease": decrease}),
        }


def _curvature(given: CurvatureName | None, objective: Objective) -> CurvatureName:
    flat = [n for n, term in objective.terms.items() if not term.loss.is_convex]
    if given is None:
        return "hessian" if flat else "gauss_newton"
    _checks.one_of("curvature", given, ("gauss_newton", "hessian"))
    if given == "gauss_newton" and flat:
        raise ValueError(
            f"the loss of term {flat[0]!r} is not convex in what the network gives, or has no "
            "curvature there, so Gauss–Newton does not stand for its Hessian: use "
            "curvature='hessian', or a method without curvature such as wh.TracIn or wh.GradDot"
        )
    return given


def _solver(given: object, memory_budget: int) -> Solver:
    if isinstance(given, str):
        _checks.one_of("solver", given, ("auto",))
        return Automatic(memory_budget=memory_budget)
    if not isinstance(given, Solver) or isinstance(given, type):
        raise TypeError(
            f"solver must be 'auto' or a solver, such as wh.Exact(), got {_checks.describe(given)}"
        )
    return given


def _damping(
    given: float | Damping | str | None,
    objective: Objective,
    curvature: CurvatureName,
    solver: Solver,
) -> Damping:
    if given is None:
        like = objective.parameters.dtype
        return Damping(default_damping(like, samples=objective.has_samples))
    if isinstance(given, str):
        _checks.one_of("damping", given, ("loo",))
        from whence.attribution.refitting import (
            damping_from_refits,
        )  # which needs Influence

        return damping_from_refits(
            objective, curvature=curvature, solver=solver
        ).damping
    return given if isinstance(given, Damping) else Damping(given)


def _same(now: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> bool:
    return now.keys() == seen.keys() and all(torch.equal(now[n], seen[n]) for n in now)
