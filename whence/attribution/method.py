"""What all attribution methods share: targets by points, in tiles, labelled, with one sign.

A method says how a target's gradient becomes a vector that is multiplied with the gradients of
the training points. Everything else, parts, sums, labels and what goes to disk, is made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence.attribution.labels import Coordinates, point_coordinates, target_coordinates
from whence.attribution.quantities import Quantity, aggregate_gradient
from whence.curvature.solvers import RowSolution, Solution
from whence.jacobian import gradient_products, point_gradients
from whence.objective import Objective
from whence.points import MAX_ROW_BYTES, Points, blocks, linearized_at_once
from whence.term import Term

if TYPE_CHECKING:
    import xarray as xr

    from whence.attribution.result import Attribution

Effect = Literal["remove", "add", "perturb"]
TARGET_BLOCK = 512

SIGN = {
    "remove": "predicted change of the target when the point is removed from training",
    "add": "predicted change of the target when the point is added to training",
    "perturb": "predicted change of the target by each unit that the point's input is moved",
}


@dataclass(frozen=True)
class Solved:
    """How well several systems were solved: as well as the worst of them."""

    residual: float = 0.0
    converged: bool = True
    message: str = ""

    def and_also(self, solution: Solution | RowSolution | Solved) -> Solved:
        """Return the same with one more."""
        residual = float(
            np.maximum(self.residual, solution.residual)
        )  # which keeps a NaN
        message = self.message or getattr(solution, "message", "")
        return Solved(residual, self.converged and solution.converged, message)


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of an attribution: ``values`` (t, n) at these targets and points."""

    targets: slice
    points: slice
    values: Tensor
    solved: Solved = Solved()


@dataclass(frozen=True, eq=False)
class Stage:
    """A state of the network that counts by ``factor``; ``at()`` puts it there for a while."""

    factor: float = 1.0
    at: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True, eq=False)
class Total:
    """The sum of a quantity's targets, as one target."""

    quantity: Quantity

    def label(self) -> str:
        """Return ``sum of`` and the quantity."""
        return f"sum of {self.quantity.label()}"

    def values(self, objective: Objective) -> Tensor:
        """Return the sum, (1,)."""
        return self.quantity.values(objective).sum().unsqueeze(0)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the sum's gradient, (1, P), without keeping those of the targets."""
        yield aggregate_gradient(self.quantity, objective).unsqueeze(0)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the sum's name."""
        return {"quantity": np.asarray([self.label()])}


