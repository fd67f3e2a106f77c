"""Samples of supervised data, inputs and targets: in memory, or read a few at a time.

A sample is known by its place in the data. A loader that shuffles would move it between two
passes, and results could not say which sample they speak of: it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, TensorDataset

from whence import _checks
from whence.arrays import DataFrameLike
from whence.data import (
    READ_AT_ONCE,
    Batch,
    Inputs,
    Source,
    checked_batch,
    inputs_alone,
    inputs_and_target,
    moved,
    source_of,
)
from whence.outputs import Targets
from whence.stored_arrays import holds_stored, stored_source

Structure = tuple[pytree.TreeSpec, pytree.TreeSpec | None, bool]
"""How tensors make inputs and a target behind them, and whether features are the first."""
IN_MEMORY_BYTES = 512 * 2**20
"""Data up to this size are read once and kept; larger data are read again in each pass."""
ROWS_AT_ONCE = 1000
"""Rows of a table that a model evaluates at once."""
IMAGES_AT_ONCE = 256
"""Samples of more axes that a model evaluates at once."""


class KeptFeatures(Protocol):
    """What a network's frozen part gives for samples, see :mod:`whence.frozen`."""

    def is_current(self) -> bool:
        """Whether it would give the same now."""

    def at(self, places: np.ndarray) -> Tensor:
        """Return the features of samples by their places, (n, ...)."""

    def targets_at(self, places: np.ndarray) -> Targets:
        """Return the targets of samples by their places."""


