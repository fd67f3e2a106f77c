"""Uses of parameters that are no layer of a module: sums, products, parts and transposes.

As in :mod:`whence.layers` each :class:`~whence.layers.Call` answers, with δ the gradient with
respect to its output, for the rows of its parameter:

================= ======================== ==================================================
use               output                   the parameter's part of a row
================= ======================== ==================================================
sum               ``x + w``                δ, summed over the axes along which w is repeated
difference        ``x − w``                −δ, summed likewise
product           ``x ∘ w``                ``δ ∘ x``, summed likewise
transposed matrix ``x W`` with W (in, out) ``Σ_c x_c ⊗ δ_c``
part of a matrix  ``x Wᵀ`` with some rows  ``Σ_c δ_c ⊗ x_c`` in these rows
any other         –                        made by :class:`whence.autodiff.FunctionLinearization`
================= ======================== ==================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whence.layers import Call, HeavyCall, LinearCall, put


@dataclass(frozen=True, eq=False)
class AddedCall(Call):
    """A parameter, or a run of its numbers, added to something or repeated: ``h = x + w``."""

    columns: slice
    """Which numbers of the parameter w is."""
    operand: tuple[int, ...]
    """The shape of w."""
    axes = 1
    any_axis = True

    @property
    def intact(self) -> bool:
        """Whether the output was not overwritten; the other operand may be."""
        return self.output.intact

    def _slopes(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return ``δ · ∂h/∂w`` in the shape of δ."""
        return delta

    def _reduced(self, values: Tensor) -> Tensor:
        """Return values (n, ...) summed over all axes along which w is repeated, (n, size)."""
        # The first axis is kept: rows are of single points.
        n = len(values)
        # Axes are aligned from the last one on; the axis of the points is in front of all of them.
        extra = values.ndim - len(self.operand)
        table = values
        if extra < 1:
            table = values.reshape(n, *[1] * (1 - extra), *values.shape[1:])
            extra = 1
        repeated = list(range(1, extra))
        for axis, size in enumerate(self.operand):
            if size == 1 and table.shape[extra + axis] != 1:
                repeated.append(extra + axis)

        # Σ over repetitions: each of them is the same number of w.
        summed = table.sum(dim=repeated) if repeated else table
        return summed.reshape(n, -1)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the sums of δ to the numbers of w."""
        # ∂(Σ u · r)/∂w = Σ δ · ∂h/∂w over all places where a number of w is.
        values = self._reduced(self._slopes(delta, source))
        size = columns.shape[1]
        if first and values.shape[1] < size:
            columns.zero_()
        put(columns[:, self.columns], values, first)


class SubtractedCall(AddedCall):
    """A parameter taken from something: ``h = x − w``."""

    def _slopes(self, delta: Tensor, source: Tensor) -> Tensor:
        return -delta


@dataclass(frozen=True, eq=False)
class MultipliedCall(AddedCall):
    """Something multiplied with a parameter, number by number: ``h = x ∘ w``."""

    @property
    def intact(self) -> bool:
        """Whether neither the other operand nor the output was overwritten."""
        return self.output.intact and self.source._version == self.version

    def _slopes(self, delta: Tensor, source: Tensor) -> Tensor:
        return delta * source


@dataclass(frozen=True, eq=False)
class SwappedLinearCall(HeavyCall):
    """A product ``h = x W`` with W (in, out): a linear layer whose weight is transposed."""

    any_axis = True
    swaps = True

    @property
    def outer(self) -> bool:
        """Whether rows are sums of outer products: always."""
        return True

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, positions, out)."""
        return delta.reshape(len(delta), -1, delta.shape[-1])

    def inputs(self, source: Tensor) -> Tensor:
        """Return the input as (n, positions, in)."""
        return self.channels(source)

    def pair(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return x (n, c, in) and δ (n, c, out), whose outer products are the rows."""
        return self.inputs(source), self.channels(delta)

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add ``Σ_c x_c ⊗ δ_c`` of each point."""
        # (in, c) · (c, out) of each point.
        left, right = self.pair(delta, source)
        put(columns, (left.mT @ right).flatten(1), first)

    def factor(self, delta: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return x (c, n, in) and δ (c, n, out)."""
        left, right = self.pair(delta, source)
        return left.transpose(0, 1), right.transpose(0, 1)

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        return source @ weight

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return ``Σ_i Σ_c x_ic ⊗ δ_ic``, flat."""
        # One product over points and positions together.
        n_inputs, n_outputs = self.shape
        inputs = source.reshape(-1, n_inputs)
        total = inputs.T @ delta.reshape(-1, n_outputs)
        return total.reshape(-1)


@dataclass(frozen=True, eq=False)
class PartLinearCall(LinearCall):
    """A linear layer by some rows of its weight, such as one of several packed projections."""

    rows_used: slice
    any_axis = True

    def channels(self, delta: Tensor) -> Tensor:
        """Return δ as (n, positions, out), zero at outputs of other rows."""
        # (n, positions, rows that are used)
        used = delta.reshape(len(delta), -1, delta.shape[-1])
        return self._padded(used)

    def inputs(self, source: Tensor) -> Tensor:
        """Return the input as (n, positions, in)."""
        return source.reshape(len(source), -1, source.shape[-1])

    def _padded(self, used: Tensor) -> Tensor:
        after = self.shape[0] - self.rows_used.stop
        return F.pad(used, (self.rows_used.start, after))

    def _product(self, source: Tensor, weight: Tensor) -> Tensor:
        return F.linear(source, weight[self.rows_used])

    def rmatvec(self, delta: Tensor, source: Tensor) -> Tensor:
        """Return ``Σ_i Σ_c δ_ic ⊗ x_ic`` of the whole weight, flat."""
        outputs = delta.reshape(-1, delta.shape[-1])
        inputs = source.reshape(-1, source.shape[-1])
        # Rows of the weight that were not used have no gradient.
        total = torch.zeros(self.shape, dtype=delta.dtype, device=delta.device)
        total[self.rows_used] = outputs.T @ inputs
        return total.reshape(-1)


class RowsCall(Call):
    """A parameter without a rule: what stands for δ are its rows themselves, (n, size)."""

    axes = 0

    def put_rows(
        self, columns: Tensor, delta: Tensor, source: Tensor, first: bool
    ) -> None:
        """Write or add the rows."""
        put(columns, delta.reshape(len(delta), math.prod(self.shape)), first)
