"""Values and derivatives carried through torch operations, in one pass.

A :class:`Jet` holds a value, its first and its requested second derivatives with respect to
the coordinates as the leading axis ("channels") of one tensor. It implements
``__torch_function__``, so any module made of supported operations runs on it unchanged; a
linear layer treats all channels in one matrix product. The rules are the chain and product
rules to second order (Griewank & Walther, *Evaluating Derivatives*, 2008, ch. 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import EllipsisType, NoneType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whence import elementwise
from whence.elementwise import Unary

MultiIndex = tuple[int, ...]
MAX_ORDER = 2


class UnsupportedOperation(NotImplementedError):
    """An operation, or a derivative order, that jets do not carry."""


class Layout:
    """Which derivatives a jet carries, closed under leaving out a factor.

    ``indices[c]`` is the sorted multi-index of channel c: ``()`` is the value, ``(0,)`` the
    derivative by coordinate 0, ``(0, 1)`` the mixed one. Use :func:`layout` to build one.
    """

    def __init__(self, indices: tuple[MultiIndex, ...]) -> None:
        self.indices = indices
        self.position = {index: c for c, index in enumerate(indices)}
        n_first = sum(len(index) == 1 for index in indices)
        self.pairs = tuple(
            (self.position[index[:1]] - 1, self.position[index[1:]] - 1)
            for index in indices
            if len(index) == 2
        )
        """For each second derivative, which two of the first ones it comes from."""
        self.sizes = [1, n_first, len(self.pairs)][: 1 + max(map(len, indices))]
        """Channels of the value, of the first and of the second derivatives."""
        self.order = max(len(index) for index in indices)

    def __len__(self) -> int:
        return len(self.indices)


def layout(requested: Iterable[MultiIndex]) -> Layout:
    """Return the smallest layout that carries every requested multi-index.

    Raises
    ------
    UnsupportedOperation
        If an order above two is asked for.
    """
    return _layout(frozenset(tuple(sorted(index)) for index in requested))


@lru_cache(maxsize=256)
def _layout(requested: frozenset[MultiIndex]) -> Layout:
    closed: set[MultiIndex] = {()}
    for index in requested:
        if len(index) > MAX_ORDER:
            raise UnsupportedOperation(
                f"jets carry derivatives to order {MAX_ORDER}, not {index}"
            )
        closed.add(index)
        closed.update((i,) for i in index)
    return Layout(tuple(sorted(closed, key=lambda index: (len(index), index))))


class Jet:
    """A tensor with its derivatives: ``data`` has shape (channels, *shape).

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
        """Return the derivative by the coordinates of ``index``, of shape ``shape``."""
        return self.data[self.layout.position[tuple(sorted(index))]]

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

    def size(self, dim: int | None = None) -> Any:
        """Return the value's shape, or one entry of it, as ``Tensor.size`` does."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __repr__(self) -> str:
        return f"Jet(shape={tuple(self.shape)}, derivatives={self.layout.indices})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Carry the jet through ``func``, or raise :class:`UnsupportedOperation`."""
        rule = _RULES.get(getattr(func, "__name__", ""))
        if rule is None:
            raise UnsupportedOperation(f"jets have no rule for {_name(func)}")
        return _carry(rule, _name(func), args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        rule = _RULES.get(name)
        if rule is None or name.startswith("__"):
            if hasattr(Tensor, name) and not name.startswith("__"):
                raise UnsupportedOperation(f"jets have no rule for Tensor.{name}")
            raise AttributeError(f"Jet has no attribute {name!r}")
        return lambda *args, **kwargs: _carry(
            rule, f"Tensor.{name}", (self, *args), kwargs
        )

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


def _carry(
    rule: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return rule(*args, **kwargs)
    except TypeError as error:  # options that the rule does not take
        raise UnsupportedOperation(
            f"jets have no rule for {name} called so: {error}"
        ) from error


def seed(points: Tensor, layout: Layout) -> Jet:
    """Return the coordinates themselves as a jet: value ``points`` (..., d), unit derivatives."""
    channels = [points]
    for index in layout.indices[1:]:
        channel = torch.zeros_like(points)
        if len(index) == 1:
            unit = torch.zeros(
                points.shape[-1], dtype=points.dtype, device=points.device
            )
            unit[index[0]] = 1.0
            channel = channel + unit
        channels.append(channel)
    return Jet(torch.stack(channels), layout)


def constant(value: Tensor, layout: Layout) -> Jet:
    """Return ``value`` as a jet all of whose derivatives vanish."""
    zeros = torch.zeros_like(value).expand(len(layout) - 1, *value.shape)
    return Jet(torch.cat([value.unsqueeze(0), zeros]), layout)


def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__qualname__", None) or getattr(func, "__name__", func))


def _pair(a: Jet, b: Jet) -> tuple[Tensor, Tensor]:
    """Bring two jets of one layout to the same number of axes, new axes after the channels."""
    if a.layout is not b.layout:
        raise UnsupportedOperation("jets of different layouts cannot be combined")
    n = max(a.ndim, b.ndim)
    return _with_axes(a.data, n), _with_axes(b.data, n)


def _with_axes(data: Tensor, ndim: int) -> Tensor:
    missing = ndim - (data.ndim - 1)
    return (
        data.reshape(data.shape[:1] + (1,) * missing + data.shape[1:])
        if missing > 0
        else data
    )


def _against(jet: Jet, other: Any) -> Tensor:
    """Return the jet's data, ready to broadcast with a plain tensor or number."""
    return _with_axes(jet.data, other.ndim) if isinstance(other, Tensor) else jet.data


def _join(value: Tensor, rest: Tensor) -> Tensor:
    return torch.cat([value.unsqueeze(0), rest.expand(-1, *value.shape)])


def _orders(data: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return the channels of each order, (1, ...), (first, ...), (second, ...), as far as it goes.

    One split, because its derivative is one concatenation; a slice's is a tensor of zeros.
    """
    return data.split_with_sizes(layout.sizes)


def _add(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    if isinstance(a, Jet) and isinstance(b, Jet):
        x, y = _pair(a, b)
        return Jet(x + y if alpha == 1 else x + alpha * y, a.layout)
    if isinstance(b, Jet):
        return _add(b if alpha == 1 else b * alpha, a)
    data = _against(a, b)
    return Jet(_join(data[0] + (b if alpha == 1 else alpha * b), data[1:]), a.layout)


def _sub(a: Any, b: Any, *, alpha: float = 1) -> Jet:
    return _add(a, -b, alpha=alpha)


def _mul(a: Any, b: Any) -> Jet:
    if not isinstance(a, Jet):
        return _mul(b, a)
    if not isinstance(b, Jet):
        return Jet(_against(a, b) * b, a.layout)
    x, y = (_orders(data, a.layout) for data in _pair(a, b))
    parts = [x[0] * y[0]]
    parts += [
        own * y[0] + x[0] * other for own, other in zip(x[1:], y[1:], strict=True)
    ]
    if a.layout.pairs:
        left, right = x[1].unbind(0), y[1].unbind(0)
        cross = [
            2 * left[i] * right[i]
            if i == j
            else left[i] * right[j] + left[j] * right[i]
            for i, j in a.layout.pairs
        ]
        parts[2] = parts[2] + torch.stack(cross)
    return Jet(torch.cat(parts), a.layout)


def _div(a: Any, b: Any) -> Jet:
    if isinstance(b, Jet):
        return _mul(_RULES["reciprocal"](b), a)
    return Jet(_against(a, b) / b, a.layout)


def _pow(base: Any, exponent: Any) -> Jet:
    if isinstance(exponent, Jet):
        logarithm = base.log() if isinstance(base, (Jet, Tensor)) else math.log(base)
        return _apply(elementwise.RULES["exp"], exponent * logarithm)
    if isinstance(exponent, Tensor):  # which may be a parameter, so never a number here
        raise UnsupportedOperation(
            "jets have no rule for a power with a tensor as exponent"
        )
    n = float(exponent)
    return _apply(elementwise.RULES["square"] if n == 2 else elementwise.power(n), base)


def _apply(rule: Unary, jet: Jet) -> Jet:
    """Carry a jet through an elementwise function."""
    return Jet(elementwise.chain(rule, jet.data, jet.layout.pairs), jet.layout)


def _linear(x: Jet, weight: Tensor, bias: Tensor | None = None) -> Jet:
    if not isinstance(x, Jet) or any(isinstance(part, Jet) for part in (weight, bias)):
        raise UnsupportedOperation(
            "jets have no rule for a linear layer with a jet as weight"
        )
    if bias is not None and elementwise.plain_reverse(x.data):
        return Jet(_Linear.apply(x.data, weight, bias), x.layout)  # type: ignore[no-untyped-call]
    return Jet(_linear_composed(x.data, weight, bias), x.layout)


def _linear_composed(data: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = F.linear(data, weight)
    if bias is None:
        return product
    constants = torch.zeros_like(bias).expand(len(data) - 1, *bias.shape)
    channels = torch.cat([bias.unsqueeze(0), constants])
    return product + channels.reshape(len(data), *[1] * (product.ndim - 2), -1)


class _Linear(torch.autograd.Function):
    """:func:`_linear_composed` with the bias added in place, to the value alone."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(data, weight, bias)
        product = F.linear(data, weight)
        product[0] += bias
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad
        if torch.is_grad_enabled():  # this derivative is to be differentiated again
            chosen = [
                tensor for tensor, need in zip(inputs, needed, strict=True) if need
            ]
            composed = _linear_composed(*inputs)
            found = iter(torch.autograd.grad(composed, chosen, grad, create_graph=True))
            return tuple(next(found) if need else None for need in needed)
        data, weight, bias = inputs
        return (
            grad @ weight if needed[0] else None,
            grad.flatten(0, -2).T @ data.flatten(0, -2) if needed[1] else None,
            grad[0].flatten(0, -2).sum(0).expand(bias.shape) if needed[2] else None,
        )


def _matmul(a: Any, b: Any) -> Jet:
    if isinstance(a, Jet) and isinstance(b, Tensor) and b.ndim == 2:
        return Jet(a.data @ b, a.layout)
    raise UnsupportedOperation("jets have a rule for jet @ matrix only")


def _dims(jet: Jet, dim: int) -> int:
    """Return the axis of ``data`` that is axis ``dim`` of the value."""
    return dim + 1 if dim >= 0 else dim


def _cat(parts: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Jet:
    jets = _all_jets(parts)
    data = torch.cat(
        [p.data for p in jets], dim=_dims(jets[0], dim if axis is None else axis)
    )
    return Jet(data, jets[0].layout)


def _stack(parts: Sequence[Any], dim: int = 0) -> Jet:
    jets = _all_jets(parts)
    return Jet(
        torch.stack([p.data for p in jets], dim=_dims(jets[0], dim)), jets[0].layout
    )


def _all_jets(parts: Sequence[Any]) -> list[Jet]:
    lay = next(p.layout for p in parts if isinstance(p, Jet))
    return [p if isinstance(p, Jet) else constant(p, lay) for p in parts]


def _getitem(x: Jet, item: Any) -> Jet:
    items = item if isinstance(item, tuple) else (item,)
    if sum(not isinstance(i, (int, slice, EllipsisType, NoneType)) for i in items) > 1:
        raise UnsupportedOperation("jets have a rule for one index tensor only")
    return Jet(x.data[(slice(None), *items)], x.layout)


def _unbind(x: Jet, dim: int = 0) -> tuple[Jet, ...]:
    return tuple(Jet(part, x.layout) for part in x.data.unbind(_dims(x, dim)))


def _unsqueeze(x: Jet, dim: int) -> Jet:
    return Jet(x.data.unsqueeze(_dims(x, dim)), x.layout)


def _squeeze(x: Jet, dim: int) -> Jet:
    return Jet(x.data.squeeze(_dims(x, dim)), x.layout)


def _reshape(x: Jet, *shape: Any) -> Jet:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    return Jet(x.data.reshape(x.data.shape[0], *sizes), x.layout)


def _sum(x: Jet, dim: int | None = None, keepdim: bool = False) -> Jet:
    if not isinstance(dim, int):
        raise UnsupportedOperation("jets have a rule for a sum over one axis only")
    return Jet(x.data.sum(_dims(x, dim), keepdim=keepdim), x.layout)


def _elementwise(rule: Unary) -> Callable[..., Jet]:
    def carry(x: Jet, *args: Any, inplace: bool = False, **kwargs: Any) -> Jet:
        if args or kwargs or inplace:
            raise UnsupportedOperation("jets have a rule for the default options only")
        return _apply(rule, x)

    return carry


def _gelu(x: Jet, *, approximate: str = "none") -> Jet:
    if approximate != "none":
        raise UnsupportedOperation("jets have a rule for gelu(approximate='none') only")
    return _apply(elementwise.RULES["gelu"], x)


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), _add),
    **dict.fromkeys(("sub", "subtract", "__sub__"), _sub),
    **dict.fromkeys(("__rsub__", "rsub"), lambda a, b: _sub(b, a)),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _mul),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__"), _div),
    "__rtruediv__": lambda a, b: _div(b, a),
    **dict.fromkeys(("pow", "__pow__"), _pow),
    "__rpow__": lambda a, b: _pow(b, a),
    **dict.fromkeys(("neg", "negative", "__neg__"), lambda x: -x),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__"), _matmul),
    "__getitem__": _getitem,
    "unbind": _unbind,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("reshape", "view"), _reshape),
    "sum": _sum,
    **{name: _elementwise(rule) for name, rule in elementwise.RULES.items()},
    "gelu": _gelu,
}
