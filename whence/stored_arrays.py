"""Supervised data in arrays on disk, of zarr, dask or HDF5: rows are read when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from whence import _checks
from whence.data import Batch, Source, checked_batch, joined


class StoredArray(Protocol):
    """What arrays have of whatever library, on disk or in memory."""

    shape: tuple[int, ...]
    dtype: object

    def __getitem__(self, rows: slice, /) -> object:
        """Return some rows, or what computes them."""


READ_BYTES = 16 * 2**20
"""Bytes that are read at once at least, where an array's chunks are smaller, or it has none."""


def is_stored(data: object) -> bool:
    """Whether data are an array whose numbers are read when they are asked for.

    Such arrays are those of zarr, dask, HDF5 (h5py), and tables of dask.
    """
    if hasattr(data, "to_dask_array"):
        return True
    in_memory = isinstance(data, (Tensor, np.ndarray, Dataset))
    # Tables, and sparse matrices of SciPy, which slice in ways of their own.
    if in_memory or hasattr(data, "to_numpy") or hasattr(data, "tocsr"):
        return False
    return all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__"))


def holds_stored(data: object) -> bool:
    """Whether data are a stored array, or a tuple or list with one among others."""
    if isinstance(data, (tuple, list)):
        return any(map(is_stored, data))
    return is_stored(data)


def stored_source(
    what: str, data: object, *, targets: bool
) -> tuple[Source, np.ndarray]:
    """Return where samples in stored arrays are read from, and their places there, in order.

    Parameters
    ----------
    what:
        What they are, for messages.
    data:
        Arrays ``(inputs, ..., target)``, some of which may be in memory; without ``targets`` one
        array, or several, of inputs alone.
    targets:
        Whether the last array is the target.

    Raises
    ------
    ValueError
        If arrays have no rows, other numbers of them, or chunks of unknown length.
    TypeError
        If targets are missing, or something is no array of numbers.

    Examples
    --------
    >>> import dask.array as da
    >>> from whence.stored_arrays import stored_source
    >>> x, y = da.ones((5, 2), chunks=(2, 2)), da.zeros(5, chunks=2)
    >>> source, places = stored_source("the data", (x, y), targets=True)
    >>> source.read(places[3:]).target
    tensor([0., 0.], dtype=torch.float64)
    """
    arrays: Sequence[object] = data if isinstance(data, (tuple, list)) else (data,)
    if targets and len(arrays) < 2:
        raise TypeError(
            f"{what} must be tuples (inputs, ..., target), got {_checks.describe(data)}"
        )

    for array in arrays:
        if isinstance(array, Mapping):
            raise TypeError(
                f"{what} have a mapping beside arrays on disk: keyword inputs must be in memory, "
                "or come from a Dataset"
            )
    rows = [Rows(what, array_of(array)) for array in arrays]
    lengths = {len(of_array) for of_array in rows}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(of_array.shape) for of_array in rows)
        raise ValueError(
            f"{what} must be arrays of one length, at least one, on their first axis, got {shapes}"
        )
    source = StoredSource(what, rows, default_collate, has_target=targets)
    return source, np.arange(len(rows[0]))


@dataclass(frozen=True)
class StoredSource(Source):
    """Samples in the rows of stored arrays, the last of which may be the target."""

    has_target: bool = True

    def read(self, places: np.ndarray) -> Batch:
        """Return the samples at these places."""
        tensors = [torch.from_numpy(rows.read(places)) for rows in self.dataset]
        target = tensors.pop() if self.has_target else None
        batch = Batch(tuple(tensors), target)
        return checked_batch(self.what, batch, self.dtype, self.device)

    def read_targets(self, places: np.ndarray) -> Tensor | None:
        """Return the targets at these places, without their inputs."""
        if not self.has_target:
            return None
        target = torch.from_numpy(self.dataset[-1].read(places))
        batch = Batch((target,), None)
        return checked_batch(self.what, batch, self.dtype, self.device).tensors()[0]

    def read_all(self, places: np.ndarray) -> Batch:
        """Return every sample."""
        widest = max(self.dataset, key=lambda rows: len(rows.edges))
        parts = np.split(places, np.searchsorted(places, widest.edges[1:-1]))
        bar = tqdm(
            parts, desc=f"reading {self.what}", unit="part", delay=2, leave=False
        )
        return joined([self.read(part) for part in bar if len(part)])


