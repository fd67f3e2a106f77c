"""Influence functions: what each training point does to each answer (Koh & Liang 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial

from torch import Tensor

from whence.attribution.arguments import PointsByTerm, PreparedPoints
from whence.attribution.by_kernel import solved_images
from whence.attribution.factored import CurvatureName, DampingRule, Factored
from whence.attribution.labels import Attributes, Effect
from whence.attribution.quality import (
    FAR,
    SOLVING,
    UNSOLVED,
    FarFromMinimum,
    far_from_minimum,
    is_far,
    not_solved,
)
from whence.attribution.quantities import Loss, Multiplied, Quantity
from whence.attribution.solved_points import SolvedPoints, gradients_of
from whence.attribution.tiles import Solved, Tile
from whence.catalogue import METHODS
from whence.curvature.solvers import (
    DualState,
    KernelState,
    Redamped,
    RowState,
    State,
)
from whence.jacobian import MAX_VECTORS, Jacobian

__all__ = ["CurvatureName", "DampingRule", "Influence"]

STEP_DAMPING = 1e-6
"""Least damping, relative to the largest eigenvalue, of the step that judges a minimum."""


@METHODS.named()
class Influence(Factored):
    """Influence functions of an objective at its current parameters.

    Entry (target f, point z of term k) is ``(w_k/N_k) · ∇f(θ̂)ᵀ (A + λI)⁻¹ ∇ℓ_k(z; θ̂)``, with
    ``A + cI`` for A where the objective has the penalty ``(c/2)‖θ‖²``: the predicted change of f
    when z is *removed* from training; ``effect="add"`` is its negative.
    Positive for a loss: the point helps. For a point that is not in training the same formula
    predicts what adding one copy of it would do (Koh & Liang 2017, arXiv 1703.04730; for PINNs
    Naujoks et al. 2024, arXiv 2409.08958).

    Parameters
    ----------
    objective:
        What was trained, or a model; results hold at the network's current parameters.
    data, loss:
        Of a model, what it was trained on and for, see
        :class:`whence.attribution.method.Method`.
    parameters:
        Of a model, which parameters to attribute by: a pattern on names, several, a module.
    weight_decay:
        Of a model, c of the penalty ``(c/2)‖θ‖²`` that it was trained with.
    solver:
        How to apply ``(A + λI)⁻¹``: a solver, or ``"auto"`` (the default), which takes
        :class:`whence.Exact` while it fits in ``memory_budget``, see :class:`whence.Automatic`.
    damping:
        λ: a number is relative to the largest eigenvalue of A, ``wh.Damping(value,
        relative=False)`` is absolute. By default 1e-11 relative (1e-4 in float32), or 1e-3 for
        supervised data: what predicts retraining best. A rule chooses it when the influence is
        made: ``wh.LeaveOneOut()`` the value that best predicts a few refits without a point each.
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

    A trained model, as it is:

    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
    >>> influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss(), parameters="weight")
    >>> influence.self_influence().top(3).sizes["point"]
    3
    """

    name = "influence"
    # What was found at the state that results were last made with.
    _judged: State | None = None
    _loss: tuple[float, Tensor] | None = None
    _decrease: float | None = None
    _step: Callable[[], Tensor] | None = None

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return ``(A + λI)⁻¹∇f`` for the columns of gradients (P, K)."""
        solution = self.solve(gradients)
        return solution.value, Solved().worst_with(solution)

    def _forget(self) -> None:
        super()._forget()
        self._judged = None
        self._loss = self._decrease = self._step = None

    # --- many targets at once ---

    def whole_tiles(
        self, quantity: Quantity, points: PointsByTerm | None, effect: Effect
    ) -> Iterator[Tile] | None:
        """Return tiles with all points where solving for points, or by rows, is least."""
        prepared = self.prepare_points(points)
        n_targets = self.n_targets(quantity)
        n_points = len(prepared)
        sign = -1.0 if effect == "add" else 1.0

        kernel_state = self._kernel_state(points)
        if kernel_state is not None:
            return self._tiles_by_kernel(kernel_state, quantity, sign)
        row_state = self._row_state(points)
        image_state = self._image_state(points)
        # A column of the solve for rows costs about a third of a refined solve for a target.
        if row_state is not None and 3 * n_targets > n_points:
            return self._tiles_by_rows(row_state, quantity, sign)
        if image_state is not None:
            return self._tiles_by_images(image_state, quantity, sign)
        if n_targets > n_points and self._fits(n_points):
            return self._tiles_by_points(prepared, quantity, sign)
        return None

    def whole_self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]] | None:
        """Return the effects of training points on their own losses by one solve, where it fits."""
        kernel_state = self._kernel_state(points)
        if kernel_state is not None:
            return self._own_values_by_kernel(kernel_state)
        row_state = self._row_state(points)
        image_state = self._image_state(points)
        if row_state is not None:
            return self._own_values_by_rows(row_state)
        if image_state is not None:
            return self._own_values_by_images(image_state)
        return None

    def _own_values_by_rows(self, state: RowState) -> Iterator[tuple[Tensor, Solved]]:
        solved_points = self._solve_rows(state, 1.0)
        for part, gradients in self._training_gradients():
            values = solved_points.own_influences(gradients, part)
            yield values, solved_points.solved

    def _own_values_by_images(
        self, state: DualState
    ) -> Iterator[tuple[Tensor, Solved]]:
        rho = self._rho()
        for part, gradients in self._training_gradients():
            by_point, solved = self._by_images(state, gradients, rho)
            yield by_point[:, part].diagonal(), solved

    def _own_values_by_kernel(
        self, state: KernelState
    ) -> Iterator[tuple[Tensor, Solved]]:
        first = 0
        for by_point, solved in self._by_kernel(state, Loss(), self._rho()):
            own_points = slice(first, first + len(by_point))
            yield by_point[:, own_points].diagonal(), solved
            first = own_points.stop

    def _training_gradients(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ∇ℓ of the training points, (k, P), k at a time, and which points they are."""
        parameters = self.objective.parameters
        for block in self.blocks_of(self.prepare_points(None)):
            yield from gradients_of(block, parameters, self.at_once())

    def _row_state(self, points: PointsByTerm | None) -> RowState | None:
        """Return the state if it solves for every training point at once, within memory."""
        state = self.state()
        is_sum_of_rows = points is None and self._spans()
        if not is_sum_of_rows or not isinstance(state, RowState):
            return None
        return state if state.row_bytes <= self.memory_budget else None

    def _image_state(self, points: PointsByTerm | None) -> DualState | None:
        """Return the state if images of targets under J are what to solve for."""
        state = self.state()
        is_sum_of_rows = points is None and self._spans()
        if is_sum_of_rows and isinstance(state, DualState):
            return state
        return None

    def _kernel_state(self, points: PointsByTerm | None) -> KernelState | None:
        """Return the state if it has the kernel in memory, but not the rows."""
        state = self.state()
        is_sum_of_rows = points is None and self._spans()
        if is_sum_of_rows and isinstance(state, KernelState):
            return state
        return None

    def _spans(self) -> bool:
        """Whether ∇ℓ is in the range of S, so that a point's gradient is a sum of its rows."""
        objective = self.objective
        # Of a penalty's rows no training point's gradient is a sum.
        if len(objective.data_terms) < len(objective.terms):
            return False
        return all(term.loss.spans for term in objective.terms.values())

    def _fits(self, n_points: int) -> bool:
        """Whether the solutions (P, n) of so many points fit."""
        parameters = self.objective.parameters
        column_bytes = parameters.dtype.itemsize * parameters.size
        return n_points * column_bytes <= self.memory_budget

    def _tiles_by_rows(
        self, state: RowState, quantity: Quantity, sign: float
    ) -> Iterator[Tile]:
        yield from self._tiles_of(self._solve_rows(state, sign), quantity)

    def _tiles_by_points(
        self, points: PreparedPoints, quantity: Quantity, sign: float
    ) -> Iterator[Tile]:
        yield from self._tiles_of(self._solve_points(points, sign), quantity)

    def _tiles_by_images(
        self, state: DualState, quantity: Quantity, sign: float
    ) -> Iterator[Tile]:
        rho = sign * self._rho()
        first = 0
        every_point = slice(0, self.objective.n_points)
        for gradients in self.packed_gradients(quantity):
            values, solved = self._by_images(state, gradients, rho)
            targets = slice(first, first + len(gradients))
            yield Tile(targets, every_point, values, solved)
            first = targets.stop

    def _tiles_by_kernel(
        self, state: KernelState, quantity: Quantity, sign: float
    ) -> Iterator[Tile]:
        rho = sign * self._rho()
        first = 0
        every_point = slice(0, self.objective.n_points)
        for values, solved in self._by_kernel(state, quantity, rho):
            targets = slice(first, first + len(values))
            yield Tile(targets, every_point, values, solved)
            first = targets.stop

    def _by_kernel(
        self, state: KernelState, quantity: Quantity, rho: Tensor
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the influences of every training point on some targets at a time, (t, n)."""
        jacobian = Jacobian(self.objective, scaled=True)
        gradients = self.packed_gradients(quantity)
        for solution in solved_images(state, self.objective, quantity, gradients):
            by_row = solution.value.mul_(rho[:, None])  # (R, t)
            yield jacobian.by_point(by_row).T, Solved().worst_with(solution)

    def _by_images(
        self, state: DualState, gradients: Tensor, rho: Tensor
    ) -> tuple[Tensor, Solved]:
        """Return the influences of every training point on targets with these ∇f, (t, n)."""
        # ∇fᵀ(A + λI)⁻¹Jᵢᵀρᵢ = ρᵢ · (J(A + λI)⁻¹∇f)ᵢ for every training point i.
        solution = state.solve_images(gradients.T)
        by_row = solution.value.mul_(rho[:, None])  # (R, t)

        jacobian = Jacobian(self.objective, scaled=True)
        return jacobian.by_point(by_row).T, Solved().worst_with(solution)

    def _rho(self) -> Tensor:
        """Return ρ of every row of the scaled Jacobian, (R,)."""
        return Jacobian(self.objective, scaled=True).residual()

    def _tiles_of(
        self, solved_points: SolvedPoints, quantity: Quantity
    ) -> Iterator[Tile]:
        """Yield the influences of points that are solved for, some targets at a time."""
        first = 0
        every_point = slice(0, len(solved_points))
        for products in self._target_products(quantity, solved_points.basis):
            targets = slice(first, first + len(products))
            values = solved_points.influences(products)
            yield Tile(targets, every_point, values, solved_points.solved)
            first = targets.stop

    def _target_products(self, quantity: Quantity, vectors: Tensor) -> Iterator[Tensor]:
        """Yield ``∇fᵀV`` of some targets at a time, (t, K), for vectors (P, K)."""
        is_few = vectors.shape[1] <= MAX_VECTORS
        if is_few and isinstance(quantity, Multiplied):
            yield from quantity.products(self.objective, vectors)
            return
        for gradients in self.packed_gradients(quantity):
            yield gradients @ vectors

    def _solve_rows(self, state: RowState, sign: float) -> SolvedPoints:
        """Solve for all training points at once, by the rows of J."""
        # X = (A + λI)⁻¹Jᵀ = BC for all rows. As Jᵀρ = ∇L, the gradient of point i, weight and 1/N
        # included, is Jᵢᵀρᵢ, so that (A + λI)⁻¹∇ℓ·w/N = BC′ with C′ᵢ = Cᵢρᵢ.
        solution = state.solve_rows()
        rho = sign * self._rho()

        # In place: the coefficients of all rows are large, and not needed any more.
        coefficients = solution.coefficients.mul_(rho)
        if len(rho) > self.objective.n_points:  # of a row each, summing would only copy
            jacobian = Jacobian(self.objective, scaled=True)
            coefficients = jacobian.by_point(coefficients.T).T
        return SolvedPoints(solution.basis, coefficients, Solved().worst_with(solution))

    def _solve_points(self, points: PreparedPoints, sign: float) -> SolvedPoints:
        """Solve for the gradients of some points, as many at a time as memory allows."""
        parameters = self.objective.parameters
        basis = parameters.vector().new_empty(parameters.size, len(points))
        solved = Solved()
        for block in self.blocks_of(points):
            for part, gradients in gradients_of(block, parameters, self.at_once()):
                vectors, quality = self.transform_gradients(gradients.T)
                basis[:, part] = vectors
                solved = solved.worst_with(quality)
            basis[:, block.part] *= sign * block.scale
        return SolvedPoints(basis, None, solved)

    # --- what results say ---

    def warn(self, attributes: Attributes) -> None:
        """Warn where systems were not solved, and far from a minimum."""
        # An approximation says of itself how far it is off; these solvers promise a solution.
        solver = str(attributes.get("solver"))
        residual = float(attributes.get("solver_residual", 0.0))
        if solver in SOLVING and not residual <= UNSOLVED:
            warnings.warn(not_solved(solver, residual), stacklevel=4)
        if is_far(attributes):
            message = far_from_minimum(
                float(attributes.get("predicted_decrease", 0.0)),
                has_samples=self.objective.has_samples,
                has_penalty=self.objective.weight_decay > 0,
            )
            warnings.warn(message, FarFromMinimum, stacklevel=4)

    def attributes(
        self, quantity: Quantity | None, effect: Effect, solved: Solved
    ) -> Attributes:
        """Return what the attributes of a result say, of curvature and solver too."""
        # The state of a network that has changed is another one.
        state = self.state()
        if self._judged is not state:
            self._judged = state
            self._loss = self._decrease = self._step = None
        if self._loss is None:
            self._loss = self.objective.loss_and_gradient()
        loss, gradient = self._loss
        attributes: Attributes = {
            **super().attributes(quantity, effect, solved),
            **self.solver_attributes(solved),
            "gradient_norm": float(gradient.norm()),
            "loss": loss,
        }
        decrease = self._predicted_decrease(loss, gradient)
        if decrease is not None:
            attributes["predicted_decrease"] = decrease
            if decrease > FAR and quantity is not None:
                attributes["predicted_shift"] = self._predicted_shift(quantity)
        return attributes

    def _predicted_decrease(self, loss: float, gradient: Tensor) -> float | None:
        """Return the share of the loss that a Gauss–Newton step would take away.

        ``½ ∇Lᵀ(A + μI)⁻¹∇L / L``, μ at least 1e-6 of the largest eigenvalue: with less damping even
        a well-trained network seems to have far to go. None where the solver cannot tell cheaply.
        """
        state = self.state()
        # Of an approximation the step may be any number of times too long.
        if not isinstance(state, Redamped) or state.spectrum.solver != "exact":
            return None

        if self._decrease is None:
            lowest = STEP_DAMPING * state.spectrum.largest_eigenvalue
            if state.spectrum.damping < lowest:
                state = state.redamped(lowest)
            # The model's decrease of a step δ = −(A + μI)⁻¹∇L, with ∇Lᵀδ = −∇Lᵀ(A + μI)⁻¹∇L.
            if isinstance(state, KernelState) and self._spans():
                # ∇L = Jᵀρ is a sum of rows, whose step takes a pass, if it is asked for.
                rho = self._rho()
                decrease = 0.5 * state.squared_length(rho)
                self._step = cache(partial(state.combination, rho))
            else:
                step = state.solve(gradient.unsqueeze(1)).value.squeeze(1)
                decrease = 0.5 * float(gradient @ step)
                self._step = lambda: step
            self._decrease = decrease / loss if loss else 0.0
        return self._decrease

    def _predicted_shift(self, quantity: Quantity) -> float:
        """Return how far the step moves the first targets, relative to the largest of them."""
        assert self._step is not None
        gradients = next(iter(quantity.gradients(self.objective)))  # (block, P)
        values = quantity.values(self.objective)[: len(gradients)]
        shift = float((gradients @ self._step()).abs().max())
        size = float(values.abs().max())
        return shift / size if size else shift
