"""Scores from the neural tangent kernel: what a candidate would move, and how little it is known.

Sources: PINNACLE, Lau et al. 2024, arXiv 2404.07662; leverage, Cook 1977 and, for samples of
Gauss–Newton systems, Mahoney 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence import _checks
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.solvers import Damping, default_damping
from whence.jacobian import Jacobian, chunks, gradient_products, self_product
from whence.objective import Objective, Term
from whence.pinn.sampling.scores import SCORE_DAMPING, Candidates, by_term, spawn

LEAST_EIGENVALUE = 1e-12
"""Eigenvalues below this share of the largest are rounding."""


@dataclass(frozen=True)
class PinnacleScore:
    """How far training on a candidate would move all residuals, in the kernel's own measure.

    With (λ_t, v_t) the largest eigenpairs of ``K = J Jᵀ`` at reference points of all scored terms,
    ``a_t(z) = k(z, reference)·v_t`` and R the residual, ``α(z) = Σ_t λ_t⁻¹ a_t(z)² R(z)²``: the
    squared norm of the step ``Σ_m R_m ∇r_m`` within what the network learns at all, the span of
    the first right singular vectors u_t of J, as ``a_t = √λ_t u_t·∇r``. Residuals carry ``√w_k`` of
    their term, so candidates of all terms compare: ``Resample(joint=True)``. With
    ``Proportional(k=1, c=0)`` or :class:`KMeansPlusPlus` it makes the two selections of PINNACLE
    (Lau et al. 2024, arXiv 2404.07662).

    Parameters
    ----------
    reference:
        Fresh uniform reference points of each scored term.
    eigenpairs:
        Number of eigenpairs, fewer where the kernel has fewer.
    seed:
        Seed of the reference points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> candidates = problem.draw("pde", 7, seed=1)
    >>> score = pinn.PinnacleScore(reference=30, eigenpairs=5)
    >>> squares = score.embedding(objective, candidates).square()
    >>> squares.shape, bool(squares.sum(1).allclose(score.score(objective, candidates)))
    (torch.Size([7, 5]), True)
    """

    reference: int = 200
    eigenpairs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("reference", self.reference)
        _checks.count("eigenpairs", self.eigenpairs)
        _checks.count("seed", self.seed, zero=True)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return α of each candidate, shape (n,)."""
        return self.embedding(objective, candidates).square().sum(dim=1)

    def embedding(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return ``u_t · Σ_m w R_m ∇r_m`` of each candidate, (n, eigenpairs): ‖·‖² = α."""
        terms = by_term(objective, candidates)
        directions = self._directions(objective, terms)
        # Half of the gradient of a squared loss is Σ_m R_m ∇r_m.
        parts = [
            0.5
            * objective.terms[name].weight
            * gradient_products(
                objective.terms[name], objective.parameters, points, directions
            )
            for name, points in terms.items()
        ]
        return torch.cat(parts)

    def _directions(self, objective: Objective, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the first right singular vectors of J at the reference points, (P, T)."""
        rows = []
        for k, name in enumerate(terms):
            points = objective.draw(name, self.reference, spawn(self.seed, 1 + k))
            term = replace(objective.terms[name], points=points, point_weights=None)
            own = Jacobian(objective._with_terms([term])).dense()
            rows.append(own * term.weight**0.5)
        stacked = torch.cat(rows)
        values, vectors = torch.linalg.eigh(self_product(stacked))
        largest = values[-1].clamp_min(torch.finfo(values.dtype).tiny)
        kept = torch.nonzero(values > LEAST_EIGENVALUE * largest)[
            -self.eigenpairs :, 0
        ].flip(0)
        return stacked.T @ (vectors[:, kept] / values[kept].sqrt())


@dataclass(frozen=True)
class LeverageScore:
    """How much a candidate's residual would be decided by the candidate itself.

    ``h(z) = Σ_m j_m(z)ᵀ (JᵀJ + λI)⁻¹ j_m(z)`` with J the scaled Jacobian of the training points and
    j the candidate's rows, scaled by ``√(w/N)`` and the root of the loss's curvature as theirs are:
    the leverage of linear regression (Cook 1977). Where it is large no training point says what the
    residual there is like. Weights and numbers of points count, so candidates of all terms compare.
    The smaller of JᵀJ and JJᵀ is factored once, exactly.

    Parameters
    ----------
    damping:
        λ as in :class:`whence.Influence`, above zero; by default 1e-6 relative (1e-4 in float32).

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> bool((pinn.LeverageScore().score(objective, problem.draw("pde", 7, seed=1)) > 0).all())
    True
    """

    damping: float | Damping | None = None

    def __post_init__(self) -> None:
        value = (
            self.damping.value if isinstance(self.damping, Damping) else self.damping
        )
        if value is not None:
            _checks.positive("damping", value)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        rows = Jacobian(objective, scaled=True).dense()
        factor = _wide if 2 * len(rows) < rows.shape[1] else _tall
        inverse = factor(rows, self._absolute)
        parts = []
        for name, points in terms.items():
            for part in chunks(points, objective.parameters):
                own = _rows_of(objective, objective.terms[name], points[part])
                parts.append(inverse(own).view(len(points[part]), -1).sum(dim=1))
        return torch.cat(parts)

    def _absolute(self, gram: Tensor) -> float:
        """Return λ by the matrix whose largest eigenvalue that of JᵀJ is."""
        weakest = max(SCORE_DAMPING, default_damping(gram.dtype))
        given = weakest if self.damping is None else self.damping
        damping = given if isinstance(given, Damping) else Damping(given)
        return damping.resolve(largest_eigenvalue(gram.matmul, len(gram), gram))


Norms = Callable[[Tensor], Tensor]
"""Rows (n, P) to ``jᵀ(JᵀJ + λI)⁻¹j`` of each, (n,)."""


def _tall(rows: Tensor, damping: Callable[[Tensor], float]) -> Norms:
    """Factor ``JᵀJ + λI``."""
    gram = self_product(rows.T)
    gram.diagonal().add_(damping(gram))
    lower = torch.linalg.cholesky(gram)
    return lambda own: (
        torch.linalg.solve_triangular(lower, own.T, upper=False).square().sum(dim=0)
    )


def _wide(rows: Tensor, damping: Callable[[Tensor], float]) -> Norms:
    """Factor by ``Jᵀ = QR``: ``Q(RRᵀ + λI)⁻¹Qᵀ`` within the span of the rows, 1/λ outside of it."""
    basis, triangle = torch.linalg.qr(rows.T)
    gram = triangle @ triangle.T
    absolute = damping(gram)
    gram.diagonal().add_(absolute)
    lower = torch.linalg.cholesky(gram)

    def norms(own: Tensor) -> Tensor:
        inside = own @ basis
        outside = own - inside @ basis.T
        solved = torch.linalg.solve_triangular(lower, inside.T, upper=False)
        return solved.square().sum(dim=0) + outside.square().sum(dim=1) / absolute

    return norms


def _rows_of(objective: Objective, term: Term, points: Tensor) -> Tensor:
    """Return the scaled rows of candidates, each with the factor w/N of a training point."""
    weight = term.scale * len(points)
    alone = replace(term, points=points, weight=weight, point_weights=None)
    return Jacobian(objective._with_terms([alone]), scaled=True).dense()
