"""Weights of single points by how large their residuals are beside the largest one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import WEIGHTINGS
from whence.pinn.weighting.base import Weights
from whence.pinn.weighting.points import PointWeighting, check_decay
from whence.pinn.weighting.term_statistics import TermStatistics

POTENTIALS = ("exponential", "quadratic")


@WEIGHTINGS.named("vrba")
@dataclass(eq=False)
class ResidualBasedAttention(PointWeighting):
    """Variational residual-based attention: each point weighs by the slope of a convex potential.

    A potential Φ of the residuals' sizes ``|r_i|`` says what is to be small: their sum of squares,
    or their largest. Its slope ``q_i = Φ′(|r_i|)`` is what point i counts for, and each update
    moves to it by ``λ_i ← decay·λ_i + lr·q_i / max_j q_j``, from λ = 1. A residual is multiplied
    by λ_i, so that its point weighs ``λ_i²`` (Toscano et al., arXiv 2509.14198).

    ``potential="exponential"``: ``q_i = exp(|r_i|/ε)``, towards the largest residual, with
    ``ε = sharpness · max_j |r_j| / ln(k + 2)`` in update k = 0, 1, …: it falls with the residuals
    and, slowly, with time. ``"quadratic"``: ``q_i = |r_i|``, which is residual-based attention
    (Anagnostopoulos et al., arXiv 2307.00379). ``|r_i|`` is the root of a point's loss, and the
    maxima are over the points of a term. λ never exceeds ``lr/(1 − decay)`` if that is above 1;
    points that are resampled take over λ as in :class:`SelfAdaptive`.

    Parameters
    ----------
    lr:
        Step towards the slope, η in the papers.
    decay:
        Factor on λ in each update, γ in the papers, in (0, 1].
    potential:
        ``"exponential"`` or ``"quadratic"``.
    sharpness:
        Factor on ε of the exponential potential: the smaller, the fewer points count.
    update_every:
        Steps between two updates.
    terms:
        Terms whose points have weights of their own; by default all.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> weighting = pinn.ResidualBasedAttention(lr=0.5, decay=0.5, potential="quadratic")
    >>> weighting.update({"pde": torch.tensor([0.0, 1.0, -2.0])})["pde"]  # λ = 0.5, 0.75, 1
    tensor([0.2500, 0.5625, 1.0000])
    """

    lr: float = 0.01
    decay: float = 0.999
    potential: Literal["exponential", "quadratic"] = "exponential"
    sharpness: float = 1.0
    update_every: int = 1
    terms: tuple[str, ...] | None = None

    def check_options(self) -> None:
        """Raise ``ValueError`` for an option that is wrong."""
        _checks.positive("lr", self.lr)
        check_decay(self.decay)
        _checks.one_of("potential", self.potential, POTENTIALS)
        _checks.positive("sharpness", self.sharpness)
        _checks.names("terms", self.terms)

    def renew_weights(self, terms: TermStatistics) -> Weights:
        """Move every λ towards the slope and return the weights of all points."""
        weights = super().renew_weights(terms)

        # ε falls from one update to the next.
        updates = self.noted_count("updates")
        self.note_count("updates", updates + 1)
        return weights

    def grown(self, before: Tensor, losses: Tensor) -> Tensor:
        """Return ``decay·λ + lr·q/max q``, (n,)."""
        slope = self._relative_slope(losses)
        kept = self.decay * before
        return kept + self.lr * slope

    def mask(self, sizes: Tensor) -> Tensor:
        """Return ``λ²``, (n,)."""
        return sizes.square()

    def _relative_slope(self, losses: Tensor) -> Tensor:
        """Return ``q/max q`` of each point, (n,)."""
        sizes = losses.sqrt()  # |r_i|
        largest = sizes.max()
        relative = sizes / largest

        # Where all points are met exactly, none counts for more than another.
        if float(largest) == 0:
            relative = torch.ones_like(sizes)
        if self.potential == "quadratic":
            return relative

        # 1/ε = ln(k + 2)/(sharpness·max|r|), so that exp(|r|/ε)/exp(max|r|/ε)
        # = exp(ln(k + 2)/sharpness·(|r|/max|r| − 1)), whose exponent is never above 0.
        updates = self.noted_count("updates")
        rate = math.log(updates + 2) / self.sharpness
        below = relative - 1
        return torch.exp(rate * below)
