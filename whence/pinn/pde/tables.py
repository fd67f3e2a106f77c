"""Tables of measurements and of points from files: Parquet, CSV, NumPy, zarr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from whence.arrays import DataFrameLike

SUFFIXES = (".parquet", ".csv", ".npz", ".zarr")


def read_table(what: str, path: Path) -> DataFrameLike:
    """Return a file's table; errors begin with ``what``.

    Parameters
    ----------
    what:
        What it is read for.
    path:
        A Parquet or CSV file, or a NumPy archive or zarr group with an array for each column.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ImportError
        If what reads Parquet is not installed.
    ValueError
        If it is of another kind, or damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{what}: there is no file {path}")

    import pandas as pd  # slow to import

    table: Any
    if path.suffix == ".csv":
        table = _read(what, path, pd.read_csv)
    elif path.suffix == ".parquet":
        table = _read(what, path, pd.read_parquet)
    elif path.suffix == ".npz":
        table = _read(what, path, _npz_columns)
    elif path.suffix == ".zarr":
        table = pd.DataFrame(_zarr_columns(what, path))
    else:
        raise ValueError(
            f"{what}: {path.name} must be one of {', '.join(SUFFIXES)}: read others yourself, and "
            "pass arrays or a data frame"
        )

    frame: DataFrameLike = table
    return frame


def _read(what: str, path: Path, reader: Callable[[Path], object]) -> object:
    """Return what pandas reads; what it lacks or finds damaged is an error that names the file."""
    try:
        return reader(path)
    except ImportError:
        # Of the files that pandas reads here, Parquet alone needs more than pandas.
        raise ImportError(
            f"{what}: to read {path.name} needs pyarrow: pip install 'whence[parquet]', or pass "
            "arrays or a data frame"
        ) from None
    except ValueError as error:
        # Readers say what is wrong in their first line, and then where in their own code.
        reason = str(error).splitlines()[0]
        raise ValueError(f"{what}: {path.name} cannot be read: {reason}") from None


def _npz_columns(path: Path) -> DataFrameLike:
    """Return the arrays of a NumPy archive as a table."""
    import pandas as pd  # slow to import

    # Nothing is unpickled, which would run what the file says.
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    frame: DataFrameLike = pd.DataFrame(columns)
    return frame


def _zarr_columns(what: str, path: Path) -> dict[str, Any]:
    """Return the arrays of a zarr group by name."""
    import zarr  # slow to import

    group = zarr.open(path, mode="r")
    if not isinstance(group, zarr.Group):
        raise ValueError(
            f"{what}: {path.name} is one array: make a group with an array for each column"
        )
    return {name: array[:] for name, array in group.arrays()}
