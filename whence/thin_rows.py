"""Rows of a Jacobian with wide layers in thin form: as factors in place of all their weights.

A row of J at a linear layer is ``Σ_c δ_c ⊗ a_c`` over channels c. Kept as δ (out,) and a (in,) it
takes c · (out + in) numbers instead of out · in, and a product of two rows
``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian, Rows, in_row_order
from whence.linearization import Factor

TILE = 500
"""Rows of a kernel's tile: what makes it stays in the processor's cache."""

Span = tuple[int, int]
"""First column of a weight, and that after its last."""


@dataclass(frozen=True)
class ThinLayer:
    """One layer's rows as ``Σ_c left[c] ⊗ right[c]``: left (c, R, out), right (c, R, in)."""

    columns: slice
    left: Tensor
    right: Tensor

    @classmethod
    def joined(cls, span: Span, factors: Sequence[Factor]) -> ThinLayer:
        """Return one layer's factors over all blocks; blocks with fewer channels are filled up."""
        counts = [factor.left.shape[0] for factor in factors]
        channels = max(counts)
        lefts = []
        rights = []
        for factor in factors:
            # A bias, which has no right factor, is never thin.
            assert factor.right is not None
            left = _filled(factor.left, channels)
            right = _filled(factor.right, channels)
            lefts.append(left)
            rights.append(right)

        left = torch.cat(lefts, dim=1)
        right = torch.cat(rights, dim=1)
        return cls(slice(*span), left, right)

    def add_products(
        self, other: ThinLayer, total: Tensor, *, lower: bool = False
    ) -> None:
        """Add this layer's part of ``rows @ other.rows.T`` to ``total``, tile by tile.

        With ``lower`` only the tiles on and below the diagonal are made.
        """
        n, m = total.shape
        for i in range(0, n, TILE):
            rows = slice(i, min(i + TILE, n))
            width = rows.stop if lower else m

            for j in range(0, width, TILE):
                columns = slice(j, min(j + TILE, m))
                tile = total[rows, columns]
                self._add_tile(other, tile, rows, columns)

    def _add_tile(
        self, other: ThinLayer, tile: Tensor, rows: slice, columns: slice
    ) -> None:
        """Add ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``, each product for all pairs of rows at once."""
        lefts = self.left[:, rows]
        rights = self.right[:, rows]
        other_lefts = other.left[:, columns]
        other_rights = other.right[:, columns]

        for left, right in zip(lefts, rights, strict=True):
            for other_left, other_right in zip(other_lefts, other_rights, strict=True):
                left_products = left @ other_left.T
                right_products = right @ other_right.T
                tile.addcmul_(left_products, right_products)

    def rows(self) -> Tensor:
        """Return the rows themselves, (R, columns)."""
        factor = Factor(self.columns, self.left, self.right)
        return factor.rows()

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``rows @ vectors`` without the rows: the layer's part (out·in, K) to (R, K)."""
        out, inputs = self.left.shape[2], self.right.shape[2]
        columns = []
        for vector in vectors.unbind(1):
            weight = vector.view(out, inputs)
            # Σ_c δ_c · (V a_c)
            images = self.right @ weight.T  # (c, R, out)
            columns.append((self.left * images).sum(dim=(0, 2)))
        return torch.stack(columns, dim=1)

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Σ_i vector[i] · row_i`` of this layer, flat."""
        # Σ_i y_i Σ_c δ_ci ⊗ a_ci is one product, (out, c · R) (c · R, in).
        factors = vector[None, :, None]
        weighted = self.left * factors
        left = weighted.flatten(0, 1)
        right = self.right.flatten(0, 1)
        matrix = left.T @ right
        return matrix.flatten()


class ThinRows:
    """All rows of a Jacobian: some layers in thin form, and the columns of all other parameters.

    A weight is kept thin where its part of the kernel is cheaper through inner products in every
    block of rows; one that is not so in one block is left to its rows in all later ones.

    Attributes
    ----------
    layers:
        The layers in thin form.
    rows:
        The columns of all other parameters, (R, number of them).
    direct:
        Which parameters these are, (P,).
    right:
        The right-hand side ρ of the rows, (R,).
    """

    def __init__(self, jacobian: Jacobian) -> None:
        self._jacobian = jacobian
        self._size = jacobian.parameters.size
        self._pieces: list[_Piece] = []
        self._whole: Tensor | None = None

        # No block's graph outlives the making of the next.
        rights: dict[int, Tensor] = {}
        for block, right in jacobian.blocks():
            self._pieces.append(self._piece(block))
            rights[block.start] = right
        self.right = torch.cat(in_row_order(rights))

        # What is thin in the last block was thin in all of them.
        thin = sorted(self._pieces[-1].thin)
        direct = _mask(thin, self._size)
        self.direct = direct.to(self.right.device)
        # Terms at the same points take turns in the blocks, in row order they do not.
        self._pieces.sort(key=lambda piece: piece.start)
        self.rows = self._joined_rows(thin)
        self.layers = []
        for span in thin:
            factors = [piece.thin[span] for piece in self._pieces]
            layer = ThinLayer.joined(span, factors)
            self.layers.append(layer)

        # The blocks are copies of what has been joined.
        self._pieces.clear()

    def _piece(self, block: Rows) -> _Piece:
        """Return what is needed of a block: factors of its thin weights, and other columns."""
        factors = None
        among = None
        if self._pieces:
            among = self._pieces[-1].thin
        if among is None or among:
            factors = block.factors()

        thin = _cheaper_thin(factors or (), among)
        if factors and thin:
            direct_rows = self._direct_rows(factors, thin)
            return _Piece(thin, direct_rows, block.start)

        # From here on nothing is thin: the rows go where they stay.
        rows = self._dense(block)
        return _Piece({}, rows, block.start)

    def _direct_rows(self, factors: Sequence[Factor], thin: Iterable[Span]) -> Tensor:
        """Return the columns of a block's rows that have no thin form, (n, number of them)."""
        like = factors[0].left
        _, n, _ = like.shape  # (c, n, out)
        direct = _mask(thin, self._size)
        direct = direct.to(like.device)

        # Of each direct column, how many there are before it.
        places = torch.cumsum(direct, 0) - 1
        count = int(direct.sum())

        rows = like.new_zeros(n, count)
        for factor in factors:
            start, stop = _span(factor)
            if not bool(direct[start]):
                continue

            # A parameter that is used twice has two factors.
            first = int(places[start])
            last = first + stop - start
            columns = rows[:, first:last]
            columns += factor.rows()
        return rows

    def _dense(self, block: Rows) -> Tensor:
        """Return all columns of a block without a thin weight, as a part of J in memory."""
        if self._whole is None:
            self._whole = self._started()
        stop = block.start + len(block)
        part = self._whole[block.start : stop]
        return block.dense(out=part)

    def _started(self) -> Tensor:
        """Return room for J with the rows of the first pieces in it."""
        jacobian = self._jacobian
        like = jacobian.parameters.vector()
        whole = like.new_empty(jacobian.shape)

        for piece in self._pieces:
            rows = piece.all_but((), self._size)
            whole[piece.start : piece.start + len(rows)] = rows
        return whole

    def _joined_rows(self, thin: Sequence[Span]) -> Tensor:
        """Return the columns of all parameters but thin ones, of all blocks."""
        if self._whole is not None:
            return self._whole
        parts = []
        for piece in self._pieces:
            rows = piece.all_but(thin, self._size)
            parts.append(rows)
        return torch.cat(parts)


