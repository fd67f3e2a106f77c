"""A value that changes in training, with the iterations from which on it was what it was."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import torch
from torch import Tensor

Value = float | Tensor | None

NUMBER = -1
"""Size of a value that is one number, as tensors name it."""
NOTHING = 0
"""Size of a value that is absent."""
NUMBER_BYTES = 64
"""Memory that a number takes in a list, with its iteration."""


class Series:
    """Values of something by the iteration from which on each of them counts.

    Examples
    --------
    >>> from whence.pinn.training.series import Series
    >>> weight = Series()
    >>> for iteration, value in [(0, 1.0), (10, 1.0), (20, 5.0)]:
    ...     weight.note(iteration, value)
    >>> weight.begun, weight.at(19), weight.at(20)         # nothing changed at 10
    ([0, 20], 1.0, 5.0)
    >>> Series.from_tensors(weight.tensors()).at(20)
    5.0
    """

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.n_bytes = 0
        self._values: list[Value] = []

    def note(self, iteration: int, value: Value) -> None:
        """Note what the value is from an iteration on, which none noted before is after."""
        if self.begun and self.begun[-1] == iteration:
            # No step was taken with what was noted there.
            self.begun.pop()
            self.n_bytes -= bytes_of(self._values.pop())
        if is_same(value, self._values[-1] if self._values else None):
            return
        self.begun.append(iteration)
        self._values.append(value)
        self.n_bytes += bytes_of(value)

    def at(self, iteration: int) -> Value:
        """Return the value of the step at an iteration; None where nothing was noted."""
        count = bisect_right(self.begun, iteration)
        return self._values[count - 1] if count else None

    def before(self, iteration: int) -> Series:
        """Return the series of the steps before an iteration."""
        earlier = Series()
        count = bisect_left(self.begun, iteration)
        for begun, value in zip(self.begun[:count], self._values[:count], strict=True):
            earlier.begun.append(begun)
            earlier._values.append(value)
            earlier.n_bytes += bytes_of(value)
        return earlier

    # --- as tensors ---

    def tensors(self) -> dict[str, Tensor]:
        """Return ``begun`` (k,), ``sizes`` (k,), and the rows of all ``values`` one after another.

        A size is −1 for a number, which takes one row, and 0 for nothing.
        """
        sizes = []
        rows: list[Tensor] = []
        numbers: list[float] = []
        for value in self._values:
            if isinstance(value, Tensor):
                sizes.append(len(value))
                rows += [as_rows(numbers), value.detach().cpu()]
                numbers = []
            elif value is None:
                sizes.append(NOTHING)
            else:
                sizes.append(NUMBER)
                numbers.append(value)

        # Numbers that follow each other in one piece, as there may be a hundred thousand.
        rows.append(as_rows(numbers))
        parts = [part for part in rows if len(part)]
        return {
            "begun": torch.tensor(self.begun, dtype=torch.int64),
            "sizes": torch.tensor(sizes, dtype=torch.int64),
            "values": torch.cat(parts) if parts else as_rows([]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Series:
        """Return the series that :meth:`tensors` was of.

        Raises
        ------
        KeyError
            If a tensor is missing.
        ValueError
            If sizes do not fit the values, or iterations are not in order.
        """
        begun = tensors["begun"].tolist()
        sizes = tensors["sizes"].tolist()
        values = tensors["values"]
        n_rows = sum(abs(size) for size in sizes)
        is_ordered = begun == sorted(set(begun)) and min(begun, default=0) >= 0
        fits = len(begun) == len(sizes) and n_rows == len(values)
        if not is_ordered or not fits or min(sizes, default=0) < NUMBER:
            raise ValueError("iterations, sizes and values do not fit each other")

        series = cls()
        has_rows = any(size > NOTHING for size in sizes)
        numbers = [] if has_rows else values.tolist()
        start = 0
        for iteration, size in zip(begun, sizes, strict=True):
            value: Value = None
            if size == NUMBER:
                value = float(values[start]) if has_rows else numbers[start]
            elif size != NOTHING:
                value = values[start : start + size]
            start += abs(size)
            series.note(iteration, value)
        return series


def as_rows(numbers: list[float]) -> Tensor:
    """Return numbers as a tensor, a row each."""
    return torch.tensor(numbers, dtype=torch.float64)


def bytes_of(value: Value) -> int:
    """Return the memory that a value takes."""
    if isinstance(value, Tensor):
        return value.numel() * value.itemsize
    return NUMBER_BYTES


def is_same(value: Value, other: Value) -> bool:
    """Whether two values are equal, to the last bit."""
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        if value is other:
            return True
        return value.dtype == other.dtype and torch.equal(value, other)
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return False
    return value == other
