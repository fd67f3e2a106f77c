"""What the page of a run asks for, as plain data: what JSON can hold, and arrays of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from whence._files import JsonObject
from whence.attribution.quality import quality
from whence.explore import records
from whence.explore.fields import Fields
from whence.explore.session import Session
from whence.explore.slices import Slice
from whence.objective import Objective

CAN = (
    "any place",
    "field",
    "answer",
    "region",
    "exact",
    "history",
    "rounds",
    "spectra",
    "findings",
    "terms",
)
"""What the page may show of any run."""
RETRAIN = "retrain"
"""And of one with a folder, whose network is then trained on in a copy."""


class Answers:
    """A session as the page sees it.

    Parameters
    ----------
    session:
        What is explored.
    resolution:
        Places of a field along each side; by default 101 of a plane, 401 of a line.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.explore import Session
    >>> from whence.explore.answers import Answers
    >>> result = pinn.train(pinn.zoo.load("diffusion"), points=50, schedule=pinn.GaussNewton(10),
    ...                     progress=False)
    >>> answers = Answers(Session(result), resolution=11)
    >>> run = answers.run()
    >>> run["coordinates"], run["terms"], run["n_points"]
    (['x', 't'], ['pde'], 50)
    >>> answers.field("u").shape, answers.influence_at("u", [0.5, 0.25]).shape
    ((11, 11), (50,))
    """

    def __init__(self, session: Session, resolution: int | None = None) -> None:
        self.session = session
        self.fields = Fields(session.result)
        self._resolution = resolution
        self._first = Slice.of(session.result.problem, self.first_place())

    # --- what is there ---

    def run(self) -> JsonObject:
        """Return what the page needs to know before any question."""
        result = self.session.result
        problem = result.problem
        low, high = problem.domain.bounds
        has_folder = result.path is not None
        return {
            "title": problem.label,
            "name": result.path.name if result.path is not None else problem.label,
            "coordinates": list(problem.coordinates),
            "across": self._first.across,
            "up": self._first.up,
            "low": [float(value) for value in low],
            "high": [float(value) for value in high],
            "first": self.first_place().tolist(),
            "fields": self.fields.names(),
            "answers": self.fields.answers(),
            "terms": list(result.objective.terms),
            "n_points": result.objective.n_points,
            "summary": records.summary(result),
            "can": [*CAN, RETRAIN] if has_folder else list(CAN),
        }

    def first_place(self) -> np.ndarray:
        """Return the place that is explained first, (d,): the middle, or one within the domain."""
        domain = self.session.result.problem.domain
        low, high = domain.bounds
        middle = (low + high) / 2
        if domain.contains(middle[None])[0]:
            return np.asarray(middle, dtype=float)
        return np.asarray(domain.sample(1, "hammersley"), dtype=float)[0]

    def points(self) -> dict[str, np.ndarray]:
        """Return of every training point its coordinates, term, place, loss and round.

        Returns
        -------
        dict
            ``coordinates`` (n, d), ``term`` (n,) as places in the list of terms, ``index`` (n,),
            ``loss`` (n,): ``ℓ·w/N``, ``entered`` (n,), the iteration at which it came, −1 where
            that is not known, and ``residual`` (n,): ``‖r‖``.
        """
        objective = self.session.result.objective
        record = self.session.result.points or {}
        columns: dict[str, list[np.ndarray]] = {
            name: []
            for name in ("coordinates", "term", "index", "loss", "entered", "residual")
        }
        prepared = self.session.influence.prepare_points(None)
        losses = objective.point_losses()
        tensors = objective.parameters.tensors()
        for k, name in enumerate(objective.terms):
            rows = objective.locations(name).double().cpu().numpy()
            n = len(rows)
            weighted = losses[name].detach() * prepared.scale(name, slice(0, n))
            term = objective.terms[name]
            residuals = term.residual(tensors, term.points).detach()
            columns["coordinates"].append(rows)
            columns["term"].append(np.full(n, k))
            columns["index"].append(np.arange(n))
            columns["loss"].append(weighted.double().cpu().numpy())
            columns["entered"].append(records.entered(rows, record, name))
            columns["residual"].append(residuals.double().norm(dim=1).cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in columns.items()}

    # --- what is asked ---

    def field(self, name: str, cut: Slice | None = None) -> np.ndarray:
        """Return a field on a slice: (n,) of a line, (up, across) of a plane, NaN outside."""
        grid = self._cut(cut).grid(self.session.result.problem, self._resolution)
        if not len(grid.places):
            # A slice beside a domain that is no box.
            return grid.filled(np.zeros(0))
        return grid.filled(self.fields(name, grid.places))

    def influence_at(self, of: str, at: Sequence[float]) -> np.ndarray:
        """Return the influence of every training point on one answer, (n,)."""
        quantity = self.session.quantity(at, of)
        values, _ = self.session.gradients.influences(quantity)
        return values[0].double().cpu().numpy()

    def influence_of(
        self, term: str, index: int, of: str, cut: Slice | None = None
    ) -> np.ndarray:
        """Return the influence of a training point on an answer over a slice, as :meth:`field`."""
        grid = self._cut(cut).grid(self.session.result.problem, self._resolution)
        # A residual is only where its equation holds.
        is_there = self.fields.holds(of, grid.places)
        values = np.full(len(grid.places), np.nan)
        if is_there.any():
            places = grid.places[is_there]
            values[is_there] = self.session.influence_of(term, index, of, places).values
        return grid.filled(values)

    def answer(self, of: str, at: Sequence[float]) -> JsonObject:
        """Return the value of an answer, and in words how far its influences can be trusted."""
        quantity = self.session.quantity(at, of)
        value = quantity.values(self.session.result.objective)
        judged = quality(self.session.influence_at(at, of))
        # A network that diverged answers with what is no number.
        return {"value": records.finite(float(value[0])), "quality": str(judged)}

    def region(
        self, points: Mapping[str, Sequence[int]], of: str, at: Sequence[float]
    ) -> JsonObject:
        """Return what some training points are to an answer, see :class:`Region`."""
        members = {name: np.asarray(places) for name, places in points.items()}
        region = self.session.region(members, at, of)
        return {
            "size": region.size,
            "share": region.share,
            "first_order": region.first_order,
            "exact": region.exact,
        }

    def retrained(
        self, points: Mapping[str, Sequence[int]], of: str, at: Sequence[float]
    ) -> JsonObject:
        """Return how an answer really changes without some points, from a copy that trains on.

        The run is read again from its folder, so that whatever is asked meanwhile is answered by
        the network as it was.
        """
        result = self.session.result
        if result.path is None:
            raise ValueError(
                "only a run with a folder can be trained on: save it first"
            )
        copied = Session.of_run(result.path, result.problem)
        if not _are_same(copied.result.objective, result.objective):
            raise ValueError(
                f"{result.path} holds another network or other points by now: open it again"
            )
        members = {name: np.asarray(places) for name, places in points.items()}
        change = copied.retrained_without(members, at, of, progress=False)
        return {"measured": change}

    def between_terms(self) -> np.ndarray:
        """Return what removing all points of a term does to the loss of each, (loss, points)."""
        return self.session.between_terms().values

    def _cut(self, cut: Slice | None) -> Slice:
        """Return a slice, the first one if there is none."""
        return self._first if cut is None else cut


def _are_same(first: Objective, second: Objective) -> bool:
    """Whether two objectives have the same parameters and the same points."""
    if list(first.terms) != list(second.terms):
        return False
    pairs = [(first.parameters.vector(), second.parameters.vector())]
    pairs += [(first.locations(name), second.locations(name)) for name in first.terms]
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)
