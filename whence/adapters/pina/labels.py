"""Tensors with PINA's labels that know which fields they are.

PINA's operators check that what they differentiate is a ``LabelTensor``, so that columns of named
fields come as one here: a tensor of the right shape whose numbers are never read. What takes its
values gets a plain ``LabelTensor`` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pina import LabelTensor
from torch import Tensor
from torch.utils import _pytree as pytree

from whence.adapters.columns import Columns
from whence.jets import Jet

Labels = str | Sequence[str] | Mapping[str, Sequence[str]]
"""How PINA names columns: by the last axis, or by the name of any."""
_PROPERTIES = ("shape", "ndim", "device", "dtype", "requires_grad")
_OF_SHAPE = {getattr(Tensor, name).__get__ for name in _PROPERTIES} | {
    Tensor.dim,
    Tensor.size,
    Tensor.__len__,
}
"""What is asked of the tensor itself, whatever its values are."""


class LabelColumns(LabelTensor):  # type: ignore[misc]  # PINA comes without types
    """Named fields side by side as one of PINA's tensors.

    Parameters
    ----------
    columns:
        The fields.
    labels:
        PINA's names of the columns, None for none as yet.
    """

    columns: Columns
    knows_derivatives = True
    """Differentiating it leaves no graph, see :mod:`whence.recorder`."""

    @staticmethod
    def __new__(  # noqa: D102
        cls, columns: Columns | LabelColumns, labels: Sequence[str] | None
    ) -> LabelColumns:
        if isinstance(columns, LabelColumns):
            return columns  # PINA gives labels to what it has computed
        points = columns.fields.points
        # What reads it by a way unknown here gets no number, which the check of losses sees.
        placeholder = points.new_full((), torch.nan)
        tensor: LabelColumns = placeholder.expand(columns.shape).as_subclass(cls)
        return tensor

    def __init__(
        self, columns: Columns | LabelColumns, labels: Sequence[str] | None
    ) -> None:
        if isinstance(columns, Columns):
            self.columns = columns
        self._labels: dict[int, Any] = {}
        if labels is not None:
            self.labels = labels

    @property
    def values(self) -> LabelTensor:
        """Their values, as PINA's tensor."""
        return labelled(self.columns.tensor, self.labels)

    @property
    def tensor(self) -> Tensor:
        """Their values."""
        return self.columns.tensor

    def as_subclass(self, kind: type[Tensor]) -> Tensor:
        """Return their values as a tensor of some class."""
        return self.columns.tensor.as_subclass(kind)

    def extract(self, labels_to_extract: Labels) -> LabelTensor:
        """Return the columns of some labels."""
        names = labels_to_extract
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, (list, tuple)):
            return self.values.extract(labels_to_extract)

        positions = [self.labels.index(name) for name in names]
        fields = [self.columns.names[k] for k in positions]
        return LabelColumns(Columns(self.columns.fields, fields), list(names))

    def __getitem__(self, item: Any) -> Any:
        is_label = isinstance(item, str)
        if is_label or (
            isinstance(item, list) and all(isinstance(i, str) for i in item)
        ):
            return self.extract(item)

        part = self.columns[item]
        if not isinstance(part, Columns) or part.is_flat:
            return self.values[item]
        labels = None
        if self.labels is not None:
            by_name = dict(zip(self.columns.names, self.labels, strict=True))
            labels = [by_name[name] for name in part.names]
        return LabelColumns(part, labels)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Differentiate by name, or call ``func`` with the values."""
        kwargs = kwargs or {}
        if func in _OF_SHAPE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is torch.autograd.grad:
            plain_args, plain_kwargs = pytree.tree_map(_columns_of, (args, kwargs))
            (slopes,) = Columns.__torch_function__(
                func, types, plain_args, plain_kwargs
            )
            return (LabelColumns(slopes, None),)
        if func in (torch.ones_like, torch.zeros_like):
            return Columns.__torch_function__(func, types, (args[0].columns,))

        joined = _joined(func, args, kwargs)
        if joined is not None:
            return joined
        plain_args, plain_kwargs = pytree.tree_map(_values_of, (args, kwargs))
        return func(*plain_args, **plain_kwargs)


def _columns_of(leaf: Any) -> Any:
    return leaf.columns if isinstance(leaf, LabelColumns) else leaf


def _values_of(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, LabelColumns) else leaf


def _joined(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LabelColumns | None:
    """Return columns put side by side, None where it is something else that is done."""
    if func is not torch.cat or not isinstance(args[0], (list, tuple)):
        return None
    parts = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if dim not in (-1, 1) or not all(isinstance(part, LabelColumns) for part in parts):
        return None

    names = [name for part in parts for name in part.columns.names]
    return LabelColumns(Columns(parts[0].columns.fields, names), None)


def labelled(tensor: Tensor, labels: Sequence[str] | None) -> LabelTensor:
    """Return a tensor as one of PINA's, in the same graph."""
    result = tensor.as_subclass(LabelTensor)
    result._labels = {}
    if labels is not None:
        result.labels = list(labels)
    return result


def plain(tensor: LabelTensor) -> Tensor:
    """Return the tensor that PINA's stands for; a jet as it is."""
    if isinstance(tensor, LabelColumns):
        tensor = tensor.values
    is_labelled = isinstance(tensor, LabelTensor)
    result: Tensor = tensor.as_subclass(Tensor) if is_labelled else tensor
    return result


class LabelPoints(LabelTensor):  # type: ignore[misc]
    """Coordinates from which a model extracts columns; else they give plain tensors."""

    @staticmethod
    def __new__(cls, points: Tensor, labels: Sequence[str]) -> LabelPoints:  # noqa: D102
        result: LabelPoints = points.as_subclass(cls)
        return result

    def __init__(self, points: Tensor, labels: Sequence[str]) -> None:
        super().__init__(points, list(labels))

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def extract(self, labels_to_extract: Labels) -> LabelTensor:
        """Return the columns of some labels."""
        names = labels_to_extract
        if isinstance(names, str):
            names = [names]
        assert not isinstance(names, Mapping)
        positions = [self.labels.index(name) for name in names]
        return LabelPoints(self.tensor[..., positions], names)


class LabelJet(Jet):
    """Coordinates with their derivatives, from which a model extracts columns by PINA's labels."""

    def __init__(self, jet: Jet, labels: Sequence[str]) -> None:
        super().__init__(jet.data, jet.layout)
        self.labels = list(labels)

    @property
    def tensor(self) -> Jet:
        """The same without labels."""
        return Jet(self.data, self.layout)

    def as_subclass(self, kind: type) -> Jet:
        """Return the same without labels, as PINA's models ask of a tensor."""
        return self.tensor

    def extract(self, labels_to_extract: str | Sequence[str]) -> Jet:
        """Return the columns of some labels."""
        names = labels_to_extract
        if isinstance(names, str):
            names = [names]
        positions = [self.labels.index(name) for name in names]
        return LabelJet(self.tensor[..., positions], names)

    def __getitem__(self, item: Any) -> Jet:
        if isinstance(item, str):
            return self.extract(item)
        return super().__getitem__(item)
