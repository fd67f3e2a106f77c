"""Spread the selected candidates over the embedding of a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SELECTIONS
from whence.pinn.sampling.scores.base import check_scores
from whence.pinn.sampling.selections.base import check_number, uniform


@SELECTIONS.named("k_means")
@dataclass(frozen=True)
class KMeansPlusPlus:
    """Spread over the embedding of a score, one by one: k-means++ seeding.

    Each next candidate is drawn with a probability in proportion to the squared distance of its
    embedding to the nearest already taken, the first by the squared length, as if one at the origin
    had been taken (Arthur & Vassilvitskii 2007; for points of PINNs Lau et al. 2024, arXiv
    2404.07662). Candidates that are alike are then not taken together, whatever their score. Where
    nothing is left at a distance the draw is uniform. Needs a score with an embedding, such as
    :class:`PinnacleScore`.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> embedded = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> sorted(pinn.KMeansPlusPlus().select(embedded, 2, seed=0).tolist())[1]
    2
    """

    embedded: ClassVar[bool] = True

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,), for embeddings (number, q)."""
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ValueError(
                "k-means++ needs an embedding (n, q) for each candidate, such as that of "
                f"PinnacleScore, got {_checks.describe(scores)}"
            )

        check_scores(scores.abs().sum(dim=1))
        check_number(scores, n)

        places = scores.detach().double().cpu()
        available = torch.ones(len(places), dtype=torch.bool)
        # Squared distances to the nearest taken so far, at first to the origin.
        distances = places.square().sum(dim=1)
        chosen = []

        for draw in uniform(n, seed):
            weights = torch.where(available, distances, 0.0)
            row = drawn_row(weights, available, float(draw))
            chosen.append(row)
            available[row] = False
            to_row = (places - places[row]).square().sum(dim=1)
            distances = torch.minimum(distances, to_row)

        return torch.tensor(chosen)


def drawn_row(weights: Tensor, available: Tensor, draw: float) -> int:
    """Return a row number drawn in proportion to the weights; uniformly where all vanish."""
    if not float(weights.sum()) > 0:
        weights = available.double()

    # The row whose part of [0, Σ weights) the draw falls into.
    sums = weights.cumsum(0)
    place = draw * float(sums[-1])
    row = int(torch.searchsorted(sums, place, right=True))
    # Rounding may lead past the last row that can be drawn.
    last = int(torch.nonzero(weights)[-1, 0])
    return min(row, last)
