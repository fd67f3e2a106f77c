"""The neural tangent kernel ``K = J Jᵀ`` of an objective, without the rows of wide layers.

A row of J at a linear layer is ``Σ_c δ_c ⊗ a_c`` over channels c, so the layer's part of the
kernel is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products and an elementwise one in place of
a product over all the layer's weights. It is taken where it is the cheaper of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian, Rows, self_product
from whence.linearization import Factor
from whence.objective import Objective

TILE = 500


@dataclass(frozen=True)
class _Thin:
    """One layer's rows as ``Σ_c left[c] ⊗ right[c]``: left (c, R, out), right (c, R, in)."""

    columns: slice
    left: Tensor
    right: Tensor

    def add_products(self, other: _Thin, total: Tensor, *, lower: bool = False) -> None:
        """Add this layer's part of ``rows @ other.rows.T`` to ``total``, tile by tile.

        With ``lower`` only the tiles on and below the diagonal are made.
        """
        n, m = total.shape
        for i in range(0, n, TILE):
            rows = slice(i, min(i + TILE, n))
            for j in range(0, rows.stop if lower else m, TILE):
                others = slice(j, min(j + TILE, m))
                tile = total[rows, others]
                for a, b in zip(self.left[:, rows], self.right[:, rows], strict=True):
                    for c, d in zip(other.left[:, others], other.right[:, others], strict=True):
                        tile.addcmul_(a @ c.T, b @ d.T)

    def rows(self) -> Tensor:
        """Return the rows themselves, (R, columns)."""
        return Factor(self.columns, self.left, self.right).rows()

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Σ_i vector[i] · row_i`` of this layer, flat."""
        weighted = self.left * vector[None, :, None]
        flat = weighted.reshape(-1, weighted.shape[2]).T @ self.right.reshape(
            -1, self.right.shape[2]
        )
        return flat.reshape(-1)


class TangentKernel:
    """``K = J Jᵀ`` at the current parameters and the products a dual solve needs.

    With ``scaled=True`` rows carry the square roots of weight, 1/N and loss curvature, as in
    :class:`whence.Jacobian`; ``right`` is then ρ with ``Jᵀρ = ∇L`` (Jacot et al. 2018, arXiv
    1806.07572; for PINNs Wang et al. 2022).

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.ntk import TangentKernel
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("wave")
    >>> objective = problem.objective(pinn.MLP([2, 50, 50, 1], seed=0), problem.sample(8))
    >>> kernel = TangentKernel(objective)
    >>> J = wh.Jacobian(objective, scaled=True).dense()
    >>> torch.allclose(kernel.gram, J @ J.T)
    True
    """

    def __init__(self, objective: Objective, *, scaled: bool = True) -> None:
        jacobian = Jacobian(objective, scaled=scaled)
        self.size = objective.parameters.size
        blocks, rights = zip(*jacobian.blocks(), strict=True)
        self.right = torch.cat(rights)
        factors = [rows.factors() for rows in blocks]
        thin = _cheaper_thin(factors)
        self._thin = [_joined(columns, factors) for columns in thin]
        self._direct = torch.ones(self.size, dtype=torch.bool, device=self.right.device)
        for columns in thin:
            self._direct[columns] = False
        if thin:
            self._rows = torch.cat([self._direct_rows(found or []) for found in factors])
        else:
            self._rows = _stacked(blocks, self.right.new_empty(len(self.right), self.size))
        self.gram = self_product(self._rows)
        for part in self._thin:
            part.add_products(part, self.gram, lower=True)
        if self._thin:
            lower = self.gram.tril()
            self.gram = lower + lower.tril(-1).T

    def dense(self) -> Tensor:
        """Return J, shape (R, P)."""
        if not self._thin:
            return self._rows
        rows = self._rows.new_empty(len(self._rows), self.size)
        rows[:, self._direct] = self._rows
        for part in self._thin:
            rows[:, part.columns] = part.rows()
        return rows

    def _direct_rows(self, factors: list[Factor]) -> Tensor:
        """Return the columns of a block's rows that have no thin form, (n, number of them)."""
        place = torch.cumsum(self._direct, 0) - 1
        rows = factors[0].left.new_zeros(factors[0].left.shape[1], int(self._direct.sum()))
        for factor in factors:
            if bool(self._direct[factor.columns.start]):
                first = int(place[factor.columns.start])
                width = factor.columns.stop - factor.columns.start
                rows[:, first : first + width] += factor.rows()
        return rows

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ y``, shape (P,)."""
        total = vector.new_zeros(self.size)
        total[self._direct] = self._rows.T @ vector
        for part in self._thin:
            total[part.columns] = part.rmatvec(vector)
        return total


def _stacked(blocks: Sequence[Rows], out: Tensor) -> Tensor:
    start = 0
    for rows in blocks:
        rows.dense(out=out[start : start + len(rows)])
        start += len(rows)
    return out


def _cheaper_thin(blocks: Sequence[list[Factor] | None]) -> list[slice]:
    """Return the weights whose part of the kernel is cheaper through inner products.

    A weight that a block uses twice, or not at all, is left to its rows.
    """
    if any(factors is None for factors in blocks):
        return []
    wins: list[set[tuple[int, int]]] = []
    for factors in blocks:
        spans = [(f.columns.start, f.columns.stop) for f in factors or ()]
        cheaper = {span for span, f in zip(spans, factors or (), strict=True) if _is_cheaper(f)}
        wins.append({span for span in cheaper if spans.count(span) == 1})
    return [slice(*span) for span in sorted(set.intersection(*wins))]


def _is_cheaper(factor: Factor) -> bool:
    c, _, o = factor.left.shape
    i = factor.right.shape[2] if factor.right is not None else 0
    return c * c * (o + i) < o * i


def _joined(columns: slice, blocks: Sequence[list[Factor] | None]) -> _Thin:
    """Return one layer's factors over all blocks; blocks with fewer channels are filled up."""
    found = [next(f for f in factors or () if f.columns == columns) for factors in blocks]
    channels = max(factor.left.shape[0] for factor in found)
    left = torch.cat([_filled(factor.left, channels) for factor in found], dim=1)
    right = torch.cat([_filled(f.right, channels) for f in found if f.right is not None], dim=1)
    return _Thin(columns, left, right)


def _filled(part: Tensor, channels: int) -> Tensor:
    missing = part.new_zeros(channels - part.shape[0], *part.shape[1:])
    return torch.cat([part, missing]) if len(missing) else part
