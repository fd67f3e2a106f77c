"""Inputs and targets of supervised data, and where they are read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from tqdm import tqdm

from whence import _checks
from whence.arrays import DataFrameLike
from whence.outputs import Targets

TARGET_NAMES = ("labels", "label", "label_ids", "targets", "target")
"""Names under which a batch by name has what the loss compares with."""
READ_AT_ONCE = 256
"""Samples read from a data set at a time."""

Collate = Callable[[list[Any]], Any]
Inputs = tuple[Any, ...] | Mapping[str, Any]
"""Positional inputs of a model, or keyword inputs."""


@dataclass(frozen=True)
class Batch:
    """The tensors of some samples: positional inputs or keyword inputs, and a target or None.

    A target is a tensor, or several by name or in order.
    """

    inputs: Inputs
    target: Any

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the same with every tensor changed."""
        # None, for no target, is left alone.
        inputs = pytree.tree_map(change, self.inputs)
        if self.target is None:
            return Batch(inputs, None)
        return Batch(inputs, pytree.tree_map(change, self.target))

    def tensors(self) -> list[Tensor]:
        """Return every tensor, those of the target last."""
        tensors: list[Tensor] = list(pytree.tree_leaves(self.inputs))
        if self.target is not None:
            tensors.extend(pytree.tree_leaves(self.target))
        return tensors

    def __len__(self) -> int:
        return len(self.tensors()[0])

    @property
    def bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.numel() * tensor.itemsize for tensor in self.tensors())


@dataclass(frozen=True)
class Source:
    """Where samples are read from, and what they are brought to."""

    what: str
    dataset: Any
    collate: Collate
    workers: int = 0
    dtype: torch.dtype | None = None
    device: torch.device | None = None

    def read(self, places: np.ndarray) -> Batch:
        """Return the samples at these places of the data set."""
        several = getattr(self.dataset, "__getitems__", None)
        if (
            several
        ):  # torch's own loader prefers it too: a data base reads them in one query
            items = several(places.tolist())
        else:
            items = [self.dataset[int(place)] for place in places]

        return self._checked(self._collated(items))

    def read_targets(self, places: np.ndarray) -> Targets:
        """Return the targets of the samples at these places."""
        return self.read(places).target

    def _collated(self, items: list[Any]) -> Any:
        try:
            return self.collate(items)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.what} cannot be put into one batch: {error}; samples of different lengths "
                "need a DataLoader with a collate_fn that pads them to one length"
            ) from error

    def read_all(self, places: np.ndarray) -> Batch:
        """Return every sample, read with the loader's own workers."""
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size=READ_AT_ONCE,  # the loader's own size is that of training
            sampler=places.tolist(),  # in order, whatever the loader's sampler does
            collate_fn=self._collated,
            num_workers=self.workers,
        )
        bar = tqdm(
            loader, desc=f"reading {self.what}", unit="batch", delay=2, leave=False
        )
        # A loader draws a seed, whether it needs it or not.
        with torch.random.fork_rng(devices=[]):
            return joined([self._checked(batch) for batch in bar])

    def _checked(self, given: object) -> Batch:
        batch = inputs_and_target(self.what, given)
        return checked_batch(self.what, batch, self.dtype, self.device)

    def check_repeatable(self, first: Batch, place: np.ndarray) -> None:
        """Raise ``ValueError`` if the sample at a place is another one when it is read again."""
        again = self.read(place)
        pairs = zip(first.tensors(), again.tensors(), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise ValueError(
                f"{self.what} give another sample each time the same place is read: turn random "
                "augmentation off"
            )


def source_of(what: str, data: object) -> tuple[Source, np.ndarray]:
    """Return where data come from and the places of the samples there, in order.

    Raises
    ------
    TypeError
        If they are no ``Dataset`` with places and no ``DataLoader`` of one.
    ValueError
        If a loader shuffles.
    """
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset) or data.batch_sampler is None:
            raise TypeError(
                f"{what} come from a loader without places (an IterableDataset, or batch_size="
                "None): results could not say which sample they speak of; give a map-style Dataset"
            )

        source = Source(what, data.dataset, data.collate_fn, data.num_workers)
        return source, loader_order(what, data)

    has_places = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if has_places and not isinstance(data, str):
        places = np.arange(len(data))  # type: ignore[arg-type]
        return Source(what, data, collated), places
    if isinstance(data, Dataset):
        raise TypeError(
            f"{what} need a dataset with __len__ and __getitem__, got {type(data).__name__}"
        )

    raise TypeError(
        f"{what} must be tensors (inputs, target), a Dataset or a DataLoader, got "
        f"{_checks.describe(data)}"
    )


