"""Rows of a Jacobian layer by layer: each layer's parameters as a matrix, its rows as channels.

A row of J at a layer is ``Σ_c δ_c ⊗ a_c``: δ_c (out,) the derivative with respect to the layer's
output, a_c (in,) its input, and a channel c for every derivative that the residual takes of the
network, every position and every use of the layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whence.autodiff import ReverseLinearization
from whence.jacobian import Rows
from whence.linearization import (
    LayerLinearization,
    Linearization,
    Use,
    linearize,
)
from whence.objective import Objective
from whence.parameters import Parameters
from whence.term import Term

BLOCK_NUMBERS = 2**20
"""Numbers that one layer's rows take at a time: they stay in the processor's cache."""
LARGE_BLOCK_NUMBERS = 2**25
"""The same where the layer's own matrices do not."""


class RowSource(Protocol):
    """Rows whose squares add up to a curvature: a scaled Jacobian, or a sample of it."""

    @property
    def objective(self) -> Objective:
        """Whose rows."""

    @property
    def parameters(self) -> Parameters:
        """With respect to which."""

    def blocks(self) -> Iterator[tuple[Rows, Tensor]]:
        """Yield rows, block by block, each with a right-hand side."""


@dataclass(frozen=True, eq=False)
class LayerMatrix:
    """A weight with the biases that are added to its outputs alone, or a bias by itself.

    Its parameters form one matrix (out, in), in which each bias is a column. Where rows are no
    sums of outer products (``outer`` is false), out is 1: there is one channel, the row itself.

    Parameters
    ----------
    weight, biases:
        Names of its parameters.
    columns:
        Where these are in θ, the weight first.
    outputs, inputs:
        Shape of the matrix.
    outer:
        Whether rows are sums of outer products.
    """

    weight: str | None
    biases: tuple[str, ...]
    columns: tuple[slice, ...]
    outputs: int
    inputs: int
    outer: bool

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.outputs * self.inputs

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parameters, the weight first."""
        if self.weight:
            return (self.weight, *self.biases)
        return self.biases

    def pieces(
        self, all_uses: Iterable[Use], n: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the channels of n rows, as many rows at a time as fit in the cache."""
        uses = [use for use in all_uses if self._is_of(use)]
        if not uses:
            return

        channels = 1
        if self.outer:
            channels = sum(use.channels for use in uses)

        # δ and a of a row, or its matrix.
        factors = channels * (self.outputs + self.inputs)
        numbers = max(self.size, factors)
        room = BLOCK_NUMBERS
        if self.outputs**2 + self.inputs**2 > BLOCK_NUMBERS:
            # What meets matrices that are larger than the cache reads them once for many rows,
            # whose own matrices bases make a few at a time.
            room = LARGE_BLOCK_NUMBERS
            numbers = factors
        step = max(1, room // numbers)
        for start in range(0, n, step):
            points = slice(start, start + step)
            yield self.channels(uses, points)

    def _is_of(self, use: Use) -> bool:
        """Whether a use is one of this layer."""
        if self.weight:
            return use.weight == self.weight
        return use.bias in self.biases

    def channels(self, uses: Sequence[Use], points: slice) -> tuple[Tensor, Tensor]:
        """Return left (n, c, out) and right (n, c, in) at some points, all uses joined."""
        if not self.outer:
            # One channel: the row itself, with an output of 1.
            row = self._rows(uses, points).unsqueeze(1)
            ones = torch.ones_like(row[..., :1])
            return ones, row

        lefts = []
        rights = []
        for use in uses:
            left, right, reached = use.at(points)
            parts = []
            if self.weight:
                parts.append(right)

            # A bias is the column of an input that is 1 in the channels it reaches (of a jet the
            # value only), and 0 in the others and in uses without it.
            n, channels, _ = left.shape
            for bias in self.biases:
                ones = reached if use.bias == bias else torch.zeros_like(reached)
                parts.append(ones.expand(n, channels, 1))

            lefts.append(left)
            rights.append(joined(parts, 2))
        return joined(lefts, 1), joined(rights, 1)

    def _rows(self, uses: Sequence[Use], points: slice) -> Tensor:
        """Return the rows at some points, (n, size), all uses added up."""
        parts = []
        for use in uses:
            if use.weight in self.names:
                parts.append((use.weight, use.weight_rows(points)))
            if use.bias in self.names:
                parts.append((use.bias, use.bias_rows(points)))

        # Where each parameter begins and ends in the row.
        sizes = [columns.stop - columns.start for columns in self.columns]
        ends = [0, *itertools.accumulate(sizes)]

        _, first = parts[0]
        rows = first.new_zeros(len(first), self.size)
        for name, part in parts:
            k = self.names.index(name)
            own_columns = slice(ends[k], ends[k + 1])
            rows[:, own_columns] += part
        return rows

    def matrices(self, vectors: Tensor) -> Tensor:
        """Return this layer's part of ``vectors`` (P, K) as matrices (K, out, in)."""
        parts = []
        for columns in self.columns:
            width = self._width(columns)
            part = vectors[columns].T  # (K, out · width)
            parts.append(part.reshape(-1, self.outputs, width))
        return torch.cat(parts, dim=2)

    def put(self, matrices: Tensor, out: Tensor) -> None:
        """Write matrices (K, out, in) into this layer's part of ``out`` (P, K)."""
        start = 0
        for columns in self.columns:
            end = start + self._width(columns)
            part = matrices[:, :, start:end]
            out[columns] = part.flatten(1).T
            start = end

    def _width(self, columns: slice) -> int:
        """Return the width of a parameter's part of the matrix: a bias has 1."""
        size = columns.stop - columns.start
        return size // self.outputs


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Return parts side by side; a single one as it is, as to join would copy it."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), dim=axis)


def layer_matrices(root: RowSource) -> list[LayerMatrix]:
    """Return the layers, seen at one point of each term.

    Raises
    ------
    ValueError
        If a selected parameter is not that of a layer of a known kind.
    """
    weights: dict[str, None] = {}  # an ordered set
    partners: dict[str, set[str | None]] = {}
    not_outer: set[str | None] = set()
    for term in root.objective.terms.values():
        linear = linearize(term.residual, root.parameters, term.points[:1])
        by_layers = _by_layers(root, term, linear)
        for weight, bias, outer in by_layers.layers:
            if weight:
                weights[weight] = None
            if bias:
                partners.setdefault(bias, set()).add(weight)
            if not outer:
                not_outer |= {weight, bias}

    # A bias that is always added to the outputs of one weight is a column of that weight's matrix;
    # one that is shared by several weights, or has none, is a layer by itself.
    columns: dict[str, list[str]] = {weight: [] for weight in weights}
    alone = []
    for bias, added_to in partners.items():
        weight, *others = added_to
        if weight is None or others:
            alone.append(bias)
        else:
            columns[weight].append(bias)

    parameters = root.parameters
    layers = []
    for weight, biases in columns.items():
        layers.append(_layer_matrix(parameters, weight, biases, not_outer))
    for bias in alone:
        layers.append(_layer_matrix(parameters, None, [bias], not_outer))
    return layers


def _layer_matrix(
    parameters: Parameters,
    weight: str | None,
    biases: Sequence[str],
    not_outer: set[str | None],
) -> LayerMatrix:
    """Return the layer of these parameters: as a matrix if its rows are sums of outer products."""
    names = list(biases)
    if weight:
        names.insert(0, weight)
    columns = tuple(parameters.slices[name] for name in names)
    size = sum(part.stop - part.start for part in columns)

    outer = not_outer.isdisjoint(names)
    outputs = 1
    if outer:
        outputs = parameters.shape(names[0])[0]
    inputs = size // outputs
    return LayerMatrix(weight, tuple(biases), columns, outputs, inputs, outer)


LayerRow = tuple[LayerMatrix, str, Tensor, Tensor]
"""A layer, the name of a term, and left (n, c, out) and right (n, c, in) of n rows."""
RowsOf = Callable[[Sequence[LayerMatrix]], Iterator[LayerRow]]
"""All rows of some layers, such as ``partial(layer_rows, root)``."""


def layer_rows(root: RowSource, layers: Sequence[LayerMatrix]) -> Iterator[LayerRow]:
    """Yield ``(layer, term, left (n, c, out), right (n, c, in))`` for all rows, a few at a time."""
    for term, block in _term_blocks(root):
        linear = _by_layers(root, term, block.linear)
        n = len(block.linear.value)
        # One cotangent for each row that a point contributes.
        for cotangent in block.cotangents:
            uses = linear.uses(cotangent)
            for layer in layers:
                for left, right in layer.pieces(uses, n):
                    yield layer, term.name, left, right


Piece = tuple[LayerMatrix, slice, Tensor, Tensor]
"""A layer, which of a block's rows, and their left (n, c, out) and right (n, c, in)."""
PiecesOf = Callable[[Sequence[LayerMatrix]], Iterator[tuple[int, Iterator[Piece]]]]
"""The rows of some layers with how many there are, such as ``partial(row_pieces, root)``."""


def row_pieces(
    root: RowSource, layers: Sequence[LayerMatrix]
) -> Iterator[tuple[int, Iterator[Piece]]]:
    """Yield for the rows of some points how many they are, and those of each layer in pieces."""
    for term, block in _term_blocks(root):
        linear = _by_layers(root, term, block.linear)
        n = len(block.linear.value)
        for cotangent in block.cotangents:
            yield n, pieces_of(layers, linear.uses(cotangent), n)


def pieces_of(
    layers: Sequence[LayerMatrix], uses: Sequence[Use], n: int
) -> Iterator[Piece]:
    """Yield the rows of n points with one cotangent, layer by layer."""
    for layer in layers:
        start = 0
        for left, right in layer.pieces(uses, n):
            points = slice(start, start + len(left))
            yield layer, points, left, right
            start = points.stop


def _term_blocks(root: RowSource) -> Iterator[tuple[Term, Rows]]:
    """Yield the blocks of rows, each with the term that it is of."""
    for block, _ in root.blocks():
        # Terms at the same points take turns.
        yield root.objective.term(block.term), block


def _by_layers(
    root: RowSource, term: Term, linear: Linearization
) -> LayerLinearization:
    """Return a linearization that goes layer by layer, or raise ``ValueError``."""
    if isinstance(linear, LayerLinearization):
        return linear

    instead = "use wh.ConjugateGradient() or wh.Sketched()"
    where = (
        "EKFAC needs layers of known kinds (docs/supervised.md has them), but the residual of "
        f"term {term.name!r}"
    )

    outside: Sequence[str] = getattr(linear, "outside", ())
    if outside:
        names = []
        for name in outside:
            module, _, _ = name.rpartition(".")
            kind = type(root.objective.network.get_submodule(module))
            names.append(f"{name} of {kind.__name__}")
        listed = ", ".join(names)
        raise ValueError(
            f"{where} uses elsewhere {listed}: select other parameters, or {instead}"
        )
    if isinstance(linear, ReverseLinearization):
        raise ValueError(
            f"{where} has recurrent layers, asks for values of its inputs, or differentiates them "
            f"by torch.autograd.grad: {instead}"
        )
    raise ValueError(f"{where} does not call them once for each point: {instead}")
