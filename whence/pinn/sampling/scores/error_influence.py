"""The influence of training on a candidate on the error of the solution, as far as estimated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.influence import Influence
from whence.catalogue import SCORES
from whence.curvature.exact import Exact
from whence.curvature.solvers import Damping, default_damping
from whence.evaluator import unit_cotangents
from whence.jacobian import linearized_blocks
from whence.objective import Objective
from whence.pinn.sampling.scores.base import (
    SCORE_DAMPING,
    SCORE_TOLERANCE,
    SIGNS,
    Candidates,
    ProductScore,
    Sign,
    by_term,
    shifted,
    spawn,
)

ESTIMATE_DAMPING = 1e-12
"""Relative damping of the step that estimates the error: what little moves the loss may well move
the solution, and stronger damping would leave that out."""


@SCORES.named("error_influence")
@dataclass(frozen=True, eq=False)
class ErrorInfluenceScore:
    """Influence of training on a candidate x⁺ on the estimated squared error of the solution.

    One Gauss–Newton step on the loss L_t at n_test fresh points says how the solution u would
    change if it were trained there: ``Δu = −J_u (A_t + μI)⁻¹ ∇L_t``, with A_t the Gauss–Newton
    matrix of L_t and J_u the Jacobian of all outputs at T = n_test points. ``u + Δu`` stands for
    the solution sought, so that ``Q = ‖Δu‖²/2T`` estimates half the mean squared error, with the
    gradient ``∇Q = −J_uᵀ Δu/T``. The score is the influence on it,

    ``S(x⁺) = |∇Qᵀ (A + λI)⁻¹ ∇ℓ(x⁺)| = 2 |Σ_m r_m(x⁺) z_m(x⁺)|, z_m = ∇r_mᵀ (A + λI)⁻¹ ∇Q``,

    of a squared loss: the residual times its dual weight z, as in goal-oriented refinement of
    meshes (Becker & Rannacher 2001, doi 10.1017/S0962492901000010). :class:`InfluenceScore` is the
    same with A_t for ``J_uᵀJ_u/T``: it takes the error by the size of residuals, this score by
    that of the solution. Before the absolute value, positive means that adding the point lowers
    the error, to first order.

    Parameters
    ----------
    n_test:
        Fresh uniform points of each scored term at which L_t is taken; terms that are not scored
        keep their points there. Outputs are taken at as many of the objective's first term.
    sign:
        As in :class:`InfluenceScore`.
    damping:
        λ as in :class:`InfluenceScore`.
    estimate_damping:
        μ of the step that estimates the error, as in :class:`whence.Influence`; by default 1e-12
        relative (1e-4 in float32).
    seed:
        Seed of the fresh points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> score = pinn.ErrorInfluenceScore(n_test=20)
    >>> score.score(objective, problem.draw("pde", 7, seed=1)).shape
    torch.Size([7])
    """

    n_test: int = 1000
    sign: Sign = "abs"
    damping: float | Damping | None = None
    estimate_damping: float | Damping | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("n_test", self.n_test)
        _checks.one_of("sign", self.sign, SIGNS)
        _checks.count("seed", self.seed, zero=True)
        check_damping("damping", self.damping)
        check_damping("estimate_damping", self.estimate_damping)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        scores = self.prepared(objective, terms).score(objective, terms)
        return shifted(scores, self.sign)

    def prepared(self, objective: Objective, terms: Iterable[str]) -> ProductScore:
        """Return the score with everything solved that needs no candidate."""
        gradient = self._error_gradient(objective, terms)
        # v = (A + λI)⁻¹∇Q, once for all candidates; then ∇ℓ(x⁺)ᵀv of each.
        vector = solved(objective, gradient, self.damping, SCORE_DAMPING)
        return ProductScore(vector, self.sign)

    def _error_gradient(self, objective: Objective, terms: Iterable[str]) -> Tensor:
        """Return ``∇Q = −J_uᵀ Δu/T``, (P,)."""
        step = self.predicted_step(objective, terms)

        # The first term is an equation's, which holds where the solution is sought.
        first = next(iter(objective.terms))
        seed = spawn(self.seed, 0)
        points = objective.draw(first, self.n_test, seed)

        # Δu = J_u Δθ, of which J_uᵀ makes a gradient.
        gradient = output_normal_product(objective, points, step)
        return -gradient / len(points)

    def predicted_step(self, objective: Objective, terms: Iterable[str]) -> Tensor:
        """Return the step to where L_t would be least, ``Δθ = −(A_t + μI)⁻¹ ∇L_t``, (P,)."""
        elsewhere = dict(objective.terms)
        for k, name in enumerate(terms):
            # Other seeds than the candidates', which would otherwise be the same points.
            seed = spawn(self.seed, 1 + k)
            points = objective.draw(name, self.n_test, seed)
            # Weights of training points say nothing of these.
            elsewhere[name] = replace(
                objective.terms[name],
                points=points,
                point_weights=None,
            )

        at_test_points = objective.with_terms(list(elsewhere.values()))
        _, gradient = at_test_points.loss_and_gradient()

        # The training loss is near its least value: its own step says nothing of the error.
        damping = self.estimate_damping
        uphill = solved(at_test_points, gradient, damping, ESTIMATE_DAMPING)
        return -uphill


def check_damping(name: str, damping: float | Damping | None) -> None:
    """Raise ``ValueError`` unless this can be a damping."""
    if damping is None:
        return
    # A rule of damping checks itself.
    if isinstance(damping, Damping):
        return
    _checks.positive(name, damping, zero=True)


def solved(
    objective: Objective,
    gradient: Tensor,
    damping: float | Damping | None,
    least: float,
) -> Tensor:
    """Return ``(A + λI)⁻¹g``, (P,); by default λ is ``least``, or what the precision asks for."""
    if damping is None:
        default = default_damping(objective.parameters.dtype)
        damping = max(least, default)

    solver = Exact(tolerance=SCORE_TOLERANCE)
    influence = Influence(
        objective,
        solver=solver,
        damping=damping,
    )

    # Solvers take columns.
    column = gradient.unsqueeze(1)
    solution = influence.solve(column)
    return solution.value[:, 0]


def output_normal_product(
    objective: Objective, points: Tensor, vector: Tensor
) -> Tensor:
    """Return ``J_uᵀ J_u v`` (P,) of all outputs at points (n, d), without a row of J_u."""
    outputs = objective.fields(objective.outputs)
    parameters = objective.parameters
    column = vector.unsqueeze(1)
    total = torch.zeros_like(vector)

    for _, linear in linearized_blocks(outputs, parameters, points):
        # J_u v of each point and output, (n, outputs).
        change = torch.zeros_like(linear.value)
        for cotangent in unit_cotangents(linear.value):
            # The output that a unit cotangent picks, in its column.
            picked = linear.matvec(column, cotangent)
            change += picked * cotangent
        total += linear.rmatvec(change)

    return total
