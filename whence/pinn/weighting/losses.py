"""Weights from how fast the terms' losses fall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.catalogue import WEIGHTINGS
from whence.pinn.weighting.base import Weighting, Weights, check_share
from whence.pinn.weighting.term_statistics import TermStatistics

MIN_LOSS = 1e-300
"""Losses below this count as this where a logarithm is taken."""


@WEIGHTINGS.named("relobralo")
@dataclass(eq=False)
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random lookback: more weight on terms that fall behind.

    With ``b_k(t, s) = m·softmax_k(L_k(t) / (τ L_k(s)))`` over m terms, ``w_k(t) = α·(ρ·w_k(t−1) +
    (1 − ρ)·b_k(t, 0)) + (1 − α)·b_k(t, t−1)`` with ρ drawn at each update: 1 with probability
    ``rho``, else 0 (Bischof & Kraus, arXiv 2110.09813). In the first step all weigh 1.

    Parameters
    ----------
    alpha:
        Smoothing factor α in [0, 1]: weight given to the past.
    rho:
        Probability in [0, 1] of not looking back to the first step.
    temperature:
        τ: the smaller, the sharper.
    update_every:
        Steps between two updates.
    seed:
        Seed of the draws.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> weighting = pinn.ReLoBRaLo(alpha=0.0, temperature=1.0)
    >>> for pde, initial in ((1.0, 1.0), (1.0, 0.5)):
    ...     w = weighting.update({"pde": torch.tensor(pde), "initial": torch.tensor(initial)})
    >>> round(w["pde"], 3), round(w["initial"], 3)             # softmax of 1 and 0.5, twice
    (1.245, 0.755)
    """

    alpha: float = 0.999
    rho: float = 0.999
    temperature: float = 0.1
    update_every: int = 1
    seed: int = 0

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        check_share("alpha", self.alpha)
        check_share("rho", self.rho)
        _checks.positive("temperature", self.temperature)
        _checks.count("seed", self.seed, zero=True)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the balance since the last update, mixed with the past."""
        losses = terms.losses()
        previous = self.weights
        # There is nothing to compare with in the first step.
        if not previous:
            self.note("first", losses)
            self.note("last", losses)
            return dict.fromkeys(losses, 1.0)

        since_last = self._balance(losses, "last")  # b_k(t, t−1)
        since_first = self._balance(losses, "first")  # b_k(t, 0)

        # ρ by the number of the call, so that a resumed run draws the same.
        draw = np.random.default_rng([self.seed, self.calls]).random()
        past = previous if draw < self.rho else since_first
        self.note("last", losses)

        weights: Weights = {}
        for name in losses:
            recent = (1 - self.alpha) * since_last[name]
            weights[name] = float(self.alpha * past[name] + recent)
        return weights

    def _balance(self, losses: Mapping[str, float], since: str) -> dict[str, float]:
        """Return ``m·softmax_k(L_k(t) / (τ L_k(s)))``."""
        before = self.noted(since)
        ratios = {}

        for name, loss in losses.items():
            # A term that was met exactly has no ratio: it counts as one that stands still.
            ratio = loss / before[name] if before[name] else 1.0
            ratios[name] = ratio / self.temperature

        return _softmax(ratios)


@WEIGHTINGS.named("soft_adapt")
@dataclass(eq=False)
class SoftAdapt(Weighting):
    """More weight on terms whose loss falls slowly or rises.

    ``w_k = m·softmax_k(β s_k)`` over m terms with ``s_k = L_k(t) − L_k(t−1)`` since the last
    update (Heydari, Thompson & Mehmood, arXiv 1912.12355); the factor m, which the paper leaves
    out, makes 1 the weight of terms that are alike. In the first step all weigh 1.

    Parameters
    ----------
    beta:
        Sharpness β; above zero slow terms weigh more, below zero fast ones.
    normalized:
        Whether to divide the slopes s by ``Σ_j |s_j|``.
    loss_weighted:
        Whether to multiply each exponential by the term's loss: terms that are nearly met then
        weigh nearly nothing.
    update_every:
        Steps between two updates.
    """

    beta: float = 0.1
    normalized: bool = True
    loss_weighted: bool = False
    update_every: int = 1

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        _checks.number("beta", self.beta)
        _checks.boolean("normalized", self.normalized)
        _checks.boolean("loss_weighted", self.loss_weighted)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Return the softmax of the losses' slopes."""
        losses = terms.losses()
        before = self.noted("last")
        self.note("last", losses)
        if not before:
            return dict.fromkeys(losses, 1.0)

        slopes = {name: losses[name] - before[name] for name in losses}
        total = sum(map(abs, slopes.values()))  # zero if no loss moved
        if self.normalized and total:
            slopes = {name: slope / total for name, slope in slopes.items()}

        exponents = {name: self.beta * slope for name, slope in slopes.items()}
        if self.loss_weighted:
            # L·exp(βs) = exp(βs + log L).
            for name, loss in losses.items():
                exponents[name] += math.log(max(loss, MIN_LOSS))
        return dict(_softmax(exponents))


def _softmax(exponents: Mapping[str, float]) -> dict[str, float]:
    """Return the exponentials divided by their mean: they add up to the number of terms."""
    largest = max(exponents.values())  # taken off, so that nothing overflows
    powers = {name: math.exp(value - largest) for name, value in exponents.items()}
    mean = sum(powers.values()) / len(powers)
    return {name: power / mean for name, power in powers.items()}
