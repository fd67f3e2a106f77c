"""Elementwise functions with their derivatives, and the chain rule that carries channels through.

Channels are a value u, its first derivatives u_i and some second ones u_ij. By Faà di Bruno's
formula to second order

    ``f(u)_i = f′(u) u_i`` and ``f(u)_ij = f′(u) u_ij + f″(u) u_i u_j``.

The rule is composed of torch operations, so anything can differentiate it again; where plain
reverse mode alone is at work, one operation with a derivative written by hand does the same in
fewer passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

Lazy = Callable[[], Tensor]
Derivatives = tuple[Tensor, Lazy, Lazy, Lazy]
"""f(x) and what computes f′, f″, f‴ when asked."""
Unary = Callable[[Tensor], Derivatives]
Pairs = Sequence[tuple[int, int]]
"""For each second derivative, which two of the first ones it comes from."""

RULES: dict[str, Unary] = {}
"""Functions with their derivatives by the name of torch's function."""


def _rule(*names: str) -> Callable[[Unary], Unary]:
    """Let the decorated function be the rule of functions of torch of some names."""

    def register(rule: Unary) -> Unary:
        for name in names:
            RULES[name] = rule
        return rule

    return register


# --- the chain rule ------------------------------------------------------------------------------


def plain_reverse(data: Tensor) -> bool:
    """Whether nothing but reverse mode may differentiate what is done with ``data``."""
    is_transformed = peek_interpreter_stack() is not None
    is_forward = forward_ad._current_level >= 0
    return not is_transformed and not is_forward and data.is_floating_point()


def chain(rule: Unary, data: Tensor, pairs: Pairs) -> Tensor:
    """Return the channels of f(u) from those of u, shape (channels, ...) like ``data``.

    Parameters
    ----------
    rule:
        The function f with its derivatives.
    data:
        u, its first derivatives, and its second ones in the order of ``pairs``.
    pairs:
        For each second derivative, which two of the first ones it comes from.
    """
    if plain_reverse(data):
        result: Tensor = _Chain.apply(data, rule, pairs)  # type: ignore[no-untyped-call]
        return result
    return _composed(rule, data, pairs)


def _composed(rule: Unary, data: Tensor, pairs: Pairs) -> Tensor:
    n_second = len(pairs)
    n_first = len(data) - 1 - n_second
    u, firsts, seconds = data.split_with_sizes([1, n_first, n_second])
    value, f_1, f_2, _ = rule(u)
    parts = [value]

    # f(u)_i = f′(u) u_i
    if n_first:
        slope = f_1()
        parts.append(slope * firsts)

    # f(u)_ij = f′(u) u_ij + f″(u) u_i u_j
    if pairs:
        by_coordinate = firsts.unbind(0)
        products = [by_coordinate[i] * by_coordinate[j] for i, j in pairs]
        part = slope * seconds + f_2() * torch.stack(products)
        parts.append(part)

    return torch.cat(parts)


