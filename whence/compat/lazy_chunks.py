"""Influences in chunks that are made when they are used, with pyDVL's names and calls."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from whence._files import checked_path, temporary_beside

Chunk = TypeVar("Chunk")
Pairs = Iterable[tuple[Tensor, Tensor]]
"""What a loader yields: inputs and targets."""


class Converter(Protocol):
    """Makes arrays of tensors."""

    def to_numpy(self, x: Tensor) -> np.ndarray:
        """Return the numbers of a tensor."""


class FactorModel(Protocol):
    """A fitted model, by its factors."""

    def influence_factors(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what is multiplied with gradients, (n, P)."""

    def influences_from_factors(
        self, z_test_factors: Tensor, x: Tensor, y: Tensor, mode: str
    ) -> Tensor:
        """Return influences from factors, (t, n, ...)."""


class TorchNumpyConverter:
    """Tensors as arrays, and back on a device."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def to_numpy(self, x: Tensor) -> np.ndarray:
        """Return the numbers of a tensor."""
        array: np.ndarray = x.detach().cpu().numpy()
        return array

    def from_numpy(self, x: np.ndarray) -> Tensor:
        """Return the numbers of an array on the device."""
        return torch.from_numpy(x).to(self.device)


class LazyChunkSequence:
    """Rows that are made chunk after chunk, in each pass again.

    Parameters
    ----------
    generator_factory:
        Starts a pass; each chunk has rows (n, ...).
    len_generator:
        The number of chunks, where it is known.
    """

    def __init__(
        self,
        generator_factory: Callable[[], Iterator[Tensor]],
        len_generator: int | None = None,
    ) -> None:
        self.generator_factory = generator_factory
        self.len_generator = len_generator

    def compute(
        self, aggregator: Callable[[LazyChunkSequence], Chunk] | None = None
    ) -> Chunk | list[Tensor]:
        """Return a list of the chunks, or what an aggregator makes of them."""
        if aggregator is not None:
            return aggregator(self)
        return list(self.generator_factory())

    def to_zarr(
        self,
        path_or_url: str | Path,
        converter: Converter,
        return_stored: bool = False,
        overwrite: bool = False,
    ) -> object | None:
        """Write the rows to a zarr array, which has its name once it is complete.

        Raises
        ------
        FileExistsError
            If there is something at the path, and ``overwrite`` is False.
        """
        blocks = ([block] for block in self.generator_factory())
        return _store(blocks, path_or_url, converter, return_stored, overwrite)


class NestedLazyChunkSequence:
    """A matrix that is made chunk after chunk: rows of chunks, in each pass again.

    Parameters
    ----------
    generator_factory:
        Starts a pass; each of its rows yields chunks (t, n, ...) of the same t targets.
    len_outer_generator:
        The number of rows of chunks, where it is known.
    """

    def __init__(
        self,
        generator_factory: Callable[[], Iterator[Iterator[Tensor]]],
        len_outer_generator: int | None = None,
    ) -> None:
        self.generator_factory = generator_factory
        self.len_outer_generator = len_outer_generator

    def compute(
        self, aggregator: Callable[[NestedLazyChunkSequence], Chunk] | None = None
    ) -> Chunk | list[list[Tensor]]:
        """Return a list of lists of chunks, or what an aggregator makes of them."""
        if aggregator is not None:
            return aggregator(self)
        return [list(row) for row in self.generator_factory()]

    def to_zarr(
        self,
        path_or_url: str | Path,
        converter: Converter,
        return_stored: bool = False,
        overwrite: bool = False,
    ) -> object | None:
        """Write the matrix to a zarr array, which has its name once it is complete.

        Raises
        ------
        FileExistsError
            If there is something at the path, and ``overwrite`` is False.
        """
        rows = self.generator_factory()
        return _store(rows, path_or_url, converter, return_stored, overwrite)


class TorchCatAggregator:
    """Joins chunks below each other."""

    def __call__(self, tensor_sequence: LazyChunkSequence) -> Tensor:
        """Return all rows."""
        return torch.cat(list(tensor_sequence.generator_factory()))


class NestedTorchCatAggregator:
    """Joins chunks beside each other, and rows of chunks below each other."""

    def __call__(self, nested_sequence_of_tensors: NestedLazyChunkSequence) -> Tensor:
        """Return the whole matrix."""
        rows = []
        for row in nested_sequence_of_tensors.generator_factory():
            rows.append(torch.cat(list(row), dim=1))
        return torch.cat(rows)


class SequentialInfluenceCalculator:
    """Influences of loaders, batch after batch.

    Parameters
    ----------
    influence_function_model:
        A fitted model of this module.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from whence.compat.pydvl import (
    ...     DirectInfluence, NestedTorchCatAggregator, SequentialInfluenceCalculator)
    >>> model, x, y = torch.nn.Linear(2, 1), torch.rand(6, 2), torch.rand(6, 1)
    >>> loader = DataLoader(TensorDataset(x, y), 4)
    >>> fitted = DirectInfluence(model, torch.nn.MSELoss(), 0.1).fit(loader)
    >>> lazy = SequentialInfluenceCalculator(fitted).influences(loader, loader)
    >>> lazy.compute(aggregator=NestedTorchCatAggregator()).shape
    torch.Size([6, 6])
    """

    def __init__(self, influence_function_model: FactorModel) -> None:
        self.influence_function_model = influence_function_model

    def influence_factors(self, data_iterable: Pairs) -> LazyChunkSequence:
        """Return the factors of each batch, made when they are used."""

        def chunks() -> Iterator[Tensor]:
            for x, y in data_iterable:
                yield self.influence_function_model.influence_factors(x, y)

        return LazyChunkSequence(chunks)

    def influences(
        self,
        test_data_iterable: Pairs,
        train_data_iterable: Pairs,
        mode: str = "up",
    ) -> NestedLazyChunkSequence:
        """Return influences of training batches on test batches, made when they are used."""
        factors = self.influence_factors(test_data_iterable).generator_factory

        def rows() -> Iterator[Iterator[Tensor]]:
            # A test batch is solved for once, whatever the number of training batches.
            for chunk in factors():
                yield self._row(chunk, train_data_iterable, mode)

        return NestedLazyChunkSequence(rows)

    def influences_from_factors(
        self,
        z_test_factors: Iterable[Tensor | Sequence[Tensor]],
        train_data_iterable: Pairs,
        mode: str = "up",
    ) -> NestedLazyChunkSequence:
        """Return influences from factors of test batches, made when they are used."""

        def rows() -> Iterator[Iterator[Tensor]]:
            for chunk in z_test_factors:
                # Of a loader of a TensorDataset they come in lists.
                factors = chunk if isinstance(chunk, Tensor) else chunk[0]
                yield self._row(factors, train_data_iterable, mode)

        return NestedLazyChunkSequence(rows)

    def _row(self, factors: Tensor, batches: Pairs, mode: str) -> Iterator[Tensor]:
        for x, y in batches:
            yield self.influence_function_model.influences_from_factors(
                factors, x, y, mode
            )


def _store(
    rows: Iterable[Iterable[Tensor]],
    path_or_url: str | Path,
    converter: Converter,
    return_stored: bool,
    overwrite: bool,
) -> object | None:
    """Write rows of chunks into a zarr array beside the path, then give it its name."""
    import zarr  # slow to import

    path = checked_path("path_or_url", path_or_url)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"there is something at {path}: give another path, or overwrite=True"
        )
    temporary = temporary_beside(path)
    shutil.rmtree(temporary, ignore_errors=True)

    array = None
    for row in rows:
        # A chunk stands beside those before it.
        joined = np.concatenate([converter.to_numpy(chunk) for chunk in row], axis=1)
        if array is None:
            shape = (0, *joined.shape[1:])
            array = zarr.create_array(
                temporary, shape=shape, chunks=joined.shape, dtype=joined.dtype
            )
        array.append(joined)
    if array is None:
        raise ValueError("there is nothing to write: the loaders yield no batch")

    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    return zarr.open_array(path, mode="r") if return_stored else None
