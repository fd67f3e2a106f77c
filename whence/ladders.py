"""Elementwise functions with as many derivatives as are asked for.

Each ladder returns ``[f(x), f′(x), …, f⁽ᵏ⁾(x)]``, from closed forms or from recurrences that lose
no digits. All derivatives of tanh and the sigmoid are polynomials in the first one, those of the
normal density and of ``e^(−x²)`` products with Hermite polynomials, whose recurrence of three terms
is stable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Ladder = Callable[[Tensor, int], list[Tensor]]
"""Returns f(x) and its derivatives to an order k, at least 2; what it leaves out vanishes."""

RULES: dict[str, Ladder] = {}
"""Functions by the name of torch's function."""


def _rule(*names: str) -> Callable[[Ladder], Ladder]:
    """Let the decorated function be the ladder of functions of torch of some names."""

    def register(ladder: Ladder) -> Ladder:
        for name in names:
            RULES[name] = ladder
        return ladder

    return register


# --- powers --------------------------------------------------------------------------------------


def power(n: float) -> Ladder:
    """Return the ladder of xⁿ."""

    def ladder(x: Tensor, order: int) -> list[Tensor]:
        # (xⁿ)⁽ᵏ⁾ = n (n − 1) … (n − k + 1) xⁿ⁻ᵏ, of which the factor ends a polynomial.
        derivatives = [x**n]
        factor = 1.0
        for k in range(order):
            factor *= n - k
            if factor == 0:
                # Not 0 · xⁿ⁻ᵏ⁻¹, which is not a number at x = 0.
                zero = torch.zeros_like(x)
                return [*derivatives, zero]

            derivative = factor * x ** (n - k - 1)
            derivatives.append(derivative)

        return derivatives

    return ladder


@_rule("square")
def _square(x: Tensor, order: int) -> list[Tensor]:
    slope = 2 * x
    two = torch.full_like(x, 2.0)
    return [x * x, slope, two]


RULES["sqrt"] = power(0.5)


@_rule("reciprocal")
def _reciprocal(x: Tensor, order: int) -> list[Tensor]:
    # f⁽ᵏ⁾ = (−1)ᵏ k! x⁻ᵏ⁻¹ = −k f⁽ᵏ⁻¹⁾/x
    r = 1 / x
    derivative = r
    derivatives = [r]
    for k in range(1, order + 1):
        derivative = -k * r * derivative
        derivatives.append(derivative)

    return derivatives


@_rule("log")
def _log(x: Tensor, order: int) -> list[Tensor]:
    slopes = _reciprocal(x, order - 1)
    return [torch.log(x), *slopes]


# --- periodic and hyperbolic functions -----------------------------------------------------------


def _cycle(cycle: Sequence[Tensor], order: int) -> list[Tensor]:
    """Return derivatives that repeat themselves."""
    repeated = itertools.cycle(cycle)
    return list(itertools.islice(repeated, order + 1))


@_rule("exp")
def _exp(x: Tensor, order: int) -> list[Tensor]:
    e = torch.exp(x)
    return _cycle([e], order)


@_rule("sin")
def _sin(x: Tensor, order: int) -> list[Tensor]:
    s = torch.sin(x)
    c = torch.cos(x)
    return _cycle([s, c, -s, -c], order)


@_rule("cos")
def _cos(x: Tensor, order: int) -> list[Tensor]:
    s = torch.sin(x)
    c = torch.cos(x)
    return _cycle([c, -s, -c, s], order)


@_rule("sinh")
def _sinh(x: Tensor, order: int) -> list[Tensor]:
    s = torch.sinh(x)
    c = torch.cosh(x)
    return _cycle([s, c], order)


@_rule("cosh")
def _cosh(x: Tensor, order: int) -> list[Tensor]:
    s = torch.sinh(x)
    c = torch.cosh(x)
    return _cycle([c, s], order)


@_rule("atan", "arctan")
def _atan(x: Tensor, order: int) -> list[Tensor]:
    # (1 + x²) f′ = 1, differentiated k times: (1 + x²) f⁽ᵏ⁺¹⁾ + 2 k x f⁽ᵏ⁾ + k (k − 1) f⁽ᵏ⁻¹⁾ = 0.
    # Its solutions are (x ± i)⁻ᵏ (k − 1)!, of the same size: none drowns the other.
    r = 1 / (1 + x * x)
    derivatives = [torch.atan(x), r]
    for k in range(1, order):
        total = 2 * k * x * derivatives[k]
        if k > 1:
            total = total + k * (k - 1) * derivatives[k - 1]

        derivative = -r * total
        derivatives.append(derivative)

    return derivatives


# --- logistic functions --------------------------------------------------------------------------


