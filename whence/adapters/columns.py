"""Tensors that know which fields they are, so that foreign code differentiates without autograd.

Other libraries write an equation as a function of tensors ``x`` (n, d) and ``y`` (n, m) in which
derivatives are taken by ``torch.autograd.grad``, one backward pass each, and again for the
derivative with respect to the network's parameters. :class:`Columns` stand for these tensors. They
carry names of fields: ``grad`` of the column ``u`` is the columns ``u_x, u_t``, of ``u_x`` it is
``u_xx, u_xt``, and nothing is computed. Whatever else is done to them takes their values, which one
pass of :class:`whence.pinn.pde.fields.FieldMap` gives for all fields of an equation together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whence.pinn.pde.fields import FieldMap


class DifferentiatesExpression(Exception):
    """Something is differentiated that is no field: an expression, or by something else than x."""


class FieldValues(Protocol):
    """Values of fields at n points."""

    coordinates: tuple[str, ...]
    outputs: tuple[str, ...]
    points: Tensor
    """The coordinates, (n, d)."""

    def value(self, name: str) -> Tensor:
        """Return the field's values, (n,)."""

    def derivative(self, name: str, coordinate: str) -> str:
        """Return the name of a field's derivative."""


class KnownFields:
    """Fields that have been evaluated.

    Parameters
    ----------
    field_map:
        What they are fields of.
    points:
        The coordinates, (n, d).
    fields:
        Values (n,) by name.
    """

    def __init__(
        self, field_map: FieldMap, points: Tensor, fields: Mapping[str, Tensor]
    ) -> None:
        self.points = points
        self.coordinates = field_map.coordinates
        self.outputs = field_map.outputs
        self._field_map = field_map
        self._fields = fields

    def value(self, name: str) -> Tensor:
        """Return the field's values, (n,)."""
        if name in self.coordinates:
            return self.points[:, self.coordinates.index(name)]
        if name not in self._fields:
            raise ValueError(
                f"the equation takes {name!r} here, which it did not take when it was converted: "
                "which derivatives it takes must not depend on values"
            )
        return self._fields[name]

    def derivative(self, name: str, coordinate: str) -> str:
        """Return the name of a field's derivative."""
        return derivative_name(self._field_map, name, coordinate)


class AskedFields(KnownFields):
    """Fields that are evaluated when they are asked for, and noted."""

    def __init__(
        self, field_map: FieldMap, points: Tensor, tensors: Mapping[str, Tensor]
    ) -> None:
        super().__init__(field_map, points, {})
        self._tensors = tensors
        self.names: list[str] = []
        """What was asked for, in order."""

    def value(self, name: str) -> Tensor:
        """Return the field's values, (n,)."""
        if name not in self.names:
            self.names.append(name)
        fields = self._field_map.evaluate(self._tensors, self.points, (name,))
        return fields[name]


def derivative_name(field_map: FieldMap, name: str, coordinate: str) -> str:
    """Return the name of a field's derivative: ``u_xt`` of ``u_t`` and ``x``.

    Raises
    ------
    DifferentiatesExpression
        If the field is a coordinate or an unknown number.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.pde.fields import FieldMap
    >>> field_map = FieldMap(torch.nn.Linear(2, 1), ("x", "t"), ("u",))
    >>> derivative_name(field_map, "u_t", "x")
    'u_xt'
    """
    parsed = field_map.parse(name)
    if parsed.output is None:
        raise DifferentiatesExpression(f"{name!r} is no output of the network")

    position = field_map.coordinates.index(coordinate)
    # In the order of the coordinates, so that u_xt and u_tx are one field.
    index = sorted((*parsed.index, position))
    letters = "".join(field_map.coordinates[k] for k in index)
    return f"{field_map.columns[parsed.output]}_{letters}"


