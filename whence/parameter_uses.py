"""How a function of torch uses parameters: as the parts of layers, or number by number.

:func:`layer_parts` reads a layer's weight and bias, which may be views of parameters;
``USES`` has for other functions one that reads their arguments: sums and products with a
parameter, matrix products, and repetition. Each :class:`Part` makes one
:class:`~whence.layers.Call`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.jets import Jet
from whence.layers import Call, LinearCall, LookupCall
from whence.parameter_calls import (
    AddedCall,
    MultipliedCall,
    PartLinearCall,
    SubtractedCall,
    SwappedLinearCall,
)
from whence.parameter_views import ParameterView
from whence.torch_layers import Layer

Find = Callable[[object], ParameterView | None]
"""Which selected parameter something is a view of, or None."""


@dataclass(frozen=True)
class Part:
    """One use of a weight, of a bias, or of both by a layer.

    Parameters
    ----------
    weight, bias:
        Names of the selected parameters.
    make:
        Makes the call.
    shape:
        The weight's own shape.
    source:
        What the weight meets.
    prepare:
        What is done to that before.
    """

    weight: str | None
    bias: str | None
    make: Callable[..., Call]
    shape: tuple[int, ...]
    source: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None


Reader = Callable[..., Sequence[Part] | None]
"""Reads arguments into parts, after ``find`` and the result; None where there is no rule."""

USES: dict[Callable[..., Any], Reader] = {}


def _reads(*names: str) -> Callable[[Reader], Reader]:
    """Let the decorated function read the arguments of torch's functions of these names."""

    def register(reader: Reader) -> Reader:
        for name in names:
            for owner in (torch, Tensor):
                if hasattr(owner, name):
                    USES[getattr(owner, name)] = reader
        return reader

    return register


# --- layers --------------------------------------------------------------------------------------


def layer_parts(layer: Layer, find: Find) -> Sequence[Part] | None:
    """Return the parts of a layer; None where one of its parameters has no rule in this use."""
    if layer.make is None:
        return None
    weight = find(layer.weight)
    bias = find(layer.bias)
    source = layer.input.data if isinstance(layer.input, Jet) else layer.input

    # A layer with its own weight and bias is one call; anything else is a call for each.
    is_whole = (weight is None or weight.is_whole) and (bias is None or bias.is_whole)
    if is_whole and not (bias and layer.bias_axes):
        shape = () if layer.weight is None else tuple(layer.weight.shape)
        of_weight = None if weight is None else weight.name
        of_bias = None if bias is None else bias.name
        return [Part(of_weight, of_bias, layer.make, shape, source, layer.prepare)]

    parts = []
    if weight is not None:
        weighed = weight_part(layer, weight, source)
        if weighed is None:
            return None
        parts.append(weighed)
    if bias is not None:
        # Of a convolution a bias has the axes of positions behind it.
        operand = (*bias.shape, *[1] * layer.bias_axes)
        added_to = _numbers(AddedCall, bias, operand, source)
        if added_to is None:
            return None
        parts.append(added_to)
    return parts


def weight_part(layer: Layer, view: ParameterView, source: Tensor) -> Part | None:
    """Return the use of a weight alone, which may be a view if the layer is a linear one."""
    if view.is_whole:
        assert layer.make is not None
        return Part(view.name, None, layer.make, view.whole, source, layer.prepare)
    if layer.make is LinearCall:
        return matrix_part(view, source)
    return None


def matrix_part(view: ParameterView, source: Tensor) -> Part | None:
    """Return the use of a view as the weight (out, in) of a linear layer, or None."""
    make: Callable[..., Call] | None = None
    whole = view.whole
    if len(whole) == 2 and len(view.shape) == 2:
        if view.is_whole:
            make = LinearCall
        elif view.shape[1] == whole[1] and view.is_run:
            # Whole rows, one after the other.
            first = view.offset // whole[1]
            rows = slice(first, first + view.shape[0])
            make = functools.partial(PartLinearCall, rows_used=rows)
        elif view.shape == whole[::-1] and view.strides == (1, whole[1]):
            # The strides of a transpose: a step along its first axis is one number.
            make = SwappedLinearCall
    return None if make is None else Part(view.name, None, make, whole, source)


# --- sums, products, repetition ------------------------------------------------------------------


def _numbers(
    kind: type[AddedCall], view: ParameterView, operand: Sequence[int], source: Tensor
) -> Part | None:
    """Return a use of a run of a parameter's numbers, one by one."""
    if not view.is_run:
        return None
    make = functools.partial(kind, columns=view.columns, operand=tuple(operand))
    return Part(view.name, None, make, view.whole, source)


def _by_number(
    kinds: tuple[type[AddedCall], type[AddedCall]],
    find: Find,
    result: Tensor,
    operands: tuple[Any, Any],
) -> Sequence[Part] | None:
    """Return the uses by an operation of two operands, either or both of which are parameters."""
    parts = []
    for kind, (operand, other) in zip(kinds, (operands, operands[::-1]), strict=True):
        view = find(operand)
        if view is None:
            continue
        if not isinstance(other, Tensor):  # a number
            other = torch.as_tensor(other, dtype=result.dtype, device=result.device)
        # Where types are promoted, a gradient is rounded on its way back.
        if operand.dtype != result.dtype or other.dtype != result.dtype:
            return None
        # In the shape of the result, whose points and positions it has then.
        spread = other.detach().expand(result.shape)
        part = _numbers(kind, view, operand.shape, spread)
        if part is None:
            return None
        parts.append(part)
    return parts


