"""Rows of a Jacobian at one layer, kept so that their products take least memory and time.

At a layer the row of cotangent k at point i is ``M_ik = D_ikᵀ A_i``, (out, in), with D (c, out)
what a backward pass gives for channels c (positions, derivatives) and A (c, in) the layer's input
there, which all cotangents of a point share. Products of two rows are ``⟨M, M′⟩``, by whichever of
two ways is cheaper:

- the rows are multiplied out, for some of the outputs at a time;
- ``⟨DᵀA, D′ᵀA′⟩ = tr(DᵀA A′ᵀD′) = ⟨Dᵀ(AA′ᵀ), D′ᵀ⟩``: of the inputs only ``AA′ᵀ`` (c, c′) is needed,
  once for all cotangents of two points. Few positions and many parameters make this the way of late
  layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from whence.layers import Call, Output
from whence.symmetric_products import self_product_blocks

CACHED_BYTES = 4 * 2**20
"""What a step of products through inputs makes: more does not stay in a processor's cache."""
SMALL_PRODUCTS = 1.1
"""Time of a multiplication among many small products, in those of a large one, about."""


@dataclass(frozen=True)
class LayerShape:
    """What one point's rows at a parameter are made of, and which way of products is cheaper.

    Parameters
    ----------
    name:
        Of the parameter.
    rows:
        m, the rows of a point, one for each cotangent.
    outputs, inputs:
        Shape of a row; of what is no sum of outer products outputs are 1.
    channels:
        c, all uses of the layer together; 0 where rows are no sums of outer products.
    source:
        Numbers of the inputs from which A is made.

    Examples
    --------
    A linear layer of 50 to 20 numbers, used once, of 10 rows for each point:

    >>> from whence.layer_parts import LayerShape
    >>> shape = LayerShape("weight", rows=10, outputs=20, inputs=50, channels=1, source=50)
    >>> shape.row_numbers, shape.factor_numbers
    (10000, 250)
    >>> shape.multiplications_by_rows, shape.multiplications_by_inputs, shape.is_by_inputs
    (100000, 2250, True)
    """

    name: str
    rows: int
    outputs: int
    inputs: int
    channels: int
    source: int

    @property
    def row_numbers(self) -> int:
        """Numbers of a point's rows, m·out·in."""
        return self.rows * self.outputs * self.inputs

    @property
    def factor_numbers(self) -> int:
        """Numbers of D of all cotangents, m·c·out, and of what A is made from."""
        return self.rows * self.channels * self.outputs + self.source

    @property
    def is_by_inputs(self) -> bool:
        """Whether products through ``AA′ᵀ`` take less time than through rows."""
        if not self.channels:
            return False

        by_inputs = SMALL_PRODUCTS * self.multiplications_by_inputs
        return by_inputs < self.multiplications_by_rows

    @property
    def multiplications_by_inputs(self) -> int:
        """Multiplications of the products of all rows of two points through ``AA′ᵀ``."""
        pairs = self.channels**2
        products = pairs * self.inputs  # AA′ᵀ, (c, c′)
        images = (
            self.rows * self.outputs * pairs
        )  # Dᵀ times it, of every row of the first
        meetings = (
            self.rows**2 * self.outputs * self.channels
        )  # those with D′ of every other
        return products + images + meetings

    @property
    def multiplications_by_rows(self) -> int:
        """Multiplications of the same products by rows: one of all entries for every two."""
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

    def parts(self, max_numbers: int) -> Iterator[LayerPart]:
        """Yield the layer in parts of some outputs each.

        None keeps more than ``max_numbers`` of a point, but where a single output does, and where
        rows are no sums of outer products, which are not divided.
        """
        n_parts = 1
        if self.channels:
            wanted = ceil_divided(self.numbers, max(1, max_numbers))
            n_parts = min(self.outputs, wanted)

        step = ceil_divided(self.outputs, n_parts)
        for outputs in slices(self.outputs, step):
            yield LayerPart(self, outputs)


