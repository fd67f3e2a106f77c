"""Values and derivatives carried through torch operations, in one pass.

A :class:`Jet` holds a value and its requested derivatives with respect to the coordinates, with
all lower ones, as the leading axis ("channels") of one tensor. It implements
``__torch_function__``, so any module made of supported operations runs on it unchanged; a
linear layer treats all channels in one matrix product. The rules are the chain and product
rules (Griewank & Walther, *Evaluating Derivatives*, 2008, ch. 13), written out here to second
order, which most equations are of; :mod:`whence.taylor` has them for any order.

With a and b functions of the coordinates x, and subscripts for their derivatives:

    ``(a + b)_ij = a_ij + b_ij``
    ``(a b)_i = a_i b + a b_i``
    ``(a b)_ij = a_ij b + a b_ij + a_i b_j + a_j b_i``
    ``f(a)_i = f′(a) a_i``
    ``f(a)_ij = f′(a) a_ij + f″(a) a_i a_j`` (:mod:`whence.elementwise`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import EllipsisType, NoneType
from typing import Any, overload

import torch
from torch import Tensor

from whence import affine, elementwise, taylor
from whence.elementwise import Unary
from whence.layout import Layout as Layout
from whence.layout import MultiIndex as MultiIndex
from whence.layout import UnsupportedOperation as UnsupportedOperation
from whence.layout import layout as layout
from whence.taylor import Carry

Rule = Callable[..., Any]
"""What a function of torch does to jets, by the same arguments."""
_RULES: dict[str, Rule] = {}
"""Rules by the name of torch's function."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    """Let the decorated function be the rule of functions of torch of some names."""

    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return register


