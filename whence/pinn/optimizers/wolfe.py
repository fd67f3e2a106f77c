"""A line search for the strong Wolfe conditions that survives losses which are not finite.

Along a direction d write φ(α) = L(θ + αd), so that φ′(α) = ∇L(θ + αd)ᵀd. A length α is taken if

    φ(α) ≤ φ(0) + c₁ α φ′(0)      (the loss falls by a share of what the slope promises)
    |φ′(α)| ≤ c₂ |φ′(0)|          (the slope has flattened, so that sᵀy > 0)

as in algorithms 3.5 and 3.6 of Nocedal & Wright, with the cubic interpolation of their (3.59).
``scipy.optimize.line_search`` searches for the same, but of a loss that is NaN it makes NaN
lengths, and where it does not succeed it drops the best point that it saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_TRIALS = 25
"""Evaluations of a search at most, as in torch's own."""
MIN_GROWTH = 2.0
MAX_GROWTH = 10.0
"""Factors by which a length grows while the loss still falls steeply."""
MARGIN = 0.1
"""Share of a bracket that a trial stays away from its ends, so that it shrinks every time."""


@dataclass(frozen=True)
class Trial:
    """A point θ + αd on the line, with what was measured there.

    Parameters
    ----------
    length:
        α.
    loss:
        φ(α).
    slope:
        φ′(α).
    theta:
        θ + αd, shape (P,).
    gradient:
        ∇L(θ + αd), shape (P,).
    """

    length: float
    loss: float
    slope: float
    theta: Tensor
    gradient: Tensor

    @property
    def is_finite(self) -> bool:
        """Whether loss and slope are finite, and with the slope every entry of the gradient."""
        return math.isfinite(self.loss) and math.isfinite(self.slope)


def strong_wolfe(
    evaluate: Callable[[float], Trial],
    start: Trial,
    length: float,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> Trial | None:
    """Return a point that fulfils both conditions, or the lowest one that fulfils the first.

    Parameters
    ----------
    evaluate:
        The trial at a length.
    start:
        The trial at length 0, of finite loss and negative slope.
    length:
        First length to try.
    c1, c2:
        Constants of the two conditions, ``0 < c1 < c2 < 1``.

    Returns
    -------
    Trial or None
        None if no trial lowered the loss as the first condition asks.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.optimizers.wolfe import Trial, strong_wolfe
    >>> def evaluate(length):  # φ(α) = (α − 3)²
    ...     slope = 2 * (length - 3)
    ...     return Trial(length, (length - 3) ** 2, slope, torch.tensor([length]), torch.ones(1))
    >>> strong_wolfe(evaluate, evaluate(0.0), 1.0, c2=1e-3).length
    3.0
    """
    # low: the lowest point so far that fulfils the first condition. A length that fulfils both
    # lies between it and high, or beyond it while there is no high.
    low = start
    high: Trial | None = None

    for _ in range(MAX_TRIALS):
        trial = evaluate(length)
        most = start.loss + c1 * trial.length * start.slope
        is_low = trial.is_finite and trial.loss <= most and trial.loss < low.loss

        if not is_low:
            high = trial
            length = _between(low, high)
        elif abs(trial.slope) <= -c2 * start.slope:
            return trial
        else:
            towards_high = 1.0
            if high is not None:
                towards_high = high.length - low.length

            # Where the slope rises towards high, the minimum lies on the side of the former low.
            previous = low
            low = trial
            if trial.slope * towards_high >= 0:
                high = previous
            length = _beyond(previous, low) if high is None else _between(low, high)

        if high is not None and _is_below_rounding(low, high):
            break

    return None if low is start else low


def _beyond(previous: Trial, last: Trial) -> float:
    """Return a length beyond the last: the minimum of the cubic, between bounds."""
    minimum = cubic_minimum(previous, last)
    shortest = MIN_GROWTH * last.length
    longest = MAX_GROWTH * last.length
    if not math.isfinite(minimum):
        return longest

    # A cubic whose minimum lies behind the last point says nothing of what is beyond.
    if minimum <= last.length:
        return longest
    return min(max(minimum, shortest), longest)


def _between(low: Trial, high: Trial) -> float:
    """Return a length inside the bracket: the minimum of the cubic, away from both ends."""
    width = high.length - low.length
    # Nothing can be interpolated. While no finite point is known, the scale is to be found.
    if not high.is_finite:
        share = MARGIN if low.length == 0 else 0.5
        return low.length + share * width

    minimum = cubic_minimum(low, high)
    share = (minimum - low.length) / width
    if not math.isfinite(share):
        share = 0.5

    share = min(max(share, MARGIN), 1 - MARGIN)
    return low.length + share * width


def cubic_minimum(a: Trial, b: Trial) -> float:
    """Return where the cubic through two values and slopes is least, NaN if it has no minimum."""
    width = b.length - a.length
    # (3.59) of Nocedal & Wright: d₁ = φ′_a + φ′_b − 3 (φ_a − φ_b)/(α_a − α_b).
    secant = (b.loss - a.loss) / width
    d1 = a.slope + b.slope - 3 * secant
    radicand = d1 * d1 - a.slope * b.slope
    # Not "<", which a NaN would pass.
    if not radicand >= 0:
        return math.nan

    # d₂ = sign(α_b − α_a) √(d₁² − φ′_a φ′_b).
    d2 = math.copysign(math.sqrt(radicand), width)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return math.nan

    # α = α_b − (α_b − α_a)(φ′_b + d₂ − d₁)/(φ′_b − φ′_a + 2d₂).
    return b.length - width * (b.slope + d2 - d1) / divisor


def _is_below_rounding(low: Trial, high: Trial) -> bool:
    """Whether what the bracket can still gain is lost in the rounding of the loss."""
    width = abs(high.length - low.length)
    gain = width * abs(low.slope)
    rounding = torch.finfo(low.theta.dtype).eps
    return gain < rounding * abs(low.loss)
