"""What a model returns, as one table of numbers: a tensor, an object with logits, or several.

A model of one output returns it as a tensor or as ``.logits`` of an object, as those of
transformers do. One of several (classes and boxes, say) returns them by name or in order; they lie
side by side in a sample's row of numbers, and an :class:`OutputLayout` puts them back for a loss.
"""

from __future__ import annotations

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
    """Where each of several outputs lies in a row of numbers.

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
        """Return where an output is in a row."""
        # Outputs follow each other.
        start = 0
        for name, shape in self.shapes.items():
            if name == key:
                return slice(start, start + shape.numel())
            start += shape.numel()
        raise KeyError(key)

    def of(self, table: Tensor, key: Key) -> Tensor:
        """Return an output in its own shape from rows (n, size)."""
        return table[:, self.columns(key)].reshape(len(table), *self.shapes[key])

    def restored(self, table: Tensor) -> dict[Key, Tensor] | tuple[Tensor, ...]:
        """Return all outputs as the model returns them, from rows (n, size)."""
        outputs = {key: self.of(table, key) for key in self.shapes}
        return outputs if self.is_mapping else tuple(outputs.values())


Outputs = Mapping[Key, Tensor] | Sequence[Tensor]
"""Several outputs of a model."""


def layout_of(outputs: Outputs) -> OutputLayout:
    """Return where outputs lie in a row, from their values for some samples."""
    shapes = {key: tensor.shape[1:] for key, tensor in _items(outputs)}
    return OutputLayout(shapes, isinstance(outputs, Mapping))


def table_of(outputs: Outputs) -> Tensor:
    """Return outputs side by side, (n, size)."""
    # In the order of the layout.
    tensors = [tensor for _, tensor in _items(outputs)]
    # Some models have one head in single precision.
    dtype = torch.promote_types(tensors[0].dtype, tensors[-1].dtype)
    return torch.cat([tensor.flatten(1).to(dtype) for tensor in tensors], dim=1)


def outputs_of(returned: object, n: int) -> Tensor | Outputs:
    """Return what counts of what a model returned for n samples.

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

    if isinstance(returned, (Mapping, tuple, list)):
        chosen = {key: value for key, value in _items(returned) if _is_output(value)}
        # By name, what is no tensor of real numbers (a cache, a count) is passed over; in order
        # places would move.
        if chosen and isinstance(returned, Mapping):
            return {key: checked_output(value, n, key) for key, value in chosen.items()}
        if len(chosen) == len(returned) > 0:
            return tuple(checked_output(v, n, k) for k, v in chosen.items())
    raise TypeError(
        f"the model must return a tensor, an object with .logits, or several tensors by name or in "
        f"order, got {_checks.describe(returned)}: wrap it in a module that returns what to explain"
    )


def checked_output(value: Tensor, n: int, key: Key | None = None) -> Tensor:
    """Return an output if it has an entry for each of n samples on its first axis."""
    # A batch that is reduced to one number has no outputs of single samples.
    if value.ndim and len(value) == n:
        return value
    what = "an output" if key is None else f"an output {key!r}"
    raise ValueError(
        f"the model must return {what} for each of {n} samples on the first axis, got shape "
        f"{tuple(value.shape)}"
    )


def _items(outputs: Any) -> list[tuple[Key, Any]]:
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    return list(enumerate(outputs))


def _is_output(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype.is_floating_point
