"""Parts of a parameter, as views of it: which numbers of the parameter a tensor shows.

A network may use its parameters through views: a packed projection by its chunks, a matrix by its
transpose, a table by its first rows. A view is known by where in the parameter it begins and by
its strides, so that nothing has to be followed but which tensors are views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

VIEW_METHODS = (
    "__getitem__",
    "chunk",
    "contiguous",
    "double",
    "flatten",
    "float",
    "movedim",
    "mT",
    "narrow",
    "permute",
    "reshape",
    "select",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "T",
    "t",
    "tensor_split",
    "to",
    "transpose",
    "type_as",
    "unbind",
    "unflatten",
    "unsqueeze",
    "view",
    "view_as",
)
"""Methods that may return views through which gradients flow; ``detach`` is none of them."""


def view_functions() -> frozenset[Callable[..., object]]:
    """Return the functions of torch that make views."""
    functions = []
    for name in VIEW_METHODS:
        # Most of them are methods and functions of the same name.
        for owner in (Tensor, torch):
            member = getattr(owner, name, None)
            if member is None:
                continue
            if callable(member):
                functions.append(member)
            elif (
                owner is Tensor
            ):  # a property, such as Tensor.T, whose getter is called
                functions.append(member.__get__)
    return frozenset(functions)


VIEWS = view_functions()
"""Functions of torch whose result may be a view of a parameter."""


@dataclass(frozen=True)
class ParameterView:
    """Which numbers of a parameter a tensor shows.

    Parameters
    ----------
    name:
        Name of the parameter.
    whole:
        The parameter's own shape.
    offset:
        How many of its numbers, row by row, come before the first one shown.
    shape, strides:
        Those of the view, in numbers of the parameter.
    """

    name: str
    whole: tuple[int, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it is the parameter in its own shape."""
        return self.shape == self.whole and self.is_run

    @property
    def is_run(self) -> bool:
        """Whether it shows consecutive numbers in their order, each once."""
        return self.strides == row_strides(self.shape, self.strides)

    @property
    def columns(self) -> slice:
        """Which numbers a run of them shows."""
        size = torch.Size(self.shape).numel()
        return slice(self.offset, self.offset + size)


def row_strides(shape: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor stored row by row; those ``like`` stay where a size is 1.

    Examples
    --------
    >>> from whence.parameter_views import row_strides
    >>> row_strides((2, 1, 3), (3, 99, 1))
    (3, 99, 1)
    """
    # Along an axis of one entry no step is ever taken.
    strides = list(like)
    step = 1
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] != 1:
            strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def view_of(parameter: Tensor, name: str, tensor: Tensor) -> ParameterView | None:
    """Return which numbers of a parameter a tensor shows, or None where it shows none of them.

    Examples
    --------
    >>> import torch
    >>> from whence.parameter_views import view_of
    >>> weight = torch.zeros(6, 2)
    >>> view_of(weight, "weight", weight.chunk(3)[1]).columns
    slice(4, 8, None)
    """
    # By the storage itself, as tensors that are traced have no memory.
    storage = parameter.untyped_storage()
    is_shared = tensor.untyped_storage()._cdata == storage._cdata
    # Of a parameter that is not stored row by row, places in memory are not those in θ.
    is_plain = parameter.is_contiguous() and tensor.dtype == parameter.dtype
    if not is_shared or not is_plain:
        return None

    offset = int(tensor.storage_offset() - parameter.storage_offset())
    return ParameterView(
        name,
        tuple(parameter.shape),
        offset,
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )
