"""A pointwise function's derivative with respect to the parameters at some points, exactly.

:func:`linearize` answers with rows, products J·v and products Jᵀ·u. Where every selected
parameter is used by layers of known kinds only (linear, convolution, normalization, embedding:
:mod:`whence.layers`), one backward pass to the layers' outputs gives everything (each row of a
linear layer is a sum of outer products, Goodfellow, arXiv 1510.01799, extended here to layers that
carry input derivatives, and over positions to convolutions, Rochette et al., arXiv 1912.06015);
any other model goes through ``torch.func``, and one that it cannot follow, such as one that calls
``torch.autograd.grad``, has recurrent layers, or asks for values of its inputs, through plain
reverse mode, point by point (:mod:`whence.autodiff`). All are exact.

Throughout, u is a *cotangent* (n, m): it weighs the m components of each of n points. The row of
point i is ``Jᵢᵀuᵢ = Σ_m u[i, m] · ∂r_m(z_i)/∂θ``, a vector of P numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from whence.autodiff import (
    FunctionLinearization,
    ReverseLinearization,
    needs_reverse_mode,
)
from whence.layers import Call, Output, put
from whence.parameter_calls import RowsCall
from whence.parameters import Parameters
from whence.points import Points, Pointwise, are_samples
from whence.recorder import DifferentiatesItself, SubstitutedParameters, record
from whence.recording import Recording, recorded

LAYER_NUMBERS = 2**27
"""Numbers of one layer's rows that meet many vectors at once: products of fewer rows are slow."""
MAX_PASSES = 64
"""Backward passes whose results are kept."""