@lru_cache(maxsize=128)
def logistic_polynomial(
    step: int, turn: int, fold: int, k: int
) -> tuple[tuple[int, ...], bool]:
    """Return the k-th derivative, k ≥ 1, of f with f′ = d as a polynomial in d, maybe times c.

    Here ``d′ = step · c d``, ``c′ = turn · d`` and ``c² = 1 − fold · d``. The polynomial is given
    by its coefficients of d, d², …; the flag says whether c multiplies it.
    """
    if k == 1:
        return (1,), False

    below, is_odd = logistic_polynomial(step, turn, fold, k - 1)
    if not is_odd:
        # p(d)′ = step · c · d p′(d)
        derived = []
        for j, p in enumerate(below, start=1):
            derived.append(step * j * p)
        return tuple(derived), True

    # (c q(d))′ = turn · d q + step · c² d q′, where c² = 1 − fold · d.
    coefficients = [0] * (len(below) + 1)
    for j, q in enumerate(below, start=1):
        of_slope = step * j * q
        coefficients[j - 1] += of_slope
        coefficients[j] += turn * q - fold * of_slope
    return tuple(coefficients), False


def _logistic(
    d: Tensor, c: Tensor, rule: tuple[int, int, int], order: int
) -> list[Tensor]:
    """Return f′ = d to the derivative of some order, see :func:`logistic_polynomial`."""
    odd = c * d
    derivatives = []
    for k in range(1, order + 1):
        coefficients, is_odd = logistic_polynomial(*rule, k)
        # By Horner's rule, Σ_j p_j dʲ = d (p_1 + d (p_2 + …)).
        *lower, highest = coefficients
        total: Tensor | int = highest
        for p in reversed(lower):
            total = p + d * total

        factor = odd if is_odd else d
        derivative = factor * total
        derivatives.append(derivative)

    return derivatives


@_rule("tanh")
def _tanh(x: Tensor, order: int) -> list[Tensor]:
    # d = 1 − t² with d′ = −2 t d, t′ = d and t² = 1 − d.
    t = torch.tanh(x)
    d = 1 - t * t
    slopes = _logistic(d, t, (-2, 1, 1), order)
    return [t, *slopes]


def _of_sigmoid(s: Tensor, order: int) -> list[Tensor]:
    """Return σ and its derivatives from its value."""
    # d = s (1 − s) with d′ = (1 − 2 s) d, (1 − 2 s)′ = −2 d and (1 − 2 s)² = 1 − 4 d.
    d = s * (1 - s)
    c = 1 - 2 * s
    slopes = _logistic(d, c, (1, -2, 4), order)
    return [s, *slopes]


@_rule("sigmoid")
def _sigmoid(x: Tensor, order: int) -> list[Tensor]:
    s = torch.sigmoid(x)
    return _of_sigmoid(s, order)


@_rule("softplus")
def _softplus(x: Tensor, order: int) -> list[Tensor]:
    # log(1 + eˣ), whose derivative is the sigmoid; torch has it linear above 20.
    is_linear = x > 20
    s = torch.where(is_linear, torch.ones_like(x), torch.sigmoid(x))
    slopes = _of_sigmoid(s, order - 1)
    return [F.softplus(x), *slopes]


@_rule("silu")
def _silu(x: Tensor, order: int) -> list[Tensor]:
    # Leibniz: (x σ)⁽ᵏ⁾ = k σ⁽ᵏ⁻¹⁾ + x σ⁽ᵏ⁾.
    s = _sigmoid(x, order)
    derivatives = [x * s[0]]
    for k in range(1, order + 1):
        derivative = k * s[k - 1] + x * s[k]
        derivatives.append(derivative)

    return derivatives


# --- normal distribution -------------------------------------------------------------------------


def _hermite(x: Tensor, first: Tensor, scale: int, order: int) -> list[Tensor]:
    """Return ``(−1)ᵏ`` times the k-th derivative of ``first`` = e^(−scale x²/2), k to ``order``.

    The derivative of f′ = −scale x f gives ``h_{k+1} = scale (x h_k − k h_{k−1})``.
    """
    second = scale * x * first
    functions = [first, second]
    for k in range(1, order):
        difference = x * functions[k] - k * functions[k - 1]
        functions.append(scale * difference)

    return functions


@_rule("erf")
def _erf(x: Tensor, order: int) -> list[Tensor]:
    factor = 2 / math.sqrt(math.pi)
    density = factor * torch.exp(-x * x)
    functions = _hermite(x, density, 2, order - 1)
    functions[1::2] = [-h for h in functions[1::2]]
    return [torch.erf(x), *functions]


@_rule("gelu")
def _gelu(x: Tensor, order: int) -> list[Tensor]:
    # (x Φ)⁽ᵏ⁾ = x Φ⁽ᵏ⁾ + k Φ⁽ᵏ⁻¹⁾ with Φ⁽ᵏ⁾ = (−1)ᵏ⁻¹ h_{k−1}. As
    # x h_{k−1} = h_k + (k − 1) h_{k−2}, it is (−1)ᵏ⁻¹ (h_k − h_{k−2}) from k = 2 on.
    error = torch.erf(x / math.sqrt(2))
    cdf = 0.5 * (1 + error)
    bell = torch.exp(-0.5 * x * x)
    density = bell / math.sqrt(2 * math.pi)
    h = _hermite(x, density, 1, order)
    derivatives = [x * cdf, cdf + x * density]
    for k in range(2, order + 1):
        difference = h[k - 2] - h[k]
        if k % 2 == 1:
            difference = -difference
        derivatives.append(difference)

    return derivatives
