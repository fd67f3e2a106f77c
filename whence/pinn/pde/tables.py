"""Tables of measurements from files: Parquet, CSV, zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whence.arrays import DataFrameLike

SUFFIXES = (".parquet", ".csv", ".zarr")


def read_table(what: str, path: Path) -> DataFrameLike:
    """Return a file's table; errors begin with ``what``.

    Parameters
    ----------
    what:
        What it is read for.
    path:
        A Parquet or CSV file, or a zarr group with an array for each column.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ImportError
        If what reads Parquet is not installed.
    ValueError
        If it is of another kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"{what}: there is no file {path}")

    import pandas as pd  # slow to import

    table: Any
    if path.suffix == ".csv":
        table = pd.read_csv(path)
    elif path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except ImportError:
            raise ImportError(
                f"{what}: to read {path.name} needs pyarrow: pip install pyarrow"
            ) from None
    elif path.suffix == ".zarr":
        table = pd.DataFrame(_zarr_columns(what, path))
    else:
        raise ValueError(
            f"{what}: {path.name} must be one of {', '.join(SUFFIXES)}: read others yourself, and "
            "pass arrays or a data frame"
        )

    frame: DataFrameLike = table
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
