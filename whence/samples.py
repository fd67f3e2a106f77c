"""Samples of supervised data, inputs and targets: in memory, or read a few at a time.

A sample is known by its place in the data. A loader that shuffles would move it between two
passes, and results could not say which sample they speak of: it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    default_collate,
)
from tqdm import tqdm

from whence import _checks

IN_MEMORY_BYTES = 512 * 2**20
"""Data up to this size are read once and kept; larger data are read anew in each pass."""
READ_AT_ONCE = 256
ROWS_AT_ONCE, IMAGES_AT_ONCE = 1000, 256
"""Samples that a model evaluates at once: of a table, and of more axes."""
Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Batch:
    """The tensors of some samples: positional inputs or keyword inputs, and a target or None."""

    inputs: Any
    target: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the same with every tensor changed."""
        target = None if self.target is None else change(self.target)
        return Batch(pytree.tree_map(change, self.inputs), target)

    def tensors(self) -> list[Tensor]:
        """Return every tensor, the target last."""
        return [
            *pytree.tree_leaves(self.inputs),
            *([] if self.target is None else [self.target]),
        ]


@dataclass(frozen=True)
class _Source:
    """Where samples are read from, and what they are brought to."""

    what: str
    dataset: Any
    collate: Collate
    workers: int = 0
    dtype: torch.dtype | None = None
    device: torch.device | None = None

    def read(self, places: np.ndarray) -> Batch:
        several = getattr(
            self.dataset, "__getitems__", None
        )  # as torch's own loader asks
        items = (
            several(places.tolist())
            if several
            else [self.dataset[int(i)] for i in places]
        )
        return self.placed(self.collate(items))

    def placed(self, given: Any) -> Batch:
        return _checked(self.what, _split(self.what, given), self.dtype, self.device)

    def read_all(self, places: np.ndarray) -> Batch:
        """Return every sample, read with the loader's own workers."""
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size=READ_AT_ONCE,
            sampler=places.tolist(),
            collate_fn=self.collate,
            num_workers=self.workers,
        )
        shown = tqdm(
            loader, desc=f"reading {self.what}", unit="batch", delay=2, leave=False
        )
        with torch.random.fork_rng(
            devices=[]
        ):  # a loader draws a seed, whether it needs it or not
            return _joined([self.placed(batch) for batch in shown])


