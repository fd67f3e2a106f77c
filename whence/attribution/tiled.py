"""How attributions are made: a method's tiles of targets by points, and what they are called.

Results of any kind are reductions of these tiles: a matrix in memory, one on disk, the extremes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from tqdm import tqdm

from whence import _checks
from whence.attribution.arguments import (
    PointsByTerm,
    PreparedPoints,
    objective_of,
    prepare_points,
)
from whence.attribution.labels import (
    SIGN,
    Attributes,
    Coordinates,
    Effect,
    point_coordinates,
    target_coordinates,
)
from whence.attribution.quantities import Quantity
from whence.attribution.tiles import (
    Directions,
    PointBlock,
    Solved,
    Stage,
    Tile,
    packed,
)
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import LARGE_NETWORK, gradient_products, point_gradients
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import (
    MAX_ROW_BYTES,
    Points,
    blocks,
    evaluated_at_once,
    linearized_at_once,
)
from whence.samples import Data
from whence.term import Term

COPIES = 8
"""Matrices of the size of a block of gradients that working on it may take."""
TARGET_BLOCK = 1024
"""Gradients that are transformed at once, where memory allows it."""
CHUNK_TARGETS = 64
"""At most as many targets have a chunk on disk."""


class Tiled(ABC):
    """What is multiplied with what, in which parts; see :class:`whence.attribution.method.Method`.

    Parameters
    ----------
    objective, data, loss, parameters, weight_decay, memory_budget:
        As in :class:`whence.attribution.method.Method`.
    """

    name: ClassVar[str]
    """How results refer to the method."""
    scaled: ClassVar[bool] = True
    """Whether entries carry the factor w/N of a point."""
    movable: ClassVar[bool] = True
    """Whether entries are changes that have a derivative with respect to a point's input."""

    sums_over_parameters: ClassVar[bool] = True
    """Whether entries are products of targets' vectors with points' gradients, and no more."""

    def __init__(
        self,
        objective: Objective | nn.Module,
        data: Data | None = None,
        loss: LossLike | None = None,
        *,
        parameters: Select = None,
        weight_decay: float | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        who = type(self).__name__
        self.objective = objective_of(
            who, objective, data, loss, parameters, weight_decay
        )
        _checks.positive("memory_budget", memory_budget)
        self.memory_budget = memory_budget

    # --- what a subclass defines ---

    @abstractmethod
    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return what targets' gradients (P, K) become before they meet those of points.

        Influence functions solve with the curvature; products of gradients change nothing. The
        second entry says how well systems were solved; ``Solved()`` where there are none.
        """

    def stages(self) -> Sequence[Stage]:
        """Return the states of the network over which entries are summed: as it is."""
        return (Stage(),)

    def products(self, term: Term, points: Points, vectors: Tensor) -> Tensor:
        """Return ``∇ℓ(z)ᵀ V`` of some points, (n, K), for vectors (P, K)."""
        return gradient_products(term, self.objective.parameters, points, vectors)

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Return the entry of each point for its own loss, (n,), without the factor w/N."""
        total: Tensor | None = None
        solved = Solved()
        for stage in self.stages():
            with stage.at():
                # All points in one block, as each stage adds to all of them.
                ((_, linear, cotangent),) = point_gradients(
                    term, self.objective.parameters, points, len(points)
                )
                rows = linear.rows(cotangent)  # ∇ℓ(z), (n, P)
                vectors, quality = self.transform_gradients(rows.T)
                values = stage.factor * (rows * vectors.T).sum(dim=1)
            total = values if total is None else total + values
            solved = solved.worst_with(quality)

        assert total is not None
        return total, solved

    def description(self) -> Attributes:
        """Return what the attributes of a result say of the method, beside its name."""
        return {}

    # --- tiles ---

    def self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the effects of points on their own losses, some points at a time, in order."""
        whole = self.whole_self_values(points)
        if whole is not None:
            yield from whole
            return
        for block in self.blocks_of(self.prepare_points(points)):
            values, solved = self.self_products(block.term, block.points)
            yield values * block.scale, solved

    def whole_self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]] | None:
        """Return what :meth:`self_values` yields where points are solved for together."""
        return None

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield an attribution in tiles that fit in memory, for reductions of any kind."""
        whole = self.whole_tiles(quantity, points, effect)
        if whole is not None:
            yield from whole
            return
        prepared = self.prepare_points(points)
        for directions in self.target_directions(quantity):
            yield from self.tiles_along(directions, prepared, effect)
            # Before the next are solved for, which take as much memory again.
            del directions

    def whole_tiles(
        self, quantity: Quantity, points: PointsByTerm | None, effect: Effect
    ) -> Iterator[Tile] | None:
        """Return tiles with all points where these are solved for together, else None."""
        return None

    def has_directions(self) -> bool:
        """Whether tiles are products of targets' directions with points, not made otherwise."""
        return type(self).tiles is Tiled.tiles

    def tiles_along(
        self, directions: Directions, prepared: PreparedPoints, effect: Effect
    ) -> Iterator[Tile]:
        """Yield the tiles of the targets of some directions."""
        sign = -1.0 if effect == "add" else 1.0
        for block in self.blocks_of(prepared, self.multiplied_at_once):
            total: Any = 0.0
            for stage, vectors in directions.vectors:
                with stage.at():
                    total = total + self.products(block.term, block.points, vectors)

            values = total.T * (sign * block.scale)  # (t, n)
            yield Tile(directions.targets, block.part, values, directions.solved)

    def for_products(self) -> Tiled:
        """Return the method as workers need it where directions are there: without factors."""
        return self

    def for_solving(self) -> Tiled:
        """Return the method as workers need it to solve, its factors made."""
        return self

    def warn(self, attributes: Attributes) -> None:  # noqa: B027 - most have nothing to say
        """Warn of what the attributes of a result say against it."""

    def target_directions(
        self, quantity: Quantity, start: int = 0
    ) -> Iterator[Directions]:
        """Yield, for some targets at a time, the vectors of each stage, its factor included.

        Nothing is solved for those before ``start``, which must be the first of some.
        """
        stages = self.stages()
        gradients = [self.packed_gradients(quantity) for _ in stages]
        first = 0
        while True:
            vectors = []
            solved = Solved()
            for stage, of_stage in zip(stages, gradients, strict=True):
                # The gradients are those in this state, so the generator runs on within it.
                with stage.at():
                    block = next(of_stage, None)
                    if block is None:
                        return
                    n_targets = len(block)
                    if first < start:
                        continue
                    transformed, quality = self.transform_gradients(block.T)

                if stage.factor != 1:
                    transformed = transformed * stage.factor
                # A block is a buffer that the next one overwrites; each is used before that.
                vectors.append((stage, transformed))
                solved = solved.worst_with(quality)

            targets = slice(first, first + n_targets)
            if vectors:
                yield Directions(targets, vectors, solved)
                # Nor may they be held here meanwhile.
                del vectors, transformed
            first = targets.stop

    def packed_gradients(self, quantity: Quantity) -> Iterator[Tensor]:
        """Yield a quantity's gradients, as many targets at a time as memory allows."""
        size = max(1, min(self.n_targets(quantity), self.at_once()))
        return packed(quantity.gradients(self.objective), size)

    def at_once(self) -> int:
        """Return how many gradients to transform at once, by memory."""
        parameters = self.objective.parameters
        row_bytes = parameters.dtype.itemsize * parameters.size
        # Solving for a block of gradients takes several matrices of its size.
        room = min(MAX_ROW_BYTES, self.memory_budget // COPIES)
        fit = min(TARGET_BLOCK, room // (row_bytes * len(self.stages())))
        # Whole chunks of a result on disk, where there is one at least.
        if fit > CHUNK_TARGETS:
            fit -= fit % CHUNK_TARGETS
        return max(1, fit)

    def prepare_points(self, points: PointsByTerm | None) -> PreparedPoints:
        """Return checked points by term, with their factors; of ``None`` the training points."""
        return prepare_points(self.objective, points)

    def n_targets(self, quantity: Quantity) -> int:
        """Return the number of targets of a quantity."""
        columns = quantity.targets(self.objective).values()
        return len(next(iter(columns)))

    def blocks_of(
        self,
        prepared: PreparedPoints,
        size_of: Callable[[Points], int] | None = None,
    ) -> Iterator[PointBlock]:
        """Yield points by term in blocks, by default those that can be linearized at once."""
        size_of = size_of or self.block_size
        first = 0
        for name, points in prepared.by_term.items():
            term = self.objective.terms[name]
            for block in blocks(points, size_of(points)):
                scale: float | Tensor = 1.0
                if self.scaled:
                    scale = prepared.scale(name, block.part)
                part = slice(first, first + len(block))
                yield PointBlock(term, block.points, part, scale)
                first = part.stop

    def block_size(self, points: Points) -> int:
        """Return how many of these points go through the network at once."""
        return linearized_at_once(points, self.objective.parameters.size)

    def multiplied_at_once(self, points: Points) -> int:
        """Return how many of these points meet vectors at once; products see to their rows."""
        # Of a large network a row is a block by itself, and to begin one costs a pass.
        if self.objective.parameters.size >= LARGE_NETWORK:
            return evaluated_at_once(points)
        return self.block_size(points)

    def check_size(self, rows: int, columns: int) -> None:
        """Raise ``MemoryError`` if a matrix of this size exceeds the memory budget."""
        needed = rows * columns * self.objective.parameters.dtype.itemsize
        if needed > self.memory_budget:
            raise MemoryError(
                f"{rows} targets × {columns} points need {needed / 2**30:.1f} GiB, above the "
                f"memory budget of {self.memory_budget / 2**30:.1f} GiB: give out='name.zarr', use "
                "attribute_blocks, attribute_sum or whence.attribution.reductions, or raise "
                "memory_budget"
            )

    def with_progress(
        self, tiles: Iterator[Tile], shape: tuple[int, int]
    ) -> Iterator[Tile]:
        """Yield the same tiles with a progress bar, if they take over two seconds."""
        rows, columns = shape
        progress = tqdm(
            total=rows * columns,
            desc=self.name,
            unit="entry",
            unit_scale=True,
            delay=2,
            leave=False,
        )
        with progress:
            for tile in tiles:
                yield tile
                progress.update(tile.values.numel())

    # --- labels ---

    def coordinates(
        self, quantity: Quantity | None, points: PreparedPoints
    ) -> Coordinates:
        """Return what is known of targets and points."""
        targets = {}
        if quantity is not None:
            targets = quantity.targets(self.objective)
        of_points = point_coordinates(self.objective, points.by_term, points.index())
        return {**target_coordinates(targets), **of_points}

    def attributes(
        self, quantity: Quantity | None, effect: Effect, solved: Solved
    ) -> Attributes:
        """Return what the attributes of a result say."""
        attributes: Attributes = {
            "method": self.name,
            "quantity": "" if quantity is None else quantity.label(),
            "effect": effect,
            "sign": SIGN[effect],
            "scale": "w/N: change caused by one point" if self.scaled else "none",
        }
        if self.objective.has_samples:
            attributes["mode"] = "evaluation: no dropout, running statistics"
        return {**attributes, **self.description()}
