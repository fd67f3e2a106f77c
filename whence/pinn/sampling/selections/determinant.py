"""Select candidates that are wanted and unlike each other, by a determinant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SELECTIONS
from whence.pinn.sampling.scores.base import check_scores
from whence.pinn.sampling.selections.base import check_number


@SELECTIONS.named("determinant")
@dataclass(frozen=True)
class Determinant:
    """Take what adds most to a determinant, one by one: greedy selection of a batch.

    With embeddings e_j, whose squared lengths are the scores, and ``G_ij = e_i·e_j``, each next
    candidate is that of largest ``det(ρI + G_S)`` over the chosen S with it, the greedy mode of a
    determinantal point process (Chen, Zhang & Zhou 2018, arXiv 1709.05135). As
    ``det(ρI + G_{S+j}) = det(ρI + G_S)·(ρ + d_j)`` with
    ``d_j = e_jᵀ(I + E_SᵀE_S/ρ)⁻¹e_j``, the score that j keeps beside those chosen, that is the
    candidate of largest d_j: of near duplicates one is taken. For :class:`LeverageScore` of one
    residual and ρ = 1, d_j is by Woodbury's formula the leverage of j once the chosen ones have
    joined the training points; a smaller ρ is as if each joined 1/ρ times. It costs a partial
    pivoted Cholesky factor, ``O(number · n · q)``. There is no chance in it; ties go to the earlier
    candidate.

    Parameters
    ----------
    ridge:
        ρ > 0, as a share of the highest score. A candidate of score s leaves ``ρs/(ρ + s)`` of the
        score of its copy, of the highest one about this share. Where ridge is far above one the
        highest scores are taken, whatever they are like.

    Raises
    ------
    ValueError
        If ridge is not above zero, there are no embeddings, or fewer candidates than n.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> embedded = torch.tensor([[3.0, 0.0], [2.9, 0.1], [0.0, 1.0], [0.5, 0.0]])
    >>> pinn.Determinant().select(embedded, 2, seed=0)
    tensor([0, 2])
    """

    embedded: ClassVar[bool] = True
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        _checks.positive("ridge", self.ridge)

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,), for embeddings (number, q)."""
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ValueError(
                "Determinant needs an embedding (n, q) for each candidate, such as that of "
                f"LeverageScore, got {_checks.describe(scores)}"
            )

        sizes = scores.abs().sum(dim=1)
        check_scores(sizes)
        check_number(scores, n)

        places = scores.detach().double().cpu()
        left = places.square().sum(dim=1)  # d_j
        # Of any size where all scores vanish.
        highest = float(left.max())
        rho = self.ridge * highest if highest else 1.0
        # Rows of the factor so far: G ≈ Σ_k c_k c_kᵀ, each (number,).
        columns = places.new_zeros(n, len(places))
        is_taken = torch.zeros_like(left, dtype=torch.bool)
        chosen = []

        for k in range(n):
            gains = left.masked_fill(is_taken, -torch.inf)
            row = int(torch.argmax(gains))
            chosen.append(row)
            is_taken[row] = True

            # Partial Cholesky of ρI + G with pivot p: c = (G_p − Σ c_k c_kp) / √(ρ + d_p).
            before = columns[:k]
            product = places @ places[row]
            known = before.T @ before[:, row]
            pivot = rho + float(gains[row])
            column = (product - known) / pivot**0.5
            columns[k] = column

            # d_j falls by what j shares with the pivot.
            left = left - column.square()
            left = left.clamp_min(0)

        return torch.tensor(chosen)
