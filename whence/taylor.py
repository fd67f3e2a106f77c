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
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction

from whence import ladders
from whence.elementwise import plain_reverse
from whence.ladders import Ladder
from whence.layout import Layout, Terms

Channels = Sequence[Tensor]
"""The channels of a jet, one tensor each; those left out at the end vanish."""
Places = Sequence[Tensor | None]
"""Where the channels of a result are written; None for a new tensor."""
Carried = tuple[list[Tensor], list[Tensor]]
"""The channels of y = f(u), and those of the slope f′(u) that were asked for."""
Carry = Callable[[Channels, Layout, Places, Places | None], Carried]
"""Carries channels of u through f. Without places for the slope only what y takes of it is made,
and what is left out is a tensor without meaning."""


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
        results.append(_led(terms, left, right, place))
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
    if torch.is_grad_enabled():  # this derivative is to be differentiated again
        return _stacked(sums, gradient.unbind(0), factor.unbind(0))

    out = factor.new_empty(n_channels, *factor.shape[1:])
    _bilinear(sums, gradient.unbind(0), factor.unbind(0), out.unbind(0))
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
        of_a, of_b, _ = ctx.needs_input_grad
        return (
            _transposed(grad, b, ctx.layout, len(a)) if of_a else None,
            _transposed(grad, a, ctx.layout, len(b)) if of_b else None,
            None,
        )


# --- elementwise functions -----------------------------------------------------------------------


def apply(carry: Carry, data: Tensor, layout: Layout) -> Tensor:
    """Return the channels of f(u), (c, ...), from those of u: all, or value and slopes alone."""
    if plain_reverse(data):
        result: Tensor = _Composition.apply(data, carry, layout)  # type: ignore[no-untyped-call]
        return result

    anywhere = [None] * len(layout)
    values, _ = carry(data.unbind(0), layout, anywhere, None)
    return torch.stack(values)


