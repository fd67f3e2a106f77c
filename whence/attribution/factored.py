"""Methods that solve with an objective's curvature: how it is chosen, damped and factored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.labels import Attributes
from whence.attribution.method import Method
from whence.attribution.plan import Plan, plan_of
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.tiled import TARGET_BLOCK
from whence.attribution.tiles import Solved
from whence.curvature.automatic import Automatic
from whence.curvature.costs import solver_cost
from whence.curvature.operators import Curvature, GaussNewtonMatrix, Hessian
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Redamped,
    Solution,
    Solver,
    State,
    default_damping,
)
from whence.jacobian import LARGE_NETWORK
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.samples import Data

CurvatureName = Literal["gauss_newton", "hessian"]


@runtime_checkable
class DampingRule(Protocol):
    """A way to choose the damping for an objective, such as :class:`whence.LeaveOneOut`."""

    def choose(
        self, objective: Objective, curvature: CurvatureName, solver: Solver
    ) -> Damping:
        """Return the damping for this objective, curvature and solver."""


class Factored(Method):
    """A method whose vectors are solutions of ``(A + λI)x = ∇f``, A the objective's curvature.

    Parameters
    ----------
    objective, data, loss, parameters, weight_decay, solver, damping, curvature, memory_budget:
        As for :class:`whence.Influence`.
    """

    def __init__(
        self,
        objective: Objective | nn.Module,
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        weight_decay: float | None = None,
        solver: Solver | Literal["auto"] = "auto",
        damping: float | Damping | DampingRule | None = None,
        curvature: CurvatureName | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__(
            objective,
            data,
            loss,
            parameters=parameters,
            weight_decay=weight_decay,
            memory_budget=memory_budget,
        )
        self.curvature = self._choose_curvature(curvature)
        self.solver = self._choose_solver(solver)
        self.damping = self._choose_damping(damping)

        self._state: State | None = None
        # Parameters and buffers for which the state holds.
        self._factored_at: dict[str, Tensor] = {}

    def _choose_curvature(self, curvature: CurvatureName | None) -> CurvatureName:
        terms = self.objective.terms
        not_convex = [name for name in terms if not terms[name].loss.is_convex]
        if curvature is None:
            return "hessian" if not_convex else "gauss_newton"

        _checks.one_of("curvature", curvature, ("gauss_newton", "hessian"))
        if curvature == "gauss_newton" and not_convex:
            raise ValueError(
                f"the loss of term {not_convex[0]!r} is not convex in what the network gives, or "
                "has no curvature there, so Gauss–Newton does not stand for its Hessian: use "
                "curvature='hessian', or a method without curvature such as wh.TracIn or "
                "wh.GradDot"
            )
        return curvature

    def _choose_solver(self, solver: Solver | Literal["auto"]) -> Solver:
        if isinstance(solver, str):
            _checks.one_of("solver", solver, ("auto",))
            return Automatic(memory_budget=self.memory_budget)
        if not isinstance(solver, Solver) or isinstance(solver, type):
            raise TypeError(
                "solver must be 'auto' or a solver, such as wh.Exact(), got "
                f"{_checks.describe(solver)}"
            )
        return solver

    def _choose_damping(self, damping: float | Damping | DampingRule | None) -> Damping:
        objective = self.objective
        if damping is None:
            dtype = objective.parameters.dtype
            return Damping(default_damping(dtype, samples=objective.has_samples))
        if isinstance(damping, Damping):
            return damping
        if isinstance(damping, DampingRule) and not isinstance(damping, type):
            return damping.choose(objective, self.curvature, self.solver)
        if isinstance(damping, (str, type)):
            raise TypeError(
                "damping must be a number, a wh.Damping, or a rule that chooses it, such as "
                f"damping=wh.LeaveOneOut(), got {damping!r}"
            )
        return Damping(damping)

    def with_damping(self, damping: float | Damping | DampingRule) -> Self:
        """Return the same influence at another damping, without factoring again where possible.

        What the solver has factored serves any λ: :class:`whence.Exact` of a Gauss–Newton matrix
        or its kernel, :class:`whence.EKFAC`, :class:`whence.Nystrom` and :class:`whence.Arnoldi`
        factor nothing but a matrix in memory again; other solvers start afresh at first use.

        Parameters
        ----------
        damping:
            As for :class:`Influence`.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(3, 2)
        >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
        >>> influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss(), damping=1e-3)
        >>> _ = influence.state()
        >>> round(influence.with_damping(0.1).state().spectrum.relative_damping, 6)
        0.1
        """
        # A copy without factors: the objective and its points are shared.
        other = copy.copy(self)
        other.damping = self._choose_damping(damping)
        other._forget()
        if self._state is None:
            return other

        state = self.state()
        if isinstance(state, Redamped):
            of_objective = other.damping.with_penalty(self.objective.weight_decay)
            absolute = of_objective.resolve(state.spectrum.largest_eigenvalue)
            other._state = state.redamped(absolute)
            other._factored_at = self._factored_at
        return other

    def plan(
        self, quantity: Quantities | None = None, *, n_targets: int | None = None
    ) -> Plan:
        """Return what the influence will take, before it runs: solver, memory, passes, seconds.

        Nothing is factored; a pass at a few points is timed.

        Parameters
        ----------
        quantity, n_targets:
            What will be explained, or of how many targets; by default factoring alone is planned.

        Raises
        ------
        ValueError
            If both are given, or what the solver takes is not known.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 200), torch.nn.Linear(200, 2))
        >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
        >>> influence = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss())
        >>> print(influence.plan(wh.Loss()))                                   # doctest: +ELLIPSIS
        solver   exact (dual)
        sizes    1,202 parameters, 10 points, 10 rows, 10 targets
        memory   about 0.1 MiB of a budget of 2.0 GiB, beside model and data
        passes   about 4 through the network at all points
        seconds  about ...
        """
        if quantity is not None and n_targets is not None:
            raise ValueError("give a quantity or n_targets, not both")
        if quantity is not None:
            n_targets = self.n_targets(as_quantity(quantity))
        if n_targets is not None:
            _checks.count("n_targets", n_targets)

        # Operators are made without any work.
        operator, damping = self._system()
        cost = solver_cost(self.solver, operator, damping)
        if cost is None:
            raise ValueError(
                f"what {self.solver.name} takes is not known: plans are for Exact, EKFAC, "
                "Nystrom, Arnoldi, ConjugateGradient and Sketched"
            )
        return plan_of(self, cost, n_targets)

    # --- curvature ---

    def state(self) -> State:
        """Return the factored curvature; made at first use and again when the network changed."""
        network = self.objective.network
        tensors = {
            **dict(network.named_parameters()),
            **dict(network.named_buffers()),
        }
        if self._state is not None and _equal(tensors, self._factored_at):
            return self._state

        operator, damping = self._system()
        state = self.solver.factor(operator, damping)
        if not hasattr(state, "solve") or not hasattr(state, "spectrum"):
            raise TypeError(
                f"{type(self.solver).__name__}.factor must return a state with solve and spectrum, "
                f"got {_checks.describe(state)}"
            )
        # Results hold for these parameters and statistics alone.
        self._state = state
        self._factored_at = {
            name: tensor.detach().clone() for name, tensor in tensors.items()
        }
        return self._state

    def _system(self) -> tuple[Curvature, Damping]:
        """Return A and λ."""
        # A is that of the terms: cI is added as damping is, which every solver does exactly.
        terms_alone = self.objective.with_weight_decay(0.0)
        operator: Curvature
        if self.curvature == "gauss_newton":
            operator = GaussNewtonMatrix(terms_alone)
        else:
            operator = Hessian(terms_alone)
        return operator, self.damping.with_penalty(self.objective.weight_decay)

    def solve(self, vectors: Tensor) -> Solution:
        """Return ``(A + λI)⁻¹ V`` for the columns of ``vectors``, (P, K)."""
        return self.state().solve(vectors)

    def at_once(self) -> int:
        """Return how many gradients to solve for at once, by memory."""
        copies = getattr(self.solver, "copies", None)
        if copies is None or self.objective.parameters.size < LARGE_NETWORK:
            return super().at_once()
        # Every further block of targets is a pass of all points through a large network.
        parameters = self.objective.parameters
        row_bytes = parameters.dtype.itemsize * parameters.size
        return max(1, min(TARGET_BLOCK, self.memory_budget // (copies * row_bytes)))

    def for_products(self) -> Self:
        """Return the same without curvature and solver, which products do not need."""
        bare = copy.copy(self)
        bare._forget()
        bare.solver = Automatic()
        return bare

    def for_solving(self) -> Self:
        """Return the same with its curvature factored."""
        if hasattr(self.solver, "client"):
            raise ValueError(
                f"the factors of {type(self.solver).__name__} are on workers already, which solve "
                "for all points: leave client= away"
            )
        self.state()
        return self

    def _forget(self) -> None:
        """Leave the factored curvature, and what was solved with it."""
        self._state = None
        self._factored_at = {}

    def solver_attributes(self, solved: Solved) -> Attributes:
        """Return what attributes say of the curvature, and of how systems were solved."""
        attributes: Attributes = {
            "curvature": self.curvature,
            "solver": self.solver.name,
            "solver_residual": solved.residual,
            "solver_converged": int(solved.converged),
            "solver_message": solved.message,
            **self.state().spectrum.attributes(),
        }
        for term in self.objective.terms.values():
            caveat: str = getattr(term.loss, "caveat", "")
            if caveat:
                attributes["loss_caveat"] = caveat

        penalty = self.objective.weight_decay
        if penalty:
            # What was factored is A + (λ + c)I; results speak of λ and c apart.
            spectrum = self.state().spectrum
            damping = self.damping.resolve(spectrum.largest_eigenvalue)
            apart = replace(spectrum, damping=damping)
            attributes["damping"] = apart.damping
            attributes["relative_damping"] = apart.relative_damping
            attributes["weight_decay"] = penalty
        return attributes


def _equal(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    if tensors.keys() != others.keys():
        return False
    return all(torch.equal(tensors[name], others[name]) for name in tensors)
