"""How each kind of layer turns its inputs and its outputs' gradients into rows of a Jacobian.

With δ, the gradient with respect to its output, a :class:`Call` of a layer answers for its weight
and bias: their rows, products and sums, each exactly. :mod:`whence.torch_layers` says which
functions of torch make one: the linear layer, of ordinary inputs or of jets, convolutions,
normalizations by running or a point's own statistics, and embeddings.

All kinds follow one pattern. In each channel c an output ``h_c = W a_c + b`` meets the weight with
its own input a_c, so that the part of a row at W is ``Σ_c δ_c ⊗ a_c`` and at b ``Σ_c δ_c``:

============== ============================== ==========================================
layer          channels c                     a_c
============== ============================== ==========================================
linear         positions (none for points)    the input there
linear, jets   value and derivatives          the derivative (b: the value alone)
convolution    positions of the output        the patch of the input below the kernel
normalization  positions                      x̂ there; W is a diagonal, ``δ_c · x̂_c``
embedding      positions                      the unit vector of the index there
============== ============================== ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge

from whence.arrangement import Arrangement

BLOCK_BYTES = 2 * 2**20
"""What is made at a time where a whole would not stay in the cache."""


@dataclass(frozen=True, eq=False)
class Output:
    """Where the gradient with respect to a call's output is taken, if that still is its output.

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
    """Where the gradient with respect to the input is taken, if it depends on a recorded layer."""
    arrangement: Arrangement | None
    """Where points are in δ, if not in front; the source has them in front already."""
    points_axis = 0
    axes = 2
    """Number of axes that an input has at least."""
    any_axis = False
    """Whether points may be on any axis, alone or with positions, before they are arranged."""
    swaps = False
    """Whether :meth:`pair` has what is made of the input first, as of a transposed weight."""

    @property
    def intact(self) -> bool:
        """Whether neither input nor output was overwritten after the layer."""
        return self.output.intact and self.source._version == self.version

    @property
    def outer(self) -> bool:
        """Whether rows are ``Σ_c δ_c ⊗ a_c`` over :meth:`channels` δ and :meth:`inputs` a."""
        return False

    def arranged(self, source: Arrangement, output: Arrangement) -> Call | None:
        """Return the call with its points in front, or None where it has no rule for them."""
        axis = self.points_axis
        if self.source.ndim < axis + self.axes:
            return None
        if source.is_axis(axis) and output.is_axis(axis):
            return self
        if not self.any_axis:
            return None
        return replace(self, source=source.of(self.source), arrangement=output)

    def at(self, tensor: Tensor, points: slice) -> Tensor:
        """Return the part of δ or of the source at some points."""
        axes_before = (slice(None),) * self.points_axis
        return tensor[(*axes_before, points)]

    def pair(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the weight's rows are the outer products of, (n, c, ·) each."""
        return self.channels(delta), self.inputs(source)

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
        # One point tells: all have as many channels.
        first = self.channels(self.at(delta, slice(0, 1)))
        n_channels = first.shape[1]
        return delta.new_ones(n_channels, 1)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the weight's part of the rows to ``columns`` (n, size of the weight)."""
        put(columns, self.weight_rows(delta, source), first)

    def weight_rows(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the weight's part of the rows, (n, size of the weight)."""
        n = delta.shape[self.points_axis]
        size = math.prod(self.shape)
        rows = delta.new_empty(n, size)
        self.put_rows(rows, delta, source, first=True)
        return rows

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return left (c, n, out) and right (c, n, in), or the rows (1, n, out · in) and None."""
        return self.weight_rows(delta, source).unsqueeze(0), None

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Return the weight's rows times vectors (size, K), (n, K)."""
        return self.weight_rows(delta, source) @ vectors

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum over points of the weight's rows, flat."""
        return self.weight_rows(delta, source).sum(dim=0)

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        """Return the sums over points of the weight's rows times weights (n, K), (K, size)."""
        return weights.T @ self.weight_rows(delta, source)


class HeavyCall(Call):
    """A layer whose products take less than its rows."""

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's output with another weight and no bias."""
        raise NotImplementedError

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Return the weight's rows times vectors (size, K), (n, K), by the layer itself."""
        columns = []
        for vector in vectors.unbind(1):
            # ⟨Σ_c δ_c ⊗ a_c, V⟩ = Σ_c δ_c · V a_c: the layer itself with the weight V.
            weight = vector.view(self.shape)
            products = self._product(source, weight) * delta
            by_point = products.movedim(self.points_axis, 0)
            column = by_point.flatten(1).sum(dim=1)
            columns.append(column)

        return torch.stack(columns, dim=1)

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums of the weight's rows, (K, size), from weighted δ."""
        # Σ_i w_i Σ_c δ_ic ⊗ a_ic is the sum of rows with w_i δ_i in place of δ_i: weights (n,)
        # are spread over the other axes of δ.
        shape = [1] * delta.ndim
        shape[self.points_axis] = -1
        sums = []
        for weight in weights.unbind(1):
            weighted = delta * weight.view(shape)
            sums.append(self.rmatvec(weighted, source))

        return torch.stack(sums)


class LinearCall(HeavyCall):
    """A linear layer: input and output (n, ..., features); its channels are the positions."""

    any_axis = True

    @property
    def outer(self) -> bool:
        """Whether rows are sums of outer products: always."""
        return True

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, positions, out)."""
        moved = delta.movedim(self.points_axis, 0)
        n = moved.shape[0]
        features = moved.shape[-1]
        return moved.reshape(n, -1, features)

    def inputs(self, source: Tensor) -> Tensor:
        """Return the input as (n, positions, in)."""
        return self.channels(source)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add ``Σ_c δ_c ⊗ a_c`` of each point."""
        left = self.channels(delta)  # (n, c, out)
        right = self.inputs(source)  # (n, c, in)
        _put_outer_products(columns, left.transpose(1, 2), right, first)

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return δ (c, n, out) and a (c, n, in)."""
        left = self.channels(delta)
        right = self.inputs(source)
        return (
            left.transpose(0, 1),
            right.transpose(0, 1),
        )

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        return F.linear(source, weight)

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return ``Σ_i Σ_c δ_ic ⊗ a_ic = Δᵀ A``, a line of Δ and A for each point and channel."""
        n_outputs = delta.shape[-1]
        n_inputs = source.shape[-1]
        outputs = delta.reshape(-1, n_outputs)
        inputs = source.reshape(-1, n_inputs)
        total = outputs.T @ inputs
        return total.reshape(-1)


class JetLinearCall(LinearCall):
    """A linear layer of jets: input and output (c, n, ..., features), a bias in the value alone.

    A derivative of ``h = W a + b`` by a coordinate is W times that of a: each channel of the jet is
    a channel of the layer, and forgetting the sum over them is the classic mistake.
    """

    points_axis = 1
    any_axis = False

    def biased(self, delta: Tensor) -> Tensor:
        """Return the part of δ that a bias reaches: its derivatives vanish."""
        return delta[:1]

    def reached(self, delta: Tensor) -> Tensor:
        """Return 1 for the channels of the value and 0 for those of derivatives, (c, 1)."""
        first = self.at(delta, slice(0, 1))
        mask = torch.zeros_like(first[..., :1])
        value = self.biased(mask)
        value.fill_(1.0)

        return self.channels(mask)[0]


@dataclass(frozen=True, eq=False)
class ScaleCall(Call):
    """A normalization to ``γ x̂ + β`` by statistics of the point alone, γ the weight, β the bias.

    Features are the last ``trailing`` axes, or the second where that is 0; the others but that of
    the points are positions.
    """

    normalize: Callable[[Tensor], Tensor]
    trailing: int
    any_axis = True

    def arranged(self, source: Arrangement, output: Arrangement) -> Call | None:
        """Return the call with its points in front; on other axes only with features last."""
        if not self.trailing and not (source.is_axis(0) and output.is_axis(0)):
            return None
        return super().arranged(source, output)

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, positions, features)."""
        n = len(delta)
        if self.trailing:
            shape = delta.shape[-self.trailing :]
            return delta.reshape(n, -1, math.prod(shape))

        features = delta.shape[1]
        by_feature = delta.reshape(n, features, -1)
        return by_feature.transpose(1, 2)

    def weight_rows(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return ``Σ_c δ_c ∘ x̂_c`` of each point, (n, features)."""
        # h_c = γ ∘ x̂_c + β, so that ∂(Σ u · r)/∂γ = Σ_c δ_c ∘ x̂_c.
        left = self.channels(delta)
        right = self.channels(self.normalize(source))
        products = left * right
        return products.sum(dim=1)