class Method(ABC):
    """A way to attribute quantities to training points.

    Every method has the same sign: entry (target, point) is the predicted change of the target
    when the point is *removed* from training, so for a loss positive means that the point helps;
    ``effect="add"`` is its negative. Unless a method says otherwise its entries carry the factor
    w/N of a point in the objective.
    """

    name: ClassVar[str]
    scaled: ClassVar[bool] = True
    movable: ClassVar[bool] = True
    """Whether its entries are changes that have a derivative by a point's input."""

    def __init__(self, objective: Objective, memory_budget: int) -> None:
        if not isinstance(objective, Objective):
            raise TypeError(
                "what to attribute must be an Objective, such as problem.objective(...) or "
                f"wh.Objective.supervised(model, data, loss), got {_checks.describe(objective)}"
            )
        _checks.positive("memory_budget", memory_budget)
        self.objective = objective
        self.memory_budget = memory_budget

    # --- what a method is ---

    @abstractmethod
    def _applied(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return what targets' gradients (P, K) become before they meet those of points."""

    def _stages(self) -> Sequence[Stage]:
        return (Stage(),)

    def _products(self, term: Term, points: Points, vectors: Tensor) -> Tensor:
        """Return ``∇ℓ(z)ᵀ V`` of some points, (n, K)."""
        return gradient_products(term, self.objective.parameters, points, vectors)

    def _description(self) -> dict[str, str | int | float]:
        """Return what the attributes of a result say of the method."""
        return {}

    # --- what comes of it ---

    def attribute(
        self,
        quantity: Quantity,
        points: Any = None,
        effect: Effect = "remove",
        *,
        out: str | Path | None = None,
    ) -> Attribution:
        """Return the effect of every point on every target.

        Parameters
        ----------
        quantity:
            What to explain, see :mod:`whence.attribution.quantities`.
        points:
            Points by term, or alone where there is one term; by default the training points.
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
            quality, and ``quality()`` puts it in words.

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
        _check(quantity, effect)
        chosen = self._chosen(points)
        if effect == "perturb":
            from whence.attribution.perturbation import perturbation

            return perturbation(self, quantity, chosen, out)
        if out is not None:
            from whence.attribution.storage import stored

            return stored(self, quantity, chosen, effect, Path(out))  # type: ignore[return-value]
        shape = self._rows_of(quantity), count(chosen)
        self._check_size(*shape)
        matrix = self.objective.parameters.vector().new_empty(shape)
        solved = Solved()
        for tile in self.shown(self.tiles(quantity, points, effect), shape):
            matrix[tile.targets, tile.points] = tile.values
            solved = solved.and_also(tile.solved)
        return self.labelled(
            matrix.detach().cpu().numpy(), quantity, chosen, effect, solved
        )

    def attribute_blocks(
        self,
        quantity: Quantity,
        points: Any = None,
        effect: Effect = "remove",
        block: int = TARGET_BLOCK,
    ) -> Iterator[Tensor]:
        """Yield the same matrix in blocks of targets, each (block, n), for what exceeds memory."""
        _check(quantity, effect)
        _checks.count("block", block)
        columns = count(self._chosen(points))
        whole = _whole_rows(self.tiles(quantity, points, effect), columns)
        yield from _regrouped(whole, block)

    def attribute_sum(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> xr.DataArray:
        """Return the effect of every point on the *sum* of the targets, dimension (point,).

        One product ``J v`` and no row of a candidate: a million candidates cost memory for their
        coordinates only.
        """
        _check(quantity, effect)
        return self.attribute(Total(quantity), points, effect).isel(target=0, drop=True)

    def self_influence(self, points: Any = None) -> xr.DataArray:
        """Return the effect of every point on its own loss, dimension (point,).

        The diagonal of ``attribute(wh.Loss())``, without the rest: how much a point's own fit
        hangs on it. Points that stand against all others, as wrong labels do, have the largest
        (Koh & Liang 2017, section 5.4; Pruthi et al. 2020, section 5.1).
        """
        chosen = self._chosen(points)
        parts, solved = [], Solved()
        total = tqdm(
            total=count(chosen),
            desc="self-influence",
            unit="point",
            delay=2,
            leave=False,
        )
        for name, part, scale in self._parts(chosen):
            value, found = self._self_products(self.objective.terms[name], part)
            parts.append(value * scale)
            solved = solved.and_also(found)
            total.update(len(part))
        total.close()
        values = torch.cat(parts).cpu().numpy()[None]
        labelled = self.labelled(values, None, chosen, "remove", solved)
        return labelled.isel(target=0).assign_attrs(quantity="the point's own loss")

    def _self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        total, solved = None, Solved()
        for stage in self._stages():
            with stage.at():
                found = point_gradients(
                    term, self.objective.parameters, points, len(points)
                )
                for _, linear, seed in found:
                    rows = linear.rows(seed)
                    vectors, one = self._applied(rows.T)
                    value = stage.factor * (rows * vectors.T).sum(dim=1)
                    total = value if total is None else total + value
                    solved = solved.and_also(one)
        assert total is not None
        return total, solved

    def tiles(
        self, quantity: Quantity, points: Any = None, effect: Effect = "remove"
    ) -> Iterator[Tile]:
        """Yield an attribution in tiles that fit in memory, for reductions of any kind."""
        chosen = self._chosen(points)
        sign = -1.0 if effect == "add" else 1.0
        for targets, vectors, solved in self._directions(quantity):
            first = 0
            for name, part, scale in self._parts(chosen):
                values = self._summed(self.objective.terms[name], part, vectors)
                scaled = values.T * (sign * scale)
                yield Tile(targets, slice(first, first + len(part)), scaled, solved)
                first += len(part)

    def _summed(
        self, term: Term, points: Points, vectors: Sequence[tuple[Stage, Tensor]]
    ) -> Any:
        values: Any = 0.0
        for stage, vector in vectors:
            with stage.at():
                values = values + self._products(term, points, vector)
        return values

    def _directions(
        self, quantity: Quantity
    ) -> Iterator[tuple[slice, list[tuple[Stage, Tensor]], Solved]]:
        """Yield, for some targets at a time, the vectors (P, K) of each stage, factor included."""
        stages, first = self._stages(), 0
        blocks = [self._packed_gradients(quantity) for _ in stages]
        while True:
            vectors, solved = [], Solved()
            for stage, gradients in zip(stages, blocks, strict=True):
                with stage.at():
                    block = next(gradients, None)
                    if block is None:
                        return
                    applied, found = self._applied(block.T)
                    # A block is a buffer that the next one overwrites; each is used before that.
                    vectors.append(
                        (
                            stage,
                            applied if stage.factor == 1 else applied * stage.factor,
                        )
                    )
                    solved = solved.and_also(found)
            targets = slice(first, first + vectors[0][1].shape[1])
            yield targets, vectors, solved
            first = targets.stop

    def _packed_gradients(self, quantity: Quantity) -> Iterator[Tensor]:
        return packed(quantity.gradients(self.objective), self._block_size(quantity))

    def _block_size(self, quantity: Quantity) -> int:
        """Return how many targets' gradients to hold at a time."""
        size = self.objective.parameters.dtype.itemsize * self.objective.parameters.size
        fit = MAX_ROW_BYTES // (size * len(self._stages()))
        return max(1, min(self._rows_of(quantity), fit, TARGET_BLOCK))

    def _rows_of(self, quantity: Quantity) -> int:
        return len(next(iter(quantity.targets(self.objective).values())))

    def _parts(
        self, chosen: Mapping[str, Points]
    ) -> Iterator[tuple[str, Points, float | Tensor]]:
        """Yield term, points and their factors: w/N, times its own weight for a training point."""
        for name, given in chosen.items():
            term = self.objective.terms[name]
            trained = given is term.points
            size = linearized_at_once(given, self.objective.parameters.size)
            for block in blocks(given, size):
                scale = term.scales(block.part) if trained else term.scale
                yield name, block.points, scale if self.scaled else 1.0

    def _check_size(self, rows: int, columns: int) -> None:
        needed = rows * columns * self.objective.parameters.dtype.itemsize
        if needed > self.memory_budget:
            raise MemoryError(
                f"{rows} targets × {columns} points need {needed / 2**30:.1f} GiB, above the "
                f"memory budget of {self.memory_budget / 2**30:.1f} GiB: give out='name.zarr', use "
                "attribute_blocks, attribute_sum or whence.attribution.reductions, or raise "
                "memory_budget"
            )

    def _chosen(self, points: Any) -> dict[str, Points]:
        terms = self.objective.terms
        if points is None:
            return {name: term.points for name, term in terms.items()}
        is_mapping = isinstance(points, Mapping)
        # A mapping of samples may be their keyword inputs.
        is_by_term = is_mapping and not self.objective.has_samples
        if not is_by_term and not _by_term(points, terms):
            if len(terms) > 1:
                raise ValueError(
                    f"the objective has terms {', '.join(terms)}: give points by term, such as "
                    f"{{{next(iter(terms))!r}: points}}"
                )
            points = {next(iter(terms)): points}
        for name in points:
            self.objective.term(name)
        return {
            name: self.objective.prepare(f"the points of term {name!r}", given, name)
            for name, given in points.items()
        }

    def shown(self, tiles: Iterator[Tile], shape: tuple[int, int]) -> Iterator[Tile]:
        """Yield the same tiles with a progress bar, if they take over two seconds."""
        bar = tqdm(
            total=shape[0] * shape[1], desc=self.name, unit="entry", unit_scale=True, delay=2,
            leave=False,
        )  # fmt: skip
        with bar:
            for tile in tiles:
                yield tile
                bar.update(tile.values.numel())

    def labelled(
        self,
        matrix: Any,
        quantity: Quantity | None,
        points: Mapping[str, Points],
        effect: str,
        solved: Solved,
        dims: Sequence[str] = ("target", "point"),
        coords: Mapping[str, Any] | None = None,
    ) -> Attribution:
        """Return a matrix with the labels of its targets and points, and what made it."""
        from whence.attribution.result import Attribution  # xarray is slow to import

        return Attribution(
            matrix,
            dims=dims,
            coords={**self.coordinates(quantity, points), **(coords or {})},
            name="influence",
            attrs=self.attributes(quantity, effect, solved),
        ).set_xindex("term")

    def coordinates(
        self, quantity: Quantity | None, points: Mapping[str, Points]
    ) -> Coordinates:
        """Return what is known of targets and points."""
        targets = quantity.targets(self.objective) if quantity is not None else {}
        index = {name: np.arange(len(given)) for name, given in points.items()}
        return {
            **target_coordinates(targets),
            **point_coordinates(self.objective, points, index),
        }

    def attributes(
        self, quantity: Quantity | None, effect: str, solved: Solved
    ) -> dict[str, Any]:
        """Return what the attributes of a result say."""
        return {
            "method": self.name,
            "quantity": quantity.label() if quantity is not None else "",
            "effect": effect,
            "sign": SIGN[effect],
            "scale": "w/N: change caused by one point" if self.scaled else "none",
            **(
                {"mode": "evaluation: no dropout, running statistics"}
                if self.objective.has_samples
                else {}
            ),
            **self._description(),
        }


def _by_term(points: Any, terms: Mapping[str, Term]) -> bool:
    return (
        isinstance(points, Mapping)
        and bool(points)
        and all(name in terms for name in points)
    )


def count(points: Mapping[str, Points]) -> int:
    """Return the number of points of all terms."""
    return sum(len(given) for given in points.values())


def _check(quantity: object, effect: str) -> None:
    if not isinstance(quantity, Quantity):
        raise TypeError(
            "what to explain must be a quantity, such as wh.Output(points) or wh.Loss(), got "
            f"{quantity!r}"
        )
    _checks.one_of("effect", effect, tuple(SIGN))


def _whole_rows(tiles: Iterator[Tile], columns: int) -> Iterator[Tensor]:
    """Yield blocks of targets with all their points from tiles that have only some."""
    held: Tensor | None = None
    for tile in tiles:
        if tile.values.shape[1] == columns:
            yield tile.values
            continue
        if held is None:
            held = tile.values.new_empty(len(tile.values), columns)
        held[:, tile.points] = tile.values
        if tile.points.stop == columns:
            yield held
            held = None


def _regrouped(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows ``size`` at a time."""
    held: list[Tensor] = []
    for block in blocks:
        for part in block.split(size):
            held.append(part)
            if sum(len(h) for h in held) >= size:
                joined = torch.cat(held)
                yield joined[:size]
                held = [joined[size:]] if len(joined) > size else []
    if held:
        yield torch.cat(held)


def packed(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows ``size`` at a time, in one buffer that the next of them overwrite."""
    buffer, held = torch.empty(0), 0
    for block in blocks:
        if not len(buffer):
            buffer = block.new_empty(size, block.shape[1])
        start = 0
        while start < len(block):
            taken = min(len(block) - start, size - held)
            buffer[held : held + taken] = block[start : start + taken]
            start, held = start + taken, held + taken
            if held == size:
                yield buffer
                held = 0
    if held:
        yield buffer[:held]