def ceil_divided(number: int, divisor: int) -> int:
    """Return ``⌈number/divisor⌉``."""
    return -(-number // divisor)


def slices(n: int, step: int) -> Iterator[slice]:
    """Yield 0 … n in slices of ``step``, of which the last may be shorter."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


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
    """Dᵀ and A of some points.

    Parameters
    ----------
    left:
        Dᵀ for each of n points and m cotangents, (n, m, out, c).
    uses:
        The layer's calls, each with its inputs, of which :meth:`right` makes A.
    """

    left: Tensor
    uses: Sequence[tuple[Call, Tensor]]

    def __len__(self) -> int:
        """Return the number of rows, n·m."""
        n, m, _, _ = self.left.shape
        return n * m

    def right(self) -> Tensor:
        """Return A, (n, c, in), the channels of all uses behind each other."""
        parts = [call.inputs(source) for call, source in self.uses]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, dim=1)

    def rows(self, outputs: slice) -> Tensor:
        """Return the rows at some outputs, (n·m, outputs·in)."""
        left = self.left[:, :, outputs]
        n, m, _, channels = left.shape

        # (n, m·out, c) (n, c, in): all cotangents of a point share its inputs.
        flat = left.reshape(n, -1, channels)
        products = flat @ self.right()
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
        """Add the products of these R rows with R′ others to ``total`` (R, R′).

        With ``lower`` the others are these rows, and entries above the diagonal are of no meaning.
        """
        if self.part.shape.is_by_inputs:
            self._add_by_inputs(other, total, lower)
        else:
            self._add_by_rows(other, total, lower)

    def _add_by_rows(self, other: KeptFactors, total: Tensor, lower: bool) -> None:
        """Multiply rows out, at as many outputs at a time as fit: ``Σ_outputs rows rows′ᵀ``."""
        n_rows, n_others = total.shape
        step = self._outputs_at_once(max(n_rows, n_others))

        # The same memory for all chunks; rows that do not depend on the layer stay zero.
        rows = self._room(n_rows, step)
        others = rows if other is self else other._room(n_others, step)
        for outputs in slices(self.part.n_outputs, step):
            self._write_rows(outputs, rows)
            if other is not self:
                other._write_rows(outputs, others)

            # Of the last chunk fewer columns may be written.
            width = (outputs.stop - outputs.start) * self.part.shape.inputs
            add_row_products(rows[:, :width], others[:, :width], total, lower=lower)

    def _outputs_at_once(self, n_rows: int) -> int:
        """Return at how many outputs so many rows take ``chunk_bytes``."""
        _, piece = self.pieces[0]
        bytes_per_output = self.part.shape.inputs * piece.left.itemsize * n_rows
        fitting = max(1, self.chunk_bytes // bytes_per_output)
        return min(self.part.n_outputs, fitting)

    def _room(self, n_rows: int, n_outputs: int) -> Tensor:
        """Return zeros for all rows at so many outputs, (R, outputs·in)."""
        _, piece = self.pieces[0]
        return piece.left.new_zeros(n_rows, n_outputs * self.part.shape.inputs)

    def _write_rows(self, outputs: slice, out: Tensor) -> None:
        """Write all rows at some outputs into the first columns of ``out``."""
        for start, piece in self.pieces:
            rows = piece.rows(outputs)
            stop = start + len(piece)
            _, width = rows.shape
            out[start:stop, :width] = rows

    def _add_by_inputs(self, other: KeptFactors, total: Tensor, lower: bool) -> None:
        """Add products through ``AA′ᵀ``, piece by piece."""
        for start, piece in self.pieces:
            stop = start + len(piece)
            right = piece.right()
            for other_start, other_piece in other.pieces:
                # Of products with themselves those on and below the diagonal are enough.
                if lower and other_start > start:
                    continue

                other_stop = other_start + len(other_piece)
                other_right = right if other_piece is piece else other_piece.right()
                block = products_by_inputs(piece, right, other_piece, other_right)
                total[start:stop, other_start:other_stop] += block


def products_by_inputs(
    piece: Piece, right: Tensor, other: Piece, other_right: Tensor
) -> Tensor:
    """Return ``⟨Dᵀ(AA′ᵀ), D′ᵀ⟩`` for all rows of two pieces, (n·m, n′·m′).

    ``right`` is A of the first, (n, c, in), ``other_right`` A′ of the other, (n′, c′, in).
    """
    n, m, n_outputs, channels = piece.left.shape
    other_n, other_m, _, other_channels = other.left.shape
    lefts = piece.left.reshape(n, -1, channels)  # (n, m·out, c)
    inputs = right.flatten(0, 1)  # (n·c, in)

    # What is made of a point and some others stays in a processor's cache, and in one place.
    numbers = m * n_outputs * other_channels
    at_once = max(1, CACHED_BYTES // (numbers * piece.left.itemsize))
    table = piece.left.new_empty(n, other_n, m, other_m)
    for others in slices(other_n, at_once):
        other_lefts = other.left[others].reshape(-1, other_m, numbers // m).mT
        n_others = len(other_lefts)

        # AA′ᵀ of each point with each of the others, (n, n′, c, c′).
        products = inputs @ other_right[others].flatten(0, 1).T
        by_channel = products.view(n, channels, n_others, other_channels)
        by_point = by_channel.transpose(1, 2).contiguous()

        # Dᵀ times it, (n′, m·out, c′); as lines of out·c′ numbers they meet D′.
        images = lefts.new_empty(n_others, m * n_outputs, other_channels)
        lines = images.view(n_others, m, -1)
        for point in range(n):
            left = lefts[point].expand(n_others, -1, -1)
            torch.bmm(left, by_point[point], out=images)
            torch.bmm(lines, other_lefts, out=table[point, others])  # (n′, m, m′)

    # (n, n′, m, m′) as rows by other rows.
    return table.transpose(1, 2).reshape(n * m, other_n * other_m)


def add_row_products(
    rows: Tensor, others: Tensor, total: Tensor, *, lower: bool
) -> None:
    """Add ``rows @ others.T`` to a total of more digits; with ``lower`` not above the diagonal."""
    for start, stop in self_product_blocks(len(rows)):
        width = stop if lower else len(others)
        product = rows[start:stop] @ others[:width].T
        total[start:stop, :width] += product


def outer_left(call: Call, deltas: Sequence[Tensor], outputs: slice) -> Tensor:
    """Return Dᵀ of one use at some points, (n, m, out, c), for δ of each of m cotangents."""
    parts = [call.channels(delta)[..., outputs].mT for delta in deltas]
    return torch.stack(parts, dim=1)


def without_graph(call: Call) -> Call:
    """Return a call that keeps nothing alive but its input."""
    nowhere = get_gradient_edge(torch.zeros((), requires_grad=True))
    output = Output(nowhere, None, 0)
    return replace(call, output=output, origin=None)
