"""The points and weights that a run has stepped on: what its steps can be made again with."""

from __future__ import annotations

import functools
from bisect import bisect_right
from typing import Any

from torch import Tensor

from whence.objective import Objective
from whence.pinn.training.run_folder import Checkpoint
from whence.pinn.training.series import Series, is_same
from whence.term import Term

MAX_BYTES = 64 * 2**20
"""Memory for points and weights that changed: those of points that are weighted in every step
would fill it in no time."""
MAX_MADE = 8
"""Objectives of other points that are held at once: steps back go over a few at a time."""

POINTS = "points"
BASE_WEIGHTS = "base_weights"
WEIGHTS = "weights"

TOO_LARGE = (
    f"its points and weights changed so often that keeping them would take more than "
    f"{MAX_BYTES >> 20} MiB: train with fewer changes (every=, update_every=), or without weights "
    "of single points"
)
OLDER = (
    "it was begun by an older version of whence, whose folders keep the last points and weights "
    "only: train it again with this version, in another folder"
)
REMOVED = (
    "the file that said what the steps up to its last resume were made with was removed: train it "
    "again, in another folder"
)


class SteppedOn:
    """Points and weights of terms by the iteration from which on they were stepped on.

    Only what changes is kept, in the order in which it was, as long as it fits.

    Parameters
    ----------
    missing:
        Why not all of it is known; None where it is.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.training.stepped_on import SteppedOn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(20, seed=0))
    >>> stepped_on = SteppedOn()
    >>> stepped_on.note(0, objective)
    >>> stepped_on.note(20, objective)                   # nothing has changed
    >>> stepped_on.note(30, objective.with_weights({"pde": 2.0}))
    >>> objectives = stepped_on.objectives(objective)
    >>> objectives.begun, [objectives.at(t)[0].term("pde").weight for t in (29, 30)]
    ([0, 30], [1.0, 2.0])
    """

    def __init__(self, missing: str | None = None) -> None:
        self.missing = missing
        self._series: dict[tuple[str, str], Series] = {}
        """By kind and term."""
        self._last: Objective | None = None

    def note(self, iteration: int, objective: Objective) -> None:
        """Note what the steps from an iteration on are made with."""
        if self.missing is not None or objective is self._last:
            return
        self._last = objective
        for name, term in objective.terms.items():
            self._note_value(WEIGHTS, name, iteration, weight_of(term))
            self._note_value(BASE_WEIGHTS, name, iteration, term.base_weights)
            # Other points are part of their term.
            if term.source != "fixed":
                self._note_value(POINTS, name, iteration, term.locations)

        total = sum(series.n_bytes for series in self._series.values())
        if total > MAX_BYTES:
            # Without all of them nothing can be made again.
            self._series = {}
            self._last = None
            self.missing = TOO_LARGE

    def _note_value(
        self, kind: str, term: str, iteration: int, value: float | Tensor | None
    ) -> None:
        self._series.setdefault((kind, term), Series()).note(iteration, value)

    def before(self, iteration: int) -> SteppedOn:
        """Return what the steps before an iteration were made with."""
        earlier = SteppedOn(self.missing)
        for key, series in self._series.items():
            earlier._series[key] = series.before(iteration)
        return earlier

    def objectives(self, objective: Objective) -> Objectives:
        """Return what was stepped on, as objectives that differ from this one in it alone."""
        return Objectives(self._series, objective)

    # --- on disk ---

    def to_checkpoint(self) -> Checkpoint:
        """Return it as named tensors and plain numbers."""
        tensors = {}
        for (kind, name), series in self._series.items():
            # Base weights that no point ever had.
            if series.begun:
                for part, tensor in series.tensors().items():
                    tensors[f"{kind}.{part}/{name}"] = tensor
        return Checkpoint(tensors, {"missing": self.missing})

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> SteppedOn:
        """Return what :meth:`to_checkpoint` wrote.

        Raises
        ------
        KeyError, ValueError
            If something of it is missing, or does not fit the rest.
        """
        stepped_on = cls(checkpoint.numbers["missing"])
        for kind in (POINTS, BASE_WEIGHTS, WEIGHTS):
            values = checkpoint.group(f"{kind}.values")
            begun = checkpoint.group(f"{kind}.begun")
            sizes = checkpoint.group(f"{kind}.sizes")
            for name in values:
                parts = {
                    "values": values[name],
                    "begun": begun[name],
                    "sizes": sizes[name],
                }
                series = Series.from_tensors(parts)
                if kind != BASE_WEIGHTS and series.begun[:1] != [0]:
                    raise ValueError(f"{kind} of term {name!r} do not begin at 0")
                stepped_on._series[kind, name] = series
        return stepped_on


class Objectives:
    """The objectives that were stepped on, each made when it is asked for.

    Parameters
    ----------
    series:
        What changed, by kind and term.
    objective:
        One of the same terms, whose points and weights may be any.
    """

    def __init__(
        self, series: dict[tuple[str, str], Series], objective: Objective
    ) -> None:
        self._series = series
        self._objective = objective
        changes: set[int] = set()
        renewals: set[int] = set()
        for (kind, _), values in series.items():
            changes.update(values.begun)
            if kind != WEIGHTS:
                renewals.update(values.begun)

        self.begun = sorted(changes)
        """The iterations from which on each of them was stepped on."""
        self._renewals = sorted(renewals)
        # Weights change more often than points: those of the same points share them.
        self._at_points = functools.lru_cache(MAX_MADE)(self._with_points_of)

    def at(self, iteration: int) -> tuple[Objective, int | None]:
        """Return the objective of the step at an iteration, and until when it was stepped on.

        Until None: to the end.
        """
        later = bisect_right(self.begun, iteration)
        if not later:
            raise ValueError(f"nothing is known of iteration {iteration}")
        until = self.begun[later] if later < len(self.begun) else None

        renewed = bisect_right(self._renewals, iteration) - 1
        objective = self._at_points(self._renewals[renewed])
        weights = self._values_at(WEIGHTS, iteration)
        return objective.with_weights(weights), until

    def _with_points_of(self, iteration: int) -> Objective:
        """Return the objective with the points of an iteration, and the weights that are theirs."""
        points = self._values_at(POINTS, iteration)
        base_weights = self._values_at(BASE_WEIGHTS, iteration)
        renewed = {}
        for name, rows in points.items():
            term = self._objective.term(name)
            # Points of the same places stay: what is known of them is known by who they are.
            has_points = is_same(rows, term.locations)
            if not has_points or not is_same(base_weights.get(name), term.base_weights):
                renewed[name] = rows

        objective = self._objective.with_points(renewed)
        weights = {name: base_weights[name] for name in renewed if name in base_weights}
        return objective.with_base_weights(weights)

    def _values_at(self, kind: str, iteration: int) -> dict[str, Any]:
        """Return the values of a kind by term, as the parameters are in type and place."""
        parameters = self._objective.parameters
        values = {}
        for (other, name), series in self._series.items():
            value = series.at(iteration)
            if other != kind or value is None:
                continue
            if isinstance(value, Tensor):
                value = value.to(parameters.device, parameters.dtype)
            values[name] = value
        return values


def weight_of(term: Term) -> float | Tensor:
    """Return the weight of a term, or those of its points (N,) where they differ."""
    if term.point_weights is None:
        return term.weight
    return term.weight * term.point_weights