class Samples:
    """n samples of inputs and targets, told apart by their place in the data.

    Parts, ``samples[10:20]`` or ``samples[indices]``, are samples too; of data that are too large
    for memory they are read when they are used.

    Parameters
    ----------
    inputs:
        What the model takes: a tensor whose first axis is that of the samples, a tuple of such for
        several inputs, or a mapping for keyword arguments.
    target:
        What the loss compares with, its first axis that of the samples; or None.

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

    def __init__(self, inputs: Any, target: Any = None) -> None:
        positional = inputs if isinstance(inputs, (tuple, Mapping)) else (inputs,)
        batch = _checked("the samples", Batch(positional, target), None, None)
        self._set(batch, len(batch.tensors()[0]), None, None)

    def _set(
        self,
        batch: Batch | None,
        n: int,
        source: _Source | None,
        places: np.ndarray | None,
    ) -> None:
        self._batch, self._n, self._source, self._places = batch, n, source, places
        self._batch_size: int | None = None
        self._labels: np.ndarray | None = None

    @classmethod
    def _of(cls, batch: Batch | None, n: int, *source: Any) -> Samples:
        made = cls.__new__(cls)
        made._set(batch, n, *(source or (None, None)))
        return made

    def __len__(self) -> int:
        return self._n

    @property
    def in_memory(self) -> bool:
        """Whether the data are held, rather than read when they are used."""
        return self._batch is not None

    @property
    def batch(self) -> Batch:
        """The tensors of these samples, read now where they are not held."""
        if self._batch is None:
            assert self._source is not None
            assert self._places is not None
            self._batch = self._source.read(self._places)
        return self._batch

    def read(self) -> None:
        """Read these samples now, where they are not held."""
        _ = self.batch

    @property
    def inputs(self) -> Any:
        """What the model takes: a tuple, or a mapping for keyword arguments."""
        return self.batch.inputs

    @property
    def target(self) -> Tensor | None:
        """What the loss compares with."""
        return self.batch.target

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self[:1].batch.tensors()[0].device

    def __getitem__(self, part: slice | Tensor) -> Samples:
        if self._batch is not None:
            kept = self._batch.map(lambda t: t[part])
            return Samples._of(kept, len(kept.tensors()[0]))
        assert self._places is not None
        chosen = part.cpu().numpy() if isinstance(part, Tensor) else part
        places = self._places[chosen]
        return Samples._of(None, len(places), self._source, places)

    def split(self, size: int) -> Iterator[Samples]:
        """Yield parts of ``size`` samples, the last of those left, and keep none of them."""
        for i in range(0, self._n, size):
            yield self[i : i + size]

    def unsqueeze(self, axis: int) -> Samples:
        """Return one sample, whose tensors lack the axis of the samples, as samples."""
        made = self.batch.map(lambda t: t.unsqueeze(axis))
        return Samples._of(made, 1)

    def to(self, dtype: torch.dtype | None, device: torch.device | None) -> Samples:
        """Return the same samples with numbers of this dtype, on this device."""
        if self._batch is not None:
            moved = self._batch.map(lambda t: _like(t, dtype, device))
            return Samples._of(moved, self._n)
        assert self._source is not None
        source = replace(self._source, dtype=dtype, device=device)
        return Samples._of(None, self._n, source, self._places)

    @property
    def batch_size(self) -> int:
        """How many samples a model evaluates at once."""
        if self._batch_size is None:
            axes = max(tensor.ndim for tensor in self[:1].batch.tensors())
            self._batch_size = ROWS_AT_ONCE if axes <= 2 else IMAGES_AT_ONCE
        return self._batch_size

    def in_batches(self, size: int | None) -> Samples:
        """Return the same samples with another batch size, by default 1000 rows or 256 images."""
        if size is not None:
            _checks.count("batch_size", size)
        made = Samples._of(self._batch, self._n, self._source, self._places)
        made._batch_size = size
        return made

    def features(self) -> Tensor:
        """Return the inputs that are real numbers, one sample's after the other, (n, d)."""
        parts = [t.flatten(1) for t in self._moving()]
        if not parts:
            raise ValueError(
                "no input is a real number, so none can be moved by a little"
            )
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)

    def with_features(self, features: Tensor) -> Samples:
        """Return the same samples with other numbers for what :meth:`features` gives."""
        sizes = [t[0].numel() for t in self._moving()]
        parts = iter(features.split(sizes, dim=1))

        def moved(t: Tensor) -> Tensor:
            return next(parts).reshape(t.shape) if t.dtype.is_floating_point else t

        batch = Batch(pytree.tree_map(moved, self.batch.inputs), self.batch.target)
        return Samples._of(batch, len(features))

    def _moving(self) -> list[Tensor]:
        tensors = pytree.tree_leaves(self.batch.inputs)
        return [t for t in tensors if t.dtype.is_floating_point]

    def labels(self) -> np.ndarray | None:
        """Return the targets if there is one number for each sample, else None."""
        if self._labels is None:
            first = self[:1].target
            if first is None or first[0].numel() != 1:
                return None
            parts = [self] if self.in_memory else self.split(READ_AT_ONCE)
            found = [
                p.target.detach().cpu().reshape(-1)
                for p in parts
                if p.target is not None
            ]
            self._labels = torch.cat(found).numpy()
        return self._labels

    def __repr__(self) -> str:
        return f"Samples({self._n}{'' if self.in_memory else ', read when used'})"


def _flatten(samples: Samples) -> tuple[list[Any], Any]:
    batch = samples.batch
    leaves, spec = pytree.tree_flatten(batch.inputs)
    return [*leaves, *([] if batch.target is None else [batch.target])], (
        spec,
        len(leaves),
    )


def _unflatten(leaves: Any, context: Any) -> Samples:
    spec, n_inputs = context
    given = list(leaves)
    target = given[n_inputs] if len(given) > n_inputs else None
    batch = Batch(pytree.tree_unflatten(given[:n_inputs], spec), target)
    return Samples._of(batch, -1)  # one sample of a map over samples has no length


pytree.register_pytree_node(Samples, _flatten, _unflatten)