class Linearization(Protocol):
    """A pointwise function at n points and its derivative with respect to θ there.

    Every ``cotangent`` has shape (n, m) and weighs the m components of each point.
    """

    value: Tensor
    """The function's values, (n, m)."""

    def rows(self, cotangent: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Σ_m u[i, m] · J[i, m, :]`` for each point i, shape (n, P), in ``out``."""

    def matvec(self, vectors: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent) @ vectors`` without the rows: vectors (P, K) to (n, K)."""

    def squared_norms(self, cotangent: Tensor) -> Tensor:
        """Return ``‖rows(cotangent)‖²`` of each point, (n,)."""

    def rmatvec(self, cotangent: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m u[i, m] · J[i, m, :]``, shape (P,)."""

    def rmatmat(self, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent).T @ weights`` without the rows: weights (n, K) to (P, K)."""


def linearize(
    function: Pointwise, parameters: Parameters, points: Points
) -> Linearization:
    """Differentiate ``function`` with respect to the parameters at ``points``, exactly.

    Of the three ways the fastest that the function allows is taken.

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
        recording = recorded(function, parameters, points)
    except DifferentiatesItself:
        return ReverseLinearization(function, parameters, points)

    outside = recording.outside
    is_plain = recording.is_plain
    value = recording.value
    if not outside and not recording.is_general:
        return LayerLinearization(value, recording.calls, parameters, is_plain=is_plain)

    # The fewer parameters go this way, the less it costs: rows of the others are not made.
    is_reverse = recording.recurrent or needs_reverse_mode(function)
    others = _others(recording, parameters)
    chosen = others or parameters
    rest: FunctionLinearization | ReverseLinearization
    if is_reverse:
        rest = ReverseLinearization(function, chosen, points, outside)
    else:
        rest = FunctionLinearization(function, chosen, points, value, outside)
    if others is None:
        return rest
    return LayerLinearization(value, recording.calls, parameters, rest, is_plain=False)


def _others(recording: Recording, parameters: Parameters) -> Parameters | None:
    """Return the parameters without a rule, if the others are worth going by layers."""
    if recording.is_general:
        return None
    outside = set(recording.outside)
    n_outside = sum(parameters.shape(name).numel() for name in outside)
    if not recording.calls or 2 * n_outside > parameters.size:
        return None
    return Parameters(parameters.module, lambda name, parameter: name in outside)


class OutsideLayers(ValueError):
    """Parameters are used elsewhere than in layers of known kinds."""


def squared_norms(
    function: Pointwise, parameters: Parameters, theta: Tensor, points: Points
) -> Tensor:
    """Return ``Σ_m ‖∇r_m(z_i)‖²`` at θ for each point, (n,), in a way that can be compiled.

    Only for functions of which :func:`linearize` makes a :class:`LayerLinearization`, which must
    be known already; another use of parameters raises :class:`OutsideLayers`.
    """
    at_theta = SubstitutedParameters(parameters, theta)
    value, recorder = record(function, at_theta, points)
    if not recorder.layers_alone:
        raise OutsideLayers(
            "its parameters are used elsewhere than in layers of known kinds"
        )

    linear = LayerLinearization(value, recorder.calls, at_theta)
    total = torch.zeros_like(linear.value[:, 0])
    for k in range(value.shape[1]):
        # With u = e_k the row of point i is ∇r_k(z_i).
        unit = torch.zeros_like(linear.value)
        unit[:, k] = 1.0
        total = total + linear.squared_norms(unit)

    return total


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

        # Of each point, (out, c) @ (c, in) = Σ_c left_c ⊗ right_c.
        outer = self.left.permute(1, 2, 0) @ self.right.permute(1, 0, 2)
        return outer.reshape(len(outer), -1)


def _squared_norms(factors: Sequence[Factor]) -> Tensor:
    """Return the squared norms of the sum of parts of rows at the same columns, (n,).

    The channels c of all calls of a layer are taken together. As ⟨l ⊗ r, l′ ⊗ r′⟩ is
    (l·l′)(r·r′), the norm needs no row:

        ``‖Σ_c l_c ⊗ r_c‖² = Σ_cc′ (l_c·l_c′)(r_c·r_c′)``
    """
    lefts: list[Tensor] = []  # l_c (n, out)
    rights: list[Tensor] = []  # r_c (n, in)
    for factor in factors:
        if factor.right is not None:
            lefts.extend(factor.left)
            rights.extend(factor.right)

    are_outer = all(factor.right is not None for factor in factors)
    if are_outer:
        n_out = lefts[0].shape[1]
        n_in = rights[0].shape[1]
        # c(c+1)/2 pairs of inner products over out + in numbers, against c products that make
        # rows of out · in numbers each.
        c = len(lefts)
        if (c + 1) * (n_out + n_in) < 2 * n_out * n_in:
            return _squared_norms_of_outer(lefts, rights)

    rows = factors[0].rows()
    for factor in factors[1:]:
        rows = rows + factor.rows()

    return rows.square().sum(dim=1)


def _squared_norms_of_outer(
    lefts: Sequence[Tensor], rights: Sequence[Tensor]
) -> Tensor:
    total = lefts[0].new_zeros(len(lefts[0]))
    for k in range(len(lefts)):
        for j in range(k + 1):
            # (n,) each: l_c·l_c′ and r_c·r_c′.
            of_lefts = torch.linalg.vecdot(lefts[k], lefts[j])
            of_rights = torch.linalg.vecdot(rights[k], rights[j])
            # The sum is symmetric in c and c′: pairs below the diagonal count twice.
            count = 1 if j == k else 2
            total.add_(of_lefts * of_rights, alpha=count)

    return total


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
        # One point tells: all have as many.
        call = self._call
        first = slice(0, 1)
        left, _ = call.pair(call.at(self._delta, first), call.at(call.source, first))
        return left.shape[1]

    def at(self, points: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return left (n, c, out), right (n, c, in) and, 0 or 1, what the bias reaches (c, 1)."""
        call = self._call
        delta = call.at(self._delta, points)
        source = call.at(call.source, points)
        left, right = call.pair(delta, source)
        return left, right, call.reached(self._delta)

    def weight_rows(self, points: slice) -> Tensor:
        """Return the weight's part of the rows at some points, (n, its size)."""
        call = self._call
        delta = call.at(self._delta, points)
        source = call.at(call.source, points)
        left, right = call.factor(delta, source)
        factor = Factor(slice(0), left, right)
        return factor.rows()

    def bias_rows(self, points: slice) -> Tensor:
        """Return the bias's part of the rows at some points, (n, its size)."""
        delta = self._call.at(self._delta, points)
        return _bias_rows(self._call, delta)


class LayerLinearization:
    """Exact derivative through layers of known kinds alone: one backward pass to their outputs.

    A layer with weight W takes inputs a_c to outputs ``h_c = W a_c + b`` in channels c, which are
    the derivatives that a jet carries, positions of an image or a sequence, or a single one. With
    ``δ_c = ∂(Σ u · r)/∂h_c``, which for all layers takes one backward pass, the chain rule gives

        ``∂(Σ u · r)/∂W = Σ_c δ_c ⊗ a_c`` and ``∂(Σ u · r)/∂b = Σ_c δ_c``.

    Point i's value depends on its own h alone, so δ of point i gives the row of point i, and all
    products below are the same sums in other orders.

    Parameters
    ----------
    value:
        What the function gave, with its graph.
    calls:
        The calls of its layers, points in front.
    parameters:
        θ.
    rest:
        The derivative with respect to the parameters that no call has, if there are such.
    is_plain:
        Whether the calls are as the function made them, with no points moved or repeated.
    """

    def __init__(
        self,
        value: Tensor,
        calls: list[Call],
        parameters: Parameters | SubstitutedParameters,
        rest: FunctionLinearization | ReverseLinearization | None = None,
        *,
        is_plain: bool = True,
    ) -> None:
        self.value = value.detach()
        self.graph = value
        """The same with its graph."""
        self.is_plain = is_plain
        self._rest = rest
        self.calls = calls if rest is None else [*calls, *_row_calls(value, rest)]
        self._parameters = parameters
        self._passes: list[tuple[Tensor, list[Tensor | None]]] = []
        """Cotangents so far and the backward pass of each: factors and rows share it."""

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the parameters that no layer has, whose rows are made apart."""
        return () if self._rest is None else self._rest.parameters.names

    def deltas(self, cotangent: Tensor) -> list[Tensor | None]:
        """Return ∂(Σ u · value)/∂h for the output h of each call, None for no effect."""
        if not self.graph.requires_grad:
            return [None] * len(self.calls)

        # By identity: to compare numbers would cost as much as some layers.
        for seen, deltas in self._passes:
            if seen is cotangent:
                return deltas

        arranged = self.deltas_of(self.calls, cotangent)
        self._passes.append((cotangent, arranged))
        # Of a few cotangents all are asked for again; of many, one after the other, none is.
        if len(self._passes) > MAX_PASSES:
            del self._passes[0]

        return arranged

    def deltas_of(
        self, calls: Sequence[Call], cotangent: Tensor
    ) -> list[Tensor | None]:
        """Return ∂(Σ u · value)/∂h of some calls, points in front; nothing of it is kept."""
        of_layers = [call for call in calls if not isinstance(call, RowsCall)]
        gradients = torch.autograd.grad(
            self.graph,
            [call.output.edge for call in of_layers],
            grad_outputs=cotangent,
            retain_graph=True,
            allow_unused=True,
        )
        of_calls = dict(zip(map(id, of_layers), gradients, strict=True))

        # Of parameters without a rule the rows themselves.
        rows: dict[str, Tensor] = {}
        if self._rest is not None and len(of_layers) < len(calls):
            by_parameter = self._rest.by_parameter(cotangent)
            rows = dict(zip(self.others, by_parameter, strict=True))

        deltas: list[Tensor | None] = []
        for call in calls:
            if isinstance(call, RowsCall):
                assert call.weight is not None
                deltas.append(rows[call.weight])
                continue
            gradient = of_calls[id(call)]
            if gradient is not None and call.arrangement is not None:
                gradient = call.arrangement.of(gradient)
            deltas.append(gradient)
        return deltas

    def _active(self, cotangent: Tensor) -> Iterator[tuple[Call, Tensor, Tensor]]:
        """Yield the calls that the cotangent reaches, each with its δ and its input."""
        for call, delta in zip(self.calls, self.deltas(cotangent), strict=True):
            if delta is not None:
                yield call, delta, call.source

    def rows(self, cotangent: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``Σ_m u[i, m] · J[i, m, :]`` for each point i, shape (n, P), in ``out``."""
        rows = out
        if rows is None:
            rows = cotangent.new_empty(len(self.value), self._parameters.size)

        # A layer's first call writes its columns, further ones add to them, and what no call
        # reaches is zero: no pass over the whole of the rows, which may be new memory.
        slices = self._parameters.slices
        unwritten = dict(slices)

        for call, delta, source in self._active(cotangent):
            if call.weight:
                columns = rows[:, slices[call.weight]]
                is_first = unwritten.pop(call.weight, None) is not None
                call.put_rows(columns, delta, source, is_first)
            if call.bias:
                columns = rows[:, slices[call.bias]]
                is_first = unwritten.pop(call.bias, None) is not None
                put(columns, _bias_rows(call, delta), is_first)

        for untouched in unwritten.values():
            rows[:, untouched] = 0
        return rows

    def factors(self, cotangent: Tensor) -> list[Factor]:
        """Return what :meth:`rows` multiplies out, layer by layer."""
        slices = self._parameters.slices
        factors = []
        for call, delta, source in self._active(cotangent):
            if call.weight:
                columns = slices[call.weight]
                left, right = call.factor(delta, source)
                factors.append(Factor(columns, left, right))
            if call.bias:
                columns = slices[call.bias]
                reaching = call.channels(_bias_part(call, delta))  # (n, c, out)
                factors.append(Factor(columns, reaching.transpose(0, 1), None))

        return factors

    def squared_norms(self, cotangent: Tensor) -> Tensor:
        """Return the squared Euclidean norm of each of :meth:`rows`, (n,), mostly without them."""
        # Parts of one parameter are added before their norm is taken, by the first column.
        by_parameter: dict[int, list[Factor]] = {}
        for factor in self.factors(cotangent):
            column = factor.columns.start
            by_parameter.setdefault(column, []).append(factor)

        total = cotangent.new_zeros(len(self.value))
        for factors in by_parameter.values():
            total += _squared_norms(factors)

        return total

    def uses(self, cotangent: Tensor) -> list[Use]:
        """Return what each call of a layer adds to :meth:`rows`, weight and bias together."""
        return [
            Use(call.weight, call.bias, call, delta)
            for call, delta, _ in self._active(cotangent)
        ]

    @property
    def layers(self) -> list[tuple[str | None, str | None, bool]]:
        """Selected weight and bias of each call of a layer, or None, and :attr:`Use.outer`."""
        return [
            (
                call.weight,
                call.bias,
                call.outer,
            )
            for call in self.calls
        ]

    def matvec(self, vectors: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent) @ vectors`` without the rows: vectors (P, K) to (n, K).

        With V the weight's part of a vector and v the bias's,
        ``⟨Σ_c δ_c ⊗ a_c, V⟩ + ⟨Σ_c δ_c, v⟩ = Σ_c δ_c · (V a_c + v)``.
        """
        slices = self._parameters.slices
        total = cotangent.new_zeros(len(self.value), vectors.shape[1])
        for call, delta, source in self._active(cotangent):
            if call.weight:
                of_weight = vectors[slices[call.weight]]
                total += call.matvec(delta, source, of_weight)
            if call.bias:
                of_bias = vectors[slices[call.bias]]
                total += _bias_rows(call, delta) @ of_bias

        return total

    def matmat(self, vectors: Tensor, cotangent: Tensor) -> Tensor:
        """Return what :meth:`matvec` does, by the rows of one layer at a time: (P, K) to (n, K).

        Of many vectors one product with a layer's rows takes less than its products one by one;
        rows of all layers together may not fit.
        """
        slices = self._parameters.slices
        n = len(self.value)
        total = cotangent.new_zeros(n, vectors.shape[1])
        # One buffer for the rows of all layers: new memory costs as much as to fill it.
        largest = max(columns.stop - columns.start for columns in slices.values())
        step = max(1, LAYER_NUMBERS // largest)
        buffer = cotangent.new_empty(min(step, n) * largest)
        for call, delta, source in self._active(cotangent):
            if call.weight:
                of_weight = vectors[slices[call.weight]]
                for part in range(0, n, step):
                    points = slice(part, min(part + step, n))
                    shape = (points.stop - points.start, len(of_weight))
                    rows = buffer[: shape[0] * shape[1]].view(shape)
                    call.put_rows(
                        rows,
                        call.at(delta, points),
                        call.at(source, points),
                        first=True,
                    )
                    total[points].addmm_(rows, of_weight)
            if call.bias:
                total += _bias_rows(call, delta) @ vectors[slices[call.bias]]

        return total

    def rmatvec(self, cotangent: Tensor) -> Tensor:
        """Return ``Σ_i Σ_m u[i, m] · J[i, m, :]``, shape (P,): the sum of all rows."""
        slices = self._parameters.slices
        total = cotangent.new_zeros(self._parameters.size)
        for call, delta, source in self._active(cotangent):
            if call.weight:
                # Σ_i Σ_c δ_ic ⊗ a_ic is one product over points and channels together.
                total[slices[call.weight]] += call.rmatvec(delta, source)
            if call.bias:
                reaching = call.channels(_bias_part(call, delta))  # (n, c, out)
                total[slices[call.bias]] += reaching.sum(dim=(0, 1))

        return total

    def rmatmat(self, weights: Tensor, cotangent: Tensor) -> Tensor:
        """Return ``rows(cotangent).T @ weights`` without the rows: weights (n, K) to (P, K)."""
        slices = self._parameters.slices
        # Transposed, so that each layer's columns are contiguous.
        total = cotangent.new_zeros(weights.shape[1], self._parameters.size)
        for call, delta, source in self._active(cotangent):
            if call.weight:
                columns = slices[call.weight]
                total[:, columns] += call.rmatmat(delta, source, weights)
            if call.bias:
                columns = slices[call.bias]
                total[:, columns] += weights.T @ _bias_rows(call, delta)

        return total.T


def _row_calls(
    value: Tensor, rest: FunctionLinearization | ReverseLinearization
) -> list[Call]:
    """Return what stands for calls of the parameters that have none."""
    calls: list[Call] = []
    # Their rows stand for δ, so that they need neither source nor output.
    no_source = value.detach().new_empty(0)
    output = Output(get_gradient_edge(value), None, 0)
    for name in rest.parameters.names:
        shape = tuple(rest.parameters.shape(name))
        calls.append(RowsCall(name, None, shape, no_source, 0, output, None, None))
    return calls


def _bias_part(call: Call, delta: Tensor) -> Tensor:
    """Return the part of δ that a bias reaches: of a jet only the value, as b is constant."""
    return call.biased(delta)


def _bias_rows(call: Call, delta: Tensor) -> Tensor:
    """Return the bias's part of the rows, (n, its size)."""
    return call.channels(_bias_part(call, delta)).sum(dim=1)
