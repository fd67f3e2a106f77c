"""What the page of a finished attribution may ask."""

from __future__ import annotations

from collections.abc import Mapping

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
from whence.explore.run_questions import members_of
from whence.explore.stored import StoredAnswers


class StoredQuestions:
    """The questions of an attribution: those of a run that need no network.

    Parameters
    ----------
    stored:
        What is explored.
    """

    page = "run.html"

    def __init__(self, stored: StoredAnswers) -> None:
        self._stored = stored

    def by_name(self) -> Mapping[str, Question]:
        """Return what answers each question."""
        stored = self._stored
        return {
            "runs": lambda _: json_reply([stored.run()]),
            "points": lambda _: array_reply(stored.points()),
            "targets": lambda _: array_reply(stored.targets()),
            "field": lambda asked: array_reply(stored.totals(text(asked, "of"))),
            "influence": self._influence,
            "point": self._point,
            "answer": self._answer,
            "region": self._region,
        }

    def _influence(self, asked: Parameters) -> Reply:
        of, at = text(asked, "of"), numbers(asked, "at")
        return array_reply(self._stored.influence_at(of, at))

    def _point(self, asked: Parameters) -> Reply:
        term, index, of = text(asked, "term"), whole(asked, "index"), text(asked, "of")
        return array_reply(self._stored.influence_of(term, index, of))

    def _answer(self, asked: Parameters) -> Reply:
        of, at = text(asked, "of"), numbers(asked, "at")
        return json_reply(self._stored.answer(of, at))

    def _region(self, asked: Parameters) -> Reply:
        of, at = text(asked, "of"), numbers(asked, "at")
        return json_reply(self._stored.region(members_of(asked), of, at))
