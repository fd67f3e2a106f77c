"""Selections: which of the scored candidates to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.pinn.sampling.scores import check_scores


class Selection(Protocol):
    """Chooses n of the candidates by their scores.

    One that has ``embedded = True`` is given embeddings (number, q) instead of scores.
    """

    def select(self, scores: Tensor, n: int, seed: int) -> Tensor:
        """Return n different row numbers, shape (n,)."""


def _enough(scores: Tensor, n: int) -> Tensor:
    check_scores(scores)
    _check_number(scores, n)
    return scores.detach().double().cpu()


def _check_number(scores: Tensor, n: int) -> None:
    _checks.count("n", n)
    if n > len(scores):
        raise ValueError(
            f"cannot select {n} of {len(scores)} candidates: raise `candidates`"
        )


@dataclass(frozen=True)
class Proportional:
    """Draw without replacement with probability ``p ∝ s^k / mean(s^k) + c`` (RAD).

    Where all scores vanish the draw is uniform; negative scores are an error.

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
        values = _enough(scores, n)
        if bool((values < 0).any()):
            raise ValueError(
                "Proportional needs scores that are not negative: take their size"
            )
        largest = values.max().clamp_min(torch.finfo(torch.float64).tiny)
        powers = (values / largest) ** self.k
        mean = powers.mean()
        weights = powers / mean + self.c if bool(mean > 0) else torch.ones_like(powers)
        # Gumbel keys draw without replacement in one pass (Efraimidis & Spirakis 2006).
        gumbel = -torch.log(-torch.log(_uniform(len(values), seed)))
        keys = torch.log(weights.clamp_min(1e-300)) + gumbel
        return torch.topk(keys, n).indices


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
        return torch.argsort(_enough(scores, n), descending=True, stable=True)[:n]


def _uniform(n: int, seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).random(n)
    return torch.from_numpy(drawn).clamp(1e-300, 1 - 1e-16)


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
                f"PinnacleScore, got {_checks.shown(scores)}"
            )
        check_scores(scores.abs().sum(dim=1))
        _check_number(scores, n)
        places = scores.detach().double().cpu()
        draws = _uniform(n, seed)
        left = torch.ones(len(places), dtype=torch.bool)
        distances = places.square().sum(dim=1)
        chosen = []
        for draw in draws:
            row = _drawn(torch.where(left, distances, 0.0), left, float(draw))
            chosen.append(row)
            left[row] = False
            distances = torch.minimum(
                distances, (places - places[row]).square().sum(dim=1)
            )
        return torch.tensor(chosen)


def _drawn(weights: Tensor, allowed: Tensor, draw: float) -> int:
    """Return a row number drawn in proportion to the weights; uniformly where all vanish."""
    total = weights if float(weights.sum()) > 0 else allowed.double()
    sums = total.cumsum(0)
    row = int(torch.searchsorted(sums, draw * float(sums[-1]), right=True))
    positive = torch.nonzero(total)[:, 0]
    return min(row, int(positive[-1]))
