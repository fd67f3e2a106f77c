"""What a model returns, as one table of numbers: a tensor, an object with logits, or several.

A model of one output returns it as a tensor or as ``.logits`` of an object, as those of
transformers do. One of several (classes and boxes, say) returns them by name or in order; they lie
side by side in a sample's row of numbers, and an :class:`OutputLayout` puts them back for a loss.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence import _checks

Key = str | int
"""Name of an output, or its place among several."""
Targets = Any
"""What a loss compares with: a tensor, several by name or in order, or None."""


@dataclass(frozen=True)
class OutputLayout:
    """Where each of several outputs lies in a row of numbers: one behind the other, flattened.

    Parameters
    ----------
    shapes:
        The shape of each output for one sample, by name or place.
    is_mapping:
        Whether the model returns them by name.

    Examples
    --------
    >>> import torch
    >>> from whence.outputs import layout_of
    >>> layout = layout_of({"classes": torch.zeros(5, 3), "boxes": torch.ones(5, 2, 4)})
    >>> layout.columns("boxes"), layout.restored(torch.zeros(5, 11))["boxes"].shape
    (slice(3, 11, None), torch.Size([5, 2, 4]))
    """

    shapes: Mapping[Key, torch.Size]
    is_mapping: bool

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return sum(shape.numel() for shape in self.shapes.values())

    def columns(self, key: Key) -> slice:
        """Return where an output is in a row.

        Raises
        ------
        KeyError
            If there is no such output.
        """
        start = 0
        for name, shape in self.shapes.items():
            stop = start + shape.numel()
            if name == key:
                return slice(start, stop)
            start = stop
        raise KeyError(key)

    def of(self, table: Tensor, key: Key) -> Tensor:
        """Return an output in its own shape, (n, ...), from rows (n, size)."""
        flat = table[:, self.columns(key)]
        return flat.reshape(len(table), *self.shapes[key])

    def restored(self, table: Tensor) -> dict[Key, Tensor] | tuple[Tensor, ...]:
        """Return all outputs as the model returns them, from rows (n, size)."""
        outputs = {key: self.of(table, key) for key in self.shapes}
        if self.is_mapping:
            return outputs
        return tuple(outputs.values())


Outputs = Mapping[Key, Tensor] | Sequence[Tensor]
"""Several outputs of a model, each (n, ...) for n samples."""


def layout_of(outputs: Outputs) -> OutputLayout:
    """Return where outputs lie in a row, from their values for some samples."""
    # The first axis is that of the samples.
    shapes = {key: output.shape[1:] for key, output in items_of(outputs)}
    return OutputLayout(shapes, isinstance(outputs, Mapping))


def table_of(outputs: Outputs) -> Tensor:
    """Return outputs side by side, (n, size), in the order of their layout.

    Examples
    --------
    >>> import torch
    >>> from whence.outputs import table_of
    >>> table_of((torch.zeros(1, 2), torch.ones(1, 1, 2)))
    tensor([[0., 0., 1., 1.]])
    """
    tensors = [output for _, output in items_of(outputs)]

    # Some models have one head in single precision: that of the most digits is everyone's.
    dtype = functools.reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    columns = [tensor.flatten(1).to(dtype) for tensor in tensors]
    return torch.cat(columns, dim=1)


def outputs_of(returned: object, n: int) -> Tensor | Outputs:
    """Return what counts of what a model returned for n samples.

    That is a tensor, the ``logits`` of an object, or several tensors of real numbers: by name those
    among the entries of a mapping, in order all entries of a tuple or list.

    Raises
    ------
    TypeError
        If there is no tensor of real numbers in it.
    ValueError
        If an output is not one for each sample.
    """
    # One output is the usual case, and has its own shape.
    if isinstance(returned, Tensor):
        return checked_output(returned, n)
    logits = getattr(returned, "logits", None)
    if isinstance(logits, Tensor):
        return checked_output(logits, n)

    if isinstance(returned, Mapping):
        # What is no tensor of real numbers (a cache, a count) is passed over.
        named = {key: value for key, value in returned.items() if is_output(value)}
        if named:
            return {key: checked_output(value, n, key) for key, value in named.items()}

    # In order nothing can be: the places of those behind it would move.
    if isinstance(returned, (tuple, list)):
        outputs = [value for value in returned if is_output(value)]
        if outputs and len(outputs) == len(returned):
            return tuple(checked_output(v, n, k) for k, v in enumerate(outputs))
    raise TypeError(
        "the model must return a tensor, an object with .logits, or several tensors by name or in "
        f"order, got {_checks.describe(returned)}: wrap it in a module that returns what to explain"
    )


def checked_output(value: Tensor, n: int, key: Key | None = None) -> Tensor:
    """Return an output if it has an entry for each of n samples on its first axis.

    Raises
    ------
    ValueError
        If it has not; the message names ``key``, where the output is one of several.
    """
    # A batch that is reduced to one number has no outputs of single samples.
    if value.ndim and len(value) == n:
        return value

    what = "an output" if key is None else f"an output {key!r}"
    raise ValueError(
        f"the model must return {what} for each of {n} samples on the first axis, got shape "
        f"{tuple(value.shape)}"
    )


def items_of(outputs: Outputs) -> list[tuple[Key, Tensor]]:
    """Return outputs with their names, or with their places among several in order."""
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    return list(enumerate(outputs))


def is_output(value: object) -> bool:
    """Whether something a model returned is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.dtype.is_floating_point