def collated(items: Sequence[object]) -> object:
    """Return items as one batch, as torch does, and lists of numbers by name as tensors."""

    def numbers(value: object) -> object:
        is_list = isinstance(value, list) and not isinstance(value[:1], Tensor)
        return torch.as_tensor(value) if is_list else value

    # Torch would make a tensor of the first numbers of all items, and so on.
    rows: list[object] = []
    for item in items:
        is_named = isinstance(item, Mapping)
        rows.append({k: numbers(v) for k, v in item.items()} if is_named else item)  # type: ignore[attr-defined]
    return default_collate(rows)


def loader_order(what: str, loader: DataLoader[object]) -> np.ndarray:
    """Return the places that a loader goes through; another order in a second pass is an error."""
    passes = []
    # Samplers draw from torch's global state, which is the user's.
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            places: list[int] = []
            for batch in loader.batch_sampler or ():
                places.extend(map(int, batch))
            passes.append(places)

    first, second = passes
    if first != second:
        raise ValueError(
            f"{what} come from a loader that changes their order between passes, so that results "
            "could not say which sample they speak of: give the Dataset itself, or "
            "DataLoader(..., shuffle=False)"
        )

    return np.asarray(first, dtype=np.int64)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return batches as one, samples below each other."""
    first = batches[0]
    # Batches have the same tensors in the same order: the k-th of all make the k-th of the whole.
    columns = zip(*(batch.tensors() for batch in batches), strict=True)
    tensors = []
    for parts in columns:
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise ValueError(
                f"batches of the data differ in shape, {_checks.describe(sorted(shapes))}: pad all "
                "sequences to one length, not each batch to its own"
            )
        tensors.append(torch.cat(parts))

    # Inputs and target may be nested; their structure is that of the first batch.
    _, spec = pytree.tree_flatten(first.inputs)
    inputs = pytree.tree_unflatten(tensors[: spec.num_leaves], spec)
    if first.target is None:
        return Batch(inputs, None)
    _, of_target = pytree.tree_flatten(first.target)
    return Batch(inputs, pytree.tree_unflatten(tensors[spec.num_leaves :], of_target))


def inputs_and_target(what: str, given: object) -> Batch:
    """Return inputs and target of ``(inputs, ..., target)``, or of a mapping with labels."""
    if isinstance(given, Mapping):
        return named_batch(what, given)
    if not isinstance(given, (tuple, list)):
        raise TypeError(
            f"{what} must be tuples (inputs, ..., target), got {_checks.describe(given)}"
            f"{graph_hint(given)}"
        )
    if len(given) < 2:
        raise TypeError(
            f"{what} must be tuples (inputs, ..., target), got {len(given)} of them"
        )

    # (inputs, ..., target) as data sets of torch yield it; a mapping is keyword inputs.
    *inputs, target = given
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return Batch(dict(inputs[0]), target)

    return Batch(tuple(inputs), target)


def named_batch(what: str, given: Mapping[str, object]) -> Batch:
    """Return inputs by name and the target of a batch by name, as tokenizers and loaders make it.

    Raises
    ------
    TypeError
        If none of the names, or several, are those of a target.
    """
    # Two of them leave open which one the loss compares with.
    names = [name for name in TARGET_NAMES if name in given]
    if len(names) != 1:
        present = f"has only {', '.join(given)}"
        if names:
            present = f"has {' and '.join(names)}"
        raise TypeError(
            f"{what} by name need one target, called {', '.join(TARGET_NAMES[:-1])} or "
            f"{TARGET_NAMES[-1]}, and a batch {present}; or give tuples (inputs by name, target)"
        )
    (name,) = names
    inputs = {key: value for key, value in given.items() if key != name}
    return Batch(inputs, given[name])


def is_named_batch(given: object) -> bool:
    """Whether something is a batch by name with a target among others."""
    # A target alone is no batch.
    if not isinstance(given, Mapping) or len(given) < 2:
        return False
    return any(name in given for name in TARGET_NAMES)


def inputs_alone(given: object) -> Batch:
    """Return inputs without a target, which a batch by name may have."""
    if is_named_batch(given):
        return Batch(named_batch("the inputs", given).inputs, None)  # type: ignore[arg-type]
    if isinstance(given, Mapping):
        return Batch(dict(given), None)
    if isinstance(given, (tuple, list)) and not _is_array(given):
        return Batch(tuple(given), None)
    return Batch((given,), None)


def checked_batch(
    what: str, batch: Batch, dtype: torch.dtype | None, device: torch.device | None
) -> Batch:
    """Return the same as tensors of equal length, finite, of this dtype, on this device."""
    inputs = pytree.tree_map(
        lambda given: _tensor(f"the inputs of {what}", given),
        batch.inputs,
        is_leaf=_is_array,
    )
    target = None
    if batch.target is not None:
        target = pytree.tree_map(
            lambda given: _tensor(f"the targets of {what}", given),
            batch.target,
            is_leaf=_is_array,
        )

    tensors_of = Batch(inputs, target)
    tensors = tensors_of.tensors()
    if not tensors:
        raise ValueError(f"{what} have no inputs")

    # The first axis is that of the samples, in all tensors.
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(
            f"{what} must be tensors of one length, at least one, on their first axis, got {shapes}"
            "; sequences of different lengths go padded, a row each"
        )

    for tensor in tensors:
        if tensor.dtype.is_floating_point:
            check_finite(what, tensor)

    return tensors_of.map(lambda tensor: moved(tensor, dtype, device))


def check_finite(what: str, tensor: Tensor) -> None:
    """Raise ``ValueError`` unless every number of every sample is finite."""
    bad = ~torch.isfinite(tensor)
    if not bool(bad.any()):
        return

    # A sample is bad if any of its numbers is, (n,).
    rows = bad.flatten(1).any(dim=1) if bad.ndim > 1 else bad
    raise ValueError(
        f"{what} must be finite: {int(rows.sum())} of {len(rows)} are not, the first is "
        f"sample {int(rows.nonzero()[0])}"
    )


def _is_array(given: object) -> bool:
    """Whether an object is an input in itself rather than a container of inputs."""
    if isinstance(given, DataFrameLike):
        return True
    # A list of numbers, or of rows of numbers, as opposed to a list of tensors.
    return isinstance(given, list) and not any(
        isinstance(entry, (Tensor, np.ndarray)) for entry in given
    )


def _tensor(what: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()

    if hasattr(value, "to_numpy"):  # a data frame, or a column of one
        value = value.to_numpy()
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError:
            raise TypeError(
                f"{what} must be rows of equal length, got {_checks.describe(value)}"
            ) from None

    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        raise TypeError(
            f"{what} must be tensors or arrays, got {_checks.describe(value)}{graph_hint(value)}"
        )

    return torch.from_numpy(np.ascontiguousarray(value))


def graph_hint(given: object) -> str:
    """Return what to do with a graph or a batch of graphs, for a message; nothing of others."""
    if not hasattr(given, "edge_index"):
        return ""
    return (
        ": graphs go padded and dense, (features, adjacency, which nodes are real, target), as "
        "torch_geometric.utils.to_dense_batch and to_dense_adj make them"
    )


def moved(
    tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None
) -> Tensor:
    """Return a tensor on this device, in this dtype if its numbers are no integers."""
    # Integers are labels or tokens, which have no precision to change.
    if not tensor.dtype.is_floating_point:
        return tensor.to(device=device)
    return tensor.to(device=device, dtype=dtype)
