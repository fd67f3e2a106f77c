"""Scores by gradients alone: of the loss, of the solution, and their alignment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.quantities import aggregate_gradient
from whence.catalogue import LATER, SCORES
from whence.jacobian import point_gradients
from whence.objective import Objective
from whence.pinn.sampling.scores.base import (
    REDUCTIONS,
    SIGNS,
    Candidates,
    ProductScore,
    Reduction,
    Sign,
    by_term,
    candidate_blocks,
    loss_at_test_points,
    shifted,
)


@SCORES.named("grad_dot")
@dataclass(frozen=True)
class GradDotScore:
    """Alignment with the test gradient, ``∇L_testᵀ ∇ℓ(x⁺)``, L_test a sum over test points.

    ``sum_of_abs`` takes sizes point by point: ``Σ_t |∇ℓ_tᵀ ∇ℓ(x⁺)|`` (Charpiat et al. 2019, arXiv
    2102.05262).

    Parameters
    ----------
    n_test:
        Fresh uniform test points of each scored term.
    reduce:
        ``"abs_of_sum"`` or ``"sum_of_abs"``.
    sign:
        ``"abs"``, ``"positive"`` or ``"negative"`` part; ``"positive_shifted"`` or
        ``"negative_shifted"`` sum, as in :class:`InfluenceScore`.
    seed:
        Seed of the test points.
    """

    n_test: int = 1000
    reduce: Reduction = field(default="abs_of_sum", metadata=LATER)
    sign: Sign = "abs"
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("n_test", self.n_test)
        _checks.one_of("reduction", self.reduce, REDUCTIONS)
        _checks.one_of("sign", self.sign, SIGNS)
        _checks.count("seed", self.seed, zero=True)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        scores = self.prepared(objective, terms).score(objective, terms)
        return shifted(scores, self.sign)

    def prepared(self, objective: Objective, terms: Iterable[str]) -> ProductScore:
        """Return the score with the gradients at the test points taken."""
        loss = loss_at_test_points(objective, terms, self.n_test, self.seed)
        if self.reduce == "sum_of_abs":
            gradients = torch.cat(list(loss.gradients(objective)))  # ∇ℓ_t, (T, P)
            return ProductScore(gradients.T, self.sign)
        # ∇L_test, (P,)
        return ProductScore(aggregate_gradient(loss, objective), self.sign)


@SCORES.named("output_grad")
@dataclass(frozen=True)
class OutputGradScore:
    """Steepness of the solution, ``‖∇_x u(x⁺)‖₂`` over all outputs and coordinates."""

    is_pointwise = True

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        names = []
        for output in objective.outputs:
            names += [f"{output}_{name}" for name in objective.coordinates]
        slopes = objective.fields(names)
        tensors = objective.parameters.tensors()

        norms = []
        for _, points in candidate_blocks(objective, candidates):
            gradients = slopes(tensors, points)  # (n, outputs · d)
            norms.append(torch.linalg.vector_norm(gradients, dim=1))
        return torch.cat(norms).detach()


@SCORES.named("loss_grad")
@dataclass(frozen=True)
class LossGradScore:
    """Size of the loss gradient with respect to the parameters, ``‖∇_θ ℓ(x⁺)‖₂``."""

    is_pointwise = True

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        norms = []
        for name, points in by_term(objective, candidates).items():
            term = objective.terms[name]
            parts = point_gradients(term, objective.parameters, points)
            for _, linear, cotangent in parts:
                # ‖Jᵀ∂ℓ‖² of each point, without a row of J.
                norms.append(linear.squared_norms(cotangent).sqrt())

        return torch.cat(norms)