class Samples:
    """n samples of inputs and targets, told apart by their place in the data.

    Parts, ``samples[10:20]`` or ``samples[indices]``, are samples too; of data that are too large
    for memory they are read when they are used.

    Parameters
    ----------
    inputs:
        What the model takes: a tensor whose first axis is that of the samples, a tuple of such for
        several inputs, or a mapping for keyword arguments. Arrays, lists and data frames do too.
    target:
        What the loss compares with, its first axis that of the samples, or several such by name
        (a mapping) or in order (a tuple); or None.

    Raises
    ------
    ValueError
        If there are no samples, lengths differ, or a number is not finite.
    TypeError
        If something is no tensor (or array).

    Examples
    --------
    >>> import torch
    >>> from whence.samples import Samples
    >>> samples = Samples(torch.rand(5, 3), torch.tensor([0, 1, 1, 0, 1]))
    >>> len(samples), len(samples[1:3]), samples[1:3].target
    (5, 2, tensor([1, 1]))
    """

    def __init__(self, inputs: object, target: object = None) -> None:
        # A list is rows of numbers, not several inputs.
        if not isinstance(inputs, (tuple, Mapping)):
            inputs = (inputs,)
        batch = Batch(inputs, target)
        checked = checked_batch("the samples", batch, None, None)
        self._set(checked, len(checked), None, None)

    def _set(
        self,
        batch: Batch | None,
        n: int,
        source: Source | None,
        places: np.ndarray | None,
    ) -> None:
        self._batch = batch
        self._n = n
        self._source = source
        self._places = places
        self._batch_size: int | None = None
        self._labels: np.ndarray | None = None
        self._kept: KeptFeatures | None = None
        self._kept_places: np.ndarray | None = None
        self._loaded: Tensor | None = None

    def with_kept(self, features: KeptFeatures) -> Samples:
        """Return the same samples, whose features are kept for as long as they are current."""
        samples = self.in_batches(self._batch_size)
        samples._kept = features
        samples._kept_places = np.arange(len(self))
        return samples

    def without_kept(self) -> Samples:
        """Return the same samples without features."""
        if self._kept is None:
            return self
        samples = Samples.__new__(Samples)
        samples._set(self._batch, self._n, self._source, self._places)
        samples._batch_size = self._batch_size
        return samples

    def kept_features(self) -> Tensor | None:
        """Return what is kept of these samples, (n, ...), or None."""
        if self._loaded is not None:
            return self._loaded
        if self._kept is None or not self._kept.is_current():
            return None
        assert self._kept_places is not None
        return self._kept.at(self._kept_places)

    def _keeping(self, samples: Samples, part: slice | np.ndarray | None) -> Samples:
        """Return other samples with a part of the features of these."""
        if self._kept is not None and self._kept_places is not None:
            samples._kept = self._kept
            places = self._kept_places
            samples._kept_places = places if part is None else places[part]
        return samples

    @classmethod
    def from_batch(cls, batch: Batch) -> Samples:
        """Return samples in memory, whose tensors have been checked."""
        samples = cls.__new__(cls)
        samples._set(batch, len(batch), None, None)
        return samples

    @classmethod
    def from_source(cls, source: Source, places: np.ndarray) -> Samples:
        """Return samples that are read when they are used."""
        samples = cls.__new__(cls)
        samples._set(None, len(places), source, places)
        return samples

    def __len__(self) -> int:
        return self._n

    @property
    def in_memory(self) -> bool:
        """Whether the data are held, rather than read when they are used."""
        return self._batch is not None

    @property
    def batch(self) -> Batch:
        """The tensors of these samples, read now if they are not held."""
        if self._batch is None:
            source, places = self._origin()
            self._batch = source.read(places)  # kept for as long as this part is
        return self._batch

    def _origin(self) -> tuple[Source, np.ndarray]:
        assert self._source is not None
        assert self._places is not None
        return self._source, self._places

    def read(self) -> None:
        """Read these samples now, if they are not held, or what is kept in their place."""
        if self.kept_features() is None:
            _ = self.batch

    @property
    def inputs(self) -> Inputs:
        """What the model takes: a tuple, or a mapping for keyword arguments."""
        return self.batch.inputs

    @property
    def target(self) -> Targets:
        """What the loss compares with: a tensor, several by name or in order, or None."""
        # A source knows whole samples only: targets are kept with the features.
        if self._batch is None and self._kept is not None and self._kept.is_current():
            assert self._kept_places is not None
            return self._kept.targets_at(self._kept_places)
        return self.batch.target

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        if self._batch is not None:
            return self._batch.tensors()[0].device
        return self[:1].batch.tensors()[0].device  # one sample is read, not all

    def __getitem__(self, part: slice | Tensor) -> Samples:
        # Places are NumPy's.
        chosen = part.cpu().numpy() if isinstance(part, Tensor) else part
        if self._batch is not None:
            of_part = Samples.from_batch(self._batch.map(lambda tensor: tensor[part]))
        else:
            # Only places are kept, the data themselves are read when used.
            source, places = self._origin()
            of_part = Samples.from_source(source, places[chosen])

        of_part._batch_size = self._batch_size
        return self._keeping(of_part, chosen)

    def split(self, size: int) -> Iterator[Samples]:
        """Yield parts of ``size`` samples, the last of those left, and keep none of them."""
        for start in range(0, self._n, size):
            yield self[start : start + size]

    def unsqueeze(self, axis: int) -> Samples:
        """Return one sample, whose tensors lack the axis of the samples, as samples."""
        batch = self.batch.map(lambda tensor: tensor.unsqueeze(axis))
        samples = Samples.from_batch(batch)
        if self._loaded is not None:
            samples._loaded = self._loaded.unsqueeze(axis)
        return samples

    def to(self, dtype: torch.dtype | None, device: torch.device | None) -> Samples:
        """Return the same samples with numbers of this dtype, on this device."""
        if self._batch is not None:
            batch = self._batch.map(lambda tensor: moved(tensor, dtype, device))
            return self._keeping(Samples.from_batch(batch), None)

        source, places = self._origin()
        source = replace(source, dtype=dtype, device=device)
        return self._keeping(Samples.from_source(source, places), None)

    @property
    def batch_size(self) -> int:
        """How many samples a model evaluates at once."""
        if self._batch_size is None:
            axes = max(tensor.ndim for tensor in self[:1].batch.tensors())
            # Rows of a table have two axes; more are images, sequences, and the like.
            self._batch_size = ROWS_AT_ONCE if axes <= 2 else IMAGES_AT_ONCE
        return self._batch_size

    def in_batches(self, size: int | None) -> Samples:
        """Return the same samples with another batch size, by default 1000 rows or 256 images."""
        if size is not None:
            _checks.count("batch_size", size)
        samples = Samples.__new__(Samples)
        samples._set(self._batch, self._n, self._source, self._places)
        samples._batch_size = size
        return self._keeping(samples, None)

    def targets(self) -> Iterator[Targets]:
        """Yield the targets in order, in parts where the data are read when they are used."""
        if not self.in_memory and self.labels() is not None:
            yield torch.from_numpy(self.labels())
            return

        parts = [self] if self.in_memory else self.split(READ_AT_ONCE)
        for part in parts:
            if part.target is not None:
                yield part.target

    def features(self) -> Tensor:
        """Return the inputs that are real numbers, one sample's after the other, (n, d)."""
        parts = [tensor.flatten(1) for tensor in self._real_inputs()]
        if not parts:
            raise ValueError(
                "no input is a real number, so none can be moved by a little"
            )

        # Inputs may differ in dtype; together they are one table.
        dtype = parts[0].dtype
        return torch.cat([part.to(dtype) for part in parts], dim=1)

    def with_features(self, features: Tensor) -> Samples:
        """Return the same samples with other numbers for what :meth:`features` gives."""
        sizes = [tensor[0].numel() for tensor in self._real_inputs()]
        columns = iter(
            features.split(sizes, dim=1)
        )  # in the order of the tree's leaves

        def changed(tensor: Tensor) -> Tensor:
            if not tensor.dtype.is_floating_point:
                return tensor
            return next(columns).reshape(tensor.shape)

        inputs = pytree.tree_map(changed, self.batch.inputs)
        return Samples.from_batch(Batch(inputs, self.batch.target))

    def _real_inputs(self) -> list[Tensor]:
        tensors = pytree.tree_leaves(self.batch.inputs)
        return [tensor for tensor in tensors if tensor.dtype.is_floating_point]

    def labels(self) -> np.ndarray | None:
        """Return the targets if there is one number for each sample, else None."""
        if self._labels is None:
            first = self[:1].target
            if not isinstance(first, Tensor) or first[0].numel() != 1:
                return None
            self._labels = self._read_labels()
        return self._labels

    def _read_labels(self) -> np.ndarray:
        # Labels are one number each: all of them fit where the inputs do not.
        labels = []
        for part in self._target_parts():
            assert part is not None
            labels.append(part.detach().cpu().reshape(-1))
        return torch.cat(labels).numpy()

    def _target_parts(self) -> Iterator[Any]:
        """Yield the targets, of data that are read when they are used some at a time."""
        parts = [self] if self.in_memory else self.split(READ_AT_ONCE)
        for part in parts:
            if part.in_memory or part._kept is not None:
                yield part.target
                continue
            # Targets may be read without the inputs, which are larger.
            source, places = part._origin()
            yield source.read_targets(places)

    def __repr__(self) -> str:
        return f"Samples({self._n}{'' if self.in_memory else ', read when used'})"

    # Torch's transforms (vmap over samples, say) take Samples apart and put them together by
    # these two.

    def flattened(self) -> tuple[list[Tensor], Structure]:
        """Return the tensors, and what :meth:`unflattened` needs to put them together."""
        features = self.kept_features()
        if features is not None:
            # They stand for the inputs.
            _, nothing = pytree.tree_flatten(())
            parts, of_target = _taken_apart(self.target)
            return [features, *parts], (nothing, of_target, True)

        leaves, spec = pytree.tree_flatten(self.batch.inputs)
        parts, of_target = _taken_apart(self.batch.target)
        return [*leaves, *parts], (spec, of_target, False)

    @classmethod
    def unflattened(cls, leaves: Iterable[object], context: Structure) -> Samples:
        """Return the samples of these tensors, which may lack the axis of the samples."""
        spec, of_target, has_features = context
        tensors = list(leaves)
        features = tensors.pop(0) if has_features else None
        parts = tensors[spec.num_leaves :]
        target = None
        if of_target is not None and parts:
            target = pytree.tree_unflatten(parts, of_target)

        samples = cls.__new__(cls)
        batch = Batch(pytree.tree_unflatten(tensors[: spec.num_leaves], spec), target)
        # One sample of a map over samples has no length.
        samples._set(batch, -1, None, None)
        samples._loaded = features  # type: ignore[assignment]
        return samples


