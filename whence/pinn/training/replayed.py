"""The steps of a network's training, for :class:`whence.Replay`.

Steps of Adam and Gauss–Newton are differentiated as they were taken. Another last stage that finds
a minimum forgets where it started: its result is differentiated by the implicit function theorem.
Where points or weights changed in training they count as they were: what changed them is not
differentiated.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whence.attribution.influence import Influence
from whence.attribution.quality import FarFromMinimum
from whence.curvature.operators import Hessian
from whence.jacobian import gradient_products
from whence.objective import Objective
from whence.pinn.optimizers import Adam
from whence.pinn.optimizers.batches import Batches
from whence.pinn.optimizers.stepper import Optimizer, OptimizerState
from whence.pinn.training.step_derivatives import (
    EVERY_POINT,
    PULL_BACKS,
    THETA,
    check_differentiable,
)
from whence.pinn.training.stepped_on import Objectives
from whence.replay.steps import Pulled, State, Steps, relative_difference
from whence.term import Term

CONVERGED = 1e-8
"""Largest ``‖∇L‖/(‖H‖ ‖θ‖)`` at a minimum."""
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Relative difference of the replayed network from the trained one that rounding explains."""


class StageSpan(NamedTuple):
    """A stage, the iteration at which it began and the one at which it ended."""

    stage: Optimizer
    begun: int
    end: int


@dataclass(frozen=True, eq=False)
class Trained:
    """What the steps of a run were made with.

    Parameters
    ----------
    schedule:
        Its stages.
    ends:
        The iterations at which stages ended, of the first ones as far as they did: an optimizer
        may end its stage early. A stage that is not among them takes all its iterations.
    first:
        θ before the first step, (P,).
    objectives:
        What was stepped on: points and weights change.
    kept:
        The iteration of the network that was kept.
    """

    schedule: Sequence[Optimizer]
    ends: Sequence[int]
    first: Tensor
    objectives: Objectives
    kept: int

    def stage_at(self, iteration: int) -> StageSpan:
        """Return the stage of the step at an iteration, and of which iterations it is."""
        begun = 0
        for number, stage in enumerate(self.schedule):
            is_known = number < len(self.ends)
            end = self.ends[number] if is_known else begun + stage.iterations
            if iteration < end:
                return StageSpan(stage, begun, end)
            begun = end
        raise ValueError(f"no stage took a step at iteration {iteration}")

    def objective_at(self, iteration: int) -> tuple[Objective, int]:
        """Return the objective of the step at an iteration, and until when it was stepped on."""
        objective, until = self.objectives.at(iteration)
        return objective, self.kept if until is None else until


@dataclass(frozen=True)
class NotRecorded:
    """Why it is not known what the steps of a run were made with."""

    reason: str


def steps_of(trained: Trained, objective: Objective) -> Steps:
    """Return the steps of a run that keeps the network of this objective.

    Raises
    ------
    ValueError
        If steps of a stage before the last cannot be differentiated.
    """
    if not trained.kept:
        raise ValueError(
            "the network that the run kept is the first one: it was not trained on anything"
        )
    last = trained.stage_at(trained.kept - 1).stage
    if type(last) not in PULL_BACKS:
        return ConvergedSteps(trained, objective)
    for stage in trained.schedule:
        check_differentiable(stage)
        if stage is last:
            break
    return OptimizerSteps(trained, objective)