@dataclass(frozen=True)
class HDF5Array:
    """Where an array of HDF5 is: its file and its name in it."""

    file: str
    name: str

    def opened(self) -> StoredArray:
        """Return the array, its file opened to be read."""
        import h5py  # there, as it was where the array comes from

        array: StoredArray = h5py.File(self.file, "r")[self.name]
        return array


class Rows:
    """Rows of an array, read by chunks of it, of which the last one is kept.

    Parameters
    ----------
    what:
        What the array belongs to, for messages.
    array:
        Stored, or in memory.

    Attributes
    ----------
    edges:
        Where chunks begin, and the number of rows at the end.
    """

    def __init__(self, what: str, array: StoredArray) -> None:
        self._array = array
        self.shape = tuple(array.shape)
        dtype = np.dtype(str(array.dtype))
        if not self.shape or dtype.kind not in "biuf":
            raise TypeError(
                f"{what} must be arrays of numbers with an axis of samples, got "
                f"{_checks.describe(array)}"
            )
        if any(size != size for size in self.shape):  # NaN
            raise ValueError(
                f"{what} have chunks of unknown length: call compute_chunk_sizes() on the dask "
                "array, or to_dask_array(lengths=True) on the table"
            )
        self.edges = chunk_edges(array)
        self._kept = -1
        self._rows = np.empty(0)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        # Whoever gets a copy reads by itself.
        array: Any = self._array
        if hasattr(array, "file"):  # of HDF5, whose open files cannot be sent
            path = Path(array.file.filename).absolute()
            array = HDF5Array(str(path), array.name)
        return {**vars(self), "_array": array, "_kept": -1, "_rows": np.empty(0)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self._array, HDF5Array):
            self._array = self._array.opened()

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at these places, in their order."""
        chunks = np.searchsorted(self.edges, places, side="right") - 1
        parts = []
        order = []
        for chunk in np.unique(chunks):
            inside = np.flatnonzero(chunks == chunk)
            parts.append(self._chunk(int(chunk))[places[inside] - self.edges[chunk]])
            order.append(inside)

        rows = np.concatenate(parts)
        in_order = np.empty_like(rows)
        in_order[np.concatenate(order)] = rows
        return in_order

    def _chunk(self, chunk: int) -> np.ndarray:
        if chunk != self._kept:
            rows = self._array[self.edges[chunk] : self.edges[chunk + 1]]
            # Here and now, not by the cluster that may be at work on this very part.
            if hasattr(rows, "compute"):
                rows = rows.compute(scheduler="synchronous")
            # In this machine's order of bytes, as torch knows no other.
            numbers = np.asarray(rows)
            self._rows = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
            self._kept = chunk
        return self._rows


def array_of(data: object) -> StoredArray:
    """Return a table, a list or an array as an array; of a table of dask the lengths are read."""
    array: Any = data
    if hasattr(data, "to_dask_array"):  # a table of dask, or a column of one
        array = data.to_dask_array().compute_chunk_sizes()
    elif isinstance(data, Tensor):
        array = data.detach().cpu().numpy()
    elif hasattr(data, "to_numpy"):
        array = data.to_numpy()
    elif not hasattr(data, "shape"):
        array = np.asarray(data)
    stored: StoredArray = array
    return stored


def chunk_edges(array: StoredArray) -> np.ndarray:
    """Return where the chunks of rows begin that are read at once, and where the last one ends."""
    n = int(array.shape[0])
    chunks = getattr(array, "chunks", None)
    if chunks and isinstance(
        chunks[0], (tuple, list)
    ):  # of dask, each of a length of its own
        return np.concatenate([[0], np.cumsum(chunks[0])]).astype(np.int64)

    # One of several chunks is read no faster alone than with those beside it.
    row_bytes = max(1, int(np.prod(array.shape[1:])) * 8)
    rows = int(chunks[0]) if chunks else 1
    step = rows * max(1, READ_BYTES // (rows * row_bytes))
    return np.append(np.arange(0, n, step), n)