def _taken_apart(target: Any) -> tuple[list[Tensor], pytree.TreeSpec | None]:
    """Return the tensors of a target and how to put them together; None for no target."""
    if target is None:
        return [], None
    return pytree.tree_flatten(target)


pytree.register_pytree_node(Samples, Samples.flattened, Samples.unflattened)

Data = (
    Samples
    | Tensor
    | np.ndarray
    | Sequence[Any]
    | Mapping[str, Any]
    | DataFrameLike
    | Dataset[Any]
    | DataLoader[Any]
)
"""Supervised data of any usual kind, see :func:`samples_of`."""


def samples_of(
    what: str,
    data: object,
    dtype: torch.dtype | None,
    device: torch.device | None,
    *,
    targets: bool = True,
) -> Samples:
    """Return supervised data of any usual kind as samples; errors begin with ``what``.

    Parameters
    ----------
    what:
        What they are, for messages.
    data:
        Tensors, arrays or data frames ``(inputs, ..., target)``, arrays of zarr, dask or HDF5
        among them, a map-style ``Dataset`` of such tuples, or a ``DataLoader`` of one; instead of
        tuples batches by name, with ``labels`` for the target; without ``targets`` the inputs
        alone.
    dtype, device:
        What numbers that are not integers are brought to, and the device; None leaves them.
    targets:
        Whether the last of a tuple is the target.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If there are no samples, lengths differ, numbers are not finite, or the data come in
        another order, or are others, each time they are read.
    """
    if isinstance(data, Samples):
        return data.to(dtype, device)
    if isinstance(data, TensorDataset):
        data = data.tensors

    is_stored = holds_stored(data)
    if isinstance(data, list) and data and all(isinstance(d, Mapping) for d in data):
        source, places = source_of(what, data)
        return _from_source(source, places, dtype, device)
    in_memory = (Tensor, np.ndarray, tuple, list, Mapping, DataFrameLike)
    if isinstance(data, in_memory) and not is_stored:
        batch = inputs_and_target(what, data) if targets else inputs_alone(data)
        return Samples.from_batch(checked_batch(what, batch, dtype, device))

    if is_stored:
        source, places = stored_source(what, data, targets=targets)
    else:
        source, places = source_of(what, data)
    return _from_source(source, places, dtype, device)


def _from_source(
    source: Source,
    places: np.ndarray,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> Samples:
    """Return samples of a source, in memory if they fit there."""
    source = replace(source, dtype=dtype, device=device)
    if not len(places):
        raise ValueError(f"{source.what} must have at least one sample, got none")

    # The size of one sample tells whether all fit: others of another size are refused later.
    first = source.read(places[:1])
    source.check_repeatable(first, places[:1])
    if first.bytes * len(places) <= IN_MEMORY_BYTES:
        return Samples.from_batch(source.read_all(places))

    return Samples.from_source(source, places)
