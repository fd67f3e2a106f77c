"""What the page of a run may ask, each question from its parameters to a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from whence._files import JsonObject
from whence.explore import records
from whence.explore.answers import Answers
from whence.explore.jobs import Jobs
from whence.explore.replies import (
    Parameters,
    Question,
    Reply,
    array_reply,
    json_reply,
    numbers,
    text,
    whole,
)
from whence.explore.slices import Slice
from whence.pinn.training.result import Result

POINT_COLUMNS = ("term", "index", "loss", "entered", "residual")
"""Columns of points that follow their coordinates."""


class RunQuestions:
    """The questions of one run of a PINN, or of two that are compared.

    Parameters
    ----------
    runs:
        What is explored. Of several, coordinates and outputs are the same.

    Raises
    ------
    ValueError
        If runs that are compared differ in coordinates or outputs.
    """

    page = "run.html"

    def __init__(self, *runs: Answers) -> None:
        check_comparable(runs)
        self._runs = runs
        self._jobs = Jobs()

    def by_name(self) -> Mapping[str, Question]:
        """Return what answers each question."""
        return {
            "runs": lambda _: json_reply([answers.run() for answers in self._runs]),
            "points": self._points,
            "field": self._field,
            "influence": self._influence,
            "point": self._point,
            "answer": self._answer,
            "region": self._region,
            "retrain": self._retrain,
            "job": lambda asked: json_reply(self._jobs.state(whole(asked, "number"))),
            "terms": lambda asked: array_reply(self._run(asked).between_terms()),
            "rounds": lambda asked: array_reply(records.rounds(self._result(asked))),
            "history": self._record(records.history),
            "spectra": self._record(records.spectra),
            "findings": self._record(records.findings),
        }

    def _run(self, asked: Parameters) -> Answers:
        """Return the run that is asked about, the first if none is named."""
        number = whole(asked, "run") if "run" in asked else 0
        if not 0 <= number < len(self._runs):
            raise ValueError(f"there is no run {number}")
        return self._runs[number]

    def _result(self, asked: Parameters) -> Result:
        return self._run(asked).session.result

    def _record(self, read: Callable[[Result], JsonObject]) -> Question:
        """Return a question that is answered from the run's record."""
        return lambda asked: json_reply(read(self._result(asked)))

    def _points(self, asked: Parameters) -> Reply:
        return array_reply(point_table(self._run(asked)))

    def _field(self, asked: Parameters) -> Reply:
        return array_reply(self._run(asked).field(text(asked, "of"), slice_of(asked)))

    def _influence(self, asked: Parameters) -> Reply:
        of, at = text(asked, "of"), numbers(asked, "at")
        return array_reply(self._run(asked).influence_at(of, at))

    def _point(self, asked: Parameters) -> Reply:
        term, index, of = text(asked, "term"), whole(asked, "index"), text(asked, "of")
        answers = self._run(asked)
        return array_reply(answers.influence_of(term, index, of, slice_of(asked)))

    def _answer(self, asked: Parameters) -> Reply:
        of, at = text(asked, "of"), numbers(asked, "at")
        return json_reply(self._run(asked).answer(of, at))

    def _region(self, asked: Parameters) -> Reply:
        answers = self._run(asked)
        of, at = text(asked, "of"), numbers(asked, "at")
        return json_reply(answers.region(members_of(asked), of, at))

    def _retrain(self, asked: Parameters) -> Reply:
        """Begin the check of a region by training on without it; its number is returned."""
        answers, points = self._run(asked), members_of(asked)
        of, at = text(asked, "of"), numbers(asked, "at")
        number = self._jobs.start(lambda: answers.retrained(points, of, at))
        return json_reply({"number": number})


def point_table(answers: Answers) -> np.ndarray:
    """Return the training points as columns: coordinates, then those of ``POINT_COLUMNS``."""
    points = answers.points()
    columns = [*points["coordinates"].T]
    columns += [points[name] for name in POINT_COLUMNS]
    return np.stack([column.astype(float) for column in columns])


def check_comparable(runs: Sequence[Answers]) -> None:
    """Raise ``ValueError`` unless runs have the same coordinates and outputs."""
    first, *others = (answers.session.result.problem for answers in runs)
    for other in others:
        for what in ("coordinates", "outputs"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise ValueError(
                    f"runs that are compared need the same {what}, got {', '.join(ours)} of "
                    f"{first.label} and {', '.join(theirs)} of {other.label}"
                )


def slice_of(asked: Parameters) -> Slice | None:
    """Return the slice that a question names: ``axes``, across or across,up, and ``through``."""
    if "axes" not in asked:
        return None
    across, *up = (whole({"axes": axis}, "axes") for axis in numbers(asked, "axes"))
    if len(up) > 1:
        raise ValueError("a slice has one axis or two: axes=across or axes=across,up")
    return Slice(across, up[0] if up else None, tuple(numbers(asked, "through")))


def members_of(asked: Parameters) -> Mapping[str, Sequence[int]]:
    """Return the points of a region by term."""
    points = asked.get("points")
    if not isinstance(points, Mapping):
        raise ValueError("a region is given as {points: {TERM: [index, …]}}")
    return points
