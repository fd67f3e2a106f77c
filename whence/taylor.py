"""Jets of any order through products and elementwise functions.

Above second order the rules are sums over multi-indices, which :class:`whence.layout.Layout` has
ready. A product's is Leibniz' rule. With y = f(u) and its *slope*, the jet w of f′(u), the chain
rule ``y_i = w u_i`` differentiated by β gives every channel of y from lower ones of w:

    ``y_{β+i} = Σ_{γ ≤ β} C(β, γ) w_γ u_{β−γ+i}``

Where w is an expression in y the two are computed in turn, order by order (Griewank & Walther,
*Evaluating Derivatives*, 2008, ch. 13): ``w = 1 − y²`` of tanh, ``w = y`` of exp. Any other
function is composed from its derivatives f⁽ᵏ⁾(u) by Faà di Bruno's formula,

    ``y_α = Σ_k f⁽ᵏ⁾(u) B_{α,k}`` and ``w_α = Σ_k f⁽ᵏ⁺¹⁾(u) B_{α,k}``,

where B sums products of derivatives of u, the same for both. Reverse mode takes w alone, because a
small change v of u changes f(u) by the product w v, so that by Leibniz' rule
``∂y_α/∂u_β = C(α, β) w_{α−β}``, and with g the gradient with respect to y

    ``L_{u_β} = Σ_{α ≥ β} C(α, β) g_α w_{α−β}``.

All is composed of torch operations, so anything can differentiate it again; where plain reverse
mode alone is at work, the same operations write their results in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction

from whence import ladders
from whence.elementwise import plain_reverse
from whence.ladders import Ladder
from whence.layout import Composition, Layout, Terms

Channels = Sequence[Tensor]
"""The channels of a jet, one tensor each; those left out at the end vanish."""
Places = Sequence[Tensor | None]
"""Where the channels of a result are written; None for a new tensor."""


@dataclass(frozen=True)
class Request:
    """Which channels of y = f(u) and of its slope w are wanted, and where they are written."""

    layout: Layout
    values: Places
    slopes: Places
    all_slopes: bool
    """Whether all of w is wanted, and not only what y takes of it."""

    @classmethod
    def anywhere(cls, layout: Layout, all_slopes: bool) -> Request:
        """Return a request of new tensors, which can be differentiated."""
        places = [None] * len(layout)
        return cls(layout, places, places, all_slopes)

    def wants_slope(self, channel: int, rules: Composition) -> bool:
        """Whether a channel of w is to be made."""
        return self.all_slopes or channel in rules.inner


Carried = tuple[list[Tensor], list[Tensor]]
"""The channels of y, and those of w; what is not wanted of w has some tensor in its place."""
Carry = Callable[[Channels, Request], Carried]
"""Carries the channels of u through a function."""


def _put(tensor: Tensor, place: Tensor | None) -> Tensor:
    """Return a tensor, copied to its place where it has one."""
    if place is None:
        return tensor
    return place.copy_(tensor)


def _sum(
    lead: Tensor,
    terms: Terms,
    left: Channels,
    right: Channels,
    place: Tensor | None,
    sign: int = 1,
) -> Tensor:
    """Return ``lead + sign · Σ times · left[a] · right[b]``, in ``place`` where lead is there."""
    for times, a, b in terms:
        lead = torch.addcmul(lead, left[a], right[b], value=sign * times, out=place)
    return lead


def _led(terms: Terms, left: Channels, right: Channels, place: Tensor | None) -> Tensor:
    """Return ``Σ times · left[a] · right[b]``, whose first term counts once."""
    _, a, b = terms[0]
    lead = torch.mul(left[a], right[b], out=place)
    return _sum(lead, terms[1:], left, right, place)


def _bilinear(
    sums: Sequence[Terms], left: Channels, right: Channels, places: Places
) -> list[Tensor]:
    """Return ``Σ times · left[a] · right[b]`` of each channel."""
    results = []
    for terms, place in zip(sums, places, strict=True):
        result = _led(terms, left, right, place)
        results.append(result)

    return results


# --- products ------------------------------------------------------------------------------------


def multiply(a: Tensor, b: Tensor, layout: Layout) -> Tensor:
    """Return the channels of a product from those of its factors, (c, ...) of equal shapes."""
    if plain_reverse(a) and plain_reverse(b):
        result: Tensor = _Product.apply(a, b, layout)  # type: ignore[no-untyped-call]
        return result

    return _stacked(layout.products, a.unbind(0), b.unbind(0))


def _stacked(sums: Sequence[Terms], left: Channels, right: Channels) -> Tensor:
    """Return the sums as one new tensor, by operations that can be differentiated."""
    anywhere = [None] * len(sums)
    return torch.stack(_bilinear(sums, left, right, anywhere))


def _transposed(
    gradient: Tensor, factor: Tensor, layout: Layout, n_channels: int
) -> Tensor:
    """Return ``Σ_{α ≥ β} C(α, β) g_α w_{α−β}`` for each of the first channels β."""
    sums = layout.transposed_products[:n_channels]
    left = gradient.unbind(0)
    right = factor.unbind(0)
    if torch.is_grad_enabled():  # this derivative is to be differentiated again
        return _stacked(sums, left, right)

    out = factor.new_empty(n_channels, *factor.shape[1:])
    _bilinear(sums, left, right, out.unbind(0))
    return out


class _Product(torch.autograd.Function):
    """Leibniz' rule and its derivative, each writing its result in place."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.layout = layout
        out = torch.empty_like(a)
        with DisableTorchFunction():
            _bilinear(layout.products, a.unbind(0), b.unbind(0), out.unbind(0))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        layout = ctx.layout
        of_a = None
        of_b = None
        if ctx.needs_input_grad[0]:
            of_a = _transposed(grad, b, layout, len(layout))
        if ctx.needs_input_grad[1]:
            of_b = _transposed(grad, a, layout, len(layout))

        return of_a, of_b, None


