"""Convolutions and transposed ones as :class:`whence.layers.Call`: patches of their input or of δ.

A convolution is a linear layer on patches, whose positions are channels. A transposed one is the
transpose of a convolution with the same weight, so that input and δ change places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from whence.layers import HeavyCall, parts_in_cache, put

MAX_DIRECT_PRODUCTS = 2
"""Up to so many products with a convolution's rows are cheaper without the rows."""
CONVOLUTIONS: dict[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    1: (F.conv1d, conv1d_weight),
    2: (F.conv2d, conv2d_weight),
    3: (F.conv3d, conv3d_weight),
}
"""By the number of axes of positions: the layer, and the sum of its weight's rows."""


@dataclass(frozen=True, eq=False)
class ConvolutionCall(HeavyCall):
    """A convolution in one to three dimensions: input and output (n, features, *positions).

    Its channels are the positions of the output, where the weight meets patches of the input.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def outer(self) -> bool:
        """Whether rows are sums of outer products."""
        # In groups the weight is block-diagonal: a sum of outer products for each block.
        return self.groups == 1

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, positions, out)."""
        by_feature = delta.flatten(2)
        return by_feature.transpose(1, 2)

    def inputs(self, source: Tensor) -> Tensor:
        """Return the patches of the input, (n, positions, in · kernel)."""
        by_feature = self._patches(source)
        return by_feature.transpose(1, 2)

    def _patches(self, source: Tensor) -> Tensor:
        """Return the input's patches, (n, in · kernel, positions).

        As ``F.unfold``, in one dimension as well and without its copies for each offset: a view
        with an axis for each offset in the kernel and one for each position, copied once.
        """
        # F.pad begins with the last axis, and takes both ends of each.
        ends = []
        for size in reversed(self.padding):
            ends.extend([size, size])

        padded = F.pad(source, ends).contiguous()

        # Along an axis of ``size`` entries a kernel of k at distance d covers d (k − 1) + 1 of
        # them, which leaves (size − d (k − 1) − 1) // s + 1 positions at steps of s.
        n, features, *sizes = padded.shape
        kernel = self.shape[2:]
        positions = []
        for axis, size in enumerate(sizes):
            covered = self.dilation[axis] * (kernel[axis] - 1) + 1
            room = size - covered
            positions.append(room // self.stride[axis] + 1)

        # Input of position p and offset o is at p · stride + o · dilation.
        of_point, of_feature, *steps = padded.stride()
        of_offset = []
        of_position = []
        for axis, step in enumerate(steps):
            of_offset.append(step * self.dilation[axis])
            of_position.append(step * self.stride[axis])

        view = padded.as_strided(
            (n, features, *kernel, *positions),
            (of_point, of_feature, *of_offset, *of_position),
        )
        return view.reshape(n, -1, math.prod(positions))

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the weight's rows, with the patches of a few points at once."""
        by_group = (self.groups, -1)
        left = delta.flatten(2).unflatten(1, by_group)  # (n, groups, out, c)

        # Numbers of a point: its row, of out · in · kernel, or its patches, of positions · in ·
        # kernel, whichever are more.
        n_positions = left.shape[3]
        n_outputs = delta.shape[1]
        size = columns.shape[1]
        largest = max(size, size // n_outputs * n_positions)
        point_bytes = columns.itemsize * largest * self.groups

        for part in parts_in_cache(len(columns), point_bytes):
            patches = self._patches(source[part])
            right = patches.unflatten(1, by_group)  # (n, groups, in · kernel, c)
            # Σ_c δ_c ⊗ a_c, straight into the rows where these are one matrix.
            if first and self.groups == 1:
                table = columns[part].unflatten(1, (n_outputs, -1))
                torch.bmm(left[part].squeeze(1), patches.mT, out=table)
                continue
            # For each group; without a name, so that the next takes its memory.
            put(columns[part], (left[part] @ right.mT).flatten(1), first)

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Return the weight's rows times vectors, by the layer itself if these are few."""
        if vectors.shape[1] <= MAX_DIRECT_PRODUCTS:
            return super().matvec(delta, source, vectors)

        products = []
        for _, rows in self._blocks(delta, source):
            products.append(rows @ vectors)

        return torch.cat(products)

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums of the weight's rows, by backward passes if these are few."""
        if weights.shape[1] <= MAX_DIRECT_PRODUCTS:
            return super().rmatmat(delta, source, weights)

        size = math.prod(self.shape)
        total = delta.new_zeros(weights.shape[1], size)
        for part, rows in self._blocks(delta, source):
            total.addmm_(weights[part].T, rows)

        return total

    def _blocks(self, delta: Tensor, source: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the weight's rows, a few points at a time."""
        row_bytes = delta.itemsize * math.prod(self.shape)
        for part in parts_in_cache(len(delta), row_bytes):
            rows = self.weight_rows(delta[part], source[part])
            yield part, rows

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        convolve, _ = CONVOLUTIONS[source.ndim - 2]
        return convolve(
            source,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum of the weight's rows, which a backward pass through the layer makes."""
        _, gradient = CONVOLUTIONS[source.ndim - 2]
        total = gradient(
            source,
            self.shape,
            delta,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        return total.flatten()


@dataclass(frozen=True, eq=False)
class TransposedConvolutionCall(ConvolutionCall):
    """A transposed convolution, whose weight is (in, out, *kernel).

    It is the transpose of a convolution from its output to its input with the same weight, so that
    ⟨δ, h⟩ is ⟨convolution of δ, input⟩: rows are those of the convolution with δ for the input and
    the input for δ. Its channels are the positions of the input.
    """

    @property
    def outer(self) -> bool:
        """Whether rows are sums of outer products."""
        return self.groups == 1

    def pair(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input (n, c, in) and patches of δ (n, c, out · kernel)."""
        # Σ_c x_c ⊗ patch_c(δ), c the positions of the input.
        right = self._patches_below(delta, source)
        return super().channels(source), right.transpose(1, 2)

    def _patches_below(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the patches of δ at the positions of the input, (n, out · kernel, positions)."""
        patches = self._patches(delta)
        sizes = source.shape[2:]
        if patches.shape[2] == sizes.numel():
            return patches

        # An output that was made longer by a stride or more has positions that no input has.
        counts = []
        for axis, size in enumerate(delta.shape[2:]):
            covered = self.dilation[axis] * (self.shape[2 + axis] - 1) + 1
            room = size + 2 * self.padding[axis] - covered
            counts.append(room // self.stride[axis] + 1)
        table = patches.unflatten(2, counts)
        inside = tuple(slice(0, size) for size in sizes)
        return table[(slice(None), slice(None), *inside)].flatten(2)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the weight's rows."""
        by_group = (self.groups, -1)
        left = source.flatten(2).unflatten(1, by_group)  # (n, groups, in, c)
        point_bytes = columns.itemsize * columns.shape[1] * left.shape[3]
        for part in parts_in_cache(len(columns), point_bytes):
            patches = self._patches_below(delta[part], source[part])
            right = patches.unflatten(1, by_group)
            put(columns[part], (left[part] @ right.mT).flatten(1), first)

    def matvec(self, delta: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Return the weight's rows times vectors, (n, K)."""
        return self.weight_rows(delta, source) @ vectors

    def rmatmat(self, delta: Tensor, source: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums of the weight's rows, (K, size)."""
        return weights.T @ self.weight_rows(delta, source)

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum of the weight's rows, flat."""
        return self.weight_rows(delta, source).sum(dim=0)
