"""The same score for every candidate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.catalogue import SCORES
from whence.objective import Objective
from whence.pinn.sampling.scores.base import Candidates, by_term


@SCORES.named("random")
@dataclass(frozen=True)
class RandomScore:
    """The same score for every candidate: selection by distribution is then uniform."""

    is_pointwise = True

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return one value per candidate, shape (n,)."""
        terms = by_term(objective, candidates)
        rows = torch.cat(list(terms.values()))  # (n, d)
        return torch.ones_like(rows[:, 0])
