"""What the page of a supervised model may ask, each question from its parameters to a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from whence.evaluation.bad_data import By
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
from whence.explore.sample_answers import SampleAnswers
from whence.explore.sample_session import Reduce


class SampleQuestions:
    """The questions of a supervised model.

    Parameters
    ----------
    answers:
        What is explored.
    """

    page = "samples.html"

    def __init__(self, answers: SampleAnswers) -> None:
        self._answers = answers

    def by_name(self) -> Mapping[str, Question]:
        """Return what answers each question."""
        answers = self._answers
        return {
            "model": lambda _: json_reply(answers.model()),
            "training": lambda _: array_reply(answers.training()),
            "tests": self._tests,
            "inputs": self._inputs,
            "influence": self._influence,
            "sample": self._sample,
            "confusion": lambda _: json_reply(answers.confusion()),
            "classes": self._classes,
            "suspects": self._suspects,
        }

    def _tests(self, parameters: Parameters) -> Reply:
        start, count, label, predicted = _page(parameters)
        order = text(parameters, "order")
        return json_reply(self._answers.tests(start, count, order, label, predicted))

    def _inputs(self, parameters: Parameters) -> Reply:
        of, size = text(parameters, "of"), text(parameters, "size")
        indices = numbers(parameters, "indices")
        if not all(index.is_integer() for index in indices):
            raise ValueError("the question needs whole numbers as indices=…")
        places = [int(index) for index in indices]
        return array_reply(self._answers.inputs(of, places, size))

    def _influence(self, parameters: Parameters) -> Reply:
        return array_reply(self._answers.influence(whole(parameters, "sample")))

    def _sample(self, parameters: Parameters) -> Reply:
        return json_reply(self._answers.sample(whole(parameters, "sample")))

    def _classes(self, parameters: Parameters) -> Reply:
        # A reduction that is none is said to be so where it is used.
        reduce = cast(Reduce, text(parameters, "reduce"))
        return json_reply(self._answers.by_class(reduce))

    def _suspects(self, parameters: Parameters) -> Reply:
        start, count, label, predicted = _page(parameters)
        by = cast(By, text(parameters, "by"))
        return json_reply(self._answers.suspects(by, start, count, label, predicted))


def _page(parameters: Parameters) -> tuple[int, int, int | None, int | None]:
    """Return which samples are wanted: the first, how many, and their groups if that matters."""
    start, count = whole(parameters, "start"), whole(parameters, "count")
    label = whole(parameters, "label") if "label" in parameters else None
    predicted = whole(parameters, "predicted") if "predicted" in parameters else None
    return start, count, label, predicted
