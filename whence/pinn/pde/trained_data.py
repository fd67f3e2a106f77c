"""Which of the measurements a term was trained on, where some were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.arrays import to_locations
from whence.objective import Objective
from whence.pinn.pde.data import Data
from whence.points import locations


@dataclass(frozen=True, eq=False)
class TrainedData:
    """The rows of a set of measurements that an objective has as points.

    Parameters
    ----------
    data:
        The whole set.
    rows:
        Numbers of the rows trained on, (n,), in order.

    Examples
    --------
    >>> import torch
    >>> from whence import pinn
    >>> from whence.pinn.pde.trained_data import TrainedData
    >>> sensors = pinn.Data("sensors", [[0.2], [0.7]], u=[1.0, 3.0])
    >>> TrainedData(sensors, torch.tensor([1])).values()
    tensor([[3.]], dtype=torch.float64)
    """

    data: Data
    rows: Tensor

    @classmethod
    def of(cls, data: Data, objective: Objective) -> TrainedData:
        """Return the rows that the objective's term of this name has.

        Raises
        ------
        ValueError
            If the term has a point that is none of the measurements.
        """
        term = objective.term(data.name)
        n_trained = len(term.points)
        if n_trained == len(data):
            return cls(data, torch.arange(len(data)))

        what = f"the points of data {data.name!r}"
        places = to_locations(what, data.table, objective.coordinates)
        table = torch.cat([places, data.values()], dim=1)  # (N, d + fields)
        n_columns = table.shape[1]

        # As the term has them, in its own number type.
        trained = locations(term.points)[:, :n_columns].cpu()
        numbers = rows_within(trained.numpy(), table.to(trained).numpy())
        return cls(data, torch.from_numpy(numbers))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        """The term's name."""
        return self.data.name

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return self.data.fields

    @property
    def has_errors(self) -> bool:
        """Whether the standard deviation of every measurement is known."""
        return self.data.has_errors

    @property
    def reference(self) -> float:
        """σ̄ of the whole set, by which the term's rows are scaled."""
        return self.data.reference

    def values(self) -> Tensor:
        """Return the measured values, (n, fields), float64."""
        return self.data.values()[self.rows]

    def errors(self) -> Tensor:
        """Return the standard deviations, (n, fields), float64; 1 where none is given."""
        return self.data.errors()[self.rows]


def rows_within(part: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return which row of a table each row of a part of it is, (n,).

    Rows that repeat are taken one after another; a row that is not there is a ``ValueError``.
    """
    n_table = len(table)
    both = np.concatenate([table, part])
    # Equal rows have equal numbers.
    _, numbers = np.unique(both, axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    of_table = numbers[:n_table]
    of_part = numbers[n_table:]

    # Sorted, equal rows stand together: the k-th of them in the part is the k-th in the table.
    order = np.argsort(of_table, kind="stable")
    first = np.searchsorted(of_table[order], of_part)
    places = first + occurrences(of_part)
    is_there = places < n_table
    is_there[is_there] = of_table[order[places[is_there]]] == of_part[is_there]
    if not bool(is_there.all()):
        row = int((~is_there).nonzero()[0][0])
        raise ValueError(
            f"row {row} of the points trained on is not among the measurements"
        )
    return order[places]


def occurrences(numbers: np.ndarray) -> np.ndarray:
    """Return how often each number has come before, (n,)."""
    order = np.argsort(numbers, kind="stable")
    in_order = numbers[order]
    # Where each run of equal numbers begins.
    starts = np.searchsorted(in_order, in_order)
    counts = np.empty(len(numbers), dtype=np.int64)
    counts[order] = np.arange(len(numbers)) - starts
    return counts
