"""How much a candidate's residual would be decided by the candidate itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SCORES
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.solvers import Damping, default_damping
from whence.jacobian import Jacobian
from whence.objective import Objective
from whence.pinn.sampling.scores.base import SCORE_DAMPING, Candidates, by_term
from whence.points import blocks, linearized_at_once
from whence.symmetric_products import self_product

Embed = Callable[[Tensor], Tensor]
"""Rows (n, P) to vectors (n, q) whose inner products are ``jᵀ(JᵀJ + λI)⁻¹j′``."""


@SCORES.named("leverage")
@dataclass(frozen=True)
class LeverageScore:
    """How much a candidate's residual would be decided by the candidate itself.

    ``h(z) = Σ_m j_m(z)ᵀ (JᵀJ + λI)⁻¹ j_m(z)`` with J the scaled Jacobian of the training points and
    j the candidate's rows, scaled by ``√(w/N)`` and the root of the loss's curvature as theirs are:
    the leverage of linear regression (Cook 1977; for samples of Gauss–Newton systems, Mahoney
    2011). Where it is large no training point says what the residual there is like. Weights and
    numbers of points count, so candidates of all terms compare. The smaller of JᵀJ and JJᵀ is
    factored once, exactly.

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

    counts_weights = True
    is_pointwise = True

    damping: float | Damping | None = None

    def __post_init__(self) -> None:
        if isinstance(self.damping, Damping):
            _checks.positive("damping", self.damping.value)
        elif self.damping is not None:
            _checks.positive("damping", self.damping)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        parts = []
        for embedded in self._blocks(objective, candidates):
            parts.append(embedded.square().sum(dim=(1, 2)))
        return torch.cat(parts)

    def embedding(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return ``L⁻¹j_m`` of all m side by side, (n, q), with ``LLᵀ = JᵀJ + λI``: ‖·‖² = h.

        That is up to ``m (R + P)`` numbers for each candidate, R rows of J and P parameters.
        """
        parts = []
        for embedded in self._blocks(objective, candidates):
            parts.append(embedded.flatten(1))

        # Terms of fewer residuals have zeros in the place of those that they lack.
        width = max(part.shape[1] for part in parts)
        padded = []
        for part in parts:
            missing = width - part.shape[1]
            padded.append(torch.nn.functional.pad(part, (0, missing)))
        return torch.cat(padded)

    def _blocks(self, objective: Objective, candidates: Candidates) -> Iterator[Tensor]:
        """Yield ``L⁻¹j_m`` of some candidates at a time, (n, m, q)."""
        terms = by_term(objective, candidates)
        rows = Jacobian(objective, scaled=True).dense()  # J, (R, P)
        embed = self._factor(rows)

        for name, points in terms.items():
            term = objective.terms[name]
            size = linearized_at_once(points, objective.parameters.size)
            for block in blocks(points, size):
                # w/N of a training point, for each of the block's points.
                weight = term.scale * len(block)
                scaled = replace(term.with_points(block.points), weight=weight)
                jacobian = Jacobian(objective.with_terms([scaled]), scaled=True)
                embedded = embed(jacobian.dense())  # (n·m, q)
                yield embedded.unflatten(0, (len(block), -1))

    def _factor(self, rows: Tensor) -> Embed:
        """Return rows j as vectors of squared length ``jᵀ(JᵀJ + λI)⁻¹j``, by the smaller system."""
        n_rows, n_parameters = rows.shape
        # QR of Jᵀ costs about twice the product JᵀJ.
        if 2 * n_rows < n_parameters:
            return self._wide(rows)
        return self._tall(rows)

    def _tall(self, rows: Tensor) -> Embed:
        """Factor ``JᵀJ + λI = L Lᵀ``, so that the norm of j is ``‖L⁻¹j‖²``."""
        gram = self_product(rows.T)  # (P, P)
        gram.diagonal().add_(self._absolute(gram))
        lower = torch.linalg.cholesky(gram)

        def embed(candidates: Tensor) -> Tensor:
            solved = torch.linalg.solve_triangular(lower, candidates.T, upper=False)
            return solved.T

        return embed

    def _wide(self, rows: Tensor) -> Embed:
        """Factor by ``Jᵀ = QR``: ``(RRᵀ + λI)⁻¹`` within the span of the rows, 1/λ outside."""
        basis, triangle = torch.linalg.qr(rows.T)  # (P, R), (R, R)
        gram = triangle @ triangle.T  # JᵀJ = Q RRᵀ Qᵀ
        absolute = self._absolute(gram)
        gram.diagonal().add_(absolute)
        lower = torch.linalg.cholesky(gram)

        def embed(candidates: Tensor) -> Tensor:
            # j = QQᵀj + (j − QQᵀj), two parts that (JᵀJ + λI)⁻¹ does not mix.
            inside = candidates @ basis
            outside = candidates - inside @ basis.T
            solved = torch.linalg.solve_triangular(lower, inside.T, upper=False)
            return torch.cat([solved.T, outside / absolute**0.5], dim=1)

        return embed

    def _absolute(self, gram: Tensor) -> float:
        """Return λ by a matrix with the largest eigenvalue of JᵀJ."""
        damping = self.damping
        if damping is None:
            damping = max(SCORE_DAMPING, default_damping(gram.dtype))
        if not isinstance(damping, Damping):
            damping = Damping(damping)
        largest = largest_eigenvalue(gram.matmul, len(gram), gram)
        return damping.resolve(largest)