class Columns:
    """Named fields side by side, in the place of a tensor (n, m), or (n,) of a single one.

    Parameters
    ----------
    fields:
        Where their values come from.
    names:
        One for each column.
    is_flat:
        Whether it stands for a tensor (n,).
    """

    __array_ufunc__ = None  # a numpy scalar on the left leaves the operation to them

    def __init__(
        self, fields: FieldValues, names: Sequence[str], is_flat: bool = False
    ) -> None:
        self.fields = fields
        self.names = tuple(names)
        self.is_flat = is_flat

    @property
    def tensor(self) -> Tensor:
        """Their values, (n, m) or (n,)."""
        if self.is_flat:
            return self.fields.value(self.names[0])
        if self.names == self.fields.coordinates:
            return self.fields.points
        values = [self.fields.value(name) for name in self.names]
        return torch.stack(values, dim=1)

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor that they stand for."""
        n = len(self.fields.points)
        return torch.Size([n] if self.is_flat else [n, len(self.names)])

    @property
    def ndim(self) -> int:
        """Number of its axes."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Its number type."""
        return self.fields.points.dtype

    @property
    def device(self) -> torch.device:
        """Its device."""
        return self.fields.points.device

    @property
    def requires_grad(self) -> bool:
        """Foreign code asks before it differentiates."""
        return True

    def dim(self) -> int:
        """Return the number of its axes."""
        return self.ndim

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return its shape, or one entry of it."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.fields.points)

    def __repr__(self) -> str:
        return f"Columns({', '.join(self.names)})"

    def __getitem__(self, item: Any) -> Any:
        # Columns are chosen by name; any other part is one of values.
        if self.is_flat or not isinstance(item, tuple) or len(item) != 2:
            return self.tensor[item]

        rows, columns = item
        if rows is not Ellipsis and rows != slice(None):
            return self.tensor[item]
        if isinstance(columns, slice):
            return Columns(self.fields, self.names[columns])
        if isinstance(columns, int):
            return Columns(self.fields, (self.names[columns],), is_flat=True)
        if isinstance(columns, (list, tuple)):
            return Columns(self.fields, [self.names[k] for k in columns])
        return self.tensor[item]

    def __getattr__(self, name: str) -> Any:
        # Methods of tensors, such as ``y.sin()``.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor, name)

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
        if func is torch.autograd.grad:
            return _gradient(*args, **kwargs)
        if func in (torch.ones_like, torch.zeros_like):
            # The values do not matter.
            (columns,) = args
            make = torch.ones if func is torch.ones_like else torch.zeros
            return make(columns.shape, dtype=columns.dtype, device=columns.device)

        plain_args, plain_kwargs = pytree.tree_map(_plain, (args, kwargs))
        return func(*plain_args, **plain_kwargs)


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, Columns) else value


def _operator(name: str) -> Callable[..., Any]:
    function = getattr(Tensor, name)

    def apply(self: Columns, *others: Any) -> Any:
        return function(self.tensor, *map(_plain, others))

    return apply


# Python looks these up on the class, not through __getattr__.
for _name in (
    *("add", "sub", "mul", "truediv", "pow", "matmul", "floordiv", "mod"),
    *("radd", "rsub", "rmul", "rtruediv", "rpow", "rmatmul"),
    *("neg", "pos", "abs", "eq", "ne", "lt", "le", "gt", "ge"),
):
    setattr(Columns, f"__{_name}__", _operator(f"__{_name}__"))


def _gradient(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    **options: Any,
) -> tuple[Columns, ...]:
    """Return what ``torch.autograd.grad`` returns for one field and all coordinates.

    Raises
    ------
    DifferentiatesExpression
        For anything else.
    """
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    if len(outputs) != 1 or len(inputs) != 1:
        raise DifferentiatesExpression("several tensors at once")

    (y,) = outputs
    (x,) = inputs
    if not isinstance(x, Columns) or x.names != x.fields.coordinates:
        raise DifferentiatesExpression("by something else than all coordinates")
    if not isinstance(y, Columns) or len(y.names) != 1:
        raise DifferentiatesExpression("an expression, or several columns at once")

    for weights in pytree.tree_leaves(grad_outputs):
        if not bool((weights == 1).all()):
            raise DifferentiatesExpression("with weights of points")

    (name,) = y.names
    derivatives = [x.fields.derivative(name, c) for c in x.fields.coordinates]
    return (Columns(x.fields, derivatives),)