# --- elementwise functions -----------------------------------------------------------------------


def apply(carry: Carry, data: Tensor, layout: Layout) -> Tensor:
    """Return the channels of f(u), (c, ...), from those of u: all, or value and slopes alone."""
    if plain_reverse(data):
        result: Tensor = _Composition.apply(data, carry, layout)  # type: ignore[no-untyped-call]
        return result

    values, _ = carry(data.unbind(0), Request.anywhere(layout, all_slopes=False))
    return torch.stack(values)


class _Composition(torch.autograd.Function):
    """A function of jets and its derivative, each writing its result in place."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, carry: Carry, layout: Layout) -> Tensor:
        ctx.carry = carry
        ctx.layout = layout
        out = data.new_empty(len(layout), *data.shape[1:])

        # The slope shares all products with the values: it is made here, not for the gradient.
        is_differentiated = ctx.needs_input_grad[0]
        slopes = None
        slope_places: Places = [None] * len(layout)
        if is_differentiated:
            slopes = torch.empty_like(out)
            slope_places = slopes.unbind(0)

        request = Request(layout, out.unbind(0), slope_places, is_differentiated)
        with DisableTorchFunction():
            carry(data.unbind(0), request)

        ctx.save_for_backward(data, slopes)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        data, slopes = ctx.saved_tensors
        layout = ctx.layout

        # This derivative is to be differentiated again: the slope as a function of u.
        if torch.is_grad_enabled():
            request = Request.anywhere(layout, all_slopes=True)
            _, again = ctx.carry(data.unbind(0), request)
            slopes = torch.stack(again)

        return _transposed(grad, slopes, layout, len(data)), None, None


def by_square(
    function: Callable[..., Tensor], of_value: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Carry:
    """Return what carries a function with ``f′ = p + q f − f²``, p and q numbers.

    ``of_value`` returns the slope ``w = p + q y − y²`` and its bend ``q − 2 y`` of values y. With
    these ``w_α = (q − 2 y) y_α − Σ_{0 < β < α} C(α, β) y_β y_{α−β}``.
    """

    def carry(u: Channels, request: Request) -> Carried:
        layout = request.layout
        rules = layout.composition(len(u))
        value = function(u[0], out=request.values[0])
        slope, bend = of_value(value)
        values = [value]
        slopes = [_put(slope, request.slopes[0])]

        for channel in range(1, len(layout)):
            place = request.values[channel]
            y = _led(rules.chains[channel], slopes, u, place)
            values.append(y)
            if not request.wants_slope(channel, rules):
                slopes.append(y)
                continue

            place = request.slopes[channel]
            lead = torch.mul(bend, y, out=place)
            terms = layout.squares[channel]
            w = _sum(lead, terms, values, values, place, sign=-1)
            slopes.append(w)

        return values, slopes

    return carry


def _of_tanh(y: Tensor) -> tuple[Tensor, Tensor]:
    square = y * y
    return torch.rsub(square, 1), -2 * y


def _of_sigmoid(y: Tensor) -> tuple[Tensor, Tensor]:
    rest = torch.rsub(y, 1)
    return y * rest, torch.rsub(y, 1, alpha=2)


def _of_reciprocal(y: Tensor) -> tuple[Tensor, Tensor]:
    return -y * y, -2 * y


def _exp(u: Channels, request: Request) -> Carried:
    # f′ = f: the slope is y itself.
    rules = request.layout.composition(len(u))
    values = [torch.exp(u[0], out=request.values[0])]
    for channel in range(1, len(request.layout)):
        place = request.values[channel]
        y = _led(rules.chains[channel], values, u, place)
        values.append(y)

    slopes = map(_put, values, request.slopes)
    return values, list(slopes)


def by_turning(
    function: Callable[..., Tensor], slope: Callable[..., Tensor], sign: int
) -> Carry:
    """Return what carries f with ``f″ = sign · f``, so that ``w_i = sign · y u_i``."""

    def carry(u: Channels, request: Request) -> Carried:
        rules = request.layout.composition(len(u))
        value = function(u[0], out=request.values[0])
        signed = sign * value
        values = [value]
        slopes = [slope(u[0], out=request.slopes[0])]

        for channel in range(1, len(request.layout)):
            terms = rules.chains[channel]
            place = request.values[channel]
            y = _led(terms, slopes, u, place)
            values.append(y)
            if not request.wants_slope(channel, rules):
                slopes.append(y)
                continue

            # As y with the two exchanged. What leads is sign · y u_α, if u has that channel.
            place = request.slopes[channel]
            _, a, b = terms[0]
            if a == 0:
                lead = torch.mul(signed, u[b], out=place)
            else:
                product = torch.mul(values[a], u[b], out=place)
                lead = torch.mul(product, sign, out=place)

            w = _sum(lead, terms[1:], values, u, place, sign)
            slopes.append(w)

        return values, slopes

    return carry


def by_ladder(ladder: Ladder) -> Carry:
    """Return what carries a function by its derivatives and Faà di Bruno's formula."""

    def carry(u: Channels, request: Request) -> Carried:
        layout = request.layout
        rules = layout.composition(len(u))
        products = list(u)
        for begun, channel in rules.monomials:
            product = products[begun] * u[channel]
            products.append(product)

        # The slope of highest order takes one derivative more.
        order = layout.order + request.all_slopes
        derivatives = ladder(u[0], order)
        sums = rules.partitions
        values = _composed(derivatives, sums, products, request.values)
        slopes: list[Tensor] = []
        if request.all_slopes:
            slopes = _composed(derivatives[1:], sums, products, request.slopes)

        return values, slopes

    return carry


