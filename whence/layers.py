"""How each kind of layer turns its inputs and its outputs' gradients into rows of a Jacobian.

With δ, the gradient by its output, a :class:`Call` of a layer answers for its weight and bias:
their rows, products and sums, each exactly. ``LAYERS`` says which functions of torch make one: the
linear layer, of ordinary inputs or of jets, convolutions, normalisations by running or a point's
own statistics, and embeddings.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.grad import conv1d_weight, conv2d_weight

from whence.jets import Jet

BLOCK_BYTES = 2 * 2**20
FEW_PRODUCTS = 2
"""Up to so many products with a convolution's rows are cheaper without the rows."""


@dataclass(frozen=True, eq=False)
class Output:
    """Where the gradient by a call's output is taken, and whether that still is its output.

    An edge of the graph outlives writing in place, except into a view.
    """

    edge: GradientEdge
    view: Tensor | None
    version: int

    @property
    def intact(self) -> bool:
        """Whether no view was overwritten after the layer."""
        return self.view is None or self.view._version == self.version


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer, whose weight has a ``shape``.

    Subclasses say what the weight does to the input, which they are given as ``source``, at all
    points or some; δ has the layout of the output. Here both have the points on ``points_axis``.
    """

    weight: str | None
    bias: str | None
    shape: tuple[int, ...]
    source: Tensor
    version: int
    output: Output
    origin: GradientEdge | None
    """Where the gradient by the input is taken, if it depends on a recorded layer."""
    points_axis = 0
    axes = 2
    """Number of axes that an input has at least."""

    @property
    def intact(self) -> bool:
        """Whether neither input nor output was overwritten after the layer."""
        return self.output.intact and self.source._version == self.version

    @property
    def outer(self) -> bool:
        """Whether rows are ``Σ_c δ_c ⊗ a_c`` over :meth:`channels` δ and :meth:`inputs` a."""
        return False

    def fits(self, n: int, one: Call) -> bool:
        """Tell whether the points axis, and no other, has n entries here and 1 in ``one``."""
        shape, single = list(self.source.shape), list(one.source.shape)
        if len(shape) < self.points_axis + self.axes or len(single) != len(shape):
            return False
        return (shape.pop(self.points_axis), single.pop(self.points_axis)) == (
            n,
            1,
        ) and (shape == single)

    def at(self, tensor: Tensor, points: slice) -> Tensor:
        """Return the part of δ or of the source at some points."""
        return tensor[(*(slice(None),) * self.points_axis, points)]

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, c, out), channels c being all that share the weight."""
        raise NotImplementedError

    def inputs(self, source: Tensor) -> Tensor:
        """Return what the weight meets in each channel, (n, c, in)."""
        raise NotImplementedError

    def biased(self, delta: Tensor) -> Tensor:
        """Return the part of δ that a bias reaches, with fewer channels or all."""
        return delta

    def reached(self, delta: Tensor) -> Tensor:
        """Return 1 for the channels that a bias reaches and 0 for the others, (c, 1)."""
        return delta.new_ones(self.channels(self.at(delta, slice(0, 1))).shape[1], 1)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the weight's part of the rows to ``columns`` (n, size of the weight)."""
        put(columns, self._rows(delta, source), first)

    def _rows(self, delta: Tensor, source: Tensor) -> Tensor:
        rows = delta.new_empty(delta.shape[self.points_axis], math.prod(self.shape))
        self.put_rows(rows, delta, source, first=True)
        return rows

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return left (c, n, out) and right (c, n, in), or the rows (1, n, out · in) and None."""
        return self._rows(delta, source).unsqueeze(0), None

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Return the weight's rows times vectors (size, K), (n, K)."""
        return self._rows(delta, source) @ vectors

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum over points of the weight's rows, flat."""
        return self._rows(delta, source).sum(dim=0)

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        """Return the sums over points of the weight's rows times weights (n, K), (K, size)."""
        return weights.T @ self._rows(delta, source)


class _Heavy(Call):
    """A layer whose products take less than its rows."""

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's output with another weight and no bias."""
        raise NotImplementedError

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        each = []
        for vector in vectors.unbind(1):
            product = self._product(source, vector.view(self.shape)) * delta
            each.append(product.movedim(self.points_axis, 0).flatten(1).sum(dim=1))
        return torch.stack(each, dim=1)

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        shape = [1] * delta.ndim
        shape[self.points_axis] = -1
        each = [
            self.rmatvec(delta * weight.view(shape), source)
            for weight in weights.unbind(1)
        ]
        return torch.stack(each)


class _Linear(_Heavy):
    """A linear layer: input and output (n, ..., features)."""

    @property
    def outer(self) -> bool:
        return True

    def channels(self, delta: Tensor) -> Tensor:
        moved = delta.movedim(self.points_axis, 0)
        return moved.reshape(moved.shape[0], -1, moved.shape[-1])

    def inputs(self, source: Tensor) -> Tensor:
        return self.channels(source)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        left = self.channels(delta).transpose(1, 2)
        _put_outer_products(columns, left, self.inputs(source), first)

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.channels(delta).transpose(0, 1), self.inputs(source).transpose(0, 1)

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        return F.linear(source, weight)

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        flat = delta.reshape(-1, delta.shape[-1]).T @ source.reshape(
            -1, source.shape[-1]
        )
        return flat.reshape(-1)


