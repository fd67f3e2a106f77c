"""The kernel ``K = J Jᵀ`` of large networks, layer by layer, from rows that are never all held.

A network of 11 M parameters and 2400 rows has a Jacobian of 100 GiB and a kernel of 46 MB. K is the
sum of the layers' parts, so that some layers at a time are enough: passes over the points collect
what their products need (:mod:`whence.layer_parts`), as many layers a pass as memory holds, from
the last to the first, as a backward pass goes no further than the layers that are asked for.

K is summed in double precision, whatever the network's: its rounding is that of single products.
Products with J itself go through the network's outputs, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian
from whence.layer_parts import (
    SMALL_PRODUCTS,
    KeptFactors,
    LayerPart,
    LayerShape,
    Piece,
    add_row_products,
    outer_left,
    without_graph,
)
from whence.layers import Call
from whence.linearization import LayerLinearization, linearize
from whence.objective import Objective
from whence.output_products import OutputDerivative
from whence.parameter_calls import SwappedLinearCall
from whence.points import linearized_at_once
from whence.symmetric_products import mirror

GRAPH_BYTES = 192 * 2**20
"""What the graph of the points of a block may take."""
CHUNK_BYTES = 128 * 2**20
"""What rows that are multiplied out for a product take at a time."""
KEPT_SHARE = 0.5
"""Part of the memory budget that is for what a pass collects."""
GRAPH_COPIES = 4
"""Tensors of the size of a layer's input that its graph keeps, about."""
SQUARES = 5
"""Matrices (R, R) in double precision: K, two factors of it, and what they are made of."""


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows at some points: a linearization by layers, a cotangent for each row of a point."""

    linear: LayerLinearization
    cotangents: Sequence[Tensor]
    start: int

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.linear.value)


Source = Callable[[], Iterator[RowBlock]]
"""Gives the same blocks of rows at each call."""


@dataclass(frozen=True)
class StreamPlan:
    """What the kernel of an objective takes, before it is made.

    Parameters
    ----------
    rows, size, n_points:
        R, P and the number of points.
    points_at_once:
        Points that are linearized at a time.
    groups:
        Parts of layers of which what is collected fits in memory; a pass for each group.
    kept_bytes:
        What the largest group takes.
    chunk_bytes:
        What rows that are multiplied out take at a time.
    needed:
        Bytes at the peak: kernel and factors, a group, a block's graph, and vectors of P numbers.
    """

    rows: int
    size: int
    n_points: int
    points_at_once: int
    groups: tuple[tuple[LayerPart, ...], ...]
    kept_bytes: int
    chunk_bytes: int
    needed: int

    @property
    def product_passes(self) -> float:
        """Passes through the network that making the kernel takes, about."""
        # A pass forward for each group, and one backward for each row of a point.
        rows_a_point = max(part.shape.rows for part in self.groups[0])
        return len(self.groups) * (1 + rows_a_point)

    @property
    def multiplications(self) -> float:
        """Multiplications of the products of rows, counted as those of large products."""
        total = 0.0
        pairs = self.n_points**2 / 2
        for group in self.groups:
            for part in group:
                shape = part.shape
                share = part.n_outputs / shape.outputs
                of_pair: float = shape.multiplications_by_rows
                if shape.is_by_inputs:
                    of_pair = SMALL_PRODUCTS * shape.multiplications_by_inputs
                # Rows are made of the channels of each point once.
                of_point = shape.channels * shape.row_numbers
                total += share * (pairs * of_pair + self.n_points * of_point)
        return total


def stream_plan(jacobian: Jacobian, memory_budget: int) -> StreamPlan | None:
    """Return how the kernel is made within memory; None where it cannot be made by layers."""
    shapes = layer_shapes(jacobian)
    if shapes is None:
        return None

    # Of the budget a share is for what a pass collects; the rest does not depend on groups.
    rows, size = jacobian.shape
    itemsize = jacobian.parameters.dtype.itemsize
    n_points = jacobian.objective.n_points
    squares = 8 * SQUARES * rows**2
    vectors = 6 * size * itemsize
    room = KEPT_SHARE * memory_budget
    most = int(room) // (itemsize * n_points)
    groups = grouped(shapes, most)
    kept = max(sum(part.numbers for part in group) for group in groups)
    kept_bytes = kept * itemsize * n_points

    # A graph keeps inputs, outputs and what activations need, of as many points as have room.
    point_bytes = sum(shape.source for shape in shapes.values()) * itemsize
    room_for_graph = min(GRAPH_BYTES, memory_budget // 8)
    points_at_once = max(1, room_for_graph // max(1, GRAPH_COPIES * point_bytes))
    graph = points_at_once * GRAPH_COPIES * point_bytes
    chunk_bytes = min(CHUNK_BYTES, memory_budget // 8)
    needed = squares + vectors + kept_bytes + graph + chunk_bytes
    return StreamPlan(
        rows,
        size,
        n_points,
        points_at_once,
        groups,
        kept_bytes,
        chunk_bytes,
        needed,
    )


def grouped(
    shapes: Mapping[str, LayerShape], most: int
) -> tuple[tuple[LayerPart, ...], ...]:
    """Return parts of layers in groups, the last layer first, that keep so many numbers each."""
    groups: list[list[LayerPart]] = [[]]
    kept = 0
    # The last layers first: a backward pass to them is short.
    for shape in reversed(list(shapes.values())):
        for part in shape.parts(most):
            if groups[-1] and kept + part.numbers > most:
                groups.append([])
                kept = 0
            groups[-1].append(part)
            kept += part.numbers
    return tuple(map(tuple, groups))


def layer_shapes(jacobian: Jacobian) -> dict[str, LayerShape] | None:
    """Return the shapes of all layers, in the order of their use, seen at a point of each term.

    None where the residual does not consist of layers of known kinds.
    """
    parameters = jacobian.parameters
    components = jacobian.components()
    shapes: dict[str, LayerShape] = {}
    for term in jacobian.objective.terms.values():
        linear = linearize(term.residual, parameters, term.points[:1])
        if not isinstance(linear, LayerLinearization):
            return None
        m = components[term.name]
        for shape in shapes_of(linear, m):
            before = shapes.get(shape.name)
            # Of several terms the most that a point of one of them takes.
            is_larger = before is None or shape.numbers > before.numbers
            if is_larger:
                shapes[shape.name] = shape
    return shapes


def shapes_of(linear: LayerLinearization, m: int) -> Iterator[LayerShape]:
    """Yield the shapes of the layers that a point's m rows go through."""
    # What no cotangent reaches has no rows.
    deltas = linear.deltas(torch.ones_like(linear.value))
    uses: dict[str, list[tuple[Call, Tensor]]] = {}
    biases: dict[str, int] = {}
    for call, delta in zip(linear.calls, deltas, strict=True):
        if delta is None:
            continue
        if call.weight:
            uses.setdefault(call.weight, []).append((call, delta))
        if call.bias:
            uses.setdefault(call.bias, [])
            biases[call.bias] = call.channels(call.biased(delta)).shape[-1]

    # In the order of their first use, which groups go back through.
    for name, of_name in uses.items():
        if of_name:
            yield shape_of_weight(name, m, of_name)
        else:
            yield LayerShape(name, m, 1, biases[name], 0, 0)


