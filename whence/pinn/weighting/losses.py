"""Weights from how fast the terms' losses fall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from whence import _checks
from whence.pinn.weighting.measured import Measured
from whence.pinn.weighting.weighting import Weighting, Weights, check_share


def _softmax(values: Mapping[str, float]) -> dict[str, float]:
    """Return the exponentials by their mean: they add up to the number of terms."""
    largest = max(values.values())
    powers = {name: math.exp(value - largest) for name, value in values.items()}
    mean = sum(powers.values()) / len(powers)
    return {name: power / mean for name, power in powers.items()}


def _ratio(now: float, before: float) -> float:
    return now / before if before else 1.0


@dataclass(eq=False)
class ReLoBRaLo(Weighting):
    """Relative loss balancing with random lookback: more weight on terms that fall behind.

    With ``b_k(t, s) = m·softmax_k(L_k(t) / (τ L_k(s)))`` over m terms, ``w_k(t) = α·(ρ·w_k(t−1) +
    (1 − ρ)·b_k(t, 0)) + (1 − α)·b_k(t, t−1)`` with ρ drawn anew each time: 1 with probability
    ``rho``, else 0 (Bischof & Kraus, arXiv 2110.09813). In the first step all weigh 1.

    Parameters
    ----------
    alpha:
        Share of the past, a float in [0, 1].
    rho:
        Probability of not looking back to the first step, a float in [0, 1].
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

    def _check_options(self) -> None:
        check_share("alpha", self.alpha)
        check_share("rho", self.rho)
        _checks.positive("temperature", self.temperature)
        _checks.count("seed", self.seed, zero=True)

    def _renewed(self, terms: Measured) -> Weights:
        now, weights = terms.losses(), self.weights
        if not weights:
            self._note("first", now)
            self._note("last", now)
            return dict.fromkeys(now, 1.0)
        recent, all_told = self._balance(now, "last"), self._balance(now, "first")
        draw = np.random.default_rng([self.seed, self._state["calls"]]).random()
        kept = weights if draw < self.rho else all_told
        self._note("last", now)
        return {
            name: float(self.alpha * kept[name] + (1 - self.alpha) * recent[name])
            for name in now
        }

    def _balance(self, now: Mapping[str, float], since: str) -> dict[str, float]:
        before = self._group(since)
        return _softmax({n: _ratio(now[n], before[n]) / self.temperature for n in now})


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

    def _check_options(self) -> None:
        _checks.number("beta", self.beta)

    def _renewed(self, terms: Measured) -> Weights:
        now, before = terms.losses(), self._group("last")
        self._note("last", now)
        if not before:
            return dict.fromkeys(now, 1.0)
        slopes = {name: now[name] - before[name] for name in now}
        total = sum(map(abs, slopes.values()))
        if self.normalized and total:
            slopes = {name: slope / total for name, slope in slopes.items()}
        powers = {name: self.beta * slope for name, slope in slopes.items()}
        if self.loss_weighted:
            least = 1e-300
            powers = {
                name: p + math.log(max(now[name], least)) for name, p in powers.items()
            }
        return dict(_softmax(powers))