class Jet:
    """A tensor with its derivatives: ``data`` has shape (channels, *shape).

    Above second order a jet whose derivatives above the first vanish, such as the coordinates and
    what a linear layer makes of them, has channels for value and first derivatives alone.

    Examples
    --------
    >>> import torch
    >>> from whence.jets import seed, layout
    >>> x = seed(torch.tensor([[2.0]]), layout([(0, 0)]))
    >>> (x**3).data.flatten()                   # x³, 3x², 6x at 2
    tensor([ 8., 12., 12.])
    """

    __array_ufunc__ = None  # a numpy scalar on the left leaves the operation to the jet

    def __init__(self, data: Tensor, layout: Layout) -> None:
        self.data = data
        self.layout = layout

    @property
    def value(self) -> Tensor:
        """The value channel, of shape ``shape``."""
        return self.data[0]

    def derivative(self, index: MultiIndex) -> Tensor:
        """Return the derivative with respect to the coordinates of ``index``, (*shape)."""
        channel = self.layout.position[tuple(sorted(index))]
        if channel >= len(self.data):
            return torch.zeros_like(self.value)
        return self.data[channel]

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.data.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return self.data.ndim - 1

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the value."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """Device of the value."""
        return self.data.device

    @overload
    def size(self, dim: None = None) -> torch.Size: ...

    @overload
    def size(self, dim: int) -> int: ...

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return the value's shape, or one entry of it, as ``Tensor.size`` does."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __repr__(self) -> str:
        shape = tuple(self.shape)
        return f"Jet(shape={shape}, derivatives={self.layout.indices})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Carry the jet through ``func``, or raise :class:`UnsupportedOperation`."""
        name = getattr(func, "__name__", "")
        rule = _RULES.get(name)
        full_name = str(getattr(func, "__qualname__", None) or name or func)
        if rule is None:
            raise UnsupportedOperation(f"jets have no rule for {full_name}")

        return _carry(rule, full_name, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        # Methods of tensors, such as ``jet.sin()``. Python looks up operators on the class.
        is_special = name.startswith("__")
        rule = _RULES.get(name)
        if rule is None or is_special:
            if hasattr(Tensor, name) and not is_special:
                raise UnsupportedOperation(f"jets have no rule for Tensor.{name}")
            raise AttributeError(f"Jet has no attribute {name!r}")

        def method(*args: Any, **kwargs: Any) -> Any:
            return _carry(rule, f"Tensor.{name}", (self, *args), kwargs)

        return method

    def __add__(self, other: Any) -> Jet:
        return _add(self, other)

    def __radd__(self, other: Any) -> Jet:
        return _add(self, other)

    def __sub__(self, other: Any) -> Jet:
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Jet:
        return _sub(other, self)

    def __mul__(self, other: Any) -> Jet:
        return _mul(self, other)

    def __rmul__(self, other: Any) -> Jet:
        return _mul(self, other)

    def __truediv__(self, other: Any) -> Jet:
        return _div(self, other)

    def __rtruediv__(self, other: Any) -> Jet:
        return _div(other, self)

    def __neg__(self) -> Jet:
        return Jet(-self.data, self.layout)

    def __pos__(self) -> Jet:
        return self

    def __pow__(self, exponent: Any) -> Jet:
        return _pow(self, exponent)

    def __rpow__(self, base: Any) -> Jet:
        return _pow(base, self)

    def __matmul__(self, other: Any) -> Jet:
        return _matmul(self, other)

    def __getitem__(self, item: Any) -> Jet:
        return _getitem(self, item)


def _unsupported(name: str) -> Callable[..., Any]:
    def operator(self: Jet, *args: Any) -> Any:
        raise UnsupportedOperation(f"jets have no rule for Tensor.{name}")

    return operator


# Python looks these up on the class, not through __getattr__; without them == would be identity.
for _operator in (
    *("abs", "bool", "float", "int", "invert", "setitem", "rmatmul"),
    *("eq", "ne", "lt", "le", "gt", "ge", "floordiv", "rfloordiv", "mod", "rmod"),
):
    setattr(Jet, f"__{_operator}__", _unsupported(f"__{_operator}__"))


def _carry(rule: Rule, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return rule(*args, **kwargs)
    except TypeError as error:  # options that the rule does not take
        raise UnsupportedOperation(
            f"jets have no rule for {name} called so: {error}"
        ) from error


def seed(points: Tensor, layout: Layout) -> Jet:
    """Return the coordinates themselves as a jet: value ``points`` (..., d), unit derivatives."""
    # ∂x_k/∂x_i is one for k = i and zero otherwise; second derivatives of x vanish.
    n_channels = layout.n_affine if layout.order > 2 else len(layout)
    channels = [points]
    for index in layout.indices[1:n_channels]:
        channel = torch.zeros_like(points)
        if len(index) == 1:
            (i,) = index
            unit = points.new_zeros(points.shape[-1])
            unit[i] = 1.0
            channel = channel + unit
        channels.append(channel)

    return Jet(torch.stack(channels), layout)


def constant(value: Tensor, layout: Layout) -> Jet:
    """Return ``value`` as a jet all of whose derivatives vanish."""
    channel = value.unsqueeze(0)
    data = _padded(channel, len(layout))
    return Jet(data, layout)


def _padded(data: Tensor, n_channels: int) -> Tensor:
    """Return channels with zeros for those that were left out."""
    missing = n_channels - len(data)
    if missing == 0:
        return data

    zeros = torch.zeros_like(data[0]).expand(missing, *data.shape[1:])
    return torch.cat([data, zeros])


# --- arithmetic ----------------------------------------------------------------------------------


def _pair(a: Jet, b: Jet) -> tuple[Tensor, Tensor]:
    """Bring two jets of one layout to the same number of axes, new axes after the channels."""
    if a.layout is not b.layout:
        raise UnsupportedOperation("jets of different layouts cannot be combined")

    ndim = max(a.ndim, b.ndim)
    n_channels = max(len(a.data), len(b.data))
    x = _padded(a.data, n_channels)
    y = _padded(b.data, n_channels)
    return _with_axes(x, ndim), _with_axes(y, ndim)


def _with_axes(data: Tensor, ndim: int) -> Tensor:
    """Return channels of values of ``ndim`` axes: (c, *shape) to (c, 1, …, *shape).

    Broadcasting would put new axes before the channels.
    """
    missing = ndim - (data.ndim - 1)
    if missing <= 0:
        return data

    n_channels, *shape = data.shape
    return data.reshape(n_channels, *[1] * missing, *shape)


def _against(jet: Jet, other: Any) -> Tensor:
    """Return the jet's data, ready to broadcast with a plain tensor or number."""
    if isinstance(other, Tensor):
        return _with_axes(jet.data, other.ndim)
    return jet.data


def _orders(data: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return the channels of each order, (1, ...), (first, ...), (second, ...), as far as it goes.

    One split, because its derivative is one concatenation; a slice's is a tensor of zeros.
    """
    return data.split_with_sizes(layout.sizes)


@_rule("add", "__add__", "__radd__")
def _add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    if alpha != 1:
        b = alpha * b
    if isinstance(a, Jet) and isinstance(b, Jet):
        x, y = _pair(a, b)
        return Jet(x + y, a.layout)
    if isinstance(b, Jet):
        return _add(b, a)

    # A constant adds to the value alone; its shape may be the larger one.
    data = _against(a, b)
    value = data[0] + b
    derivatives = data[1:].expand(-1, *value.shape)
    joined = torch.cat([value.unsqueeze(0), derivatives])
    return Jet(joined, a.layout)


@_rule("where")
def _where(condition: Tensor, a: Any, b: Any) -> Jet:
    # Which of the two holds does not change within a neighbourhood of the point.
    if not isinstance(a, Jet):
        return _where(~condition, b, a)
    if not isinstance(b, Jet):
        # A constant has the value alone.
        b = _add(_mul(a, 0.0), b)

    x, y = _pair(a, b)
    return Jet(torch.where(condition, x, y), a.layout)


@_rule("sub", "subtract", "__sub__")
def _sub(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    return _add(a, -b, alpha=alpha)


@_rule("rsub", "__rsub__")
def _rsub(a: Any, b: Any) -> Jet:
    return _sub(b, a)


@_rule("mul", "multiply", "__mul__", "__rmul__")
def _mul(a: Any, b: Any) -> Jet:
    if not isinstance(a, Jet):
        return _mul(b, a)
    if not isinstance(b, Jet):  # b is constant: (a b)_i = a_i b, to every order
        scaled = _against(a, b) * b
        return Jet(scaled, a.layout)

    x, y = _pair(a, b)
    if a.layout.order > 2:
        x = _padded(x, len(a.layout))
        y = _padded(y, len(a.layout))
        x, y = torch.broadcast_tensors(x, y)
        product = taylor.multiply(x, y, a.layout)
    else:
        product = _second_order_product(x, y, a.layout)
    return Jet(product, a.layout)


def _second_order_product(x: Tensor, y: Tensor, layout: Layout) -> Tensor:
    # (a b)_i = a_i b + a b_i, and of second order a_ij b + a b_ij likewise.
    a_value, *a_rest = _orders(x, layout)
    b_value, *b_rest = _orders(y, layout)
    parts = [a_value * b_value]
    for a_part, b_part in zip(a_rest, b_rest, strict=True):
        part = a_part * b_value + a_value * b_part
        parts.append(part)

    # Of second order also + a_i b_j + a_j b_i. Unbound at once, because its derivative is one
    # stack; a slice's is a tensor of zeros.
    if layout.pairs:
        a_first = a_rest[0].unbind(0)
        b_first = b_rest[0].unbind(0)
        cross = []
        for i, j in layout.pairs:
            if i == j:
                product = 2 * a_first[i] * b_first[i]
            else:
                product = a_first[i] * b_first[j] + a_first[j] * b_first[i]
            cross.append(product)
        parts[2] = parts[2] + torch.stack(cross)

    return torch.cat(parts)


@_rule("div", "divide", "true_divide", "__truediv__")
def _div(a: Any, b: Any) -> Jet:
    if isinstance(b, Jet):
        reciprocal = _RULES["reciprocal"]
        return _mul(reciprocal(b), a)

    scaled = _against(a, b) / b
    return Jet(scaled, a.layout)


@_rule("__rtruediv__")
def _rdiv(a: Any, b: Any) -> Jet:
    return _div(b, a)


@_rule("pow", "__pow__")
def _pow(base: Any, exponent: Any) -> Jet:
    if isinstance(exponent, Jet):
        # a^b = exp(b log a), for a number, a tensor or a jet a.
        is_number = not isinstance(base, (Jet, Tensor))
        logarithm = math.log(base) if is_number else base.log()
        return _apply("exp", exponent * logarithm)

    # It may be a parameter, whose gradient a number would lose.
    if isinstance(exponent, Tensor):
        raise UnsupportedOperation(
            "jets have no rule for a power with a tensor as exponent"
        )

    n = float(exponent)
    if n == 2:
        return _apply("square", base)
    rule = elementwise.power(n)
    carry = taylor.power(n)
    return _through(base, rule, carry)


@_rule("__rpow__")
def _rpow(exponent: Any, base: Any) -> Jet:
    return _pow(base, exponent)


@_rule("neg", "negative", "__neg__")
def _neg(x: Jet) -> Jet:
    return Jet(-x.data, x.layout)


# --- linear layers -------------------------------------------------------------------------------


@_rule("linear")
def _linear(x: Jet, weight: Tensor, bias: Tensor | None = None) -> Jet:
    """Return ``x Wᵀ + b``: derivatives of x pass through W, and b is constant."""
    if not isinstance(x, Jet) or any(isinstance(part, Jet) for part in (weight, bias)):
        raise UnsupportedOperation(
            "jets have no rule for a linear layer with a jet as weight"
        )

    data = affine.linear(x.data, weight, bias)
    return Jet(data, x.layout)


# Constants are plain tensors.
_RULES["ones_like"] = lambda jet: torch.ones_like(jet.value)


@_rule("matmul", "mm", "__matmul__")
def _matmul(a: Any, b: Any) -> Jet:
    # As of a linear layer without bias; a matrix on the left would meet the axis of points.
    if isinstance(a, Jet) and isinstance(b, Tensor) and b.ndim == 2:
        return Jet(a.data @ b, a.layout)

    raise UnsupportedOperation("jets have a rule for jet @ matrix only")


# --- shapes: the channels stay in front ----------------------------------------------------------


def _axis(dim: int) -> int:
    """Return the axis of ``data`` that is axis ``dim`` of the value."""
    if dim >= 0:
        return dim + 1
    return dim


@_rule("cat", "concat", "concatenate")
def _cat(parts: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Jet:
    if axis is not None:  # the name that concatenate has for it
        dim = axis

    tables, layout = _tables(parts)
    data = torch.cat(tables, dim=_axis(dim))
    return Jet(data, layout)


@_rule("stack")
def _stack(parts: Sequence[Any], dim: int = 0) -> Jet:
    tables, layout = _tables(parts)
    data = torch.stack(tables, dim=_axis(dim))
    return Jet(data, layout)


def _tables(parts: Sequence[Any]) -> tuple[list[Tensor], Layout]:
    """Return the channels of jets, and of tensors among them as constants."""
    layout = next(part.layout for part in parts if isinstance(part, Jet))
    n_channels = max(len(part.data) for part in parts if isinstance(part, Jet))
    tables = []
    for part in parts:
        # A constant has the value alone.
        data = part.data if isinstance(part, Jet) else part.unsqueeze(0)
        table = _padded(data, n_channels)
        tables.append(table)

    return tables, layout


@_rule("__getitem__")
def _getitem(x: Jet, item: Any) -> Jet:
    items = item if isinstance(item, tuple) else (item,)
    # Index tensors apart from each other would move their axis in front of the channels.
    plain = (int, slice, EllipsisType, NoneType)
    tensors = [part for part in items if not isinstance(part, plain)]
    if len(tensors) > 1:
        raise UnsupportedOperation("jets have a rule for one index tensor only")

    every_channel = slice(None)
    data = x.data[(every_channel, *items)]
    return Jet(data, x.layout)


@_rule("unbind")
def _unbind(x: Jet, dim: int = 0) -> tuple[Jet, ...]:
    jets = []
    for part in x.data.unbind(_axis(dim)):
        jets.append(Jet(part, x.layout))
    return tuple(jets)


@_rule("unsqueeze")
def _unsqueeze(x: Jet, dim: int) -> Jet:
    data = x.data.unsqueeze(_axis(dim))
    return Jet(data, x.layout)


@_rule("squeeze")
def _squeeze(x: Jet, dim: int) -> Jet:
    data = x.data.squeeze(_axis(dim))
    return Jet(data, x.layout)


@_rule("reshape", "view")
def _reshape(x: Jet, *shape: Any) -> Jet:
    sizes = shape
    if len(shape) == 1 and not isinstance(shape[0], int):
        (sizes,) = shape  # given as one sequence

    n_channels = len(x.data)
    data = x.data.reshape(n_channels, *sizes)
    return Jet(data, x.layout)


@_rule("sum")
def _sum(x: Jet, dim: int | None = None, keepdim: bool = False) -> Jet:
    if not isinstance(dim, int):
        raise UnsupportedOperation("jets have a rule for a sum over one axis only")

    data = x.data.sum(_axis(dim), keepdim=keepdim)
    return Jet(data, x.layout)


# --- elementwise functions -----------------------------------------------------------------------


def _apply(name: str, jet: Jet) -> Jet:
    """Carry a jet through an elementwise function, by the name of torch's function."""
    rule = elementwise.RULES[name]
    carry = taylor.RULES[name]
    return _through(jet, rule, carry)


def _through(jet: Jet, rule: Unary, carry: Carry) -> Jet:
    """Carry a jet through a function by its rule to second order, or that of any order."""
    layout = jet.layout
    if layout.order > 2:
        data = taylor.apply(carry, jet.data, layout)
    else:
        data = elementwise.chain(rule, jet.data, layout.pairs)
    return Jet(data, layout)


def _elementwise(name: str) -> Rule:
    def carry(x: Jet, *args: Any, inplace: bool = False, **kwargs: Any) -> Jet:
        if args or kwargs or inplace:
            raise UnsupportedOperation("jets have a rule for the default options only")
        return _apply(name, x)

    return carry


for _function in elementwise.RULES:
    _RULES[_function] = _elementwise(_function)


@_rule("softplus")  # in place of that above: its module always gives the options
def _softplus(x: Jet, beta: float = 1.0, threshold: float = 20.0) -> Jet:
    if threshold != 20:
        raise UnsupportedOperation("jets have a rule for softplus(threshold=20) only")
    return _apply("softplus", x * beta) / beta  # log(1 + exp(βx))/β


@_rule("gelu")  # in place of that above, as it has an option that is given by default
def _gelu(x: Jet, *, approximate: str = "none") -> Jet:
    if approximate != "none":
        raise UnsupportedOperation("jets have a rule for gelu(approximate='none') only")
    return _apply("gelu", x)
