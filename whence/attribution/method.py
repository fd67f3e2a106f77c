"""What all attribution methods share: targets by points, in tiles, labelled, with one sign.

A method says how a target's gradient becomes a vector that is multiplied with the gradients of
the training points. Everything else, parts, sums, labels and what goes to disk, is made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
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
from whence.attribution.perturbation import feature_names, input_changes
from whence.attribution.quantities import Quantity
from whence.attribution.quantities.several import Quantities, as_quantity
from whence.attribution.quantities.total import Total
from whence.attribution.storage import read_zarr, write_zarr
from whence.attribution.tiles import (
    Directions,
    PointBlock,
    Solved,
    Stage,
    Tile,
    packed,
    regrouped,
    whole_rows,
)
from whence.curvature.solvers import MEMORY_BUDGET
from whence.jacobian import gradient_products, point_gradients
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.points import MAX_ROW_BYTES, Points, blocks, linearized_at_once
from whence.samples import Data
from whence.term import Term

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

COPIES = 8
"""Matrices of the size of a block of gradients that working on it may take."""
TARGET_BLOCK = 1024
"""Gradients that are transformed at once, where memory allows it."""


class Method(ABC):
    """A way to attribute quantities to training points.

    Every method has the same sign: entry (target, point) is the predicted change of the target
    when the point is *removed* from training, so for a loss positive means that the point helps;
    ``effect="add"`` is its negative. Unless a method says otherwise its entries carry the factor
    w/N of a point in the objective.

    A method of one's own is a subclass with a ``name`` and :meth:`transform_gradients`. It may
    also define :meth:`stages`, for several states of the network, :meth:`products`, for what is
    multiplied at a point, and :meth:`description`, for what results say of it.

    Parameters
    ----------
    objective:
        What was trained: an :class:`whence.Objective`; or a model, with ``data`` and ``loss``.
    data:
        Of a model, what it was trained on, as in :meth:`whence.Objective.supervised`.
    loss:
        Of a model, what it was trained for: a loss of whence, of ``torch.nn``, or a function
        ``(outputs, targets) -> (n,)``.
    parameters:
        Of a model, which parameters to attribute by: a pattern on names, several, a module.
    weight_decay:
        Of a model, c of the penalty ``(c/2)‖θ‖²`` that it was trained with.
    memory_budget:
        Bytes that a result may take (2 GiB).

    Raises
    ------
    TypeError
        If an objective comes with data or loss, a model without, or it is neither.

    Examples
    --------
    Gradients scaled to length one, multiplied with the gradients of points:

    >>> import torch, whence as wh
    >>> from whence.attribution.method import Method
    >>> from whence.attribution.tiles import Solved
    >>> class Projections(Method):
    ...     name = "projections"
    ...
    ...     def transform_gradients(self, gradients):
    ...         return gradients / gradients.norm(dim=0), Solved()
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])
    >>> method = Projections(model, (x, y), wh.Squared())     # gradients −2 and −8; 1/N = 1/2
    >>> method.attribute(wh.Loss()).values
    array([[1., 4.],
           [1., 4.]], dtype=float32)
    """

    name: ClassVar[str]
    """How results refer to the method."""
    scaled: ClassVar[bool] = True
    """Whether entries carry the factor w/N of a point."""
    movable: ClassVar[bool] = True
    """Whether entries are changes that have a derivative with respect to a point's input."""

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

    # --- results ---

    def attribute(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
        *,
        out: str | Path | None = None,
    ) -> Attribution:
        """Return the effect of every point on every target.

        Parameters
        ----------
        quantity:
            What to explain, see :mod:`whence.attribution.quantities`; a list explains several at
            once, ``quantity`` of a target says which, and what is solved for serves all.
        points:
            Points by term, or alone where there is one term: tensors, NumPy arrays, lists, data
            frames, samples; by default the training points. :class:`whence.TrainingPoints` names
            some of these by their indices.
        effect:
            ``"remove"`` or ``"add"``; ``"perturb"`` for moving the points' inputs, with a third
            dimension for the numbers of an input, and as change by unit of each.
        out:
            A new zarr folder to write the result into, tile by tile; what is returned reads from
            it when numbers are used, see :func:`whence.attribution.storage.read_zarr`.

        Returns
        -------
        Attribution
            An xarray.DataArray with dimensions (target, point). Coordinates of points under their
            own names, of targets with ``target_`` in front; ``term`` and ``index`` (within its
            term) of each point; attributes say method, sign, scale and what is known of the
            quality, and ``quality()`` puts it in words. ``top()``, ``bottom()``, ``by_term()``
            and ``plot()`` are where to look first.

        Raises
        ------
        MemoryError
            If the result exceeds ``memory_budget`` and there is no ``out``, before any work:
            :meth:`attribute_blocks` yields it in parts, :meth:`attribute_sum` needs no matrix.
        ValueError
            If the points do not suit the objective, or the effect is not known to the method.
        FileExistsError
            If there is something at ``out``.
        """
        quantity = _checked(quantity, effect)
        prepared = self.prepare_points(points)
        if effect == "perturb":
            changes, features, solved = self._changes_by_moves(quantity, prepared, out)
            return self.labelled(
                changes,
                quantity,
                prepared,
                effect,
                solved,
                dims=("target", "point", "feature"),
                coords={"feature": ("feature", features)},
            )
        if out is not None:
            return self._attribute_to_disk(quantity, points, effect, Path(out))

        shape = (self.n_targets(quantity), len(prepared))
        self.check_size(*shape)
        matrix = self.objective.parameters.vector().new_empty(shape)
        solved = Solved()
        tiles = self.tiles(quantity, points, effect)
        for tile in self.with_progress(tiles, shape):
            matrix[tile.targets, tile.points] = tile.values
            solved = solved.worst_with(tile.solved)

        values = matrix.detach().cpu().numpy()
        return self.labelled(values, quantity, prepared, effect, solved)

    def _changes_by_moves(
        self,
        quantity: Quantity,
        prepared: PreparedPoints,
        out: str | Path | None,
    ) -> tuple[np.ndarray, np.ndarray, Solved]:
        """Return changes by unit of every number of an input, (T, n, d), and its d names."""
        if out is not None:
            raise ValueError(
                "effect='perturb' is kept in memory: leave out= away, or ask for fewer"
            )
        if not self.movable:
            raise ValueError(
                f"{self.name} does not predict a change, so there is none by unit of an input: use "
                "wh.Influence, wh.TracIn or wh.GradDot"
            )

        features = feature_names(self.objective, prepared.by_term)
        columns = len(prepared) * len(features)
        self.check_size(self.n_targets(quantity), columns)
        changes, solved = input_changes(
            self.objective,
            self.target_directions(quantity),
            lambda: self.blocks_of(prepared),
        )
        return changes.cpu().numpy(), features, solved

    def _attribute_to_disk(
        self,
        quantity: Quantity,
        points: PointsByTerm | None,
        effect: Effect,
        out: Path,
    ) -> Attribution:
        prepared = self.prepare_points(points)
        shape = (self.n_targets(quantity), len(prepared))
        tiles = self.tiles(quantity, points, effect)
        write_zarr(
            out,
            self.with_progress(tiles, shape),
            shape,
            self.objective.parameters.dtype,
            self.coordinates(quantity, prepared),
            lambda solved: self.attributes(quantity, effect, solved),
        )
        return read_zarr(out)

    def attribute_blocks(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
        block: int = TARGET_BLOCK,
    ) -> Iterator[Tensor]:
        """Yield the same matrix in blocks of targets, each (block, n), for what exceeds memory."""
        quantity = _checked(quantity, effect)
        _checks.count("block", block)
        columns = len(self.prepare_points(points))
        rows = whole_rows(self.tiles(quantity, points, effect), columns)
        yield from regrouped(rows, block)

    def attribute_sum(
        self,
        quantity: Quantities,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Attribution:
        """Return the effect of every point on the *sum* of the targets, dimension (point,).

        One product ``J v`` and no row of a candidate: a million candidates cost memory for their
        coordinates only.
        """
        quantity = _checked(quantity, effect)
        attribution = self.attribute(Total(quantity), points, effect)
        return attribution.isel(target=0, drop=True)

    def self_influence(self, points: PointsByTerm | None = None) -> Attribution:
        """Return the effect of every point on its own loss, dimension (point,).

        The diagonal of ``attribute(wh.Loss())``, without the rest: how much a point's own fit
        hangs on it. Points that stand against all others, as wrong labels do, have the largest
        (Koh & Liang 2017, section 5.4; Pruthi et al. 2020, section 5.1).
        """
        prepared = self.prepare_points(points)
        parts = []
        solved = Solved()
        progress = tqdm(
            total=len(prepared),
            desc="self-influence",
            unit="point",
            delay=2,
            leave=False,
        )
        with progress:
            for values, quality in self.self_values(points):
                parts.append(values)
                solved = solved.worst_with(quality)
                progress.update(len(values))

        matrix = torch.cat(parts).cpu().numpy()[None]  # (1, n)
        labelled = self.labelled(matrix, None, prepared, "remove", solved)
        return labelled.isel(target=0).assign_attrs(quantity="the point's own loss")

    # --- how results are made ---

    def self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the effects of points on their own losses, some points at a time, in order."""
        for block in self.blocks_of(self.prepare_points(points)):
            values, solved = self.self_products(block.term, block.points)
            yield values * block.scale, solved

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield an attribution in tiles that fit in memory, for reductions of any kind."""
        prepared = self.prepare_points(points)
        sign = -1.0 if effect == "add" else 1.0
        for directions in self.target_directions(quantity):
            for block in self.blocks_of(prepared):
                total: Any = 0.0
                for stage, vectors in directions.vectors:
                    with stage.at():
                        total = total + self.products(block.term, block.points, vectors)

                values = total.T * (sign * block.scale)  # (t, n)
                yield Tile(directions.targets, block.part, values, directions.solved)

    def target_directions(self, quantity: Quantity) -> Iterator[Directions]:
        """Yield, for some targets at a time, the vectors of each stage, its factor included."""
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
                    transformed, quality = self.transform_gradients(block.T)

                if stage.factor != 1:
                    transformed = transformed * stage.factor
                # A block is a buffer that the next one overwrites; each is used before that.
                vectors.append((stage, transformed))
                solved = solved.worst_with(quality)

            targets = slice(first, first + vectors[0][1].shape[1])
            yield Directions(targets, vectors, solved)
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
        fit = room // (row_bytes * len(self.stages()))
        return max(1, min(fit, TARGET_BLOCK))

    def prepare_points(self, points: PointsByTerm | None) -> PreparedPoints:
        """Return checked points by term, with their factors; of ``None`` the training points."""
        return prepare_points(self.objective, points)

    def n_targets(self, quantity: Quantity) -> int:
        """Return the number of targets of a quantity."""
        columns = quantity.targets(self.objective).values()
        return len(next(iter(columns)))

    def blocks_of(self, prepared: PreparedPoints) -> Iterator[PointBlock]:
        """Yield points by term in blocks that can be linearized at once."""
        first = 0
        for name, points in prepared.by_term.items():
            term = self.objective.terms[name]
            size = linearized_at_once(points, self.objective.parameters.size)
            for block in blocks(points, size):
                scale: float | Tensor = 1.0
                if self.scaled:
                    scale = prepared.scale(name, block.part)
                part = slice(first, first + len(block))
                yield PointBlock(term, block.points, part, scale)
                first = part.stop

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

    def labelled(
        self,
        matrix: np.ndarray,
        quantity: Quantity | None,
        points: PreparedPoints,
        effect: Effect,
        solved: Solved,
        dims: Sequence[str] = ("target", "point"),
        coords: Coordinates | None = None,
    ) -> Attribution:
        """Return a matrix with the labels of its targets and points, and what made it."""
        from whence.attribution.result import Attribution  # xarray is slow to import

        coordinates = self.coordinates(quantity, points)
        attribution = Attribution(
            matrix,
            dims=dims,
            coords={**coordinates, **(coords or {})},
            name="influence",
            attrs=self.attributes(quantity, effect, solved),
        )
        return attribution.set_xindex("term")

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


def _checked(quantities: object, effect: str) -> Quantity:
    """Return what to explain as one quantity."""
    quantity = as_quantity(quantities)
    _checks.one_of("effect", effect, tuple(SIGN))
    return quantity
