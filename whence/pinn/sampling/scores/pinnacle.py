"""How far training on a candidate would move all residuals, by the neural tangent kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SCORES
from whence.jacobian import Jacobian, gradient_products
from whence.objective import Objective
from whence.pinn.sampling.scores.base import Candidates, by_term, spawn
from whence.symmetric_products import self_product

MIN_EIGENVALUE = 1e-12
"""Eigenvalues below this share of the largest are rounding."""


@SCORES.named("pinnacle")
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

    counts_weights = True
    is_pointwise = True

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

        parts = []

        for name, points in terms.items():
            term = objective.terms[name]
            # ∇ℓ = 2 Σ_m R_m ∇r_m of a squared loss, so half of it is the step.
            products = gradient_products(term, objective.parameters, points, directions)
            parts.append(0.5 * term.weight * products)

        return torch.cat(parts)

    def _directions(self, objective: Objective, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the first right singular vectors of J at the reference points, (P, T)."""
        rows = []
        for k, name in enumerate(terms):
            points = objective.draw(name, self.reference, spawn(self.seed, 1 + k))
            term = objective.terms[name].with_points(points)
            jacobian = Jacobian(objective.with_terms([term]))
            rows.append(jacobian.dense() * term.weight**0.5)

        stacked = torch.cat(rows)  # J, (R, P)

        # J Jᵀ = V Λ Vᵀ in rising order of eigenvalues.
        kernel = self_product(stacked)
        values, vectors = torch.linalg.eigh(kernel)
        largest = values[-1].clamp_min(torch.finfo(values.dtype).tiny)
        is_significant = values > MIN_EIGENVALUE * largest
        significant = torch.nonzero(is_significant)[:, 0]
        kept = significant[-self.eigenpairs :].flip(0)  # the largest first

        # u_t = Jᵀ v_t / √λ_t.
        scaled = vectors[:, kept] / values[kept].sqrt()
        return stacked.T @ scaled
