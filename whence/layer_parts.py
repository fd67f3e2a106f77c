"""Rows of a Jacobian at one layer, kept so that their products take least memory and time.

At a layer the row of cotangent k at point i is ``M_ik = D_ikᵀ A_i``, (out, in), with D (c, out)
what a backward pass gives for channels c (positions, derivatives) and A (c, in) the layer's input
there, which all cotangents of a point share. Products of two rows are ``⟨M, M′⟩``, by whichever of
two ways is cheaper:

- the rows are multiplied out, for some of the outputs at a time;
- ``⟨DᵀA, D′ᵀA′⟩ = ⟨Dᵀ(AA′ᵀ), D′ᵀ⟩``: of the inputs only ``AA′ᵀ`` (c, c′) is needed, once for all
  cotangents of two points. Few positions and many parameters make this the way of late layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from whence.layers import Call, Output
from whence.symmetric_products import self_product_blocks

SMALL_PRODUCTS = 1.5
"""Time of a multiplication among many small products, in those of a large one, about."""


@dataclass(frozen=True)
class LayerShape:
    """What one point's rows at a parameter are made of.

    Parameters
    ----------
    name:
        Of the parameter.
    rows:
        Rows of a point, one for each cotangent.
    outputs, inputs:
        Shape of a row; of what is no sum of outer products outputs are 1.
    channels:
        c, all uses of the layer together; 0 where rows are no sums of outer products.
    source:
        Numbers of the inputs from which A is made.
    """

    name: str
    rows: int
    outputs: int
    inputs: int
    channels: int
    source: int

    @property
    def row_numbers(self) -> int:
        """Numbers of a point's rows."""
        return self.rows * self.outputs * self.inputs

    @property
    def factor_numbers(self) -> int:
        """Numbers of D and of what A is made from."""
        return self.rows * self.channels * self.outputs + self.source

    @property
    def is_by_inputs(self) -> bool:
        """Whether products through ``AA′ᵀ`` take fewer multiplications than through rows."""
        if not self.channels:
            return False
        return (
            SMALL_PRODUCTS * self.multiplications_by_inputs
            < self.multiplications_by_rows
        )

    @property
    def multiplications_by_inputs(self) -> int:
        """Multiplications of two points' products through ``AA′ᵀ``."""
        # AA′ᵀ; Dᵀ times it; that times D′ of every cotangent.
        squared = self.channels**2
        return (
            squared * self.inputs
            + self.rows * self.outputs * squared
            + self.rows**2 * self.outputs * self.channels
        )

    @property
    def multiplications_by_rows(self) -> int:
        """Multiplications of two points' products of rows: one of all entries for every two."""
        return self.rows**2 * self.outputs * self.inputs

    @property
    def is_kept_as_rows(self) -> bool:
        """Whether rows themselves are kept, not D and A."""
        if not self.channels:
            return True
        return not self.is_by_inputs and self.row_numbers <= self.factor_numbers

    @property
    def numbers(self) -> int:
        """Numbers that are kept of a point."""
        return self.row_numbers if self.is_kept_as_rows else self.factor_numbers

    def parts(self, most: int) -> Iterator[LayerPart]:
        """Yield the layer in parts of some outputs each, so that none keeps more numbers."""
        pieces = 1
        if self.channels:
            wanted = -(-self.numbers // max(1, most))
            pieces = min(self.outputs, wanted)
        step = -(-self.outputs // pieces)
        for start in range(0, self.outputs, step):
            outputs = slice(start, min(start + step, self.outputs))
            yield LayerPart(self, outputs)


@dataclass(frozen=True, eq=False)
class LayerPart:
    """Some outputs of a layer."""

    shape: LayerShape
    outputs: slice

    @property
    def numbers(self) -> int:
        """Numbers that are kept of a point."""
        share = self.n_outputs / self.shape.outputs
        return int(share * self.shape.numbers)

    @property
    def n_outputs(self) -> int:
        """How many outputs these are."""
        return self.outputs.stop - self.outputs.start

    @property
    def columns(self) -> int:
        """Entries of a row."""
        return self.n_outputs * self.shape.inputs


@dataclass(frozen=True, eq=False)
class Piece:
    """Dᵀ and A of some points: left (n, m, out, c), and the uses that A (n, c, in) is made from."""

    left: Tensor
    uses: Sequence[tuple[Call, Tensor]]

    def __len__(self) -> int:
        """Return the number of rows."""
        n, m, _, _ = self.left.shape
        return n * m

    def right(self) -> Tensor:
        """Return A, (n, c, in)."""
        parts = [call.inputs(source) for call, source in self.uses]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def rows(self, outputs: slice) -> Tensor:
        """Return the rows at some outputs, (n·m, outputs·in)."""
        left = self.left[:, :, outputs]
        n, m, _, channels = left.shape
        # (n, m·out, c) (n, c, in): all cotangents of a point share its inputs.
        products = left.reshape(n, -1, channels) @ self.right()
        return products.view(n * m, -1)


@dataclass(eq=False)
class KeptFactors:
    """A part of a layer, for all rows, as D and A of some points at a time."""

    part: LayerPart
    chunk_bytes: int
    """What rows that are multiplied out for a product take at a time."""
    pieces: list[tuple[int, Piece]] = field(default_factory=list)
    """Each with the number of its first row."""

    def add_products(self, other: KeptFactors, total: Tensor, *, lower: bool) -> None:
        """Add the products of these rows with others' to ``total`` (R, R′)."""
        if self.part.shape.is_by_inputs:
            self._add_by_inputs(other, total, lower)
        else:
            self._add_by_rows(other, total, lower)

    def _add_by_rows(self, other: KeptFactors, total: Tensor, lower: bool) -> None:
        n_rows = max(total.shape)
        itemsize = self.pieces[0][1].left.itemsize
        row_bytes = self.part.shape.inputs * itemsize * n_rows
        step = min(self.part.n_outputs, max(1, self.chunk_bytes // row_bytes))
        # The same memory for all chunks; rows that do not depend on the layer stay zero.
        rows = self._room(len(total), step)
        others = rows
        if other is not self:
            others = other._room(total.shape[1], step)
        for start in range(0, self.part.n_outputs, step):
            outputs = slice(start, min(start + step, self.part.n_outputs))
            width = (outputs.stop - start) * self.part.shape.inputs
            self._write_rows(outputs, rows)
            if other is not self:
                other._write_rows(outputs, others)
            add_row_products(rows[:, :width], others[:, :width], total, lower=lower)

    def _room(self, n_rows: int, n_outputs: int) -> Tensor:
        """Return zeros for all rows at so many outputs, (R, outputs·in)."""
        like = self.pieces[0][1].left
        return like.new_zeros(n_rows, n_outputs * self.part.shape.inputs)

    def _write_rows(self, outputs: slice, out: Tensor) -> None:
        """Write all rows at some outputs into the first columns of ``out``."""
        for start, piece in self.pieces:
            rows = piece.rows(outputs)
            out[start : start + len(piece), : rows.shape[1]] = rows

    def _add_by_inputs(self, other: KeptFactors, total: Tensor, lower: bool) -> None:
        for start, piece in self.pieces:
            right = piece.right()
            for other_start, other_piece in other.pieces:
                # Of products with themselves those on and below the diagonal are enough.
                if lower and other_start > start:
                    continue
                others = right if other_piece is piece else other_piece.right()
                block = products_by_inputs(piece, right, other_piece, others)
                stop = start + len(piece)
                other_stop = other_start + len(other_piece)
                total[start:stop, other_start:other_stop] += block


def products_by_inputs(
    piece: Piece, right: Tensor, other: Piece, other_right: Tensor
) -> Tensor:
    """Return ``⟨Dᵀ(AA′ᵀ), D′ᵀ⟩`` for all rows of two pieces, (n·m, n′·m′)."""
    n, m, _, channels = piece.left.shape
    other_n, other_m, _, other_channels = other.left.shape
    lefts = piece.left.view(n, -1, channels)  # (n, m·out, c)
    other_lefts = other.left.view(other_n, other_m, -1).mT  # (n′, out·c′, m′)
    inner = other_right.flatten(0, 1)  # (n′·c′, in)

    blocks = []
    for left, a in zip(lefts, right, strict=True):
        # AA′ᵀ of a point with each of the others, (n′, c, c′).
        products = (a @ inner.T).view(channels, other_n, other_channels)
        by_point = products.transpose(0, 1).contiguous()
        # Dᵀ times it, (n′, m·out, c′); as lines of out·c′ numbers they meet D′.
        image = torch.bmm(left.expand(other_n, -1, -1), by_point).view(other_n, m, -1)
        blocks.append(image @ other_lefts)  # (n′, m, m′)

    table = torch.stack(blocks)  # (n, n′, m, m′)
    return table.transpose(1, 2).reshape(n * m, other_n * other_m)


def add_row_products(
    rows: Tensor, others: Tensor, total: Tensor, *, lower: bool
) -> None:
    """Add ``rows @ others.T`` to a total of more digits; with ``lower`` not above the diagonal."""
    for start, stop in self_product_blocks(len(rows)):
        width = stop if lower else len(others)
        total[start:stop, :width] += rows[start:stop] @ others[:width].T


def outer_left(call: Call, deltas: Sequence[Tensor], outputs: slice) -> Tensor:
    """Return Dᵀ of one use at some points, (n, m, out, c), for δ of each of m cotangents."""
    parts = [call.channels(delta)[..., outputs].mT for delta in deltas]
    return torch.stack(parts, dim=1)


def without_graph(call: Call) -> Call:
    """Return a call that keeps nothing alive but its input."""
    nowhere = get_gradient_edge(torch.zeros((), requires_grad=True))
    output = Output(nowhere, None, 0)
    return replace(call, output=output, origin=None)
