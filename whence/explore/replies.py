"""Questions and replies as the server passes them on: parameters in, bytes of one kind out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import numpy as np

Parameters = Mapping[str, object]
"""What a question comes with: text from an address, any JSON from a body."""


@dataclass(frozen=True)
class Reply:
    """What is sent back.

    Parameters
    ----------
    body:
        The bytes.
    kind:
        Their media type.
    status:
        The HTTP status.
    """

    body: bytes
    kind: str
    status: HTTPStatus = HTTPStatus.OK


Question = Callable[[Parameters], Reply]
"""What answers one kind of question; what is wrong with it is a ``ValueError``."""


class Questions(Protocol):
    """What can be explored: the page that shows it, and what that page may ask."""

    page: str
    """Name of the page's file, such as ``"run.html"``."""

    def by_name(self) -> Mapping[str, Question]:
        """Return what answers each question, by the question's name."""
        ...


def json_reply(value: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    """Return a value as JSON; numbers that JSON has no name for are errors."""
    text = json.dumps(value, allow_nan=False)
    return Reply(text.encode(), "application/json", status)


def array_reply(values: np.ndarray) -> Reply:
    """Return numbers as float64 in little-endian order, row by row."""
    return Reply(values.astype("<f8").tobytes(), "application/octet-stream")


def text(parameters: Parameters, name: str) -> str:
    """Return a parameter that is a word."""
    value = parameters.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the question needs {name}=…")
    return value


def numbers(parameters: Parameters, name: str) -> list[float]:
    """Return a parameter that is one number or several, with commas between in an address."""
    value = parameters.get(name)
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (int, float)):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(f"the question needs numbers as {name}=…")
    return [float(number) for number in value]


def whole(parameters: Parameters, name: str) -> int:
    """Return a parameter that is one whole number."""
    value, *others = numbers(parameters, name)
    # Infinity is no whole number, and has no int().
    if others or not value.is_integer():
        raise ValueError(f"the question needs one whole number as {name}=…")
    return int(value)