@dataclass(frozen=True)
class _Piece:
    """A block of rows: the factors of its thin weights, and all other columns (n, number).

    ``start`` is the number of its first row.
    """

    thin: dict[Span, Factor]
    rows: Tensor
    start: int

    def all_but(self, thin: Sequence[Span], size: int) -> Tensor:
        """Return all columns but those of ``thin``, which are thin here and may be fewer."""
        if len(thin) == len(self.thin):
            return self.rows

        # By way of all columns: those that are no longer thin are multiplied out.
        direct = _mask(self.thin, size)
        n = len(self.rows)
        rows = self.rows.new_zeros(n, size)
        rows[:, direct] = self.rows
        for span, factor in self.thin.items():
            if span not in thin:
                start, stop = span
                rows[:, start:stop] = factor.rows()

        kept = _mask(thin, size)
        return rows[:, kept]


def _span(factor: Factor) -> Span:
    return factor.columns.start, factor.columns.stop


def _mask(thin: Iterable[Span], size: int) -> Tensor:
    """Return which columns are those of no thin weight, (size,)."""
    mask = torch.ones(size, dtype=torch.bool)
    for start, stop in thin:
        mask[start:stop] = False
    return mask


def _cheaper_thin(
    factors: Sequence[Factor], among: Collection[Span] | None
) -> dict[Span, Factor]:
    """Return the factors of weights whose part of the kernel is cheaper through inner products.

    A weight that is used twice is left to its rows, and so is one not ``among`` those given.
    """
    spans = [_span(factor) for factor in factors]
    thin = {}
    for span, factor in zip(spans, factors, strict=True):
        is_single = spans.count(span) == 1
        is_allowed = among is None or span in among

        if is_single and is_allowed and _is_cheaper(factor):
            thin[span] = factor
    return thin


def _is_cheaper(factor: Factor) -> bool:
    if factor.right is None:
        return False

    # Multiplications for a pair of rows: c² pairs of inner products, or one of all weights.
    channels, _, outputs = factor.left.shape
    _, _, inputs = factor.right.shape
    thin = channels**2 * (outputs + inputs)
    return thin < outputs * inputs


def _filled(part: Tensor, channels: int) -> Tensor:
    """Return a factor with channels of zeros added, up to so many."""
    known, n, width = part.shape
    if known == channels:
        return part
    missing = channels - known
    zeros = part.new_zeros(missing, n, width)
    return torch.cat([part, zeros])
