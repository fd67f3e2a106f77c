"""Which functions of torch are layers of known kinds, and how a call of each is recorded.

``LAYERS`` has for each function one of the same signature that reads its arguments into a
:class:`Layer`: what it was given, and how a :class:`whence.layers.Call` of it is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from whence.convolutions import ConvolutionCall, TransposedConvolutionCall
from whence.jets import Jet
from whence.layers import (
    Call,
    JetLinearCall,
    LinearCall,
    LookupCall,
    ScaleCall,
)


@dataclass(frozen=True)
class Layer:
    """What a layer's function was given, and how its call is made where that is known."""

    input: Any
    weight: Tensor | None
    bias: Tensor | None
    make: Callable[..., Call] | None
    """Makes the call; None where the layer was called in a way that has no rule."""
    others: tuple[Tensor | None, ...] = ()
    """Further tensors that the function was given, such as statistics."""
    prepare: Callable[[Tensor], Tensor] | None = None
    """What is done to the input before the call's weight meets it."""
    bias_axes: int = 0
    """Axes after those of a bias that is a use by itself, apart from the weight's; 0 where not."""


Reader = Callable[..., Layer]
"""Reads the arguments of a layer's function, by its signature."""

LAYERS: dict[Callable[..., Any], Reader] = {}


def _reads(*functions: Callable[..., Any]) -> Callable[[Reader], Reader]:
    """Let the decorated function read the arguments of some functions of torch."""

    def register(reader: Reader) -> Reader:
        for function in functions:
            LAYERS[function] = reader
        return reader

    return register


@_reads(F.linear)
def _linear(input: Any, weight: Tensor, bias: Tensor | None = None) -> Layer:
    make = JetLinearCall if isinstance(input, Jet) else LinearCall
    # Torch also takes a weight that is a vector, and a bias that is broadcast.
    has_own_bias = bias is None or bias.shape == weight.shape[:1]
    is_known = weight.ndim == 2 and has_own_bias
    return Layer(input, weight, bias, make if is_known else None)


@_reads(F.conv1d, F.conv2d, F.conv3d)
def _convolution(
    input: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Layer:
    axes = weight.ndim - 2
    dilations = _for_each_axis(dilation, axes)
    prepare = None
    if padding == "valid":
        padding = 0
    elif padding == "same":
        # As many positions as inputs: the kernel reaches d (k − 1) beyond its first entry, half of
        # it, rounded down, to the left. F.pad begins with the last axis.
        ends = []
        for d, k in reversed(list(zip(dilations, weight.shape[2:], strict=True))):
            reach = d * (k - 1)
            ends.extend([reach // 2, reach - reach // 2])

        prepare = functools.partial(F.pad, pad=ends)
        padding = 0

    make = functools.partial(
        ConvolutionCall,
        stride=_for_each_axis(stride, axes),
        padding=_for_each_axis(padding, axes),
        dilation=dilations,
        groups=groups,
    )
    # Without an axis of points the input is a single image, whose channels are no points.
    is_known = input.ndim == weight.ndim
    return Layer(input, weight, bias, make if is_known else None, prepare=prepare)


@_reads(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def _transposed_convolution(
    input: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Layer:
    axes = weight.ndim - 2
    make = functools.partial(
        TransposedConvolutionCall,
        stride=_for_each_axis(stride, axes),
        padding=_for_each_axis(padding, axes),
        dilation=_for_each_axis(dilation, axes),
        groups=groups,
    )
    # The size that is added shifts no position: δ has further entries behind the last ones.
    is_known = isinstance(input, Tensor) and input.ndim == weight.ndim
    return Layer(input, weight, bias, make if is_known else None, bias_axes=axes)


def _for_each_axis(size: Any, axes: int) -> tuple[int, ...]:
    """Return a size for each axis: one number stands for all."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * (axes // len(sizes))


@_reads(F.batch_norm)
def _batch_norm(
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Layer:
    if training:
        raise ValueError(
            "batch normalization by the statistics of the batch mixes the points, so that no row "
            "belongs to one of them: call network.eval() (and track running statistics)"
        )

    # Copies, as the buffers may move on before rows are asked for.
    statistics = (running_mean, running_var)
    mean, variance = (
        None if tensor is None else tensor.clone() for tensor in statistics
    )
    normalize = functools.partial(
        F.batch_norm,
        running_mean=mean,
        running_var=variance,
        eps=eps,
    )
    return _scale(input, weight, bias, normalize, others=statistics)


@_reads(F.instance_norm)
def _instance_norm(
    input: Any,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Layer:
    if not use_input_stats:  # then it is batch normalization
        return _batch_norm(input, running_mean, running_var, weight, bias, eps=eps)

    normalize = functools.partial(F.instance_norm, eps=eps)
    return _scale(input, weight, bias, normalize)


@_reads(F.layer_norm)
def _layer_norm(
    input: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Layer:
    normalize = functools.partial(
        F.layer_norm,
        normalized_shape=normalized_shape,
        eps=eps,
    )
    return _scale(input, weight, bias, normalize, trailing=len(normalized_shape))


@_reads(F.rms_norm)
def _rms_norm(
    input: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Layer:
    normalize = functools.partial(
        F.rms_norm,
        normalized_shape=normalized_shape,
        eps=eps,
    )
    return _scale(input, weight, None, normalize, trailing=len(normalized_shape))


@_reads(F.group_norm)
def _group_norm(
    input: Any,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Layer:
    normalize = functools.partial(F.group_norm, num_groups=num_groups, eps=eps)
    return _scale(input, weight, bias, normalize)


def _scale(
    input: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    normalize: Callable[[Tensor], Tensor],
    trailing: int = 0,
    others: tuple[Tensor | None, ...] = (),
) -> Layer:
    """Return a normalization, whose rows take the input normalized without scale and shift."""
    make = functools.partial(ScaleCall, normalize=normalize, trailing=trailing)
    is_known = isinstance(input, Tensor) and input.ndim > max(1, trailing)
    return Layer(input, weight, bias, make if is_known else None, others)


@_reads(F.embedding)
def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Layer:
    if padding_idx is not None:
        padding_idx %= len(weight)  # it may count from the end
    make = functools.partial(LookupCall, padding_index=padding_idx)

    # The others change the weight, or give it a gradient that depends on the batch.
    is_known = max_norm is None and not scale_grad_by_freq and not sparse
    return Layer(input, weight, None, make if is_known else None)