class _Chain(torch.autograd.Function):
    """:func:`_composed` and its derivative, each writing its result in place."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, rule: Unary, pairs: Pairs) -> Tensor:
        value, *derivatives = rule(data[0])
        ctx.save_for_backward(data)
        ctx.rule = rule
        ctx.pairs = pairs
        ctx.derivatives = derivatives

        out = torch.empty_like(data)
        out[0] = value

        # f′(u) times every derivative, first and second at once.
        if len(data) > 1:
            f_1 = derivatives[0]()
            torch.mul(data[1:], f_1, out=out[1:])

        # + f″(u) u_i u_j. A product without a name leaves its memory to the next one.
        if pairs:
            f_2 = derivatives[1]()
            for k, (i, j) in enumerate(pairs, len(data) - len(pairs)):
                out[k].addcmul_(data[1 + i] * data[1 + j], f_2)

        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # With g the gradient by the channels of f(u), and f′, f″, f‴ at u:
        #   L_u    = g f′ + Σ_i g_i f″ u_i + Σ_ij g_ij (f″ u_ij + f‴ u_i u_j)
        #   L_u_i  = g_i f′ + Σ_j g_ij f″ u_j (1 + [i = j])
        #   L_u_ij = g_ij f′
        (data,) = ctx.saved_tensors

        # This derivative is to be differentiated again.
        if torch.is_grad_enabled():
            composed = _composed(ctx.rule, data, ctx.pairs)
            (again,) = torch.autograd.grad(composed, data, grad, create_graph=True)
            return again, None, None

        first, second, third = ctx.derivatives
        out = torch.empty_like(data)
        # g f′, to every channel.
        torch.mul(grad, first(), out=out)

        if len(data) > 1:
            # f″ (Σ_i g_i u_i + Σ_ij g_ij u_ij), to the value.
            bend = grad[1] * data[1]
            for g, derivative in zip(grad[2:], data[2:], strict=True):
                bend.addcmul_(g, derivative)

            f_2 = second()
            out[0].addcmul_(bend, f_2)
            _add_second_orders(out, grad, data, ctx.pairs, f_2, third)

        return out, None, None


def _add_second_orders(
    out: Tensor,
    grad: Tensor,
    data: Tensor,
    pairs: Pairs,
    f_2: Tensor,
    third: Lazy,
) -> None:
    """Add to ``out`` the derivative of ``Σ_ij g_ij f″(u) u_i u_j``, summed over the pairs."""
    if not pairs:
        return

    twist = torch.zeros_like(f_2)
    for k, (i, j) in enumerate(pairs, len(data) - len(pairs)):
        g = grad[k]
        u_i = data[1 + i]
        u_j = data[1 + j]

        # By f″(u): f‴ g u_i u_j, summed before it is multiplied.
        g_u_i = g * u_i
        twist.addcmul_(g_u_i, u_j)

        # By u_i and u_j: f″ g u_j and f″ g u_i, or 2 f″ g u_i where they are the same.
        if i == j:
            out[1 + i].addcmul_(g_u_i, f_2, value=2)
        else:
            out[1 + j].addcmul_(g_u_i, f_2)
            out[1 + i].addcmul_(g * u_j, f_2)

    out[0].addcmul_(twist, third())


# --- functions and their derivatives -------------------------------------------------------------


def power(n: float) -> Unary:
    """Return the rule of xⁿ."""
    # (xⁿ)‴ = n (n − 1) (n − 2) xⁿ⁻³
    of_first = n
    of_second = n * (n - 1)
    of_third = n * (n - 1) * (n - 2)

    def rule(x: Tensor) -> Derivatives:
        return (
            x**n,
            lambda: _power(x, of_first, n - 1),
            lambda: _power(x, of_second, n - 2),
            lambda: _power(x, of_third, n - 3),
        )

    return rule


def _power(x: Tensor, factor: float, n: float) -> Tensor:
    """Return factor·xⁿ, also at x = 0 where the factor vanishes and the power is infinite."""
    if factor == 0:
        return torch.zeros_like(x)
    return factor * x**n


@_rule("tanh")
def _tanh(x: Tensor) -> Derivatives:
    # With t = tanh x and s = 1 − t²: t′ = s, s′ = −2 t s, s″ = −2 s² + 4 t² s = s (4 − 6 s).
    t = torch.tanh(x)
    s = 1 - t * t
    return (
        t,
        lambda: s,
        lambda: -2 * t * s,
        lambda: s * (4 - 6 * s),
    )


@_rule("exp")
def _exp(x: Tensor) -> Derivatives:
    e = torch.exp(x)
    return e, lambda: e, lambda: e, lambda: e


@_rule("square")
def _square(x: Tensor) -> Derivatives:
    return (
        x * x,
        lambda: 2 * x,
        lambda: torch.full_like(x, 2.0),
        lambda: torch.zeros_like(x),
    )


@_rule("sin")
def _sin(x: Tensor) -> Derivatives:
    s = torch.sin(x)
    return (
        s,
        lambda: torch.cos(x),
        lambda: -s,
        lambda: -torch.cos(x),
    )


@_rule("cos")
def _cos(x: Tensor) -> Derivatives:
    c = torch.cos(x)
    return (
        c,
        lambda: -torch.sin(x),
        lambda: -c,
        lambda: torch.sin(x),
    )


@_rule("sigmoid")
def _sigmoid(x: Tensor) -> Derivatives:
    # With d = s (1 − s): s′ = d, d′ = d (1 − 2 s), and as (1 − 2 s)² = 1 − 4 d,
    # d″ = d (1 − 2 s)² − 2 d² = d (1 − 6 d).
    s = torch.sigmoid(x)
    d = s * (1 - s)
    return (
        s,
        lambda: d,
        lambda: d * (1 - 2 * s),
        lambda: d * (1 - 6 * d),
    )


@_rule("silu")
def _silu(x: Tensor) -> Derivatives:
    # Leibniz: (x σ)⁽ᵏ⁾ = k σ⁽ᵏ⁻¹⁾ + x σ⁽ᵏ⁾.
    s, first, second, third = _sigmoid(x)
    return (
        x * s,
        lambda: s + x * first(),
        lambda: 2 * first() + x * second(),
        lambda: 3 * second() + x * third(),
    )


@_rule("gelu")
def _gelu(x: Tensor) -> Derivatives:
    # x Φ(x) with Φ′ = φ and φ′ = −x φ: Φ + x φ, then φ (2 − x²), then φ (x³ − 4 x).
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (
        x * cdf,
        lambda: cdf + x * density,
        lambda: density * (2 - x * x),
        lambda: density * x * (x * x - 4),
    )


@_rule("softplus")
def _softplus(x: Tensor) -> Derivatives:
    # log(1 + eˣ), whose derivative is the sigmoid; torch has it linear above 20.
    is_linear = x > 20
    s = torch.where(is_linear, torch.ones_like(x), torch.sigmoid(x))
    return (
        F.softplus(x),
        lambda: s,
        lambda: s * (1 - s),
        lambda: s * (1 - s) * (1 - 2 * s),
    )


@_rule("erf")
def _erf(x: Tensor) -> Derivatives:
    # With d = 2/√π e^(−x²): d′ = −2 x d and d″ = −2 d + 4 x² d.
    d = 2 / math.sqrt(math.pi) * torch.exp(-x * x)
    return (
        torch.erf(x),
        lambda: d,
        lambda: -2 * x * d,
        lambda: d * (4 * x * x - 2),
    )


@_rule("reciprocal")
def _reciprocal(x: Tensor) -> Derivatives:
    r = 1 / x
    return (
        r,
        lambda: -r * r,
        lambda: 2 * r**3,
        lambda: -6 * r**4,
    )


@_rule("log")
def _log(x: Tensor) -> Derivatives:
    r = 1 / x
    return (
        torch.log(x),
        lambda: r,
        lambda: -r * r,
        lambda: 2 * r**3,
    )


@_rule("sqrt")
def _sqrt(x: Tensor) -> Derivatives:
    # With r = √x: 1/(2 r), −1/(4 r³), 3/(8 r⁵), where r² is x.
    r = torch.sqrt(x)
    return (
        r,
        lambda: 0.5 / r,
        lambda: -0.25 / (r * x),
        lambda: 0.375 / (r * x * x),
    )


@_rule("sinh")
def _sinh(x: Tensor) -> Derivatives:
    s = torch.sinh(x)
    return (
        s,
        lambda: torch.cosh(x),
        lambda: s,
        lambda: torch.cosh(x),
    )


@_rule("cosh")
def _cosh(x: Tensor) -> Derivatives:
    c = torch.cosh(x)
    return (
        c,
        lambda: torch.sinh(x),
        lambda: c,
        lambda: torch.sinh(x),
    )


@_rule("atan", "arctan")
def _atan(x: Tensor) -> Derivatives:
    # With r = 1/(1 + x²): r′ = −2 x r² and r″ = 8 x² r³ − 2 r².
    r = 1 / (1 + x * x)
    return (
        torch.atan(x),
        lambda: r,
        lambda: -2 * x * r * r,
        lambda: r * r * (8 * x * x * r - 2),
    )