class _JetLinear(_Linear):
    """A linear layer of jets: input and output (c, n, ..., features), a bias in the value alone."""

    points_axis = 1

    def biased(self, delta: Tensor) -> Tensor:
        return delta[:1]

    def reached(self, delta: Tensor) -> Tensor:
        mask = torch.zeros_like(self.at(delta, slice(0, 1))[..., :1])
        self.biased(mask).fill_(1.0)
        return self.channels(mask)[0]


@dataclass(frozen=True, eq=False)
class _Convolution(_Heavy):
    """A convolution in one or two dimensions: input and output (n, features, *positions).

    Its channels are the positions of the output, where the weight meets patches of the input.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def outer(self) -> bool:
        return self.groups == 1

    def channels(self, delta: Tensor) -> Tensor:
        return delta.flatten(2).transpose(1, 2)

    def inputs(self, source: Tensor) -> Tensor:
        return self._patches(source).transpose(1, 2)

    def _patches(self, source: Tensor) -> Tensor:
        """Return the input's patches, (n, in · kernel, positions)."""
        ends = [end for size in reversed(self.padding) for end in (size, size)]
        padded = F.pad(source, ends).contiguous()
        kernel, sizes = self.shape[2:], padded.shape[2:]
        geometry = list(zip(sizes, kernel, self.dilation, self.stride, strict=True))
        positions = [(size - d * (k - 1) - 1) // s + 1 for size, k, d, s in geometry]
        first, second, *steps = padded.stride()
        inner = [step * d for step, d in zip(steps, self.dilation, strict=True)]
        outer = [step * s for step, s in zip(steps, self.stride, strict=True)]
        view = padded.as_strided(
            (*padded.shape[:2], *kernel, *positions), (first, second, *inner, *outer)
        )
        return view.reshape(len(padded), -1, math.prod(positions))

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the weight's rows, with the patches of a few points at once."""
        left = delta.flatten(2).unflatten(1, (self.groups, -1))
        numbers = max(
            columns.shape[1], columns.shape[1] // delta.shape[1] * left.shape[3]
        )
        step = max(1, BLOCK_BYTES // (columns.itemsize * numbers * self.groups))
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            right = self._patches(source[part]).unflatten(1, (self.groups, -1))
            put(columns[part], (left[part] @ right.mT).flatten(1), first)

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        if vectors.shape[1] <= FEW_PRODUCTS:
            return super().matvec(delta, source, vectors)
        return torch.cat([rows @ vectors for _, rows in self._blocks(delta, source)])

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        if weights.shape[1] <= FEW_PRODUCTS:
            return super().rmatmat(delta, source, weights)
        total = delta.new_zeros(weights.shape[1], math.prod(self.shape))
        for part, rows in self._blocks(delta, source):
            total.addmm_(weights[part].T, rows)
        return total

    def _blocks(self, delta: Tensor, source: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the weight's rows, a few points at a time."""
        step = max(1, BLOCK_BYTES // (delta.itemsize * math.prod(self.shape)))
        for start in range(0, len(delta), step):
            part = slice(start, start + step)
            yield part, self._rows(delta[part], source[part])

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        convolve = F.conv1d if source.ndim == 3 else F.conv2d
        return convolve(
            source, weight, None, self.stride, self.padding, self.dilation, self.groups
        )

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        gradient: Callable[..., Tensor] = (
            conv1d_weight if source.ndim == 3 else conv2d_weight
        )
        sizes = self.stride, self.padding, self.dilation, self.groups
        return gradient(source, self.shape, delta, *sizes).flatten()


@dataclass(frozen=True, eq=False)
class _Scale(Call):
    """A normalisation to ``γ x̂ + β`` by statistics of the point alone, γ the weight, β the bias.

    Features are the last ``trailing`` axes, or the second where that is 0; the others but that of
    the points are positions.
    """

    normalise: Callable[[Tensor], Tensor]
    trailing: int

    def channels(self, delta: Tensor) -> Tensor:
        if self.trailing:
            return delta.reshape(
                len(delta), -1, math.prod(delta.shape[-self.trailing :])
            )
        return delta.reshape(len(delta), delta.shape[1], -1).transpose(1, 2)

    def _rows(self, delta: Tensor, source: Tensor) -> Tensor:
        return (self.channels(delta) * self.channels(self.normalise(source))).sum(dim=1)


@dataclass(frozen=True, eq=False)
class _Lookup(_Heavy):
    """An embedding: indices (n, ...) to rows of the weight, (n, ..., features)."""

    padding_index: int | None
    axes = 1

    def _kept(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return δ (n, positions, features) without that of the padding, which has no gradient."""
        if self.padding_index is not None:
            delta = delta.masked_fill((source == self.padding_index).unsqueeze(-1), 0.0)
        return delta.reshape(len(delta), -1, self.shape[1])

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        if first:
            columns.zero_()
        kept = self._kept(delta, source)
        places = source.reshape(len(source), -1, 1).expand_as(kept)
        columns.unflatten(1, self.shape).scatter_add_(1, places, kept)

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        if self.padding_index is not None:
            weight = weight.clone()
            weight[self.padding_index] = 0.0
        return F.embedding(source, weight)

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        kept = self._kept(delta, source).flatten(0, 1)
        return (
            delta.new_zeros(self.shape).index_add_(0, source.flatten(), kept).flatten()
        )


def put(columns: Tensor, values: Tensor, first: bool) -> None:
    """Write ``values`` to ``columns`` if they are the first there, else add them."""
    if first:
        columns.copy_(values)
    else:
        columns.add_(values)


def _put_outer_products(
    columns: Tensor, left: Tensor, right: Tensor, first: bool
) -> None:
    """Write or add ``left @ right`` of each point, a few points at a time so it stays in cache."""
    if first and left.shape[2] == 1:
        torch.mul(
            left, right, out=columns.unflatten(1, (left.shape[1], right.shape[2]))
        )
        return
    step = max(1, BLOCK_BYTES // (8 * columns.shape[1]))
    for start in range(0, len(columns), step):
        part = slice(start, start + step)
        put(
            columns[part],
            (left[part] @ right[part]).reshape(-1, columns.shape[1]),
            first,
        )


# --- functions of torch ------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """What a layer's function was given, and how its call is made where that is known."""

    input: Any
    weight: Tensor | None
    bias: Tensor | None
    make: Callable[..., Call] | None
    others: tuple[Tensor | None, ...] = ()
    prepare: Callable[[Tensor], Tensor] | None = None
    """What is done to the input before the call's weight meets it."""


def _linear(input: Any, weight: Tensor, bias: Tensor | None = None) -> Layer:
    ordinary = weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1])
    make = _JetLinear if isinstance(input, Jet) else _Linear
    return Layer(input, weight, bias, make if ordinary else None)


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
    dilation, prepare = _each(dilation, axes), None
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        ends = [
            end for total in reversed(reach) for end in (total // 2, total - total // 2)
        ]
        padding, prepare = 0, functools.partial(F.pad, pad=ends)
    sizes = [_each(0 if size == "valid" else size, axes) for size in (stride, padding)]
    make = functools.partial(
        _Convolution,
        stride=sizes[0],
        padding=sizes[1],
        dilation=dilation,
        groups=groups,
    )
    ordinary = input.ndim == weight.ndim
    return Layer(input, weight, bias, make if ordinary else None, prepare=prepare)


def _each(size: Any, axes: int) -> tuple[int, ...]:
    """Return a size for each axis: one number stands for all."""
    return (
        (size,) * axes if isinstance(size, int) else tuple(size) * (axes // len(size))
    )


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
            "batch normalisation by the statistics of the batch mixes the points, so that no row "
            "belongs to one of them: call network.eval() (and track running statistics)"
        )
    statistics = running_mean, running_var
    fixed = [one.clone() if one is not None else None for one in statistics]
    normalise = functools.partial(
        F.batch_norm, running_mean=fixed[0], running_var=fixed[1], eps=eps
    )
    return _scale(input, weight, bias, normalise, others=statistics)


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
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    return _scale(input, weight, bias, functools.partial(F.instance_norm, eps=eps))


def _layer_norm(
    input: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Layer:
    normalise = functools.partial(
        F.layer_norm, normalized_shape=normalized_shape, eps=eps
    )
    return _scale(input, weight, bias, normalise, len(normalized_shape))


def _rms_norm(
    input: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Layer:
    normalise = functools.partial(
        F.rms_norm, normalized_shape=normalized_shape, eps=eps
    )
    return _scale(input, weight, None, normalise, len(normalized_shape))


def _group_norm(
    input: Any,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Layer:
    normalise = functools.partial(F.group_norm, num_groups=num_groups, eps=eps)
    return _scale(input, weight, bias, normalise)


def _scale(
    input: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    normalise: Callable[[Tensor], Tensor],
    trailing: int = 0,
    others: tuple[Tensor | None, ...] = (),
) -> Layer:
    make = functools.partial(_Scale, normalise=normalise, trailing=trailing)
    ordinary = isinstance(input, Tensor) and input.ndim > max(1, trailing)
    return Layer(input, weight, bias, make if ordinary else None, others)


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
        padding_idx %= len(weight)
    make = functools.partial(_Lookup, padding_index=padding_idx)
    ordinary = max_norm is None and not scale_grad_by_freq and not sparse
    return Layer(input, weight, None, make if ordinary else None)


LAYERS: dict[Callable[..., Any], Callable[..., Layer]] = {
    F.linear: _linear,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.embedding: _embedding,
}