def shape_of_weight(
    name: str, m: int, uses: Sequence[tuple[Call, Tensor]]
) -> LayerShape:
    """Return the shape of a weight's rows, of all its uses together."""
    first, _ = uses[0]
    size = math.prod(first.shape)
    source = sum(call.source.numel() for call, _ in uses)
    # Scales, lookups and convolutions in groups: their rows themselves are kept.
    if not are_alike(call for call, _ in uses):
        return LayerShape(name, m, 1, size, 0, source)
    # Of a product ``x W`` the weight is (in, out): products of rows are those of its transpose.
    outputs = first.shape[1 if isinstance(first, SwappedLinearCall) else 0]
    # Several uses of a weight are channels side by side.
    channels = sum(call.channels(delta).shape[1] for call, delta in uses)
    return LayerShape(name, m, outputs, size // outputs, channels, source)


class StreamedKernel:
    """``K = J Jᵀ`` at the current parameters, (R, R) in double precision, and products with J.

    Rows are scaled as those of :class:`whence.Jacobian`.

    Parameters
    ----------
    objective:
        Whose residuals.
    memory_budget:
        Bytes that kernel, factors and what a pass collects may take.

    Raises
    ------
    ValueError
        If the residual does not consist of layers of known kinds.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.streamed_kernel import StreamedKernel
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten())
    >>> images, targets = torch.rand(3, 1, 4, 4), torch.zeros(3, 8)
    >>> objective = wh.Objective.supervised(model, (images, targets), wh.Squared())
    >>> kernel = StreamedKernel(objective)
    >>> J = wh.Jacobian(objective, scaled=True).dense().double()
    >>> torch.allclose(kernel.gram, J @ J.T, atol=1e-6)
    True
    """

    def __init__(self, objective: Objective, memory_budget: int = 2**31) -> None:
        jacobian = Jacobian(objective, scaled=True)
        plan = stream_plan(jacobian, memory_budget)
        if plan is None:
            raise ValueError(
                "the kernel of a network that does not consist of layers of known kinds cannot be "
                "made layer by layer: use whence.ntk.TangentKernel"
            )
        self.objective = objective
        self.plan = plan
        self.size = plan.size
        self._jacobian = Jacobian(objective, scaled=True, chunk=self._chunk())
        self.right = jacobian.residual()
        """ρ with ``Jᵀρ = ∇L``, (R,)."""

        # K = Σ_layers J_l J_lᵀ: each group adds its part, and is forgotten.
        like = self.right
        self.gram = torch.zeros(
            (plan.rows, plan.rows), dtype=torch.float64, device=like.device
        )
        self._kept: Collected | None = None
        """What the only pass collected, where all layers fit in memory at once."""
        for group in plan.groups:
            collected = Collected(group, self.rows, plan.rows, plan.chunk_bytes)
            collected.add_products(collected, self.gram, lower=True)
            if len(plan.groups) == 1:
                self._kept = collected
        mirror(self.gram)

    def _chunk(self) -> int:
        """Return how many points go through the network at once."""
        terms = self.objective.terms.values()
        # By the cache and a batch size, not by rows, which are not made.
        at_once = min(linearized_at_once(term.points, 1) for term in terms)
        return min(at_once, self.plan.points_at_once)

    def rows(self) -> Iterator[RowBlock]:
        """Yield the rows of J, some points at a time."""
        for block, _ in self._jacobian.blocks():
            linear = block.linear
            assert isinstance(linear, LayerLinearization)
            yield RowBlock(linear, block.cotangents, block.start)

    def cross(self, source: Source, count: int) -> Tensor:
        """Return ``J Gᵀ`` for ``count`` other rows G, (R, count), in double precision."""
        total = self.gram.new_zeros(len(self.gram), count)
        chunk_bytes = self.plan.chunk_bytes
        for group in self.plan.groups:
            collected = self._kept
            if collected is None:
                collected = Collected(group, self.rows, len(total), chunk_bytes)
            others = Collected(group, source, count, chunk_bytes)
            collected.add_products(others, total, lower=False)
        return total

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return ``J V``, (P, K) to (R, K), each column by a pass forward through the network."""
        parts: dict[int, Tensor] = {}
        for block in self._outputs():
            columns = []
            for vector in vectors.unbind(1):
                # (∂z/∂θ)v of the outputs z, and Sᵀ of that: the rows' products.
                pushed = block.derivative.push(vector)  # (n, m)
                rows = [(c * pushed).sum(dim=1) for c in block.cotangents]
                columns.append(torch.stack(rows, dim=1).flatten())
            parts[block.start] = torch.stack(columns, dim=1)
        return torch.cat([parts[start] for start in sorted(parts)])

    def rmatmat(self, vectors: Tensor) -> Tensor:
        """Return ``Jᵀ Y``, (R, K) to (P, K), each column by a pass backward."""
        total = vectors.new_zeros(self.size, vectors.shape[1])
        for block in self._outputs():
            m = len(block.cotangents)
            n = len(block.derivative.value)
            for k, vector in enumerate(vectors.unbind(1)):
                # Jᵀy = (∂z/∂θ)ᵀ Σ_k y_k S_k: a combination of cotangents, and one pass backward.
                weights = vector[block.start : block.start + n * m].view(n, m)
                pairs = zip(block.cotangents, weights.unbind(1), strict=True)
                combined = sum(c * weight.unsqueeze(1) for c, weight in pairs)
                assert isinstance(combined, Tensor)
                total[:, k] += block.derivative.pull(combined)
        return total

    def _outputs(self) -> Iterator[_Outputs]:
        """Yield the derivative of the outputs at some points, with the cotangents of their rows."""
        jacobian = self._jacobian
        parameters = jacobian.parameters
        starts = jacobian.starts()
        for term in self.objective.terms.values():
            m = jacobian.components()[term.name]
            for block in term.blocks(self._chunk()):
                derivative = OutputDerivative(term.residual, parameters, block.points)
                cotangents = jacobian.cotangents(term, block, derivative.value)
                start = starts[term.name] + block.part.start * m
                yield _Outputs(derivative, cotangents, start)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """The outputs' derivative at some points, the cotangents of their rows, the first row."""

    derivative: OutputDerivative
    cotangents: Sequence[Tensor]
    start: int


class Collected:
    """What products of rows need of some layers, for all rows of a source."""

    def __init__(
        self,
        group: Iterable[LayerPart],
        source: Source,
        n_rows: int,
        chunk_bytes: int,
    ) -> None:
        self._table: Tensor | None = None
        self._spans: dict[LayerPart, slice] = {}
        self._factors: dict[LayerPart, KeptFactors] = {}
        self._by_name: dict[str, list[LayerPart]] = {}
        width = 0
        for part in group:
            self._by_name.setdefault(part.shape.name, []).append(part)
            if part.shape.is_kept_as_rows:
                self._spans[part] = slice(width, width + part.columns)
                width += part.columns
            else:
                self._factors[part] = KeptFactors(part, chunk_bytes)

        # No graph outlives the making of the next.
        for block in source():
            if self._table is None:
                self._table = block.linear.value.new_zeros(n_rows, width)
            self._collect(block, self._table)

    def add_products(self, other: Collected, total: Tensor, *, lower: bool) -> None:
        """Add the products of these rows with others', of these layers alone, to ``total``."""
        if self._table is None or other._table is None:
            return
        # Rows of all parts side by side make one product.
        add_row_products(self._table, other._table, total, lower=lower)
        for part, factors in self._factors.items():
            others = other._factors[part]
            if factors.pieces and others.pieces:
                factors.add_products(others, total, lower=lower)

    def _collect(self, block: RowBlock, table: Tensor) -> None:
        """Keep what is needed of the rows at some points."""
        calls = [call for call in block.linear.calls if self._is_wanted(call)]
        if not (calls and block.linear.graph.requires_grad):
            return
        m = len(block.cotangents)
        stop = block.start + block.n_points * m
        rows = table[block.start : stop].view(block.n_points, m, -1)

        uses: dict[str, list[tuple[Call, list[Tensor]]]] = {}
        for call, deltas in deltas_of(block.linear, calls, block.cotangents):
            if call.bias in self._by_name:
                self._add_bias(call, deltas, rows)
            if call.weight in self._by_name:
                uses.setdefault(call.weight, []).append((call, deltas))

        for name, of_weight in uses.items():
            for part in self._by_name[name]:
                self._keep(part, of_weight, block.start, rows)

    def _is_wanted(self, call: Call) -> bool:
        return call.weight in self._by_name or call.bias in self._by_name

    def _add_bias(self, call: Call, deltas: Sequence[Tensor], rows: Tensor) -> None:
        assert call.bias is not None
        for part in self._by_name[call.bias]:
            columns = rows[:, :, self._spans[part]]
            for k, delta in enumerate(deltas):
                columns[:, k] += call.channels(call.biased(delta)).sum(dim=1)

    def _keep(
        self,
        part: LayerPart,
        uses: Sequence[tuple[Call, Sequence[Tensor]]],
        start: int,
        rows: Tensor,
    ) -> None:
        """Keep a weight's rows at some points, or its factors."""
        if not part.shape.channels:
            for call, deltas in uses:
                for k, delta in enumerate(deltas):
                    columns = rows[:, k, self._spans[part]]
                    call.put_rows(columns, delta, call.source, first=False)
            return

        if not are_alike(call for call, _ in uses):
            raise ValueError(
                f"the parameter {part.shape.name!r} is used in one way by some points and in "
                "another by others, so that the kernel cannot be made layer by layer: raise "
                "memory_budget, so that rows fit"
            )
        # D of each use, joined along the channels, and a call for A without its graph.
        lefts = [outer_left(call, deltas, part.outputs) for call, deltas in uses]
        left = lefts[0] if len(lefts) == 1 else torch.cat(lefts, dim=3)
        kept = [(without_graph(call), call.source) for call, _ in uses]
        piece = Piece(left, kept)
        if not part.shape.is_kept_as_rows:
            self._factors[part].pieces.append((start, piece))
            return

        multiplied = piece.rows(slice(0, part.n_outputs))
        rows[:, :, self._spans[part]] = multiplied.view(len(rows), -1, part.columns)


def deltas_of(
    linear: LayerLinearization, calls: Sequence[Call], cotangents: Sequence[Tensor]
) -> Iterator[tuple[Call, list[Tensor]]]:
    """Yield calls with δ of each cotangent: backward passes go no further than they must."""
    passes = [linear.deltas_of(calls, cotangent) for cotangent in cotangents]

    for call, deltas in zip(calls, zip(*passes, strict=True), strict=True):
        reached = [delta for delta in deltas if delta is not None]
        if not reached:
            continue
        # What one cotangent does not reach has a row of zeros.
        zeros = torch.zeros_like(reached[0])
        yield call, [zeros if delta is None else delta for delta in deltas]


def are_alike(calls: Iterable[Call]) -> bool:
    """Whether the rows of all uses are ``Σ_c δ_c ⊗ a_c``, δ and a of the same widths in each.

    Of a transposed convolution it is the input that comes first, and of a weight that is used as it
    is and transposed the one or the other.
    """
    kinds = set()
    for call in calls:
        is_swapped = isinstance(call, SwappedLinearCall)
        is_plain = type(call).pair is Call.pair
        if not (call.outer and (is_plain or is_swapped)):
            return False
        kinds.add(is_swapped)
    return len(kinds) == 1
