"""Points as users have them: tensors, NumPy arrays, lists, data frames; and back again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from whence import _checks


@runtime_checkable
class DataFrameLike(Protocol):
    """A table with named columns, such as a ``pandas.DataFrame``."""

    columns: Any
    index: Any

    def to_numpy(self) -> np.ndarray:
        """Return the numbers, (rows, columns)."""


ArrayLike = Tensor | np.ndarray | Sequence[Any] | DataFrameLike
"""Points (n, d): a tensor, an array, a list of lists, or a data frame with named columns."""
Values = Any
"""Values in the kind of their points: a tensor, an array, or a pandas data frame or series."""


def to_locations(what: str, points: object, coordinates: Sequence[str]) -> Tensor:
    """Return points as a finite, non-empty float tensor (n, d); errors begin with ``what``.

    Columns of a data frame are found by the names of the coordinates, in any order, and others are
    left out. Integers become float64; floating-point numbers keep their type.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence.arrays import to_locations
    >>> to_locations("the points", [[0, 1], [2, 3]], ("x", "t"))
    tensor([[0., 1.],
            [2., 3.]], dtype=torch.float64)
    >>> to_locations("the points", pd.DataFrame({"t": [1.0], "id": [7], "x": [0.5]}), ("x", "t"))
    tensor([[0.5000, 1.0000]], dtype=torch.float64)
    """
    return _checks.points(what, to_tensor(what, points, coordinates), len(coordinates))


def to_tensor(what: str, points: object, coordinates: Sequence[str] = ()) -> object:
    """Return arrays, lists and data frames as a tensor of floats; leave anything else alone."""
    if isinstance(points, Tensor):
        return points

    if isinstance(points, DataFrameLike):
        points = columns_of(what, points, coordinates)
    if is_plain_list(points):
        try:
            points = np.asarray(points, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"{what} must be rows of {len(coordinates) or 'd'} numbers each, got "
                f"{_checks.describe(points)}"
            ) from None

    if not isinstance(points, np.ndarray) or points.dtype.kind not in "iuf":
        return points  # what it is, the caller's check says
    if points.dtype.kind != "f":
        points = points.astype(np.float64)
    # Shares memory where it can: torch knows no arrays that must not be written to.
    if not points.flags.writeable:
        points = points.copy()
    return torch.from_numpy(np.ascontiguousarray(points))


def is_plain_list(points: object) -> bool:
    """Whether points are a list or tuple of numbers or of rows, none of them a tensor."""
    if not isinstance(points, (list, tuple)):
        return False
    return not any(isinstance(row, Tensor) for row in points)


def columns_of(
    what: str, frame: DataFrameLike, coordinates: Sequence[str]
) -> np.ndarray:
    """Return the columns called as the coordinates, in their order; all without coordinates."""
    if not coordinates:
        return np.asarray(frame.to_numpy())

    names = [str(name) for name in frame.columns]
    for name in coordinates:
        if name not in names:
            raise ValueError(
                f"{what} need a column for each coordinate ({', '.join(coordinates)}), but "
                f"{name!r} is missing among {', '.join(names) or 'none'}"
            )

    numbers = frame.to_numpy()
    chosen = [names.index(name) for name in coordinates]
    try:
        return np.asarray(numbers[:, chosen], dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{what} must have numbers in the columns {', '.join(coordinates)}"
        ) from None


def in_kind_of(values: Tensor, like: object, names: Sequence[str]) -> Values:
    """Return values (n, k) or (n,) in the kind of the points they belong to.

    A tensor for a tensor, a data frame of the same index for a data frame, otherwise an array.
    """
    if isinstance(like, Tensor):
        return values

    # A data frame, a list or an array: NumPy's in any case.
    array = values.detach().cpu().numpy()
    if not isinstance(like, DataFrameLike):
        return array

    import pandas as pd  # slow to import

    if array.ndim == 1:
        return pd.Series(array, index=like.index, name=names[0])

    return pd.DataFrame(array, index=like.index, columns=list(names))
