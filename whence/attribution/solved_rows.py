"""Rows of the Jacobian at chosen points, solved: the algebra of removing points.

With J the scaled Jacobian (``JᵀJ = A``, ``Jᵀρ = ∇L``), ``B = A + λI`` (and cI of a penalty
``(c/2)‖θ‖²``, whose gradient is then part of ∇L), S the rows of the removed
points, ``Q = J_S B⁻¹ J_Sᵀ`` and ``e = ρ − J B⁻¹∇L`` what ρ is where the Gauss–Newton model has its
minimum (ρ itself, at one), removing them moves that minimum by ``Δθ = B⁻¹ J_Sᵀ (I − Q)⁻¹ e_S``
(Cook & Weisberg 1982; Woodbury). The sum of influences has ρ for e and leaves ``(I − Q)⁻¹`` out:
it forgets that the points of a set stand in for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.attribution.influence import Influence
from whence.attribution.labels import Attributes
from whence.attribution.tiles import Solved
from whence.jacobian import Jacobian
from whence.losses import NO_SPAN
from whence.points import MAX_ROW_BYTES
from whence.subsets import Chosen, keep_points

COPIES = 8
"""Matrices of the size of a block of right-hand sides that solving for it may take."""
MAX_UNCERTAINTY = 1e-6
"""Most that a solver's residual may blur a leverage: approximate solvers would blur all."""


def check_gauss_newton(influence: Influence) -> None:
    """Raise unless the influence is of the Gauss–Newton matrix, whose rows are those of J."""
    if influence.curvature != "gauss_newton":
        raise ValueError(
            "effects of groups and leverages are algebra on the rows of the Gauss–Newton matrix, "
            f"got an influence with curvature={influence.curvature!r}: use "
            "Influence(objective, curvature='gauss_newton')"
        )


def check_spans(influence: Influence) -> None:
    """Raise unless each point's gradient is a sum of its rows, so that ρ exists."""
    if not all(term.loss.spans for term in influence.objective.terms.values()):
        raise ValueError(NO_SPAN)


