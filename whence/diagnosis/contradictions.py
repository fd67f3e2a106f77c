"""Which term contradicts trusted values: every term is left out in turn, and the rest refitted.

The terms, each over its squared scale, and the trusted values, heavier, are minimized together. If
one term contradicts the values, all together cannot be met; without it they can, and what it is
then off by is its own residual at the trusted solution.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from whence.diagnosis.evidence import (
    STALL,
    Evidence,
    State,
    rows_that_determine,
)
from whence.diagnosis.reference import NAME, Reference
from whence.diagnosis.scales import TINY, rms
from whence.objective import Objective
from whence.refits import refit
from whence.term import Term

HEAVY = 100.0
"""Weight of trusted values beside terms of relative weight 1: they are met to a tenth of these."""
N_EQUATION = 400
"""Fresh points of each equation in these refits, and as many of those trained on, or more."""
N_CONDITION = 80
"""The same of each condition."""
STEPS = 40
"""Steps of the refit of all terms, which starts at another solution."""
STEPS_WITHOUT = 25
"""Steps of each refit without a term, from there."""
STEPS_RELEASED = 25
"""Steps from there with all terms again and no trusted values."""
MAX_MOVED = 1e-9
"""Change of an output, relative to its size, that is none."""
MIN_CANDIDATE = 0.003
"""Relative residual in the refit of all below which a term is met."""
MAX_CANDIDATES = 6
"""Terms that are left out in turn, those of the largest residuals."""
EQUATION_HANDICAP = 10.0
"""By how much less an equation must leave of the others to be blamed before a condition."""


@dataclass(frozen=True, eq=False)
class Contradiction:
    """What leaving out one term does.

    Parameters
    ----------
    name:
        The term.
    loss:
        What is left of the other terms and the trusted values.
    state:
        The network that was refitted.
    relative:
        The term's own relative residual there.
    misfit:
        How far the solution is then from the trusted values, relative to their size.
    """

    name: str
    loss: float
    state: State
    relative: float
    misfit: float


@dataclass(frozen=True, eq=False)
class Contradictions:
    """Refits of all terms together with trusted values, and without each in turn."""

    evidence: Evidence
    reference: Reference

    @property
    def points(self) -> Tensor:
        """Where values are trusted, (n, d)."""
        return self.evidence.like(self.reference.points)

    def sizes(self) -> Tensor:
        """Return the typical size of each trusted output, (outputs,)."""
        values = self.reference.values
        sizes = values.square().mean(dim=0).sqrt()
        # An output that vanishes everywhere is compared with the others.
        largest = sizes.max().clamp_min(TINY)
        return torch.where(sizes > 0, sizes, largest)

    def errors(self, theta: Tensor) -> Tensor:
        """Return (solution − trusted)/size at the trusted points, (n, outputs)."""
        evidence = self.evidence
        network = evidence.objective.network
        with evidence.objective.parameters.at(theta):
            values = evidence.problem.evaluate(
                network,
                self.points,
                self.reference.outputs,
            )

        difference = values.double().cpu() - self.reference.values
        return difference / self.sizes()

    def misfit(self, theta: Tensor) -> float:
        """Return how far the solution is from the trusted values: the largest rms of an output."""
        # Of several outputs the worst counts: a good velocity is no excuse for a bad pressure.
        errors = self.errors(theta)
        shares = [rms(column) for column in errors.T]
        return max(shares)

    @cached_property
    def objective(self) -> Objective:
        """All terms over their squared scales, and the trusted values."""
        evidence = self.evidence
        # With fewer residuals than parameters a network would meet all of them, contradiction or
        # not. Points count twice, as fresh ones and as those trained on.
        n_equations = len(evidence.problem.equations)
        n_needed = rows_that_determine(evidence.objective) // (2 * n_equations)
        # The weights of training may be what is wrong; here every term counts the same.
        terms = evidence.evenly_weighed(max(N_EQUATION, n_needed), N_CONDITION)
        terms.append(self._trusted())
        return evidence.objective.with_terms(terms)

    def _trusted(self) -> Term:
        """Return the trusted values as a term."""
        evidence = self.evidence
        problem = evidence.problem
        # Values are measurements of the outputs, which a problem makes a term of.
        conditions = [*problem.conditions, self.reference.data()]
        extended = replace(problem, conditions=conditions)
        objective = extended.objective(
            evidence.objective.network,
            evidence.fresh_points,
        )

        # ‖u − u_ref‖² over the squared size, as the other terms are over their scales.
        size = max(rms(self.reference.values), TINY)
        term = objective.term(NAME)
        return replace(term, weight=HEAVY / size**2)

    @cached_property
    def together(self) -> State:
        """The refit of all terms and the trusted values."""
        return self._refitted(self.objective, STEPS)

    def candidates(self) -> list[str]:
        """Return the terms that are not met in the refit of all, the worst first."""
        relative = self.evidence.relative_by_term(self.together)
        # One that is met with all the others contradicts none.
        names = []
        for name, size in relative.items():
            if size > MIN_CANDIDATE:
                names.append(name)
        names.sort(key=lambda name: -relative[name])
        return names[:MAX_CANDIDATES]

    def leave_out(self, name: str) -> Contradiction:
        """Return what is left where one term is left out."""
        # From the refit of all, which is near, rather than from where training ended.
        fewer = self._without(name)
        parameters = self.objective.parameters
        with parameters.at(self.together.theta):
            state = self._refitted(fewer, STEPS_WITHOUT)

        relative = self.evidence.relative(state, name)
        misfit = self.misfit(state.theta)
        return Contradiction(
            name,
            state.loss,
            state,
            relative,
            misfit,
        )

    def _without(self, name: str) -> Objective:
        """Return the objective of all terms but one."""
        others = []
        for term in self.objective.terms.values():
            if term.name != name:
                others.append(term)
        return self.objective.with_terms(others)

    def released(self, contradiction: Contradiction) -> float:
        """Return how far the solution goes from the trusted values once nothing holds it there.

        From where all but one term were met, all terms are, without the trusted values. A term
        that contradicts them takes the solution away; one that does not has a minimum near them,
        and that training did not find it is another matter.
        """
        # The trusted values are a term like the others here.
        all_terms = self._without(NAME)
        start = contradiction.state.theta
        with self.objective.parameters.at(start):
            fit = refit(all_terms, steps=STEPS_RELEASED, stall=STALL)
        return self.misfit(fit.theta)

    @cached_property
    def floor(self) -> float:
        """What is left of the trusted values where no term is in their way."""
        term = self.objective.term(NAME)
        only = self.objective.with_terms([term])
        start = self.together.theta
        with self.objective.parameters.at(start):
            fit = refit(only, steps=STEPS_WITHOUT, stall=STALL)
        return fit.loss

    def resolved(self, contradiction: Contradiction) -> float:
        """Return the share of the conflict that leaving out a term resolves.

        The conflict is what all together leave more than the trusted values alone, which a network
        may be too small for: ``(L_all − L_k)/(L_all − L_0)``.
        """
        conflict = self.together.loss - self.floor
        fall = self.together.loss - contradiction.loss
        return fall / max(conflict, TINY)

    def fixed_errors(self) -> Tensor:
        """Return how far the solution is from the values where no network can change it, (n,).

        Zero where it can. Parameters are moved at random, all at once: where an output stays, the
        ansatz fixes it.
        """
        theta = self.evidence.objective.parameters.vector()
        generator = torch.Generator().manual_seed(self.evidence.seed)
        shift = torch.randn(
            len(theta),
            generator=generator,
            dtype=theta.dtype,
        )
        errors = self.errors(theta)
        others = self.errors(theta + shift.to(theta))
        is_fixed = (others - errors).abs() < MAX_MOVED
        # Of several outputs the worst.
        return (errors.abs() * is_fixed).amax(dim=1)

    def _refitted(self, objective: Objective, steps: int) -> State:
        """Return the state after some steps, whose loss is that of what was minimized."""
        # A state's own loss is that of training, which was not what was minimized.
        fit = refit(objective, steps=steps, stall=STALL)
        state = self.evidence.state(fit.theta)
        return replace(state, loss=fit.loss)


def likeliest_first(
    contradictions: Mapping[str, Contradiction], equations: Collection[str]
) -> list[Contradiction]:
    """Return contradictions in the order in which they are believed.

    By what is left of the others; but without its equation a network can meet nearly anything, a
    wrong condition too, so that an equation must leave ten times less to come before a condition.
    """

    def order(contradiction: Contradiction) -> float:
        loss = contradiction.loss
        if contradiction.name in equations:
            loss *= EQUATION_HANDICAP
        return loss

    return sorted(contradictions.values(), key=order)