def samples_of(
    what: str,
    given: Any,
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
    given:
        Tensors or arrays ``(inputs, ..., target)``, a map-style ``Dataset`` of such tuples, or a
        ``DataLoader`` of one; without ``targets`` the inputs alone.
    dtype, device:
        What numbers that are not integers are brought to, and where; None leaves them.
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
    if isinstance(given, Samples):
        return given.to(dtype, device)
    if isinstance(given, TensorDataset):
        given = given.tensors
    if isinstance(given, (Tensor, np.ndarray, tuple, list, Mapping)):
        batch = _split(what, given) if targets else _inputs_alone(given)
        checked = _checked(what, batch, dtype, device)
        return Samples._of(checked, len(checked.tensors()[0]))
    source, places = _source(what, given)
    source = replace(source, dtype=dtype, device=device)
    return _read(source, places)


def _source(what: str, given: Any) -> tuple[_Source, np.ndarray]:
    """Return where the data come from and the places of the samples there, in order."""
    if isinstance(given, DataLoader):
        if isinstance(given.dataset, IterableDataset) or given.batch_sampler is None:
            raise TypeError(
                f"{what} come from a loader without places (an IterableDataset, or batch_size="
                "None): results could not say which sample they speak of; give a map-style Dataset"
            )
        places = _places(what, given)
        return _Source(what, given.dataset, given.collate_fn, given.num_workers), places
    if isinstance(given, Dataset) or _indexable(given):
        if not _indexable(given):
            raise TypeError(
                f"{what} need a dataset with __len__ and __getitem__, got {type(given).__name__}"
            )
        return _Source(what, given, default_collate), np.arange(len(given))
    raise TypeError(
        f"{what} must be tensors (inputs, target), a Dataset or a DataLoader, got "
        f"{_checks.shown(given)}"
    )


def _indexable(given: Any) -> bool:
    sized = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    return sized and not isinstance(given, str)


def _places(what: str, loader: DataLoader[Any]) -> np.ndarray:
    """Return the places that a loader goes through; another order in a second pass is an error."""
    with torch.random.fork_rng(devices=[]):
        first, second = (
            [int(i) for batch in loader.batch_sampler for i in batch]  # type: ignore[union-attr]
            for _ in range(2)
        )
    if first != second:
        raise ValueError(
            f"{what} come from a loader that changes their order between passes, so that results "
            "could not say which sample they speak of: give the Dataset itself, or "
            "DataLoader(..., shuffle=False)"
        )
    return np.asarray(first, dtype=np.int64)


def _read(source: _Source, places: np.ndarray) -> Samples:
    """Return samples in memory where they fit; otherwise such that are read when used."""
    if not len(places):
        raise ValueError(f"{source.what} must have at least one sample, got none")
    one = source.read(places[:1])
    again = source.read(places[:1])
    if not all(
        torch.equal(a, b) for a, b in zip(one.tensors(), again.tensors(), strict=True)
    ):
        raise ValueError(
            f"{source.what} give another sample each time the same place is read: turn random "
            "augmentation off"
        )
    size = sum(t.numel() * t.itemsize for t in one.tensors()) * len(places)
    if size <= IN_MEMORY_BYTES:
        return Samples._of(source.read_all(places), len(places))
    return Samples._of(None, len(places), source, places)


def _joined(batches: Sequence[Batch]) -> Batch:
    flat = [_tensors_and_spec(batch) for batch in batches]
    joined = [
        torch.cat(parts) for parts in zip(*(leaves for leaves, _ in flat), strict=True)
    ]
    _, spec = flat[0]
    has_target = batches[0].target is not None
    inputs = joined[:-1] if has_target else joined
    return Batch(
        pytree.tree_unflatten(inputs, spec), joined[-1] if has_target else None
    )


def _tensors_and_spec(batch: Batch) -> tuple[list[Tensor], Any]:
    return batch.tensors(), pytree.tree_flatten(batch.inputs)[1]


def _split(what: str, given: Any) -> Batch:
    """Return inputs and target of ``(inputs, ..., target)``."""
    if not isinstance(given, (tuple, list)) or len(given) < 2:
        got = (
            f"{len(given)} of them"
            if isinstance(given, (tuple, list))
            else _checks.shown(given)
        )
        raise TypeError(f"{what} must be tuples (inputs, ..., target), got {got}")
    *inputs, target = given
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return Batch(dict(inputs[0]), target)
    return Batch(tuple(inputs), target)


def _inputs_alone(given: Any) -> Batch:
    if isinstance(given, Mapping):
        return Batch(dict(given), None)
    return Batch(tuple(given) if isinstance(given, (tuple, list)) else (given,), None)


def _checked(
    what: str, batch: Batch, dtype: torch.dtype | None, device: torch.device | None
) -> Batch:
    """Return the same as tensors of equal length, finite, in place."""
    made = Batch(
        pytree.tree_map(lambda t: _tensor(f"the inputs of {what}", t), batch.inputs),
        None
        if batch.target is None
        else _tensor(f"the targets of {what}", batch.target),
    )
    tensors = made.tensors()
    if not tensors:
        raise ValueError(f"{what} have no inputs")
    lengths = {len(t) if t.ndim else 0 for t in tensors}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(
            f"{what} must be tensors of one length, at least one, on their first axis, got {shapes}"
        )
    for tensor in tensors:
        bad = ~torch.isfinite(tensor) if tensor.dtype.is_floating_point else None
        if bad is not None and bool(bad.any()):
            rows = bad.flatten(1).any(dim=1) if bad.ndim > 1 else bad
            raise ValueError(
                f"{what} must be finite: {int(rows.sum())} of {len(rows)} are not, the first is "
                f"sample {int(rows.nonzero()[0])}"
            )
    return made.map(lambda t: _like(t, dtype, device))


def _tensor(what: str, given: Any) -> Tensor:
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given))
    if not isinstance(given, Tensor):
        raise TypeError(f"{what} must be tensors or arrays, got {_checks.shown(given)}")
    return given.detach()


def _like(
    tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None
) -> Tensor:
    return tensor.to(
        device=device, dtype=dtype if tensor.dtype.is_floating_point else None
    )
