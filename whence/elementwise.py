"""Elementwise functions with their derivatives, and the chain rule that carries channels through.

The rule is composed of torch operations, so anything can differentiate it again; where plain
reverse mode alone is at work, one operation with a derivative written by hand does the same in
fewer passes over memory (Faà di Bruno's formula to second order).
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


def plain_reverse(data: Tensor) -> bool:
    """Tell whether nothing but reverse mode may differentiate what is done with ``data``."""
    alone = peek_interpreter_stack() is None and forward_ad._current_level < 0
    return alone and data.is_floating_point()


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
    n_first = len(data) - 1 - len(pairs)
    argument, ones, twos = data.split_with_sizes([1, n_first, len(pairs)])
    value, first, second, _ = rule(argument)
    parts = [value]
    if n_first:
        slope = first()
        parts.append(slope * ones)
    if pairs:
        each = ones.unbind(0)
        products = torch.stack([each[i] * each[j] for i, j in pairs])
        parts.append(slope * twos + second() * products)
    return torch.cat(parts)


class _Chain(torch.autograd.Function):
    """:func:`_composed` and its derivative, each writing its result in place."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, rule: Unary, pairs: Pairs) -> Tensor:
        value, *derivatives = rule(data[0])
        ctx.save_for_backward(data)
        ctx.rule, ctx.pairs, ctx.derivatives = rule, pairs, derivatives
        out = torch.empty_like(data)
        out[0] = value
        if len(data) > 1:
            torch.mul(data[1:], derivatives[0](), out=out[1:])
        if pairs:
            curvature = derivatives[1]()
            for k, (i, j) in enumerate(pairs, len(data) - len(pairs)):
                out[k].addcmul_(data[1 + i] * data[1 + j], curvature)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (data,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # this derivative is to be differentiated again
            composed = _composed(ctx.rule, data, ctx.pairs)
            return (
                torch.autograd.grad(composed, data, grad, create_graph=True)[0],
                None,
                None,
            )
        first, second, third = ctx.derivatives
        out = torch.empty_like(data)
        torch.mul(grad, first(), out=out)
        if len(data) > 1:
            bend = grad[1] * data[1]
            for g, u in zip(grad[2:], data[2:], strict=True):
                bend.addcmul_(g, u)
            curvature = second()
            out[0].addcmul_(bend, curvature)
            _add_second_orders(out, grad, data, ctx.pairs, curvature, third)
        return out, None, None


def _add_second_orders(
    out: Tensor,
    grad: Tensor,
    data: Tensor,
    pairs: Pairs,
    curvature: Tensor,
    third: Lazy,
) -> None:
    """Add to ``out`` the derivative of ``f″(u)·u_i·u_j`` for every pair."""
    if not pairs:
        return
    twist = torch.zeros_like(curvature)
    for k, (i, j) in enumerate(pairs, len(data) - len(pairs)):
        left = grad[k] * data[1 + i]
        twist.addcmul_(left, data[1 + j])
        if i == j:
            out[1 + i].addcmul_(left, curvature, value=2)
        else:
            out[1 + j].addcmul_(left, curvature)
            out[1 + i].addcmul_(grad[k] * data[1 + j], curvature)
    out[0].addcmul_(twist, third())


def power(n: float) -> Unary:
    """Return the rule of xⁿ."""
    factors = [n, n * (n - 1), n * (n - 1) * (n - 2)]

    def rule(x: Tensor) -> Derivatives:
        return (
            x**n,
            lambda: _power(x, factors[0], n - 1),
            lambda: _power(x, factors[1], n - 2),
            lambda: _power(x, factors[2], n - 3),
        )

    return rule


def _power(x: Tensor, factor: float, n: float) -> Tensor:
    """Return factor·xⁿ, also at x = 0 where the factor vanishes and the power is infinite."""
    return torch.zeros_like(x) if factor == 0 else factor * x**n


def _tanh(x: Tensor) -> Derivatives:
    t = torch.tanh(x)
    s = 1 - t * t
    return t, lambda: s, lambda: -2 * t * s, lambda: s * (4 - 6 * s)


def _exp(x: Tensor) -> Derivatives:
    e = torch.exp(x)
    return e, lambda: e, lambda: e, lambda: e


def _square(x: Tensor) -> Derivatives:
    return (
        x * x,
        lambda: 2 * x,
        lambda: torch.full_like(x, 2.0),
        lambda: torch.zeros_like(x),
    )


def _sin(x: Tensor) -> Derivatives:
    s = torch.sin(x)
    return s, lambda: torch.cos(x), lambda: -s, lambda: -torch.cos(x)


def _cos(x: Tensor) -> Derivatives:
    c = torch.cos(x)
    return c, lambda: -torch.sin(x), lambda: -c, lambda: torch.sin(x)


def _sigmoid(x: Tensor) -> Derivatives:
    s = torch.sigmoid(x)
    d = s * (1 - s)
    return s, lambda: d, lambda: d * (1 - 2 * s), lambda: d * (1 - 6 * d)


def _silu(x: Tensor) -> Derivatives:
    s, first, second, third = _sigmoid(x)
    return (
        x * s,
        lambda: s + x * first(),
        lambda: 2 * first() + x * second(),
        lambda: 3 * second() + x * third(),
    )


def _gelu(x: Tensor) -> Derivatives:
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (
        x * cdf,
        lambda: cdf + x * density,
        lambda: density * (2 - x * x),
        lambda: density * x * (x * x - 4),
    )


def _softplus(x: Tensor) -> Derivatives:
    s = torch.where(
        x > 20, torch.ones_like(x), torch.sigmoid(x)
    )  # as torch: linear above 20
    return (
        F.softplus(x),
        lambda: s,
        lambda: s * (1 - s),
        lambda: s * (1 - s) * (1 - 2 * s),
    )


def _erf(x: Tensor) -> Derivatives:
    d = 2 / math.sqrt(math.pi) * torch.exp(-x * x)
    return torch.erf(x), lambda: d, lambda: -2 * x * d, lambda: d * (4 * x * x - 2)


def _reciprocal(x: Tensor) -> Derivatives:
    r = 1 / x
    return r, lambda: -r * r, lambda: 2 * r**3, lambda: -6 * r**4


def _log(x: Tensor) -> Derivatives:
    r = 1 / x
    return torch.log(x), lambda: r, lambda: -r * r, lambda: 2 * r**3


def _sqrt(x: Tensor) -> Derivatives:
    r = torch.sqrt(x)
    return r, lambda: 0.5 / r, lambda: -0.25 / (r * x), lambda: 0.375 / (r * x * x)


def _sinh(x: Tensor) -> Derivatives:
    s = torch.sinh(x)
    return s, lambda: torch.cosh(x), lambda: s, lambda: torch.cosh(x)


def _cosh(x: Tensor) -> Derivatives:
    c = torch.cosh(x)
    return c, lambda: torch.sinh(x), lambda: c, lambda: torch.sinh(x)


def _atan(x: Tensor) -> Derivatives:
    r = 1 / (1 + x * x)
    return (
        torch.atan(x),
        lambda: r,
        lambda: -2 * x * r * r,
        lambda: r * r * (8 * x * x * r - 2),
    )


RULES: dict[str, Unary] = {
    "tanh": _tanh,
    "gelu": _gelu,
    "exp": _exp,
    "square": _square,
    "sin": _sin,
    "cos": _cos,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "softplus": _softplus,
    "erf": _erf,
    "reciprocal": _reciprocal,
    "log": _log,
    "sqrt": _sqrt,
    "sinh": _sinh,
    "cosh": _cosh,
    "atan": _atan,
    "arctan": _atan,
}
"""By the name of torch's function."""
