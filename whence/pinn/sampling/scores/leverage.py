"""How much a candidate's residual would be decided by the candidate itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SCORES
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.solvers import Damping, default_damping
from whence.jacobian import Jacobian, self_product
from whence.objective import Objective
from whence.pinn.sampling.scores.base import SCORE_DAMPING, Candidates, by_term
from whence.points import blocks, linearized_at_once

Norms = Callable[[Tensor], Tensor]
"""Rows (n, P) to ``jᵀ(JᵀJ + λI)⁻¹j`` of each, (n,)."""


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

    damping: float | Damping | None = None

    def __post_init__(self) -> None:
        if isinstance(self.damping, Damping):
            _checks.positive("damping", self.damping.value)
        elif self.damping is not None:
            _checks.positive("damping", self.damping)

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        rows = Jacobian(objective, scaled=True).dense()  # J, (R, P)
        norms = self._factor(rows)

        parts = []

        for name, points in terms.items():
            term = objective.terms[name]
            size = linearized_at_once(points, objective.parameters.size)
            for block in blocks(points, size):
                scaled = replace(
                    term,
                    points=block.points,
                    # w/N of a training point, for each of the block's points.
                    weight=term.scale * len(block),
                    point_weights=None,
                )
                jacobian = Jacobian(objective.with_terms([scaled]), scaled=True)
                values = norms(jacobian.dense())  # (n·m,)
                parts.append(values.view(len(block), -1).sum(dim=1))

        return torch.cat(parts)

    def _factor(self, rows: Tensor) -> Norms:
        """Return the norm of rows under ``(JᵀJ + λI)⁻¹``, by the smaller of both systems."""
        n_rows, n_parameters = rows.shape
        # QR of Jᵀ costs about twice the product JᵀJ.
        if 2 * n_rows < n_parameters:
            return self._wide(rows)
        return self._tall(rows)

    def _tall(self, rows: Tensor) -> Norms:
        """Factor ``JᵀJ + λI = L Lᵀ``, so that the norm of j is ``‖L⁻¹j‖²``."""
        gram = self_product(rows.T)  # (P, P)
        gram.diagonal().add_(self._absolute(gram))
        lower = torch.linalg.cholesky(gram)

        def norms(candidates: Tensor) -> Tensor:
            solved = torch.linalg.solve_triangular(lower, candidates.T, upper=False)
            return solved.square().sum(dim=0)

        return norms

    def _wide(self, rows: Tensor) -> Norms:
        """Factor by ``Jᵀ = QR``: ``(RRᵀ + λI)⁻¹`` within the span of the rows, 1/λ outside."""
        basis, triangle = torch.linalg.qr(rows.T)  # (P, R), (R, R)
        gram = triangle @ triangle.T  # JᵀJ = Q RRᵀ Qᵀ
        absolute = self._absolute(gram)
        gram.diagonal().add_(absolute)
        lower = torch.linalg.cholesky(gram)

        def norms(candidates: Tensor) -> Tensor:
            # j = QQᵀj + (j − QQᵀj), two parts that (JᵀJ + λI)⁻¹ does not mix.
            inside = candidates @ basis
            outside = candidates - inside @ basis.T
            solved = torch.linalg.solve_triangular(lower, inside.T, upper=False)
            return solved.square().sum(dim=0) + outside.square().sum(dim=1) / absolute

        return norms

    def _absolute(self, gram: Tensor) -> float:
        """Return λ by a matrix with the largest eigenvalue of JᵀJ."""
        damping = self.damping
        if damping is None:
            damping = max(SCORE_DAMPING, default_damping(gram.dtype))
        if not isinstance(damping, Damping):
            damping = Damping(damping)
        largest = largest_eigenvalue(gram.matmul, len(gram), gram)
        return damping.resolve(largest)