@_reads("add", "__add__", "__radd__")
def added(
    find: Find, result: Tensor, input: object, other: object, *, alpha: float = 1
) -> Sequence[Part] | None:
    """Return the uses in a sum."""
    if alpha != 1:
        return None
    return _by_number((AddedCall, AddedCall), find, result, (input, other))


@_reads("sub", "subtract", "__sub__")
def subtracted(
    find: Find, result: Tensor, input: object, other: object, *, alpha: float = 1
) -> Sequence[Part] | None:
    """Return the uses in a difference."""
    if alpha != 1:
        return None
    return _by_number((AddedCall, SubtractedCall), find, result, (input, other))


@_reads("rsub", "__rsub__")
def subtracted_from(
    find: Find, result: Tensor, input: object, other: object, *, alpha: float = 1
) -> Sequence[Part] | None:
    """Return the uses in a difference with its operands turned round."""
    return subtracted(find, result, other, input, alpha=alpha)


@_reads("mul", "multiply", "__mul__", "__rmul__")
def multiplied(
    find: Find, result: Tensor, input: object, other: object
) -> Sequence[Part] | None:
    """Return the uses in a product, number by number."""
    both = (MultipliedCall, MultipliedCall)
    return _by_number(both, find, result, (input, other))


@_reads("expand", "broadcast_to", "expand_as")
def repeated(
    find: Find, result: Tensor, input: Tensor, *sizes: object, **named: object
) -> Sequence[Part] | None:
    """Return the use of a parameter that is repeated along axes."""
    view = find(input)
    if view is None:  # the size is read from a parameter
        return ()
    part = _numbers(AddedCall, view, input.shape, result.detach())
    return None if part is None else [part]


@_reads("repeat")
def tiled(
    find: Find, result: Tensor, input: Tensor, *sizes: object
) -> Sequence[Part] | None:
    """Return the use of a parameter that is repeated, where that is a broadcast."""
    # Only axes of one entry, and new ones in front, are repeated as a broadcast would.
    extra = result.ndim - input.ndim
    for axis, size in enumerate(input.shape):
        if size not in (1, result.shape[extra + axis]):
            return None
    return repeated(find, result, input)


# --- matrix products -----------------------------------------------------------------------------


@_reads("matmul", "__matmul__", "mm")
def product(
    find: Find, result: Tensor, input: Tensor, other: Tensor
) -> Sequence[Part] | None:
    """Return the use of a parameter as the second matrix of a product."""
    view = find(other)
    if find(input) is not None or view is None or input.ndim < 2:
        return None

    # h = x W is the linear layer whose weight is Wᵀ.
    if len(view.shape) != 2:
        return None
    transposed = ParameterView(
        view.name, view.whole, view.offset, view.shape[::-1], view.strides[::-1]
    )
    part = matrix_part(transposed, input)
    return None if part is None else [part]


@_reads("addmm")
def added_product(
    find: Find,
    result: Tensor,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Sequence[Part] | None:
    """Return the uses in a matrix product to which something is added."""
    if beta != 1 or alpha != 1:
        return None

    parts: list[Part] = []
    if find(mat2) is not None or find(mat1) is not None:
        of_product = product(find, result, mat1, mat2)
        if of_product is None:
            return None
        parts.extend(of_product)
    view = find(input)
    if view is not None:
        of_sum = _numbers(AddedCall, view, input.shape, mat1.detach())
        if of_sum is None:
            return None
        parts.append(of_sum)
    return parts


# --- rows of a table -----------------------------------------------------------------------------


@_reads("__getitem__")
def looked_up(
    find: Find, result: Tensor, input: Tensor, index: object
) -> Sequence[Part] | None:
    """Return the use of a table whose rows are looked up."""
    # As an embedding, without padding.
    view = find(input)
    is_table = view is not None and view.is_whole and len(view.whole) == 2
    if view is None or not is_table or not isinstance(index, Tensor):
        return None
    if index.dtype not in (torch.int64, torch.int32):
        return None
    # A row counted from the end is another number of the same row.
    places = torch.where(index < 0, index + view.whole[0], index)
    make = functools.partial(LookupCall, padding_index=None)
    return [Part(view.name, None, make, view.whole, places)]


def read_use(
    func: Callable[..., object],
    find: Find,
    result: object,
    args: Sequence[object],
    kwargs: Mapping[str, object],
) -> Sequence[Part] | None:
    """Return the parts that a function's parameters have in it, or None without a rule."""
    reader = USES.get(func)
    if reader is None or not isinstance(result, Tensor):
        return None
    try:
        return reader(find, result, *args, **kwargs)
    except TypeError:  # further arguments, such as out=
        return None
