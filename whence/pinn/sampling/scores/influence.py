"""The influence of training on a candidate on the loss elsewhere, or on any quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.quantities import Quantity, aggregate_gradient
from whence.catalogue import SCORES
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solver, default_damping
from whence.objective import Objective
from whence.pinn.sampling.scores.base import (
    REDUCTIONS,
    SCORE_DAMPING,
    SCORE_TOLERANCE,
    SIGNS,
    Candidates,
    Reduction,
    Sign,
    by_term,
    loss_at_test_points,
    loss_products,
    shifted,
    signed_part,
    summed_products,
)


@SCORES.named("influence")
@dataclass(frozen=True, eq=False)
class InfluenceScore:
    """Influence of training on a candidate x⁺ on a quantity, by default the loss at test points.

    ``abs_of_sum``: ``|Σ_t ∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|`` (the paper's formula), one solve and one
    product J·v for any number of candidates. ``sum_of_abs``: ``Σ_t |∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|``
    (the paper's code). Before the absolute value, positive means that adding the point lowers the
    quantity, to first order (Naujoks et al. 2025, arXiv 2506.16443).

    Parameters
    ----------
    n_test:
        Fresh uniform points of each scored term at which the test loss is taken.
    reduce:
        ``"abs_of_sum"`` or ``"sum_of_abs"``.
    sign:
        ``"abs"``: the size. ``"positive"``, ``"negative"``: that part only, zero elsewhere.
        ``"positive_shifted"``, ``"negative_shifted"``: the sum, or its negative, less the least
        of all candidates where that is negative, as the published code does.
    quantity:
        Any quantity of interest in place of the test loss: goal-oriented sampling.
    damping:
        λ as in :class:`whence.Influence`; by default 1e-6 relative (1e-4 in float32): candidates
        lie outside the training set, and weak damping scores little but how far outside.
    solver:
        Solver as in :class:`whence.Influence`.
    seed:
        Seed of the test points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> pinn.InfluenceScore(n_test=20).score(objective, problem.draw("pde", 7, seed=1)).shape
    torch.Size([7])
    """

    n_test: int = 1000
    reduce: Reduction = "abs_of_sum"
    sign: Sign = "abs"
    quantity: Quantity | None = None
    damping: float | Damping | None = None
    solver: Solver | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("n_test", self.n_test)
        _checks.one_of("reduction", self.reduce, REDUCTIONS)
        _checks.one_of("sign", self.sign, SIGNS)
        _checks.count("seed", self.seed, zero=True)
        # A rule of damping checks itself.
        if self.damping is not None and not isinstance(self.damping, Damping):
            _checks.positive("damping", self.damping, zero=True)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        quantity = self.quantity
        if quantity is None:
            quantity = loss_at_test_points(objective, terms, self.n_test, self.seed)

        influence = self._influence(objective)
        if self.reduce == "abs_of_sum":
            scores = self._abs_of_sum(influence, quantity, terms)
        else:
            scores = self._sum_of_abs(influence, quantity, terms)
        return shifted(scores, self.sign)

    def _influence(self, objective: Objective) -> Influence:
        """Return the influence whose inverse curvature is applied."""
        damping = self.damping
        if damping is None:
            damping = max(SCORE_DAMPING, default_damping(objective.parameters.dtype))
        solver = self.solver or Exact(tolerance=SCORE_TOLERANCE)
        return Influence(objective, solver=solver, damping=damping)

    def _abs_of_sum(
        self, influence: Influence, quantity: Quantity, terms: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``|Σ_t ∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|`` of each candidate, (n,)."""
        objective = influence.objective

        # v = (A + λI)⁻¹ Σ_t ∇f_t, once for all candidates; then ∇ℓ(x⁺)ᵀ v of each.
        gradient = aggregate_gradient(quantity, objective)  # (P,)
        vector = influence.solve(gradient.unsqueeze(1)).value
        products = loss_products(objective, terms, vector[:, 0])
        return signed_part(products, self.sign)

    def _sum_of_abs(
        self, influence: Influence, quantity: Quantity, terms: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``Σ_t |∇f_tᵀ(A + λI)⁻¹∇ℓ(x⁺)|`` of each candidate, (n,)."""
        objective = influence.objective

        # V = (A + λI)⁻¹ [∇f_1 … ∇f_T], (P, T).
        vectors = []
        for gradients in quantity.gradients(objective):
            vectors.append(influence.solve(gradients.T).value)
        solved = torch.cat(vectors, dim=1)

        return summed_products(objective, terms, solved, self.sign)
