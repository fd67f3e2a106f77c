"""The influence of training on a candidate on the loss elsewhere, or on any quantity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.influence import Influence
from whence.attribution.quantities import Loss, Quantity, aggregate_gradient
from whence.catalogue import LATER, SCORES
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, Solver, default_damping
from whence.objective import Objective
from whence.pinn.sampling.scores.base import (
    REDUCTIONS,
    SCORE_DAMPING,
    SCORE_TOLERANCE,
    SIGNS,
    Candidates,
    ProductScore,
    Reduction,
    Sign,
    by_term,
    fresh_test_points,
    shifted,
    spawn,
)

CurvaturePoints = int | Literal["training", "test"]
"""A number of fresh points, or those of training or of the test loss."""
AT_TRAINING: Literal["training"] = "training"
AT_TEST: Literal["test"] = "test"


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
        Seed of the test points, and of those of the curvature.
    curvature_points:
        Where the loss is taken whose Gauss–Newton matrix A is: ``"training"``, the points that are
        trained on; a number, as many fresh quasi-random points of each scored term, with which A
        is that of the integrals rather than of the few points that are there; ``"test"``, the
        points of the test loss. Terms that are not scored keep their points.

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
    curvature_points: CurvaturePoints = field(default=AT_TRAINING, metadata=LATER)

    def __post_init__(self) -> None:
        # Before any work, as a round may come long after the start.
        _checks.count("n_test", self.n_test)
        _checks.one_of("reduction", self.reduce, REDUCTIONS)
        _checks.one_of("sign", self.sign, SIGNS)
        _checks.count("seed", self.seed, zero=True)
        # A rule of damping checks itself.
        if self.damping is not None and not isinstance(self.damping, Damping):
            _checks.positive("damping", self.damping, zero=True)
        self._check_curvature_points()

    def _check_curvature_points(self) -> None:
        """Raise ``ValueError`` unless there are points for the curvature."""
        where = self.curvature_points
        if not isinstance(where, str):
            _checks.count("curvature_points", where)
            return

        _checks.one_of("curvature_points", where, (AT_TRAINING, AT_TEST))
        if where == AT_TEST and self.quantity is not None:
            raise ValueError(
                "curvature_points='test' are the points of the test loss, which a quantity stands "
                "in for: give a number of fresh points, such as curvature_points=1000"
            )

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        scores = self.prepared(objective, terms).score(objective, terms)
        return shifted(scores, self.sign)

    def prepared(self, objective: Objective, terms: Iterable[str]) -> ProductScore:
        """Return the score with everything solved that needs no candidate."""
        terms = tuple(terms)
        quantity = self.quantity
        if quantity is None:
            points = fresh_test_points(objective, terms, self.n_test, self.seed)
            quantity = Loss(points)

        # The curvature may be taken elsewhere; gradients are those of the objective itself.
        influence = self._influence(objective, terms)
        if self.reduce == "abs_of_sum":
            # v = (A + λI)⁻¹ Σ_t ∇f_t, once for all candidates; then |∇ℓ(x⁺)ᵀ v| of each.
            gradient = aggregate_gradient(quantity, objective)  # (P,)
            column = gradient.unsqueeze(1)  # as solvers take them
            return ProductScore(influence.solve(column).value[:, 0], self.sign)

        # V = (A + λI)⁻¹ [∇f_1 … ∇f_T], (P, T); then Σ_t |∇ℓ(x⁺)ᵀ v_t|.
        vectors = []
        for gradients in quantity.gradients(objective):
            solution = influence.solve(gradients.T)  # columns, (P, block)
            vectors.append(solution.value)
        return ProductScore(torch.cat(vectors, dim=1), self.sign)

    def _influence(self, objective: Objective, terms: Iterable[str]) -> Influence:
        """Return the influence whose inverse curvature is applied."""
        damping = self.damping
        if damping is None:
            dtype = objective.parameters.dtype
            damping = max(SCORE_DAMPING, default_damping(dtype))
        solver = self.solver or Exact(tolerance=SCORE_TOLERANCE)

        at_points = self.at_curvature_points(objective, terms)
        return Influence(at_points, solver=solver, damping=damping)

    def at_curvature_points(
        self, objective: Objective, terms: Iterable[str]
    ) -> Objective:
        """Return the objective at the points where the curvature is taken."""
        where = self.curvature_points
        if where == AT_TRAINING:
            return objective
        if where == AT_TEST:
            points = fresh_test_points(objective, terms, self.n_test, self.seed)
            return objective.with_points(points)

        assert isinstance(where, int)
        # One seed for all: terms that draw the same points share a pass through the network.
        seed = spawn(self.seed, 0)
        fresh = {}
        for name in terms:
            fresh[name] = objective.draw(name, where, seed, "hammersley")
        return objective.with_points(fresh)
