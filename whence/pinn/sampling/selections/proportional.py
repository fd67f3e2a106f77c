"""Draw candidates with a probability that grows with their score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SELECTIONS
from whence.pinn.sampling.selections.base import checked_scores, uniform


@SELECTIONS.named("proportional")
@dataclass(frozen=True)
class Proportional:
    """Draw without replacement with probability ``p ∝ s^k / mean(s^k) + c`` (RAD).

    Where all scores vanish the draw is uniform; negative scores are an error (Wu et al. 2022,
    arXiv 2207.10289).

    Parameters
    ----------
    k:
        Exponent of the score: larger is sharper.
    c:
        Share of the uniform distribution mixed in.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> scores = torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> sorted(pinn.Proportional(k=1, c=0).select(scores, 2, seed=0).tolist())
    [1, 3]
    """

    k: float = 1.0
    c: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive("k", self.k, zero=True)
        _checks.positive("c", self.c, zero=True)

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""
        values = checked_scores(scores, n)
        if bool((values < 0).any()):
            raise ValueError(
                "Proportional needs scores that are not negative: take their size"
            )

        # By the largest first, so that no power overflows.
        largest = values.max().clamp_min(torch.finfo(torch.float64).tiny)
        powers = (values / largest) ** self.k
        mean = powers.mean()
        weights = torch.ones_like(powers)
        if bool(mean > 0):
            weights = powers / mean + self.c

        # Gumbel keys draw without replacement in one pass (Efraimidis & Spirakis 2006).
        gumbel = -torch.log(-torch.log(uniform(len(values), seed)))
        keys = torch.log(weights.clamp_min(1e-300)) + gumbel
        return torch.topk(keys, n).indices