class OptimizerSteps:
    """Steps of optimizers on an objective whose points and weights may change between them."""

    def __init__(self, trained: Trained, objective: Objective) -> None:
        self.n_steps = trained.kept
        self._trained = trained
        self._objective = objective
        self._end = objective.parameters.vector()
        self._places: dict[str, tuple[Term, Tensor]] = {}
        """By term the points last asked for, and their places among those that were kept."""

    def start(self) -> State:
        """Return the state before the first step."""
        return {THETA: self._trained.first}

    def end(self) -> State:
        """Return the state after the last step: of it θ, which answers depend on."""
        return {THETA: self._end}

    def check_end(self, state: State) -> None:
        """Raise ``ValueError`` unless the replayed network is the trained one."""
        difference = relative_difference(state, self.end())
        # Written so that a NaN is an error, too.
        if not difference <= TOLERANCES[self._end.dtype]:
            raise ValueError(
                "the training cannot be replayed: its steps, taken again, lead to another network "
                f"(relative difference {difference:.1g}). Something that the equations use, or "
                "the network, has changed since, or draws random numbers"
            )

    # --- forwards ---

    def advance(self, state: State, first: int, last: int) -> State:
        """Return the state after steps ``first, …, last − 1``; the one given stays as it is."""
        parameters = self._objective.parameters
        with parameters.at(state[THETA]):
            t = first
            while t < last:
                stage, begun, stage_end = self._trained.stage_at(t)
                objective, until = self._trained.objective_at(t)
                end = min(last, until, stage_end)
                stepper = stage.start(parameters)
                if t > begun:
                    stepper.restore(optimizer_state(state))
                stepper.advance(objective, end - t)
                state = {THETA: parameters.vector(), **as_tensors(stepper.state())}
                t = end
        return state

    # --- backwards ---

    def pull_back(self, step: int, state: State, cotangent: State) -> Pulled:
        """Return ``(∂h_t/∂s)ᵀλ`` and ``(∂h_t/∂w)ᵀλ`` for K columns λ, each (K, …) by name."""
        stage, begun, _ = self._trained.stage_at(step)
        objective, _ = self._trained.objective_at(step)
        places = places_of_step(stage, step - begun, objective)
        batch = batch_of(objective, places)
        # An optimizer begins with nothing remembered.
        before = state if step > begun else {THETA: state[THETA]}

        with objective.parameters.at(state[THETA]):
            pull = PULL_BACKS[type(stage)]
            derivative = pull(stage, batch, before, cotangent)

        by_point = {}
        for name, values in derivative.by_point.items():
            in_both = self._kept_places(name, objective.term(name), places[name])
            if in_both is not None:
                rows, columns = in_both
                by_point[name] = (columns, values[:, rows])
        return Pulled(derivative.cotangent, by_point)

    def _kept_places(
        self, name: str, term: Term, places: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return which points of a batch the kept objective has, and their places there."""
        known = self._places.get(name)
        # Many steps are taken on the same points.
        if known is None or known[0].points is not term.points:
            kept_term = self._objective.term(name)
            known = (term, places_among(term, kept_term))
            self._places[name] = known

        columns = known[1] if places is None else known[1][places]
        rows = torch.nonzero(columns >= 0).squeeze(1)
        if not len(rows):
            return None
        return rows, columns[rows]

    # --- the end ---

    def objective_at(self, state: State) -> Objective:
        """Return the objective that was kept."""
        return self._objective

    def cotangent_of(self, objective: Objective, gradients: Tensor) -> State:
        """Return gradients (K, P) as a state's cotangent."""
        return {THETA: gradients}


class ConvergedSteps(OptimizerSteps):
    """A training whose last stage ended at a minimum, which forgets all before: one step.

    At a minimum ``∇L(θ; w) = 0``, so ``∂θ/∂w_i = −H⁻¹ (w_k m_i/N_k) ∇ℓ_k(z_i)``: by the implicit
    function theorem the answer is that of influence functions with the exact Hessian.

    Warns
    -----
    FarFromMinimum
        If it is no minimum, or one of many: where the Hessian has directions without curvature,
        the path of the training decides how far along them it ends, which no theorem knows.
    """

    def __init__(self, trained: Trained, objective: Objective) -> None:
        super().__init__(trained, objective)
        self.n_steps = 1
        self._influence = Influence(objective, curvature="hessian")
        self._judge(type(trained.schedule[-1]).__name__)

    def _judge(self, stage: str) -> None:
        """Warn unless the network is at a minimum that is alone."""
        values = torch.linalg.eigvalsh(Hessian(self._objective).dense())
        # Eigenvalues are known to some machine precisions of the largest.
        rounding = (
            len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
        )
        n_flat = int((values <= rounding).sum())
        _, gradient = self._objective.loss_and_gradient()
        steepest = float(values.abs().max()) * float(self._end.norm())
        size = float(gradient.norm()) / steepest
        if not n_flat and size <= CONVERGED:
            return
        warnings.warn(
            f"steps of {stage} are not known as functions, so the network counts as the minimum "
            f"that they lead to. It is none, or not the only one: {n_flat} of {len(values)} "
            f"directions have no curvature upwards, and ‖∇L‖/(‖H‖ ‖θ‖) is {size:.0e}. Take the "
            "result for a ranking at best, or train by Adam and GaussNewton, whose steps are "
            "replayed",
            FarFromMinimum,
            stacklevel=6,
        )

    def start(self) -> State:
        """Return the state at the minimum, which no step before is remembered in."""
        return self.end()

    def advance(self, state: State, first: int, last: int) -> State:
        """Return the state as it is."""
        return state

    def pull_back(self, step: int, state: State, cotangent: State) -> Pulled:
        """Return ``−(w_k m_i/N_k) ∇ℓ_k(z_i)·H⁻¹λ`` by the weights, and zero for the state."""
        gradients = cotangent[THETA]
        solution = self._influence.solve(gradients.T)
        by_point = {}
        for name, term in self._objective.data_terms.items():
            products = gradient_products(
                term, self._objective.parameters, term.points, solution.value
            )
            values = -products.T * term.scales(EVERY_POINT)
            by_point[name] = (torch.arange(len(term.points)), values)
        return Pulled({THETA: torch.zeros_like(gradients)}, by_point)


NUMBER = "number."


def as_tensors(state: OptimizerState) -> dict[str, Tensor]:
    """Return a stepper's state as tensors alone, its numbers under names of their own."""
    tensors = dict(state.tensors)
    for name, number in state.numbers.items():
        if number is not None:
            dtype = torch.int64 if isinstance(number, int) else torch.float64
            tensors[NUMBER + name] = torch.tensor(number, dtype=dtype)
    return tensors


def optimizer_state(state: State) -> OptimizerState:
    """Return the stepper's state that :func:`as_tensors` made tensors of, θ left out."""
    tensors = {}
    numbers = {}
    for name, value in state.items():
        if name.startswith(NUMBER):
            numbers[name.removeprefix(NUMBER)] = value.item()
        elif name != THETA:
            tensors[name] = value
    return OptimizerState(tensors, numbers)


def places_of_step(
    stage: Optimizer, number: int, objective: Objective
) -> Mapping[str, Tensor | None]:
    """Return by term which points a step of a stage was made with; None where all were."""
    if not isinstance(stage, Adam) or stage.batch_size is None:
        return dict.fromkeys(objective.terms)
    batches = Batches(stage.batch_size, stage.seed)
    batches.steps = number
    return batches.next_places(objective)


def batch_of(objective: Objective, places: Mapping[str, Tensor | None]) -> Objective:
    """Return the objective with the points at these places of each term alone."""
    terms = []
    for name, chosen in places.items():
        term = objective.term(name)
        terms.append(term if chosen is None else term.part(chosen))
    return objective.with_terms(terms)


def places_among(term: Term, kept: Term) -> Tensor:
    """Return the place of each of a term's points among those that were kept, (N,); −1 if none."""
    if torch.equal(term.locations, kept.locations):
        return torch.arange(len(kept.points))

    known = {}
    for place, coordinate in enumerate(float64_rows(kept)):
        known[coordinate.tobytes()] = place
    places = []
    for coordinate in float64_rows(term):
        places.append(known.get(coordinate.tobytes(), -1))
    return torch.tensor(places)


def float64_rows(term: Term) -> np.ndarray:
    """Return the coordinates of a term's points in float64, in which those of float32 are exact."""
    rows: np.ndarray = term.locations.detach().cpu().double().numpy()
    return rows
