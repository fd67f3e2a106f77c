"""Replay: the derivative of an answer by the weight of every training point, through training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from whence import _checks
from whence.attribution.arguments import PointsByTerm, PreparedPoints, TrainingPoints
from whence.attribution.labels import Attributes, Effect
from whence.attribution.method import Method
from whence.attribution.quantities import Loss, Quantity
from whence.attribution.tiles import Solved, Tile
from whence.catalogue import METHODS
from whence.curvature.solvers import MEMORY_BUDGET
from whence.objective import Objective
from whence.points import Points
from whence.replay.checkpointing import backwards, default_kept
from whence.replay.steps import Replayable, Steps
from whence.term import Term

COLUMN_COPIES = 4
"""Copies of the derivatives of an answer by a state that a step back holds."""


@METHODS.named()
class Replay(Method):
    """The exact effect of a training point's weight, through every step of the training.

    Entry (target f, point i) is ``−∂f/∂w_i`` at ``w = 1``, w_i the weight of the point's loss in
    every step that it was in: the change of f, to first order, when the same training is run
    without it, with the same start, order, batches, random numbers and learning rates. Nothing is
    assumed of a minimum or of convergence, so it holds for networks of any training (MAGIC:
    Ilyas & Engstrom 2025, arXiv 2504.16430; reverse replay: Maclaurin et al. 2015, arXiv
    1502.03492; with logarithmic checkpoints, see :mod:`whence.replay.checkpointing`).

    Parameters
    ----------
    run:
        A training that was recorded: by :func:`whence.train`, a :class:`whence.TrainingRecorder`,
        or :func:`whence.pinn.train`.
    kept:
        States of the training that are held at once, by default four for each doubling of the
        number of steps. More take memory and save steps taken again.
    memory_budget:
        Bytes that a result, or the derivatives by a state of all its targets, may take (2 GiB);
        where these exceed it targets are taken in parts, each with a replay of its own.

    Raises
    ------
    TypeError
        If the run was not recorded.
    ValueError
        If the training, taken again, leads to another network.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [0.5]])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=1, batch_size=2)
    >>> replay = wh.Replay(run)                  # θ = 0 + ¼ · (2w₁ + w₂)/2
    >>> replay.attribute(wh.Output(torch.ones(1, 1))).values
    array([[-0.25 , -0.125]])
    """

    name = "replay"
    scaled = False
    movable = False
    sums_over_parameters = False

    def __init__(
        self,
        run: Replayable,
        *,
        kept: int | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        if not isinstance(run, Replayable):
            raise TypeError(
                "a replay needs a training that was recorded, with the order of its data: train "
                "by wh.train(model, data, loss, optimizer, epochs=...), record your own loop by "
                "wh.TrainingRecorder, or use pinn.train, got "
                f"{_checks.describe(run)}"
            )
        super().__init__(run.objective, memory_budget=memory_budget)
        if kept is not None:
            _checks.count("kept", kept)
        self.run = run
        self.kept = kept
        self._steps: Steps | None = None

    def transform_gradients(self, gradients: Tensor) -> tuple[Tensor, Solved]:
        """Return the gradients as they are: what is pulled back through the steps."""
        return gradients, Solved()

    def description(self) -> Attributes:
        """Return how many steps the training had, and how many states were held."""
        steps = self.steps()
        return {
            "steps": steps.n_steps,
            "states_held": self.n_kept(),
            "scale": "change caused by leaving the point out of every step",
        }

    def steps(self) -> Steps:
        """Return the steps of the training; made at first use."""
        if self._steps is None:
            self._steps = self.run.steps()
        return self._steps

    def n_kept(self) -> int:
        """Return how many states are held at once."""
        if self.kept is not None:
            return self.kept
        return default_kept(self.steps().n_steps)

    # --- results ---

    def tiles(
        self,
        quantity: Quantity,
        points: PointsByTerm | None = None,
        effect: Effect = "remove",
    ) -> Iterator[Tile]:
        """Yield the effects on some targets at a time, each time by a replay."""
        prepared = self.prepare_points(points)
        columns = self._columns(prepared)
        # A derivative by a weight is the effect of adding.
        sign = 1.0 if effect == "add" else -1.0

        ended = self._objective_at_end()
        first = 0
        for gradients in self._gradients(quantity, ended):
            by_weight = self._by_weight(ended, gradients)  # (K, N)
            targets = slice(first, first + len(gradients))
            values = sign * by_weight[:, columns]
            yield Tile(targets, slice(0, len(prepared)), values)
            first = targets.stop

    def whole_tiles(
        self, quantity: Quantity, points: PointsByTerm | None, effect: Effect
    ) -> Iterator[Tile] | None:
        """Return all tiles: a replay is of all points at once."""
        return self.tiles(quantity, points, effect)

    def self_values(
        self, points: PointsByTerm | None
    ) -> Iterator[tuple[Tensor, Solved]]:
        """Yield the effects of points on their own losses, by one replay for all of them."""
        columns = self._columns(self.prepare_points(points))
        every_point = []
        # Targets are all training points, in the order of the points.
        for tile in self.tiles(Loss()):
            places = torch.arange(tile.targets.start, tile.targets.stop)
            every_point.append(tile.values[range(len(places)), places])
        yield torch.cat(every_point)[columns], Solved()

    def prepare_points(self, points: PointsByTerm | None) -> PreparedPoints:
        """Return the training points, or some of them; others had no part in the training."""
        if points is not None and not isinstance(
            points, (TrainingPoints, PreparedPoints)
        ):
            raise ValueError(
                "a replay knows the points of the training alone: leave points= out, or name some "
                "of them by wh.TrainingPoints(indices)"
            )
        return super().prepare_points(points)

    def _columns(self, prepared: PreparedPoints) -> Tensor:
        """Return the places of points among all training points."""
        # Terms follow one another, in the order of the objective.
        starts = {}
        start = 0
        for name, term in self.objective.data_terms.items():
            starts[name] = start
            start += len(term.points)
        places = [starts[name] + rows for name, rows in prepared.index().items()]
        return torch.from_numpy(np.concatenate(places))

    def _objective_at_end(self) -> Objective:
        """Return the objective of the network that the training ended in."""
        steps = self.steps()
        return steps.objective_at(steps.end())

    def _gradients(self, quantity: Quantity, ended: Objective) -> Iterator[Tensor]:
        """Yield gradients of targets (K, P), as many as memory allows for one replay."""
        # A column is a derivative by the whole state, of which the optimizer holds copies.
        size = ended.parameters.size
        row_bytes = size * ended.parameters.dtype.itemsize
        at_once = max(1, self.memory_budget // (COLUMN_COPIES * row_bytes))
        waiting: list[Tensor] = []
        for block in quantity.gradients(ended):
            for part in block.split(at_once):
                if waiting and sum(map(len, waiting)) + len(part) > at_once:
                    yield torch.cat(waiting)
                    waiting = []
                waiting.append(part.clone())
        if waiting:
            yield torch.cat(waiting)

    def _by_weight(self, ended: Objective, gradients: Tensor) -> Tensor:
        """Return ``∂f/∂w`` of K targets by the weights of all N training points, (K, N)."""
        steps = self.steps()
        cotangent = steps.cotangent_of(ended, gradients)
        # Points that a step was not made with get nothing from it.
        totals = {}
        for name, term in self.objective.data_terms.items():
            totals[name] = gradients.new_zeros(len(gradients), len(term.points))

        going_back = backwards(
            steps.advance, steps.start(), steps.n_steps, self.n_kept()
        )
        bar = tqdm(
            going_back, "replay", steps.n_steps, unit="step", delay=2, leave=False
        )
        for t, state in bar:
            # The last step comes first, and its end is known: a wrong replay ends here.
            if t == steps.n_steps - 1:
                steps.check_end(steps.advance(state, t, t + 1))
            pulled = steps.pull_back(t, state, cotangent)
            cotangent = pulled.cotangent
            for name, (places, values) in pulled.by_point.items():
                total = totals[name]
                total.index_add_(1, places.to(total.device), values)
        return torch.cat(list(totals.values()), dim=1)

    def self_products(self, term: Term, points: Points) -> tuple[Tensor, Solved]:
        """Raise: points are not taken apart, see :meth:`self_values`."""
        raise NotImplementedError("a replay is of all points at once")
