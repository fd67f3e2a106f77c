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
        keys = self._log_weights(scores, n) + gumbel(len(scores), seed)
        return torch.topk(keys, n).indices

    def check_probabilities(self) -> None:
        """Raise ``ValueError`` if a candidate may have no chance of being taken."""
        if not self.c:
            raise ValueError(
                "with c = 0 candidates of no score have no chance of being drawn, so that no "
                "weights make up for it: give Proportional a share c > 0 of uniform ones"
            )

    def select_with_probabilities(
        self, scores: Tensor, n: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return what :meth:`select` does and the probability π of each, (n,) and (n,).

        ``Σ f_j/π_j`` over the selected is an unbiased estimate of ``Σ f_j`` over all (Kool et al.
        2019, arXiv 1903.06059, section 4.2).
        """
        log_weights = self._log_weights(scores, n)
        keys = log_weights + gumbel(len(scores), seed)
        if n == len(keys):
            return torch.arange(n), torch.ones_like(keys)

        # Given the largest key κ of those left out, j is taken if log w_j + G > κ, with Gumbel's
        # P(G > x) = 1 − exp(−exp(−x)).
        largest = torch.topk(keys, n + 1)
        rows = largest.indices[:n]
        excess = log_weights[rows] - largest.values[n]
        return rows, -torch.expm1(-excess.exp())

    def _log_weights(self, scores: Tensor, n: int) -> Tensor:
        """Return ``log(s^k / mean(s^k) + c)`` of each candidate, (number,)."""
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
        return torch.log(weights.clamp_min(1e-300))


def gumbel(n: int, seed: int) -> Tensor:
    """Return n Gumbel numbers: the n largest of log-weights plus these are a draw (n,).

    It is one without replacement in one pass (Efraimidis & Spirakis 2006).
    """
    drawn = uniform(n, seed)
    return -torch.log(-torch.log(drawn))
