"""A pointwise function's derivative by the parameters at some points, made once and exactly.

:func:`linearize` answers with rows, products J·v and products Jᵀ·u. Where every selected
parameter is used by layers of known kinds only (linear, convolution, normalisation, embedding:
:mod:`whence.layers`), one backward pass to the layers' outputs gives everything (each row of a
linear layer is a sum of outer products, Goodfellow, arXiv 1510.01799, extended here to layers that
carry input derivatives, and over positions to convolutions, Rochette et al., arXiv 1912.06015);
any other model goes through ``torch.func``, and one that calls ``torch.autograd.grad`` or has
recurrent layers through plain reverse mode, point by point. All are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whence import _checks
from whence.jets import Jet
from whence.layers import LAYERS, Call, Layer, Output, put
from whence.parameters import Parameters
from whence.points import Points, Pointwise, are_samples

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Functions of ``torch._VF`` that ``torch.func.vmap`` has no rule for."""


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

    def squared_norms(self, seed: Tensor) -> Tensor:
        """Return ``‖rows(seed)‖²`` of each point, (n,)."""

    def rmatvec(self, seed: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m seed[i, m] · J[i, m, :]``, shape (P,)."""

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed).T @ weights`` without the rows: weights (n, K) to (P, K)."""


def linearize(
    function: Pointwise, parameters: Parameters, points: Points
) -> Linearization:
    """Differentiate ``function`` by the parameters at ``points``, exactly and by the fastest way.

    Parameters
    ----------
    function:
        Pointwise function ``(tensors, points (n, d)) -> (n, m)``.
    parameters:
        The selected parameters; the derivative is taken at their current values.
    points:
        Points, shape (n, d), or samples.
    """
    if are_samples(points):
        points.read()  # whatever that calls is no part of the function
    try:
        value, recorder = _record(function, parameters, points)
        if _has_layers_alone(recorder, value, function, parameters, points):
            return LayerLinearization(value, recorder.calls, parameters)
    except _Differentiates:
        return _ReverseLinearization(function, parameters, points)
    outside = sorted(recorder.outside)
    if recorder.recurrent:
        return _ReverseLinearization(function, parameters, points, outside)
    return _FunctionLinearization(function, parameters, points, value, outside)


def needs_reverse_mode(linear: Linearization) -> bool:
    """Whether the function can be followed by reverse mode alone, point by point.

    It calls ``torch.autograd.grad`` itself, or has recurrent layers.
    """
    return isinstance(linear, _ReverseLinearization)


class OutsideLayers(ValueError):
    """Parameters are used elsewhere than in layers of known kinds."""


def squared_norms(
    function: Pointwise, parameters: Parameters, theta: Tensor, points: Points
) -> Tensor:
    """Return ``Σ_m ‖∇r_m(z_i)‖²`` at θ for each point, (n,), in a way that can be compiled.

    Only for functions of which :func:`linearize` makes a :class:`LayerLinearization`, which must
    be known already; another use of parameters raises :class:`OutsideLayers`.
    """
    given = _Given(parameters, theta)
    value, recorder = _record(function, given, points)
    if not recorder.layers_alone:
        raise OutsideLayers(
            "its parameters are used elsewhere than in layers of known kinds"
        )
    linear = LayerLinearization(value, recorder.calls, given)
    total = torch.zeros_like(linear.value[:, 0])
    for k in range(value.shape[1]):
        unit = torch.zeros_like(linear.value)
        unit[:, k] = 1.0
        total = total + linear.squared_norms(unit)
    return total


class _Given:
    """The selected parameters with other values."""

    def __init__(self, parameters: Parameters, theta: Tensor) -> None:
        self._parameters, self._theta = parameters, theta
        self.names, self.slices = parameters.names, parameters.slices
        self.size = parameters.size

    def tensors(self) -> dict[str, Tensor]:
        return self._parameters.substituted(self._theta)


Probe = tuple[Tensor, "_Recorder"]
"""A function's value at a single point, and what it did there."""
_PROBES: WeakKeyDictionary[Parameters, WeakKeyDictionary[Pointwise, Probe]] = (
    WeakKeyDictionary()
)


def _has_layers_alone(
    recorder: _Recorder,
    value: Tensor,
    function: Pointwise,
    parameters: Parameters,
    points: Points,
) -> bool:
    """Tell whether layers of known kinds, whose rows are the points, are all there is.

    What the function does with a single point is remembered, as it is the same for all chunks and
    all parameters; one that does not fit is found anew.
    """
    held = _PROBES.setdefault(parameters, WeakKeyDictionary())
    # What cannot be a key, such as an object without a hash, is tried anew each time.
    rememberable = isinstance(function, FunctionType)
    known = held.get(function) if rememberable else None
    if known is not None and len(value) == len(points) and recorder.fits(value, known):
        return True
    probe = _record(function, parameters, points[:1])
    _checks.pointwise(value, probe[0], len(points))
    if rememberable:
        held[function] = probe
    return recorder.fits(value, probe)


class _Differentiates(Exception):
    """The function calls ``torch.autograd`` itself, which ``torch.func`` does not allow."""


def _record(
    function: Pointwise, parameters: Parameters | _Given, points: Points
) -> tuple[Tensor, _Recorder]:
    """Return the function's value at the points, and what it did with the parameters."""
    recorder = _Recorder(parameters)
    with torch.enable_grad(), recorder:
        return function(recorder.tensors, points), recorder


class _Recorder(TorchFunctionMode):
    """Record each call of a layer with a selected parameter, and the parameters' other uses."""

    def __init__(self, parameters: Parameters | _Given) -> None:
        super().__init__()
        self.tensors = parameters.tensors()
        selected = set(parameters.names)
        self._names = {id(t): n for n, t in self.tensors.items() if n in selected}
        self.calls: list[Call] = []
        self.layers_alone = True
        self.recurrent = False
        """Whether a function was called that only reverse mode point by point can follow."""
        self.outside: set[str] = set()
        """Selected parameters seen where no such layer has them."""

    def fits(self, value: Tensor, probe: Probe) -> bool:
        """Tell whether every layer's rows are the points, by comparison with a single point.

        A length of n alone does not tell: a table of n rows has it too.
        """
        one, other = probe
        alike = len(self.calls) == len(other.calls) and value.shape[1:] == one.shape[1:]
        if not self.layers_alone or not alike or value.ndim != 2:
            return False
        pairs = zip(self.calls, other.calls, strict=True)
        return all(
            call.intact and call.fits(len(value), single) for call, single in pairs
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.autograd.grad, Tensor.requires_grad_):
            if peek_interpreter_stack() is None:
                raise _Differentiates
            self.layers_alone = False  # torch.func calls these too
        layer = LAYERS[func](*args, **kwargs) if func in LAYERS else None
        result = func(*args, **kwargs)
        if layer is not None:
            return self._layer(layer, result)
        self.recurrent |= getattr(func, "__name__", "") in RECURRENT
        if result is None or _has_tensor(result):  # None: written in place
            self._outside(args, kwargs)
        return result

    def _outside(self, *used: Any) -> None:
        leaves = pytree.tree_leaves(used)
        names = {self._names[id(leaf)] for leaf in leaves if id(leaf) in self._names}
        self.outside |= names
        self.layers_alone &= not names

    def _layer(self, layer: Layer, output: Any) -> Any:
        self._outside(layer.input, layer.others)
        names = self._names.get(id(layer.weight)), self._names.get(id(layer.bias))
        if names == (None, None) or not self.layers_alone:
            return output
        jet = isinstance(layer.input, Jet)
        source, target = (
            (layer.input.data, output.data) if jet else (layer.input, output)
        )
        if not layer.make:
            self._outside(layer.weight, layer.bias)
        if not layer.make or _differentiated(source):
            self.layers_alone = False
            return output
        if not target.requires_grad:
            target.requires_grad_()
            output = (
                output if jet else target.clone()
            )  # a leaf cannot be written in place
        view = target if target._is_view() else None
        place = Output(get_gradient_edge(target), view, target._version)
        origin = get_gradient_edge(source) if source.requires_grad else None
        source = source.detach()
        if layer.prepare:
            source = layer.prepare(source)
        shape = () if layer.weight is None else tuple(layer.weight.shape)
        self.calls.append(
            layer.make(*names, shape, source, source._version, place, origin)
        )
        return output


def _differentiated(source: Tensor) -> bool:
    return forward_ad._current_level >= 0 or is_functorch_wrapped_tensor(source)


def _has_tensor(result: Any) -> bool:
    return any(isinstance(leaf, (Tensor, Jet)) for leaf in pytree.tree_leaves(result))


@dataclass(frozen=True)
class Factor:
    """A layer's part of n rows as ``Σ_c left[c] ⊗ right[c]``.

    ``left`` is (c, n, out), ``right`` (c, n, in), or None for a bias: then ``Σ_c left[c]``. The
    weight of any layer but a linear one comes as such a sum of one.
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


def _squared_norms(factors: Sequence[Factor]) -> Tensor:
    """Return the squared norms of the sum of parts of rows at the same columns, (n,).

    ``‖Σ_c l_c ⊗ r_c‖² = Σ_cc′ (l_c·l_c′)(r_c·r_c′)``: channels of all calls of a layer together.
    """
    rights = [factor.right for factor in factors if factor.right is not None]
    if len(rights) == len(factors):
        left, right = (
            [c for f in factors for c in f.left],
            [c for one in rights for c in one],
        )
        c, o, i = len(left), left[0].shape[1], right[0].shape[1]
        if (c + 1) * (o + i) < 2 * o * i:
            total = left[0].new_zeros(len(left[0]))
            for k in range(c):
                for j in range(k + 1):
                    product = _inner(left[k], left[j]) * _inner(right[k], right[j])
                    total.add_(product, alpha=1 if j == k else 2)
            return total
    rows = sum((factor.rows() for factor in factors[1:]), start=factors[0].rows())
    return rows.square().sum(dim=1)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.vecdot(one, other)


@dataclass(frozen=True)
class Use:
    """What one call of a layer adds to n rows.

    ``weight`` and ``bias`` are names of selected parameters, or None. Where ``outer``, the
    weight's part is ``Σ_c left[:, c] ⊗ right[:, c]``.
    """

    weight: str | None
    bias: str | None
    _call: Call
    _delta: Tensor

    @property
    def outer(self) -> bool:
        """Whether the weight's rows are sums of outer products."""
        return self._call.outer

    @property
    def channels(self) -> int:
        """Number of channels c."""
        return self._call.channels(self._call.at(self._delta, slice(0, 1))).shape[1]

    def at(self, points: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return left (n, c, out), right (n, c, in) and, 0 or 1, what the bias reaches (c, 1)."""
        call = self._call
        left = call.channels(call.at(self._delta, points))
        return (
            left,
            call.inputs(call.at(call.source, points)),
            call.reached(self._delta),
        )

    def weight_rows(self, points: slice) -> Tensor:
        """Return the weight's part of the rows at some points, (n, its size)."""
        call = self._call
        left = call.factor(call.at(self._delta, points), call.at(call.source, points))
        return Factor(slice(0), *left).rows()

    def bias_rows(self, points: slice) -> Tensor:
        """Return the bias's part of the rows at some points, (n, its size)."""
        return _bias_rows(self._call, self._call.at(self._delta, points))


class LayerLinearization:
    """Exact derivative through layers of known kinds alone: one backward pass to their outputs."""

    def __init__(
        self, value: Tensor, calls: list[Call], parameters: Parameters | _Given
    ) -> None:
        self.value = value.detach()
        self.graph = value
        """The same with its graph."""
        self.calls = calls
        self._parameters = parameters
        self._passes: list[tuple[Tensor, list[Tensor | None]]] = []
        """Seeds so far and the backward pass of each: factors and rows share it."""

    def deltas(self, seed: Tensor) -> list[Tensor | None]:
        """Return the gradient of ``Σ seed · value`` by each call's output, None for no effect."""
        outputs = [call.output.edge for call in self.calls]
        if not self.graph.requires_grad:
            return [None] * len(outputs)
        for seen, deltas in self._passes:
            if seen is seed:
                return deltas
        deltas = list(
            torch.autograd.grad(
                self.graph,
                outputs,
                grad_outputs=seed,
                retain_graph=True,
                allow_unused=True,
            )
        )
        self._passes.append((seed, deltas))
        return deltas

    def _active(self, seed: Tensor) -> Iterator[tuple[Call, Tensor, Tensor]]:
        for call, delta in zip(self.calls, self.deltas(seed), strict=True):
            if delta is not None:
                yield call, delta, call.source

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Σ_m seed[i, m] · J[i, m, :]`` for each point i, shape (n, P), in ``out``."""
        rows = (
            seed.new_empty(len(self.value), self._parameters.size)
            if out is None
            else out
        )
        unwritten = dict(self._parameters.slices)
        for call, delta, source in self._active(seed):
            if call.weight:
                first = unwritten.pop(call.weight, None) is not None
                columns = rows[:, self._parameters.slices[call.weight]]
                call.put_rows(columns, delta, source, first)
            if call.bias:
                first = unwritten.pop(call.bias, None) is not None
                columns = rows[:, self._parameters.slices[call.bias]]
                put(columns, _bias_rows(call, delta), first)
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

    def squared_norms(self, seed: Tensor) -> Tensor:
        """Return the squared Euclidean norm of each of :meth:`rows`, (n,), mostly without them."""
        same: dict[int, list[Factor]] = {}
        for factor in self.factors(seed):
            same.setdefault(factor.columns.start, []).append(factor)
        total = seed.new_zeros(len(self.value))
        for factors in same.values():
            total += _squared_norms(factors)
        return total

    def uses(self, seed: Tensor) -> list[Use]:
        """Return what each call of a layer adds to :meth:`rows`, weight and bias together."""
        return [
            Use(call.weight, call.bias, call, delta)
            for call, delta, _ in self._active(seed)
        ]

    @property
    def layers(self) -> list[tuple[str | None, str | None, bool]]:
        """Selected weight and bias of each call of a layer, or None, and :attr:`Use.outer`."""
        return [(call.weight, call.bias, call.outer) for call in self.calls]

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed) @ vectors`` without the rows: vectors (P, K) to (n, K)."""
        slices, total = (
            self._parameters.slices,
            seed.new_zeros(len(self.value), vectors.shape[1]),
        )
        for call, delta, source in self._active(seed):
            if call.weight:
                total += call.matvec(delta, source, vectors[slices[call.weight]])
            if call.bias:
                total += _bias_rows(call, delta) @ vectors[slices[call.bias]]
        return total

    def rmatvec(self, seed: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m seed[i, m] · J[i, m, :]``, shape (P,)."""
        slices, total = self._parameters.slices, seed.new_zeros(self._parameters.size)
        for call, delta, source in self._active(seed):
            if call.weight:
                total[slices[call.weight]] += call.rmatvec(delta, source)
            if call.bias:
                kept = call.channels(_bias_part(call, delta))
                total[slices[call.bias]] += kept.sum(dim=(0, 1))
        return total

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        """Return ``rows(seed).T @ weights`` without the rows: weights (n, K) to (P, K)."""
        slices = self._parameters.slices
        total = seed.new_zeros(weights.shape[1], self._parameters.size)
        for call, delta, source in self._active(seed):
            if call.weight:
                total[:, slices[call.weight]] += call.rmatmat(delta, source, weights)
            if call.bias:
                total[:, slices[call.bias]] += weights.T @ _bias_rows(call, delta)
        return total.T


def _bias_part(call: Call, delta: Tensor) -> Tensor:
    """Return the part of δ that a bias reaches: of a jet only the value."""
    return call.biased(delta)


def _bias_rows(call: Call, delta: Tensor) -> Tensor:
    """Return the bias's part of the rows, (n, its size)."""
    return call.channels(_bias_part(call, delta)).sum(dim=1)


class _FunctionLinearization:
    """Exact derivative of any pointwise function through ``torch.func``, point by point."""

    def __init__(
        self,
        function: Pointwise,
        parameters: Parameters,
        points: Points,
        value: Tensor,
        outside: Sequence[str] = (),
    ) -> None:
        self.value = value.detach()
        self.outside = outside
        """Selected parameters that are used elsewhere than in layers of known kinds."""
        self._parameters = parameters
        self._points = points
        self._theta = parameters.vector()
        self._function = function

    def _at(self, theta: Tensor, points: Points) -> Tensor:
        return self._function(self._parameters.substituted(theta), points)

    def rows(self, seed: Tensor, out: Tensor | None = None) -> Tensor:
        def scalar(theta: Tensor, point: Tensor, weights: Tensor) -> Tensor:
            return (self._at(theta, point.unsqueeze(0)).squeeze(0) * weights).sum()

        gradient = torch.func.grad(scalar)
        rows: Tensor = torch.func.vmap(gradient, in_dims=(None, 0, 0))(
            self._theta, self._points, seed
        )
        return rows.detach() if out is None else out.copy_(rows.detach())

    def squared_norms(self, seed: Tensor) -> Tensor:
        return self.rows(seed).square().sum(dim=1)

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        def push(vector: Tensor) -> Tensor:
            tangent: Tensor = torch.func.jvp(
                lambda theta: self._at(theta, self._points), (self._theta,), (vector,)
            )[1]
            return (tangent * seed).sum(dim=1)

        try:
            return torch.stack([push(v).detach() for v in vectors.unbind(1)], dim=1)
        except (
            NotImplementedError
        ):  # an operation without forward mode, as in fused attention
            return self.rows(seed) @ vectors

    def rmatvec(self, seed: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda theta: self._at(theta, self._points), self._theta)[
            1
        ]
        result: Tensor = pull(seed)[0]
        return result.detach()

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda theta: self._at(theta, self._points), self._theta)[
            1
        ]
        each = [
            pull(seed * weight[:, None])[0].detach() for weight in weights.unbind(1)
        ]
        return torch.stack(each, dim=1)


class _ReverseLinearization:
    """Exact derivative of a function that ``torch.func`` cannot follow: reverse mode alone."""

    def __init__(
        self,
        function: Pointwise,
        parameters: Parameters,
        points: Points,
        outside: Sequence[str] = (),
    ) -> None:
        self.outside = outside
        self._function = function
        self._parameters = parameters
        self._points = points
        self._theta = parameters.vector()
        self.value = self._at(self._theta, points).detach()
        _checks.pointwise(self.value, self._at(self._theta, points[:1]), len(points))

    def _at(self, theta: Tensor, points: Points) -> Tensor:
        with torch.enable_grad():
            return self._function(self._parameters.substituted(theta), points)

    def _pull(self, seed: Tensor, points: Points) -> Tensor:
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

    def squared_norms(self, seed: Tensor) -> Tensor:
        return self.rows(seed).square().sum(dim=1)

    def matvec(self, vectors: Tensor, seed: Tensor) -> Tensor:
        return self.rows(seed) @ vectors

    def rmatvec(self, seed: Tensor) -> Tensor:
        return self._pull(seed, self._points)

    def rmatmat(self, weights: Tensor, seed: Tensor) -> Tensor:
        each = [
            self._pull(seed * weight[:, None], self._points)
            for weight in weights.unbind(1)
        ]
        return torch.stack(each, dim=1)
