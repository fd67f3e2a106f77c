"""What the page asks for, as plain data: descriptions that JSON can hold, and arrays of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from whence._files import JsonObject
from whence.attribution.quality import quality
from whence.explore.session import Session
from whence.plots.plane import Plane

RESOLUTION = 101
"""Places of a displayed field along each side."""


class Answers:
    """A session as the page sees it: two coordinates to look at, the others held.

    Parameters
    ----------
    session:
        What is explored.
    resolution:
        Places of a field along each side.

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

    def __init__(self, session: Session, resolution: int = RESOLUTION) -> None:
        self.session = session
        problem = session.result.problem
        if len(problem.coordinates) != 2:
            raise ValueError(
                f"the explorer shows problems of two coordinates so far, got "
                f"{', '.join(problem.coordinates)}: use `whence influence` and `whence plot`"
            )
        self._plane = Plane.of(problem.coordinates, problem.time)
        self._grid = self._plane.grid(problem, resolution)

    # --- what is there ---

    def run(self) -> JsonObject:
        """Return what the page needs to know before any question."""
        result = self.session.result
        problem = result.problem
        low, high = problem.domain.bounds
        return {
            "title": problem.label,
            "coordinates": list(problem.coordinates),
            "across": self._plane.across,
            "up": self._plane.up,
            "low": [float(value) for value in low],
            "high": [float(value) for value in high],
            "outputs": list(problem.outputs),
            "fields": self.field_names(),
            "answers": self.answer_names(),
            "terms": list(result.objective.terms),
            "n_points": result.objective.n_points,
            "resolution": len(self._grid.horizontal),
            "summary": _summary(result.summary),
        }

    def answer_names(self) -> list[str]:
        """Return what can be explained: outputs, their first derivatives, residuals of terms."""
        problem = self.session.result.problem
        names = list(problem.outputs)
        for output in problem.outputs:
            names += [f"{output}_{c}" for c in problem.coordinates]
        # A residual of several components is several answers.
        singles = [name for name in problem.equations if self._is_single(name)]
        return [*names, *(name for name in singles if name not in names)]

    def field_names(self) -> list[str]:
        """Return what can be looked at: the answers, and errors where the solution is known."""
        names = self.answer_names()
        problem = self.session.result.problem
        if problem.solution is None:
            return names
        return [*names, *(f"error of {output}" for output in problem.outputs)]

    def _is_single(self, term: str) -> bool:
        """Whether a term's residual is one number at each point."""
        objective = self.session.result.objective
        if term not in objective.terms:
            return False
        some = objective.terms[term].points[:1]
        residual = objective.terms[term].residual(objective.parameters.tensors(), some)
        return residual.shape[1] == 1

    def points(self) -> dict[str, np.ndarray]:
        """Return of every training point its coordinates, term, place, loss and round.

        Returns
        -------
        dict
            ``coordinates`` (n, d), ``term`` (n,) as places in the list of terms, ``index`` (n,),
            ``loss`` (n,): ``ℓ·w/N``, and ``entered`` (n,), the iteration at which it came, −1
            where that is not known.
        """
        objective = self.session.result.objective
        record = self.session.result.points or {}
        columns: dict[str, list[np.ndarray]] = {
            name: [] for name in ("coordinates", "term", "index", "loss", "entered")
        }
        prepared = self.session.influence.prepare_points(None)
        losses = objective.point_losses()
        for k, name in enumerate(objective.terms):
            rows = objective.locations(name).double().cpu().numpy()
            n = len(rows)
            weighted = losses[name].detach() * prepared.scale(name, slice(0, n))
            columns["coordinates"].append(rows)
            columns["term"].append(np.full(n, k))
            columns["index"].append(np.arange(n))
            columns["loss"].append(weighted.double().cpu().numpy())
            columns["entered"].append(_entered(rows, record, name))
        return {name: np.concatenate(parts) for name, parts in columns.items()}

    # --- what is asked ---

    def field(self, name: str) -> np.ndarray:
        """Return a field on the display's grid, (up, across), NaN outside of the domain."""
        solution = self.session.result.solution
        problem = self.session.result.problem
        inside = self._grid.inside
        places = self._grid.points[inside.ravel()]
        errors = {f"error of {output}": k for k, output in enumerate(problem.outputs)}
        if name in errors:
            values = np.asarray(solution.error(places))[:, errors[name]]
        elif name in problem.equations and name not in problem.outputs:
            values = np.asarray(solution.residual(places, name))[:, 0]
        else:
            values = np.asarray(solution(places, name))[:, 0]
        return self._on_grid(values)

    def influence_at(self, of: str, at: Sequence[float]) -> np.ndarray:
        """Return the influence of every training point on one answer, (n,)."""
        quantity = self.session.quantity(at, of)
        values, _ = self.session.gradients.influences(quantity)
        return values[0].double().cpu().numpy()

    def influence_of(self, term: str, index: int, of: str) -> np.ndarray:
        """Return the influence of a training point on an answer over the grid, (up, across)."""
        places = self._grid.points[self._grid.inside.ravel()]
        field = self.session.influence_of(term, index, of, places)
        return self._on_grid(field.values)

    def answer(self, of: str, at: Sequence[float]) -> JsonObject:
        """Return the value of an answer, and in words how far its influences can be trusted."""
        row = self.session.influence_at(at, of)
        quantity = self.session.quantity(at, of)
        value = quantity.values(self.session.result.objective)
        judged = quality(row)
        return {"value": float(value[0]), "quality": str(judged)}

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

    def _on_grid(self, values: np.ndarray) -> np.ndarray:
        inside = self._grid.inside
        table = np.full(inside.shape, np.nan)
        table[inside] = values
        return table


def _entered(
    rows: np.ndarray, record: Mapping[str, np.ndarray], term: str
) -> np.ndarray:
    """Return the iteration at which each point came, −1 where the record has it not."""
    known = {}
    if f"{term}:entered" in record:
        pairs = zip(record[term], record[f"{term}:entered"], strict=True)
        known = {row.tobytes(): int(iteration) for row, iteration in pairs}
    return np.array([known.get(row.tobytes(), -1) for row in rows], dtype=int)


def _summary(summary: Mapping[str, object]) -> JsonObject:
    """Return the numbers of a run's summary that a reader looks for first."""
    wanted = ("relative_l2", "loss", "iterations", "seconds", "points", "stopped")
    return {name: summary[name] for name in wanted if name in summary}