class SolvedRows:
    """Rows of the scaled Jacobian at chosen points, and ``B⁻¹`` times them, within memory."""

    def __init__(self, influence: Influence) -> None:
        self.influence = influence
        self.objective = influence.objective
        self.quality = Solved()
        self._state = influence.state()
        self.damping = self._state.spectrum.damping

        parameters = self.objective.parameters
        row_bytes = parameters.dtype.itemsize * parameters.size
        room = min(MAX_ROW_BYTES, influence.memory_budget)
        self._width = max(1, room // (COPIES * row_bytes))
        self._newton_step: Tensor | None = None

    def attributes(self) -> Attributes:
        """Return what the attributes of a result say of curvature, solver and network."""
        loss, gradient = self.objective.loss_and_gradient()
        return {
            **self.influence.solver_attributes(self.quality),
            "gradient_norm": float(gradient.norm()),
            "loss": loss,
        }

    def system(self, chosen: Chosen) -> tuple[Tensor, Tensor]:
        """Return the chosen points' rows J_S (r, P) and their part of e, (r,)."""
        if self._newton_step is None:
            _, gradient = self.objective.loss_and_gradient()
            self._newton_step = self.solve(gradient.unsqueeze(1)).squeeze(1)

        some_points = keep_points(self.objective, chosen)
        rows, rho = Jacobian(some_points, scaled=True).system()
        # e = ρ − J B⁻¹∇L: what the step to the model's minimum leaves of ρ.
        return rows, rho - rows @ self._newton_step

    def solve(self, right: Tensor) -> Tensor:
        """Return ``B⁻¹ V`` of (P, K), some columns at a time."""
        parts = [self._solve_few(part)[0] for part in right.split(self._width, 1)]
        return torch.cat(parts, dim=1)

    def gram(self, rows: Tensor) -> tuple[Tensor, float]:
        """Return ``Q = J_S B⁻¹ J_Sᵀ`` and by how much an eigenvalue of it may be off."""
        blocks = []
        errors = []
        for part in rows.split(self._width):
            solved, error = self._solve_few(part.T)
            blocks.append(rows @ solved)
            errors.append(error)

        # Symmetric but for rounding, which its Cholesky factor would not forgive.
        gram = torch.cat(blocks, dim=1)
        return 0.5 * (gram + gram.T), max(errors)

    def _solve_few(self, right: Tensor) -> tuple[Tensor, float]:
        """Return ``X = B⁻¹ V`` of a few columns, and by how much an entry of VᵀX may be off."""
        solution = self._state.solve(right)
        self.quality = self.quality.worst_with(solution)

        # VᵀB⁻¹r of what is left over, r: it points anywhere among the P directions, not along X,
        # so that its share along X is about 1/√P.
        length = right.norm(dim=0).max()
        solved_length = solution.value.norm(dim=0).max()
        norms = float(length * solved_length / len(right) ** 0.5)
        return solution.value, min(MAX_UNCERTAINTY, solution.residual * norms)

    def exact_changes(self, groups: Mapping[str, Chosen]) -> Tensor:
        """Return ``Δθ = B⁻¹ J_Sᵀ (I − Q)⁻¹ e_S`` of every group, (P, groups)."""
        rights = []
        for name, chosen in groups.items():
            rows, e = self.system(chosen)
            gram, error = self.gram(rows)
            weights = removal_weights(gram, error, e)
            if weights is None:
                raise ValueError(
                    f"removing the group {name!r} leaves a direction of the parameters that no "
                    f"other point determines (I − Q is singular to working precision with damping "
                    f"λ = {self.damping:.3g}): raise the damping, or use method='first_order'"
                )
            rights.append(rows.T @ weights)

        return self.solve(torch.stack(rights, dim=1))

    def first_order_changes(self, groups: Mapping[str, Chosen]) -> Tensor:
        """Return ``B⁻¹ Σ_S (w/N)∇ℓ`` of every group, (P, groups)."""
        gradients = []
        for chosen in groups.values():
            group = keep_points(self.objective, chosen)
            _, gradient = group.loss_and_gradient()
            gradients.append(gradient)
        return self.solve(torch.stack(gradients, dim=1))

    def points(self, terms: Sequence[str] | None = None) -> Iterator[PointRows]:
        """Yield the rows of the training points of some terms, or all, some points at a time."""
        for name, m in Jacobian(self.objective, scaled=True).components().items():
            if terms is not None and name not in terms:
                continue
            n = len(self.objective.terms[name].points)
            step = max(1, self._width // m)
            for start in range(0, n, step):
                stop = min(start + step, n)
                chosen = {name: np.arange(start, stop)}
                rows, e = self.system(chosen)
                value, error = self._solve_few(rows.T)

                # Row by row of a point: the m components of its residual.
                solved = value.unflatten(1, (-1, m))  # (P, n, m)
                by_point = rows.unflatten(0, (-1, m))  # (n, m, P)
                grams = torch.einsum("nap,pnb->nab", by_point, solved)
                grams = 0.5 * (grams + grams.mT)
                residual = e.view(-1, m)  # (n, m)
                yield PointRows(name, start, solved, grams, residual, error)


@dataclass(frozen=True, eq=False)
class PointRows:
    """Of n points of a term: their rows solved, and what follows for each of them.

    Parameters
    ----------
    term:
        Their term's name.
    first:
        The first one's place in it.
    solved:
        ``B⁻¹Jᵢᵀ`` of each, (P, n, m).
    grams:
        ``Jᵢ B⁻¹ Jᵢᵀ`` of each, (n, m, m).
    residual:
        Their part of e, (n, m).
    error:
        By how much an eigenvalue of a Gram matrix may be off.
    """

    term: str
    first: int
    solved: Tensor
    grams: Tensor
    residual: Tensor
    error: float

    def leverage(self) -> Tensor:
        """Return ``tr(Jᵢ B⁻¹ Jᵢᵀ)`` of each point, (n,)."""
        return self.component_leverages().sum(1)

    def component_leverages(self) -> Tensor:
        """Return the diagonal of ``Jᵢ B⁻¹ Jᵢᵀ`` of each point, (n, m)."""
        return self.grams.diagonal(dim1=1, dim2=2)

    def changes(self, damping: float) -> Tensor:
        """Return Δθ for the removal of each point alone, (P, n)."""
        weights = []
        for k, (gram, e) in enumerate(zip(self.grams, self.residual, strict=True)):
            of_point = removal_weights(gram, self.error, e)
            if of_point is None:
                raise ValueError(
                    f"removing point {self.first + k} of term {self.term!r} leaves a direction of "
                    f"the parameters that no other point determines (its leverage is 1 with "
                    f"damping λ = {damping:.3g}): raise the damping"
                )
            weights.append(of_point)

        # Δθᵢ = B⁻¹Jᵢᵀ (I − Qᵢ)⁻¹ eᵢ
        return torch.einsum("pnm,nm->pn", self.solved, torch.stack(weights))


def removal_weights(gram: Tensor, error: float, e: Tensor) -> Tensor | None:
    """Return ``(I − Q)⁻¹e``, or None where an eigenvalue of I − Q is lost in rounding."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    remaining = identity - gram

    # Symmetric matrices of n rows near I have eigenvalues known to about n machine precisions.
    rounding = 10 * len(gram) * torch.finfo(gram.dtype).eps
    smallest = float(torch.linalg.eigvalsh(remaining)[0])
    if not smallest > max(error, rounding):
        return None

    factor = torch.linalg.cholesky(remaining)
    return torch.cholesky_solve(e.unsqueeze(1), factor).squeeze(1)
