"""Take the candidates of the highest scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.catalogue import SELECTIONS
from whence.pinn.sampling.selections.base import checked_scores


@SELECTIONS.named("top_k")
@dataclass(frozen=True)
class TopK:
    """Take the n highest scores; ties go to the earlier candidate.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> pinn.TopK().select(torch.tensor([1.0, 3.0, 2.0]), 2, seed=0)
    tensor([1, 2])
    """

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""
        values = checked_scores(scores, n)
        order = torch.argsort(values, descending=True, stable=True)
        return order[:n]