class _Composition(torch.autograd.Function):
    """A function of jets and its derivative, each writing its result in place."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, carry: Carry, layout: Layout) -> Tensor:
        ctx.carry = carry
        ctx.layout = layout
        channels = data.unbind(0)
        out = data.new_empty(len(layout), *data.shape[1:])
        is_differentiated = ctx.needs_input_grad[0]

        # The slope shares all products with the values: it is made here, not for the gradient.
        slopes = torch.empty_like(out) if is_differentiated else None
        places = None if slopes is None else slopes.unbind(0)
        with DisableTorchFunction():
            carry(channels, layout, out.unbind(0), places)

        ctx.save_for_backward(data, slopes)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        data, slopes = ctx.saved_tensors
        layout = ctx.layout

        # This derivative is to be differentiated again: the slope as a function of u.
        if torch.is_grad_enabled():
            anywhere = [None] * len(layout)
            _, again = ctx.carry(data.unbind(0), layout, anywhere, anywhere)
            slopes = torch.stack(again)

        return _transposed(grad, slopes, layout, len(data)), None, None


def by_square(
    function: Callable[..., Tensor], of_value: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Carry:
    """Return what carries a function with ``f′ = p + q f − f²``, p and q numbers.

    ``of_value`` returns the slope ``w = p + q y − y²`` and its bend ``q − 2 y`` of values y. With
    these ``w_α = (q − 2 y) y_α − Σ_{0 < β < α} C(α, β) y_β y_{α−β}``.
    """

    def carry(
        u: Channels, layout: Layout, places: Places, slope_places: Places | None
    ) -> Carried:
        rules = layout.composition(len(u))
        value = function(u[0], out=places[0])
        slope, bend = of_value(value)
        values = [value]
        slopes = [slope]
        if slope_places is not None and slope_places[0] is not None:
            slope_places[0].copy_(slope)

        for channel in range(1, len(layout)):
            y = _led(rules.chains[channel], slopes, u, places[channel])
            values.append(y)
            if slope_places is None and channel not in rules.inner:
                slopes.append(bend)
                continue

            place = None if slope_places is None else slope_places[channel]
            lead = torch.mul(bend, y, out=place)
            terms = layout.squares[channel]
            slopes.append(_sum(lead, terms, values, values, place, sign=-1))

        return values, slopes

    return carry


def _of_tanh(y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.rsub(y * y, 1), -2 * y


def _of_sigmoid(y: Tensor) -> tuple[Tensor, Tensor]:
    return y * torch.rsub(y, 1), torch.rsub(y, 1, alpha=2)


def _of_reciprocal(y: Tensor) -> tuple[Tensor, Tensor]:
    return -y * y, -2 * y


def _exp(
    u: Channels, layout: Layout, places: Places, slope_places: Places | None
) -> Carried:
    # f′ = f: the slope is y itself.
    rules = layout.composition(len(u))
    values = [torch.exp(u[0], out=places[0])]
    for channel in range(1, len(layout)):
        values.append(_led(rules.chains[channel], values, u, places[channel]))

    if slope_places is not None:
        for value, place in zip(values, slope_places, strict=True):
            if place is not None:
                place.copy_(value)

    return values, values


def by_turning(
    function: Callable[..., Tensor], slope: Callable[..., Tensor], sign: int
) -> Carry:
    """Return what carries f with ``f″ = sign · f``, so that ``w_i = sign · y u_i``."""

    def carry(
        u: Channels, layout: Layout, places: Places, slope_places: Places | None
    ) -> Carried:
        rules = layout.composition(len(u))
        wanted = [None] * len(layout) if slope_places is None else slope_places
        values = [function(u[0], out=places[0])]
        slopes = [slope(u[0], out=wanted[0])]
        signed = values[0] if sign > 0 else -values[0]

        for channel in range(1, len(layout)):
            y = _led(rules.chains[channel], slopes, u, places[channel])
            values.append(y)
            if slope_places is None and channel not in rules.inner:
                slopes.append(signed)
                continue

            # As y with the two exchanged. What leads is sign · y u_α, if u has that channel.
            place = wanted[channel]
            _, a, b = rules.chains[channel][0]
            if a == 0:
                lead = torch.mul(signed, u[b], out=place)
            else:
                lead = torch.mul(values[a], u[b], out=place)
                lead = lead if sign > 0 else torch.neg(lead, out=place)
            terms = rules.chains[channel][1:]
            slopes.append(_sum(lead, terms, values, u, place, sign))

        return values, slopes

    return carry


def by_ladder(ladder: Ladder) -> Carry:
    """Return what carries a function by its derivatives and Faà di Bruno's formula."""

    def carry(
        u: Channels, layout: Layout, places: Places, slope_places: Places | None
    ) -> Carried:
        has_slopes = slope_places is not None
        derivatives = ladder(u[0], layout.order + has_slopes)
        rules = layout.composition(len(u))
        products = list(u)
        for begun, channel in rules.monomials:
            products.append(products[begun] * u[channel])

        values = _composed(derivatives, rules.partitions, products, places)
        if slope_places is None:
            return values, []
        slopes = _composed(derivatives[1:], rules.partitions, products, slope_places)
        return values, slopes

    return carry


def _composed(
    derivatives: list[Tensor], sums: Sequence[Terms], products: Channels, places: Places
) -> list[Tensor]:
    """Return ``Σ_k f⁽ᵏ⁾ B_{α,k}`` of each channel; derivatives beyond those listed vanish."""
    value = derivatives[0]
    if places[0] is not None:
        value = places[0].copy_(value)

    channels = [value]
    for terms, place in zip(sums[1:], places[1:], strict=True):
        # Where f is a polynomial, its derivatives end.
        left = tuple(term for term in terms if term.a < len(derivatives))
        if not left:
            zero = torch.zeros_like(value) if place is None else place.zero_()
            channels.append(zero)
            continue

        channels.append(_led(left, derivatives, products, place))

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