def _composed(
    derivatives: list[Tensor], sums: Sequence[Terms], products: Channels, places: Places
) -> list[Tensor]:
    """Return ``Σ_k f⁽ᵏ⁾ B_{α,k}`` of each channel; derivatives beyond those listed vanish."""
    value = _put(derivatives[0], places[0])
    channels = [value]
    for terms, place in zip(sums[1:], places[1:], strict=True):
        # Where f is a polynomial, its derivatives end.
        left = tuple(term for term in terms if term.a < len(derivatives))
        if left:
            channel = _led(left, derivatives, products, place)
        else:
            channel = _put(torch.zeros_like(value), place)
        channels.append(channel)

    return channels


def _minus_sin(x: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.neg(torch.sin(x), out=out)


RULES: dict[str, Carry] = {
    name: by_ladder(ladder) for name, ladder in ladders.RULES.items()
}
"""Functions by the name of torch's function."""
RULES |= {
    "tanh": by_square(torch.tanh, _of_tanh),
    "sigmoid": by_square(torch.sigmoid, _of_sigmoid),
    "reciprocal": by_square(torch.reciprocal, _of_reciprocal),
    "exp": _exp,
    "sin": by_turning(torch.sin, torch.cos, sign=-1),
    "cos": by_turning(torch.cos, _minus_sin, sign=-1),
    "sinh": by_turning(torch.sinh, torch.cosh, sign=1),
    "cosh": by_turning(torch.cosh, torch.sinh, sign=1),
}


@functools.lru_cache(maxsize=64)
def power(n: float) -> Carry:
    """Return what carries xⁿ."""
    return by_ladder(ladders.power(n))
