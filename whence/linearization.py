"""A pointwise function's derivative by the parameters at some points, made once and exactly.

:func:`linearize` answers with rows, products J·v and products Jᵀ·u. Where every selected
parameter is used by linear and convolution layers only, one backward pass to the layers' outputs
gives everything (each row is a sum of outer products, Goodfellow, arXiv 1510.01799, extended here
to layers that carry input derivatives, and over positions to convolutions, Rochette et al., arXiv
1912.06015); any other model goes through ``torch.func``, and one that calls
``torch.autograd.grad`` through plain reverse mode, point by point. All are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.nn.grad import conv1d_weight, conv2d_weight
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whence import _checks
from whence.jets import Jet
from whence.objective import Pointwise
from whence.parameters import Parameters

BLOCK_BYTES = 2 * 2**20


class Linearization(Protocol):
    """A pointwise function at n points and its derivative by θ there.

    Every ``seed`` has shape (n, m) and weighs the m components of each point.
    """

    value: Tensor
    """The function's values, (n, m)."""

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Σ_m seed[i, m] · J[i, m, :]`` for each point i, shape (n, P), in ``out``."""

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed) @ vectors`` without the rows: vectors (P, K) to (n, K)."""

    def rmatvec(self, seed: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m seed[i, m] · J[i, m, :]``, shape (P,)."""

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed).T @ weights`` without the rows: weights (n, K) to (P, K)."""


def linearize(function: Pointwise, parameters: Parameters, points: Tensor) -> Linearization:
    """Differentiate ``function`` by the parameters at ``points``, exactly and by the fastest way.

    Parameters
    ----------
    function:
        Pointwise function ``(tensors, points (n, d)) -> (n, m)``.
    parameters:
        The selected parameters; the derivative is taken at their current values.
    points:
        Points, shape (n, d).
    """
    try:
        value, recorder = _record(function, parameters, points)
        one, probe = _record(function, parameters, points[:1])
    except _Differentiates:
        return _ReverseLinearization(function, parameters, points)
    _checks.pointwise(value, one, len(points))
    if not recorder.layers_alone or not recorder.calls_fit(len(points), probe):
        return _FunctionLinearization(function, parameters, points, value, sorted(recorder.outside))
    return LayerLinearization(value, recorder.calls, parameters)


def _record(
    function: Pointwise, parameters: Parameters, points: Tensor
) -> tuple[Tensor, _Recorder]:
    recorder = _Recorder(parameters)
    with torch.enable_grad(), recorder:
        return function(recorder.tensors, points), recorder


class _Differentiates(Exception):
    """The function calls ``torch.autograd`` itself, which ``torch.func`` does not allow."""


@dataclass(frozen=True)
class _Call:
    """One use of a linear layer: input and output (c, n, features), c all axes but points."""

    weight: str | None
    bias: str | None
    input: Tensor
    output: Tensor
    points_axis: int
    bias_channels: slice
    versions: tuple[int, int]

    def scales(self, n: int, one: _Call) -> bool:
        """Tell whether the points axis, and no other, has n entries here and 1 in ``one``."""
        shape, single = list(self.input.shape), list(one.input.shape)
        if len(shape) < self.points_axis + 2 or len(single) != len(shape):
            return False
        return (shape.pop(self.points_axis), single.pop(self.points_axis)) == (n, 1) and (
            shape == single
        )

    @property
    def intact(self) -> bool:
        """Whether neither input nor output was overwritten after the layer."""
        return self.versions == (self.input._version, self.output._version)

    def at(self, tensor: Tensor, points: slice) -> Tensor:
        """Return the part of a tensor in the layout of input or output at some points."""
        return tensor[(*(slice(None),) * self.points_axis, points)]

    def channels(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as (n, c, features) with points in front and channels joined."""
        moved = tensor.movedim(self.points_axis, 0)
        return moved.reshape(moved.shape[0], -1, moved.shape[-1])

    def inputs(self, source: Tensor) -> Tensor:
        """Return what the weight meets in each channel, (n, c, in)."""
        return self.channels(source)

    def reached(self, delta: Tensor) -> Tensor:
        """Return 1 for the channels that a bias reaches and 0 for the others, (c, 1)."""
        mask = torch.zeros_like(self.at(delta, slice(0, 1))[..., :1])
        _bias_part(self, mask).fill_(1.0)
        return self.channels(mask)[0]

    def put_rows(self, columns: Tensor, delta: Tensor, source: Tensor, first: bool) -> None:
        """Write or add the weight's part of the rows to ``columns`` (n, out·in)."""
        left = self.channels(delta).transpose(1, 2)
        _put_outer_products(columns, left, self.inputs(source), first)

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return left (c, n, out) and right (c, n, in), as in :class:`Factor`."""
        return self.channels(delta).transpose(0, 1), self.inputs(source).transpose(0, 1)

    def product(self, source: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's output with another weight and no bias."""
        return F.linear(source, weight)

    def weight_sum(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum over points of the weight's part of the rows, flat."""
        flat = delta.reshape(-1, delta.shape[-1]).T @ source.reshape(-1, source.shape[-1])
        return flat.reshape(-1)


@dataclass(frozen=True)
class _Convolution(_Call):
    """One use of a convolution: input and output (n, features, *positions).

    Its channels are the positions of the output, where the weight meets patches of the input.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def channels(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` as (n, positions, features)."""
        return tensor.flatten(2).transpose(1, 2)

    def inputs(self, source: Tensor) -> Tensor:
        """Return the input's patches, (n, positions, in · kernel)."""
        sizes = [self.kernel, self.dilation, self.padding, self.stride]
        if source.ndim == 3:  # an image of one line
            source = source.unsqueeze(2)
            sizes = [(first, *size) for first, size in zip((1, 1, 0, 1), sizes, strict=True)]
        return F.unfold(source, *sizes).transpose(1, 2)

    def reached(self, delta: Tensor) -> Tensor:
        """Return 1 for every position, (positions, 1)."""
        return delta.new_ones(delta[0, 0].numel(), 1)

    def put_rows(self, columns: Tensor, delta: Tensor, source: Tensor, first: bool) -> None:
        """Write or add the weight's part of the rows, with the patches of a few points at once."""
        left = delta.flatten(2)
        numbers = max(columns.shape[1], columns.shape[1] // left.shape[1] * left.shape[2])
        step = max(1, BLOCK_BYTES // (8 * numbers))
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            _put(columns[part], (left[part] @ self.inputs(source[part])).flatten(1), first)

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows: there are more channels than pay."""
        rows = delta.new_empty(len(delta), self.inputs(source[:1]).shape[2] * delta.shape[1])
        self.put_rows(rows, delta, source, first=True)
        return rows.unsqueeze(0), None

    def product(self, source: Tensor, weight: Tensor) -> Tensor:
        """Return the layer's output with another weight and no bias."""
        convolve = F.conv1d if source.ndim == 3 else F.conv2d
        return convolve(source, weight, None, self.stride, self.padding, self.dilation)

    def weight_sum(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return the sum over points of the weight's part of the rows, flat."""
        gradient: Callable[..., Tensor] = conv1d_weight if source.ndim == 3 else conv2d_weight
        shape = (delta.shape[1], source.shape[1], *self.kernel)
        return gradient(source, shape, delta, self.stride, self.padding, self.dilation).flatten()


class _Recorder(TorchFunctionMode):
    """Record each linear layer and convolution with a selected parameter, and its other uses."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.tensors = parameters.tensors()
        selected = set(parameters.names)
        self._names = {id(t): n for n, t in self.tensors.items() if n in selected}
        self.calls: list[_Call] = []
        self.layers_alone = True
        self.outside: set[str] = set()
        """Selected parameters seen where no such layer has them."""

    def calls_fit(self, n: int, probe: _Recorder) -> bool:
        """Tell whether every layer's rows are the n points, by comparison with a single point.

        A length of n alone does not tell: a table of n rows has it too.
        """
        if len(self.calls) != len(probe.calls):
            return False
        pairs = zip(self.calls, probe.calls, strict=True)
        return all(call.intact and call.scales(n, one) for call, one in pairs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return self._linear(*args, **kwargs)
        if func in (F.conv1d, F.conv2d):
            return self._convolution(func, *args, **kwargs)
        if func in (torch.autograd.grad, Tensor.requires_grad_):
            if peek_interpreter_stack() is None:
                raise _Differentiates
            self.layers_alone = False  # torch.func calls these too
        result = func(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        used = [self._names[id(leaf)] for leaf in leaves if id(leaf) in self._names]
        if used and (result is None or _has_tensor(result)):  # None: written in place
            self._not_alone(*used)
        return result

    def _not_alone(self, *names: str | None) -> None:
        self.layers_alone = False
        self.outside.update(name for name in names if name is not None)

    def _linear(self, input: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
        output = F.linear(input, weight, bias)
        names = self._names.get(id(weight)), self._names.get(id(bias))
        if id(input) in self._names:
            self._not_alone(self._names[id(input)])
        if names == (None, None) or not self.layers_alone:
            return output
        jet = isinstance(input, Jet)
        source, target = (input.data, output.data) if jet else (input, output)
        ordinary = weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1])
        if not ordinary or _differentiated(source):
            self._not_alone(*(() if ordinary else names))
            return output
        if not target.requires_grad:
            target.requires_grad_()
            output = output if jet else target.clone()  # a leaf cannot be written in place
        source, channels = source.detach(), slice(0, 1) if jet else slice(None)
        versions = source._version, target._version
        self.calls.append(_Call(*names, source, target, int(jet), channels, versions))
        return output

    def _convolution(
        self,
        func: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        output = func(input, weight, bias, stride, padding, dilation, groups)
        names = self._names.get(id(weight)), self._names.get(id(bias))
        if id(input) in self._names:
            self._not_alone(self._names[id(input)])
        if names == (None, None) or not self.layers_alone:
            return output
        ordinary = not isinstance(padding, str) and groups == 1 and input.ndim == weight.ndim
        if not ordinary or _differentiated(input):
            self._not_alone(*(() if ordinary else names))
            return output
        target = output if output.requires_grad else output.requires_grad_()
        source, kernel = input.detach(), tuple(weight.shape[2:])
        versions = source._version, target._version
        sizes = [_each(size, len(kernel)) for size in (kernel, stride, padding, dilation)]
        self.calls.append(_Convolution(*names, source, target, 0, slice(None), versions, *sizes))
        return target.clone()  # cheap here, and an activation may follow in place


def _differentiated(source: Tensor) -> bool:
    return forward_ad._current_level >= 0 or is_functorch_wrapped_tensor(source)


def _each(size: Any, axes: int) -> tuple[int, ...]:
    """Return a size for each axis: one number stands for all."""
    return (size,) * axes if isinstance(size, int) else tuple(size) * (axes // len(size))


def _has_tensor(result: Any) -> bool:
    return any(isinstance(leaf, (Tensor, Jet)) for leaf in pytree.tree_leaves(result))


@dataclass(frozen=True)
class Factor:
    """A layer's part of n rows as ``Σ_c left[c] ⊗ right[c]``.

    ``left`` is (c, n, out), ``right`` (c, n, in), or None for a bias: then ``Σ_c left[c]``. The
    weight of a convolution, which has more channels than pay, comes as such a sum of one.
    """

    columns: slice
    left: Tensor
    right: Tensor | None

    def rows(self) -> Tensor:
        """Return the part of the rows, (n, columns)."""
        if self.right is None:
            return self.left.sum(dim=0)
        outer = self.left.permute(1, 2, 0) @ self.right.permute(1, 0, 2)
        return outer.reshape(len(outer), -1)


@dataclass(frozen=True)
class Use:
    """What one call of a layer adds to n rows: ``Σ_c left[:, c] ⊗ right[:, c]`` for its weight.

    ``weight`` and ``bias`` are names of selected parameters, or None.
    """

    weight: str | None
    bias: str | None
    _call: _Call
    _delta: Tensor

    @property
    def channels(self) -> int:
        """Number of channels c."""
        return self._call.channels(self._call.at(self._delta, slice(0, 1))).shape[1]

    def at(self, points: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return left (n, c, out), right (n, c, in) and, 0 or 1, what the bias reaches (c, 1)."""
        call = self._call
        left = call.channels(call.at(self._delta, points))
        return left, call.inputs(call.at(call.input, points)), call.reached(self._delta)


class LayerLinearization:
    """Exact derivative through linear layers alone: one backward pass, then outer products."""

    def __init__(self, value: Tensor, calls: list[_Call], parameters: Parameters) -> None:
        self.value = value.detach()
        self._graph = value
        self._calls = calls
        self._parameters = parameters
        self._passes: list[tuple[Tensor, list[Tensor | None]]] = []
        """Seeds so far and the backward pass of each: factors and rows share it."""

    def _deltas(self, seed: Tensor) -> list[Tensor | None]:
        outputs = [call.output for call in self._calls]
        if not self._graph.requires_grad:
            return [None] * len(outputs)
        for seen, deltas in self._passes:
            if seen is seed:
                return deltas
        deltas = list(
            torch.autograd.grad(
                self._graph, outputs, grad_outputs=seed, retain_graph=True, allow_unused=True
            )
        )
        self._passes.append((seed, deltas))
        return deltas

    def _active(self, seed: Tensor) -> Iterator[tuple[_Call, Tensor, Tensor]]:
        for call, delta in zip(self._calls, self._deltas(seed), strict=True):
            if delta is not None:
                yield call, delta, call.input

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Σ_m seed[i, m] · J[i, m, :]`` for each point i, shape (n, P), in ``out``."""
        rows = seed.new_empty(len(self.value), self._parameters.size) if out is None else out
        unwritten = dict(self._parameters.slices)
        for call, delta, source in self._active(seed):
            if call.weight:
                first = unwritten.pop(call.weight, None) is not None
                columns = rows[:, self._parameters.slices[call.weight]]
                call.put_rows(columns, delta, source, first)
            if call.bias:
                first = unwritten.pop(call.bias, None) is not None
                kept = call.channels(_bias_part(call, delta)).sum(dim=1)
                _put(rows[:, self._parameters.slices[call.bias]], kept, first)
        for untouched in unwritten.values():
            rows[:, untouched] = 0
        return rows

    def factors(self, seed: Tensor) -> list[Factor]:
        """Return what :meth:`rows` multiplies out, layer by layer."""
        slices, found = self._parameters.slices, []
        for call, delta, source in self._active(seed):
            if call.weight:
                found.append(Factor(slices[call.weight], *call.factor(delta, source)))
            if call.bias:
                kept = call.channels(_bias_part(call, delta)).transpose(0, 1)
                found.append(Factor(slices[call.bias], kept, None))
        return found

    def uses(self, seed: Tensor) -> list[Use]:
        """Return what each call of a layer adds to :meth:`rows`, weight and bias together."""
        return [Use(call.weight, call.bias, call, delta) for call, delta, _ in self._active(seed)]

    @property
    def layers(self) -> list[tuple[str | None, str | None]]:
        """Selected weight and bias of each call of a layer, None for one that is not selected."""
        return [(call.weight, call.bias) for call in self._calls]

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed) @ vectors`` without the rows: vectors (P, K) to (n, K)."""
        columns = []
        active = list(self._active(seed))
        for vector in vectors.unbind(1):
            total = seed.new_zeros(len(self.value))
            for call, delta, source in active:
                total += self._contract(call, delta, source, vector)
            columns.append(total)
        return torch.stack(columns, dim=1)

    def _contract(self, call: _Call, delta: Tensor, source: Tensor, vector: Tensor) -> Tensor:
        total = delta.new_zeros(len(self.value))
        if call.weight:
            weight = vector[self._parameters.slices[call.weight]].view(
                self._parameters.shape(call.weight)
            )
            product = (call.product(source, weight) * delta).movedim(call.points_axis, 0)
            total = total + product.flatten(1).sum(dim=1)
        if call.bias:
            kept = call.channels(_bias_part(call, delta)).sum(dim=1)
            total = total + kept @ vector[self._parameters.slices[call.bias]]
        return total

    def rmatvec(self, seed: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m seed[i, m] · J[i, m, :]``, shape (P,)."""
        total = seed.new_zeros(self._parameters.size)
        for call, delta, source in self._active(seed):
            self._add_sum(total, call, delta, source)
        return total

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed).T @ weights`` without the rows: weights (n, K) to (P, K)."""
        total = seed.new_zeros(weights.shape[1], self._parameters.size)
        for call, delta, source in self._active(seed):
            shape = [1] * delta.ndim
            shape[call.points_axis] = -1
            for k, weight in enumerate(weights.unbind(1)):
                self._add_sum(total[k], call, delta * weight.view(shape), source)
        return total.T

    def _add_sum(self, total: Tensor, call: _Call, delta: Tensor, source: Tensor) -> None:
        """Add the sum over points of a call's rows to ``total`` (P,)."""
        if call.weight:
            total[self._parameters.slices[call.weight]] += call.weight_sum(delta, source)
        if call.bias:
            kept = call.channels(_bias_part(call, delta))
            total[self._parameters.slices[call.bias]] += kept.sum(dim=(0, 1))


def _put_outer_products(columns: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
    """Write or add ``left @ right`` of each point, a few points at a time so it stays in cache."""
    if first and left.shape[2] == 1:
        torch.mul(left, right, out=columns.unflatten(1, (left.shape[1], right.shape[2])))
        return
    step = max(1, BLOCK_BYTES // (8 * columns.shape[1]))
    for start in range(0, len(columns), step):
        part = slice(start, start + step)
        _put(columns[part], (left[part] @ right[part]).reshape(-1, columns.shape[1]), first)


def _put(columns: Tensor, values: Tensor, first: bool) -> None:
    if first:
        columns.copy_(values)
    else:
        columns.add_(values)


def _bias_part(call: _Call, delta: Tensor) -> Tensor:
    """Return the channels that a bias reaches: of a jet only the value."""
    return delta[call.bias_channels] if call.points_axis else delta


class _FunctionLinearization:
    """Exact derivative of any pointwise function through ``torch.func``, point by point."""

    def __init__(
        self,
        function: Pointwise,
        parameters: Parameters,
        points: Tensor,
        value: Tensor,
        outside: Sequence[str] = (),
    ) -> None:
        self.value = value.detach()
        self.outside = outside
        """Selected parameters that are used elsewhere than in linear and convolution layers."""
        self._parameters = parameters
        self._points = points
        self._theta = parameters.vector()
        self._function = function

    def _at(self, theta: Tensor, points: Tensor) -> Tensor:
        return self._function(self._parameters.substituted(theta), points)

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        def scalar(theta: Tensor, point: Tensor, weights: Tensor) -> Tensor:
            return (self._at(theta, point.unsqueeze(0)).squeeze(0) * weights).sum()

        gradient = torch.func.grad(scalar)
        rows: Tensor = torch.func.vmap(gradient, in_dims=(None, 0, 0))(
            self._theta, self._points, seed
        )
        return rows.detach() if out is None else out.copy_(rows.detach())

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        def push(vector: Tensor) -> Tensor:
            tangent: Tensor = torch.func.jvp(
                lambda theta: self._at(theta, self._points), (self._theta,), (vector,)
            )[1]
            return (tangent * seed).sum(dim=1)

        return torch.stack([push(v).detach() for v in vectors.unbind(1)], dim=1)

    def rmatvec(self, seed: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda theta: self._at(theta, self._points), self._theta)[1]
        result: Tensor = pull(seed)[0]
        return result.detach()

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda theta: self._at(theta, self._points), self._theta)[1]
        each = [pull(seed * weight[:, None])[0].detach() for weight in weights.unbind(1)]
        return torch.stack(each, dim=1)


class _ReverseLinearization:
    """Exact derivative of a function that calls ``torch.autograd.grad``: reverse mode alone."""

    def __init__(self, function: Pointwise, parameters: Parameters, points: Tensor) -> None:
        self._function = function
        self._parameters = parameters
        self._points = points
        self._theta = parameters.vector()
        self.value = self._at(self._theta, points).detach()
        _checks.pointwise(self.value, self._at(self._theta, points[:1]), len(points))

    def _at(self, theta: Tensor, points: Tensor) -> Tensor:
        with torch.enable_grad():
            return self._function(self._parameters.substituted(theta), points)

    def _pull(self, seed: Tensor, points: Tensor) -> Tensor:
        theta = self._theta.clone().requires_grad_()
        value = self._at(theta, points)
        if not value.requires_grad:
            return torch.zeros_like(theta)
        (pulled,) = torch.autograd.grad(
            value, theta, grad_outputs=seed, allow_unused=True, materialize_grads=True
        )
        return pulled

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        each = [slice(i, i + 1) for i in range(len(seed))]
        rows = torch.stack([self._pull(seed[i], self._points[i]) for i in each])
        return rows if out is None else out.copy_(rows)

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        return self.rows(seed) @ vectors

    def rmatvec(self, seed: Tensor) -> Tensor:
        return self._pull(seed, self._points)

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        each = [self._pull(seed * weight[:, None], self._points) for weight in weights.unbind(1)]
        return torch.stack(each, dim=1)
