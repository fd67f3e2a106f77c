"""What the page of a run may ask, each question from its parameters to a reply."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from whence.explore.answers import Answers
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


class RunQuestions:
    """The questions of a run of a PINN.

    Parameters
    ----------
    answers:
        What is explored.
    """

    page = "run.html"

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def by_name(self) -> Mapping[str, Question]:
        """Return what answers each question."""
        answers = self._answers
        return {
            "run": lambda _: json_reply(answers.run()),
            "points": self._points,
            "field": lambda asked: array_reply(answers.field(text(asked, "of"))),
            "influence": self._influence,
            "point": self._point,
            "answer": self._answer,
            "region": self._region,
        }

    def _points(self, asked: Parameters) -> Reply:
        """Columns one after the other: coordinates, term, index, loss, iteration of entry."""
        points = self._answers.points()
        columns = [*points["coordinates"].T, points["term"], points["index"]]
        columns += [points["loss"], points["entered"]]
        return array_reply(np.stack([column.astype(float) for column in columns]))

    def _influence(self, asked: Parameters) -> Reply:
        values = self._answers.influence_at(text(asked, "of"), numbers(asked, "at"))
        return array_reply(values)

    def _point(self, asked: Parameters) -> Reply:
        index, term = whole(asked, "index"), text(asked, "term")
        return array_reply(self._answers.influence_of(term, index, text(asked, "of")))

    def _answer(self, asked: Parameters) -> Reply:
        return json_reply(self._answers.answer(text(asked, "of"), numbers(asked, "at")))

    def _region(self, asked: Parameters) -> Reply:
        points = asked.get("points")
        if not isinstance(points, Mapping):
            raise ValueError("a region is given as {points: {TERM: [index, …]}}")
        of, at = text(asked, "of"), numbers(asked, "at")
        return json_reply(self._answers.region(points, of, at))