@dataclass(frozen=True, eq=False)
class LookupCall(HeavyCall):
    """An embedding: indices (n, ...) to rows of the weight, (n, ..., features)."""

    padding_index: int | None
    axes = 1
    any_axis = True

    def _kept(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return δ (n, positions, features) without that of the padding, which has no gradient."""
        if self.padding_index is not None:
            is_padding = source == self.padding_index
            delta = delta.masked_fill(is_padding.unsqueeze(-1), 0.0)

        features = self.shape[1]
        return delta.reshape(len(delta), -1, features)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add ``Σ_c e_index(c) ⊗ δ_c``: each position's δ to the row of its index."""
        if first:
            columns.zero_()

        kept = self._kept(delta, source)
        indices = source.reshape(len(source), -1, 1)
        places = indices.expand_as(kept)
        table = columns.unflatten(1, self.shape)
        table.scatter_add_(1, places, kept)

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        # The padding's row is a constant, whatever the weight.
        if self.padding_index is not None:
            weight = weight.clone()
            weight[self.padding_index] = 0.0

        return F.embedding(source, weight)

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum of the weight's rows: each δ to the row of its index."""
        kept = self._kept(delta, source).flatten(0, 1)
        indices = source.flatten()
        total = delta.new_zeros(self.shape)
        total.index_add_(0, indices, kept)
        return total.flatten()


def parts_in_cache(n: int, point_bytes: int) -> Iterator[slice]:
    """Yield slices of n points that take ``BLOCK_BYTES`` each, or of one that takes more."""
    step = max(1, BLOCK_BYTES // point_bytes)
    for start in range(0, n, step):
        yield slice(start, start + step)


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
    n_outputs = left.shape[1]
    n_channels = left.shape[2]
    n_inputs = right.shape[2]
    if first and n_channels == 1:
        # (n, out, 1) · (n, 1, in), straight into the rows.
        table = columns.unflatten(1, (n_outputs, n_inputs))
        torch.mul(left, right, out=table)
        return

    size = columns.shape[1]
    for part in parts_in_cache(len(columns), 8 * size):
        # Without a name the product's memory, still in the cache, is the next one's.
        put(columns[part], (left[part] @ right[part]).reshape(-1, size), first)
