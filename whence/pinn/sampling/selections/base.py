"""What every selection is, and the checks that selections share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.sampling.scores.base import check_scores


@runtime_checkable
class Selection(Protocol):
    """Chooses n of the candidates by their scores.

    One that has ``embedded = True`` is given embeddings (number, q) instead of scores.
    """

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""


@runtime_checkable
class RandomSelection(Selection, Protocol):
    """A selection by chance that knows with which probability it took a candidate."""

    def check_probabilities(self) -> None:
        """Raise ``ValueError`` if a candidate may have no chance of being taken."""

    def select_with_probabilities(
        self, scores: Tensor, n: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return what :meth:`select` does and the probability π of each, (n,) and (n,).

        ``Σ f_j/π_j`` over the selected is then an unbiased estimate of ``Σ f_j`` over all.
        """


def checked_scores(scores: Tensor, n: int) -> Tensor:
    """Return the scores as float64 on the CPU; fewer than n, or one not finite, is an error."""
    check_scores(scores)
    check_number(scores, n)
    return scores.detach().double().cpu()


def check_number(scores: Tensor, n: int) -> None:
    """Raise ``ValueError`` unless n can be selected."""
    _checks.count("n", n)
    if n > len(scores):
        raise ValueError(
            f"cannot select {n} of {len(scores)} candidates: raise `candidates`"
        )


def uniform(n: int, seed: int) -> Tensor:
    """Return n random numbers strictly between 0 and 1."""
    _checks.seed("seed", seed)
    drawn = np.random.default_rng(seed).random(n)
    # Within, so that logarithms of u and of 1 − u are finite.
    return torch.from_numpy(drawn).clamp(1e-300, 1 - 1e-16)
