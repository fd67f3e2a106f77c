"""Orthogonal bases of each layer's parameters: eigenvectors of models of its curvature.

With a row's matrix ``M = Σ_c δ_c a_cᵀ`` (out, in) the true block of a layer is
``Σ_rows vec(M) vec(M)ᵀ``. Its eigenvectors would cost (out · in)³; those of the models here cost
out³ + in³, or are of small layers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whence.curvature.failures import check_finite
from whence.curvature.layer_rows import (
    BLOCK_NUMBERS,
    LARGE_BLOCK_NUMBERS,
    LayerMatrix,
    RowsOf,
)

MOMENT_NUMBERS = 4_000_000
"""Moments of all pairs of channels that may be kept for one layer and term."""
MAX_PAIRED = 5
"""Channels up to which squares of rows are products over all rows, one for each pair of them."""


class Basis(Protocol):
    """An orthogonal basis of the matrices (out, in) of a layer."""

    def into(self, matrices: Tensor) -> Tensor:
        """Return the coordinates (K, out, in) of matrices (K, out, in)."""

    def back(self, coordinates: Tensor) -> Tensor:
        """Return the matrices with these coordinates."""

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sum over rows of squared coordinates, (out, in)."""

    def along(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """Return the rows' coordinates along some directions, (n, places), by flat place."""


@dataclass(frozen=True)
class ProductBasis:
    """The basis ``left ⊗ right``: left (out, out), right (in, in), a vector in each column."""

    left: Tensor
    right: Tensor

    def into(self, matrices: Tensor) -> Tensor:
        """Return ``Lᵀ M R``."""
        left_turned = self.left.T @ matrices
        return left_turned @ self.right

    def back(self, coordinates: Tensor) -> Tensor:
        """Return ``L C Rᵀ``."""
        left_turned = self.left @ coordinates
        return left_turned @ self.right.T

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        """Return ``Σ_rows (Lᵀ M R)²``, which is ``(Σ_c (Lᵀδ_c)(Rᵀa_c)ᵀ)²`` entry by entry."""
        if left.shape[1] == 1:
            # Of one channel the square of the product is the product of squares, and the sum over
            # rows one matrix product.
            left_squares = (left[:, 0] @ self.left).square()
            right_squares = (right[:, 0] @ self.right).square()
            return left_squares.T @ right_squares

        if turns_channels(left, right, self.left, self.right):
            return _sum_of_squares(_times(left, self.left), _times(right, self.right))

        coordinates = _turned(left, right, self.left, self.right)
        squares = coordinates.square_()
        return squares.sum(dim=0)

    def along(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """Return the rows' coordinates along some directions, (n, places), by flat place."""
        inputs = len(self.right)
        outs, of_outs = torch.unique(places // inputs, return_inverse=True)
        ins, of_ins = torch.unique(places % inputs, return_inverse=True)
        turned = _turned(left, right, self.left[:, outs], self.right[:, ins])
        return turned[:, of_outs, of_ins]


@dataclass(frozen=True)
class FullBasis:
    """Any basis: ``vectors`` (out·in, out·in) has one in each column."""

    vectors: Tensor

    def into(self, matrices: Tensor) -> Tensor:
        """Return the products of each matrix with all vectors."""
        shape = matrices.shape
        flat = matrices.flatten(1)  # (K, out · in)
        coordinates = flat @ self.vectors
        return coordinates.view(shape)

    def back(self, coordinates: Tensor) -> Tensor:
        """Return the combinations of the vectors."""
        shape = coordinates.shape
        flat = coordinates.flatten(1)
        matrices = flat @ self.vectors.T
        return matrices.view(shape)

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sum over rows of squared coordinates, (out, in)."""
        matrices = left.mT @ right  # M of each row, (n, out, in)
        coordinates = self.into(matrices)
        squares = coordinates.square_()
        return squares.sum(dim=0)

    def along(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """Return the rows' coordinates along some directions, (n, places), by flat place."""
        matrices = left.mT @ right
        return matrices.flatten(1) @ self.vectors[:, places]


class DiagonalBasis:
    """The basis of the parameters themselves."""

    def into(self, matrices: Tensor) -> Tensor:
        """Return a copy, as what is returned may be written into."""
        return matrices.clone()

    def back(self, coordinates: Tensor) -> Tensor:
        """Return the coordinates, which are the matrices."""
        return coordinates

    def curvature(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sum over rows of squared entries, (out, in)."""
        matrices = left.mT @ right
        squares = matrices.square_()
        return squares.sum(dim=0)

    def along(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """Return the rows' coordinates along some directions, (n, places), by flat place."""
        matrices = left.mT @ right
        return matrices.flatten(1)[:, places]


def turns_channels(left: Tensor, right: Tensor, outs: Tensor, ins: Tensor) -> bool:
    """Whether ``Uᵀ(Σ_c δ_c a_cᵀ)V`` takes less if channels are turned before they are summed up."""
    channels, outputs = left.shape[1:]
    inputs, j = ins.shape
    k = outs.shape[1]

    # Multiplications of a row.
    turned_first = channels * (outputs * k + inputs * j + k * j)
    summed_first = channels * outputs * inputs + outputs * k * inputs + k * inputs * j
    return turned_first <= summed_first


def _turned(left: Tensor, right: Tensor, outs: Tensor, ins: Tensor) -> Tensor:
    """Return ``Uᵀ(Σ_c δ_c a_cᵀ)V`` of n rows for U (out, k) and V (in, j), (n, k, j)."""
    if turns_channels(left, right, outs, ins):
        return _times(left, outs).mT @ _times(right, ins)

    # As many rows at a time as have room for their matrices.
    step = max(1, LARGE_BLOCK_NUMBERS // (left.shape[2] * right.shape[2]))
    parts = []
    for of_left, of_right in zip(left.split(step), right.split(step), strict=True):
        matrices = of_left.mT @ of_right
        parts.append((outs.T @ matrices) @ ins)
    return torch.cat(parts)


def _times(channels: Tensor, vectors: Tensor) -> Tensor:
    """Return channels (n, c, ·) times vectors (·, k) as a single product, (n, c, k).

    Patches of images lie in memory channel by channel: their products would be one for each row.
    """
    n, c, width = channels.shape
    product = channels.reshape(n * c, width) @ vectors
    return product.view(n, c, -1)


def _sum_of_squares(left: Tensor, right: Tensor) -> Tensor:
    """Return ``Σ_rows (Σ_c left_c right_cᵀ)²``, entry by entry, of left (n, c, k), right (n, c, j).

    Matrices of rows are made in one place, in the processor's cache: to write all of them down
    takes longer than to make them.
    """
    n, c, k = left.shape
    j = right.shape[2]
    total = left.new_zeros(k, j)
    if c <= MAX_PAIRED:
        # (Σ_c l_c r_c)² = Σ_cc′ (l_c l_c′)(r_c r_c′), each pair a product over all rows.
        for first in range(c):
            for second in range(first + 1):
                lefts = left[:, first] * left[:, second]
                rights = right[:, first] * right[:, second]
                total.addmm_(lefts.T, rights, alpha=1 if first == second else 2)
        return total

    step = max(1, BLOCK_NUMBERS // (k * j))
    matrices = left.new_empty(min(step, n), k, j)
    for lefts, rights in zip(left.split(step), right.split(step), strict=True):
        some = matrices[: len(lefts)]
        torch.bmm(lefts.mT, rights, out=some)
        if len(some) == 1:
            total.addcmul_(some[0], some[0])
        else:
            total.add_(some.square_().sum(dim=0))
    return total


class Statistics(Protocol):
    """What is summed over the rows of one layer and term before its eigenvectors are found."""

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the rows ``Σ_c left[:, c] ⊗ right[:, c]``."""

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return the partial traces of the layer's curvature, (out, out) and (in, in)."""


class Moments:
    """``Σ_rows δ_c δ_c′ᵀ`` and ``Σ_rows a_c a_c′ᵀ`` for all pairs of channels: the K-FAC model.

    As if δ and a were independent over the R rows, the block is
    ``1/R Σ_cc′ (Σ_rows δ_c δ_c′ᵀ) ⊗ (Σ_rows a_c a_c′ᵀ)``.
    """

    def __init__(self, layer: LayerMatrix, channels: int, like: Tensor) -> None:
        self.channels = channels
        self._rows = 0
        outputs = layer.outputs
        inputs = layer.inputs

        # (c, out, c′, out′) and (c, in, c′, in′)
        self._left = like.new_zeros(channels, outputs, channels, outputs)
        self._right = like.new_zeros(channels, inputs, channels, inputs)

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the rows ``Σ_c left[:, c] ⊗ right[:, c]``."""
        self._rows += len(left)
        self._add(self._left, left)
        self._add(self._right, right)

    def _add(self, moments: Tensor, part: Tensor) -> None:
        """Add ``Σ_rows part_c part_c′ᵀ`` for all pairs of channels at once."""
        flat = part.flatten(1)  # (n, c · width)
        _, width = flat.shape
        total = moments.view(width, width)
        total.addmm_(flat.T, flat)

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return the partial traces of the layer's curvature, (out, out) and (in, in)."""
        # Traces of the factors of each pair of channels, (c, c′).
        left_traces = torch.einsum("cxdx->cd", self._left) / self._rows
        right_traces = torch.einsum("cxdx->cd", self._right) / self._rows

        # The trace of L ⊗ R over inputs is L · Tr R, that over outputs R · Tr L.
        left = torch.einsum("cxdy,cd->xy", self._left, right_traces)
        right = torch.einsum("cxdy,cd->xy", self._right, left_traces)
        return left, right

    def matrix(self) -> Tensor:
        """Return ``1/R Σ_cc′ left_cc′ ⊗ right_cc′``, (out·in, out·in)."""
        pairs = self.channels**2
        outputs = self._left.shape[1]
        inputs = self._right.shape[1]

        # The sum over pairs of channels is one matrix product, (out · out′, in · in′).
        left = self._left.permute(1, 3, 0, 2)  # (out, out′, c, c′)
        right = self._right.permute(0, 2, 1, 3)  # (c, c′, in, in′)
        left = left.reshape(-1, pairs)
        right = right.reshape(pairs, -1)

        product = left @ right

        # (out, out′, in, in′) → (out · in, out′ · in′)
        product = product.view(outputs, outputs, inputs, inputs)
        product = product.transpose(1, 2)
        size = outputs * inputs
        block = product.reshape(size, size)
        return block.div_(self._rows)


class PartialTraces:
    """The partial traces themselves, where there are too many pairs of channels for the model.

    They are ``Σ_rows M Mᵀ`` and ``Σ_rows Mᵀ M``, as in Shampoo (Gupta et al. 2018, arXiv
    1802.09568).
    """

    def __init__(self, layer: LayerMatrix, like: Tensor) -> None:
        self._left = like.new_zeros(layer.outputs, layer.outputs)
        self._right = like.new_zeros(layer.inputs, layer.inputs)

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the rows ``Σ_c left[:, c] ⊗ right[:, c]``."""
        _, channels, outputs = left.shape
        inputs = right.shape[2]
        if channels**2 < outputs * inputs:
            # Without M:  M Mᵀ = Σ_cc′ δ_c (a_c·a_c′) δ_c′ᵀ,  Mᵀ M = Σ_cc′ a_c (δ_c·δ_c′) a_c′ᵀ.
            right_products = right @ right.mT  # (n, c, c′)
            left_products = left @ left.mT
            left_sums = right_products @ left
            right_sums = left_products @ right
            self._add(self._left, left, left_sums)
            self._add(self._right, right, right_sums)
        else:
            matrices = left.mT @ right
            transposed = matrices.mT
            self._add(self._left, transposed, transposed)
            self._add(self._right, matrices, matrices)

    def _add(self, total: Tensor, first: Tensor, second: Tensor) -> None:
        """Add ``Σ_rows firstᵀ second``."""
        first = first.flatten(0, 1)
        second = second.flatten(0, 1)

        total.addmm_(first.T, second)

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return the partial traces of the layer's curvature, (out, out) and (in, in)."""
        return self._left, self._right


class _Model:
    """The model of one layer's curvature, a sum over terms, and its eigenvectors."""

    def __init__(self, layer: LayerMatrix, block_limit: int) -> None:
        self._layer = layer
        self._small = layer.size <= block_limit
        self._parts: dict[tuple[str, int], Statistics] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no residual depends on the layer."""
        return not self._parts

    def add(self, term: str, left: Tensor, right: Tensor) -> None:
        """Add the rows ``Σ_c left[:, c] ⊗ right[:, c]`` of a term."""
        # Terms have factors of their own, and so have rows of different numbers of channels.
        _, channels, _ = left.shape
        key = (term, channels)
        if key not in self._parts:
            self._parts[key] = self._statistics(channels, left)

        statistics = self._parts[key]
        statistics.add(left, right)

    def _statistics(self, channels: int, like: Tensor) -> Statistics:
        """Return the statistics of ordinary K-FAC and of small layers, or those of Shampoo."""
        layer = self._layer
        pairs = channels**2
        squares = layer.outputs**2 + layer.inputs**2
        numbers = pairs * squares
        fits = numbers <= MOMENT_NUMBERS

        if channels == 1 or (self._small and fits):
            return Moments(layer, channels, like)
        return PartialTraces(layer, like)

    def basis(self) -> Basis:
        """Return the eigenvectors of the sum of the models of all terms."""
        parts = list(self._parts.values())
        models = [part for part in parts if isinstance(part, Moments)]
        all_modelled = len(models) == len(parts)

        # A single Kronecker product has the product of its factors' eigenvectors.
        one_product = False
        if self._layer.outer and all_modelled and len(models) == 1:
            one_product = models[0].channels == 1

        if self._small and all_modelled and not one_product:
            blocks = (model.matrix() for model in models)
            return FullBasis(_eigenvectors(blocks))

        # A sum of products is none; the eigenvectors of its partial traces make one near it.
        lefts = []
        rights = []
        for part in parts:
            left, right = part.traces()
            lefts.append(left)
            rights.append(right)

        left_basis = _eigenvectors(lefts)
        right_basis = _eigenvectors(rights)
        return ProductBasis(left_basis, right_basis)


def layer_bases(
    rows_of: RowsOf, layers: Sequence[LayerMatrix], block_limit: int
) -> list[tuple[LayerMatrix, Basis]]:
    """Return the eigenvectors of each layer's model, of layers that a residual depends on."""
    models = {}
    diagonal = []
    for layer in layers:
        if layer.outer or layer.size <= block_limit:
            models[layer] = _Model(layer, block_limit)
        else:
            diagonal.append(layer)

    for layer, term, left, right in rows_of(list(models)):
        models[layer].add(term, left, right)

    bases: list[tuple[LayerMatrix, Basis]] = []
    for layer, model in models.items():
        if not model.is_empty:
            bases.append((layer, model.basis()))
    for layer in diagonal:
        bases.append((layer, DiagonalBasis()))

    return bases


def _eigenvectors(matrices: Iterable[Tensor]) -> Tensor:
    """Return the eigenvectors of the sum of matrices."""
    total = functools.reduce(torch.add, matrices)
    check_finite(total)
    try:
        _, vectors = torch.linalg.eigh(total)
    except RuntimeError:  # LinAlgError, by a name that torch exports
        # Of many directions that no row has, single precision may not tell the zeros apart.
        if total.dtype is torch.float64:
            raise
        _, vectors = torch.linalg.eigh(total.double())
    return vectors.to(total)
