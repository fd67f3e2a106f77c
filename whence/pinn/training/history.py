"""The history of a run: a row for each logged iteration, a table that reads like a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from whence import _checks
from whence._files import JsonObject, digest

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("iteration", "seconds", "stage", "points", "loss", "validation_loss")
"""Columns of every history; beside them it has loss_TERM and, given a reference, relative_l2."""

Cell = int | float | str
"""A number, or the name of a stage."""


class History(Sequence[JsonObject]):
    """Rows by number, columns by name.

    Examples
    --------
    >>> from whence.pinn.training.history import History
    >>> history = History([{"iteration": 0, "loss": 2.0}, {"iteration": 5, "loss": 0.5}])
    >>> history[-1]["loss"], history["loss"], history.columns
    (0.5, array([2. , 0.5]), ('iteration', 'loss'))
    >>> print(history)
       iteration  loss
    0          0   2.0
    1          5   0.5
    """

    def __init__(self, rows: Iterable[JsonObject] = ()) -> None:
        self._rows = list(rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order of first appearance."""
        return columns_of(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[JsonObject]:
        return iter(self._rows)

    @overload
    def __getitem__(self, key: int) -> JsonObject: ...

    @overload
    def __getitem__(self, key: slice) -> History: ...

    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            _checks.one_of("column of the history", key, self.columns)
            # A row may lack a column, as empty cells of the file are left out.
            return np.asarray([row.get(key, np.nan) for row in self._rows])
        if isinstance(key, slice):
            return History(self._rows[key])
        return self._rows[key]

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with a row for each logged iteration."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self._rows, columns=list(self.columns))

    def append(self, row: JsonObject) -> None:
        """Add a row."""
        self._rows.append(row)

    def truncate(self, n_rows: int) -> None:
        """Forget all but the first rows."""
        del self._rows[n_rows:]

    def at_iteration(self, iteration: int) -> JsonObject:
        """Return the last row of an iteration."""
        # Of two rows at one iteration the later one has the state that was kept.
        for row in reversed(self._rows):
            if row["iteration"] == iteration:
                return row
        raise ValueError(f"the history has no row at iteration {iteration}")

    def digest(self, n_rows: int | None = None) -> str:
        """Return a digest of the first rows, the same before writing and after reading them."""
        rows = self._rows if n_rows is None else self._rows[:n_rows]
        # Sorted, as reading may put a row's columns into another order.
        return digest(*(repr(sorted(row.items())) for row in rows))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (History, list)):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if not self._rows:
            return "History(no rows)"
        return repr(self.to_frame())

    def _repr_html_(self) -> str:
        html: str = self.to_frame()._repr_html_()
        return html


def columns_of(rows: Iterable[Mapping[str, Cell]]) -> tuple[str, ...]:
    """Return the names of the columns, in order of first appearance."""
    names: dict[str, None] = {}  # a dict keeps the order, a set does not
    for row in rows:
        names |= dict.fromkeys(row)
    return tuple(names)


def to_csv(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return rows as CSV, columns in order of first appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def from_csv(text: str) -> History:
    """Return the rows of a history; numbers as numbers, empty cells left out.

    Raises
    ------
    ValueError
        If it cannot be a history; the message does not name the file.
    """
    # Every line ends in a newline; without it the last number may have lost digits.
    if not text.endswith("\n"):
        raise ValueError("its last line is cut off")

    rows = []
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = list(reader.fieldnames or ())
        for name in COLUMNS:
            if name not in columns:
                raise ValueError(f"column {name!r} is missing")
        for number, cells in enumerate(reader, 1):
            rows.append(checked_row(number, cells, columns))
    except csv.Error as error:
        raise ValueError(str(error)) from None

    return History(rows)


Cells = Mapping[str | None, str | list[str] | None]
"""A line of a table as the csv module reads it."""


def checked_row(number: int, cells: Cells, columns: Sequence[str]) -> JsonObject:
    """Return a row's numbers, and the name of its stage; anything else is a ``ValueError``."""
    # The csv module puts surplus cells under None, and None in place of missing ones.
    row: JsonObject = {}
    for name, cell in cells.items():
        if not isinstance(name, str) or not isinstance(cell, str):
            raise ValueError(f"row {number} has not {len(columns)} cells")
        if cell == "":
            continue
        if name == "stage":
            row[name] = cell
            continue

        try:
            row[name] = number_of(cell)
        except ValueError:
            raise ValueError(f"row {number} has no number in column {name!r}") from None

    if not isinstance(row.get("iteration"), int):
        raise ValueError(f"row {number} has no iteration")

    return row


def number_of(cell: str) -> int | float:
    """Return the number in a cell: an integer where it is written as one."""
    try:
        # Integers first: float() would read them too.
        return int(cell)
    except ValueError:
        return float(cell)
