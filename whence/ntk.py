"""The neural tangent kernel ``K = J Jᵀ`` of an objective, without the rows of wide layers.

A row of J at a linear layer is ``Σ_c δ_c ⊗ a_c`` over channels c, so the layer's part of the
kernel is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products and an elementwise one in place of
a product over all the layer's weights. It is taken where it is the cheaper of the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian, self_product
from whence.linearization import Factor
from whence.objective import Objective

TILE = 500
Span = tuple[int, int]
"""First column of a weight, and that after its last."""


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
        self.size = objective.parameters.size
        self._direct = torch.ones(self.size, dtype=torch.bool, device=objective.parameters.device)
        pieces, self.right, whole = self._pieces(Jacobian(objective, scaled=scaled))
        thin = sorted(pieces[-1].thin)
        if whole is None:
            self._rows = torch.cat([piece.all_but(thin, self.size) for piece in pieces])
        else:
            self._rows = whole
        self._thin = [_joined(span, [piece.thin[span] for piece in pieces]) for span in thin]
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

    def _pieces(self, jacobian: Jacobian) -> tuple[list[_Piece], Tensor, Tensor | None]:
        """Return what is needed of each block, ρ, and J if no weight is thin in all blocks.

        No block's graph outlives the making of the next. A weight that is not thin in one block is
        left to its rows in all later ones.
        """
        pieces: list[_Piece] = []
        rights: list[Tensor] = []
        whole = None
        for rows, right in jacobian.blocks():
            factors = rows.factors() if not pieces or pieces[-1].thin else None
            thin = _cheaper_thin(factors or [], pieces[-1].thin if pieces else None)
            self._direct = _mask(thin, self.size).to(right.device)
            if thin:
                pieces.append(_Piece(thin, self._direct_rows(factors or [])))
            else:
                whole = _started(jacobian, pieces) if whole is None else whole
                start = sum(len(piece.rows) for piece in pieces)
                pieces.append(_Piece({}, rows.dense(out=whole[start : start + len(rows)])))
            rights.append(right)
        return pieces, torch.cat(rights), whole

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


@dataclass(frozen=True)
class _Piece:
    """A block of rows: the factors of its thin weights, and all other columns (n, number)."""

    thin: dict[Span, Factor]
    rows: Tensor

    def all_but(self, thin: Sequence[Span], size: int) -> Tensor:
        """Return all columns but those of ``thin``, which are thin here and may be fewer."""
        if len(thin) == len(self.thin):
            return self.rows
        rows = self.rows.new_zeros(len(self.rows), size)
        rows[:, _mask(self.thin, size)] = self.rows
        for span in self.thin.keys() - set(thin):
            rows[:, slice(*span)] = self.thin[span].rows()
        return rows[:, _mask(thin, size)]


def _mask(thin: Iterable[Span], size: int) -> Tensor:
    """Return which columns are those of no thin weight, (size,)."""
    mask = torch.ones(size, dtype=torch.bool)
    for span in thin:
        mask[slice(*span)] = False
    return mask


def _started(jacobian: Jacobian, pieces: Sequence[_Piece]) -> Tensor:
    """Return room for J with the rows of the first pieces in it."""
    whole = torch.empty(
        jacobian.shape, dtype=jacobian.parameters.dtype, device=jacobian.parameters.device
    )
    start = 0
    for piece in pieces:
        whole[start : start + len(piece.rows)] = piece.all_but((), jacobian.parameters.size)
        start += len(piece.rows)
    return whole


def _cheaper_thin(factors: Sequence[Factor], among: Collection[Span] | None) -> dict[Span, Factor]:
    """Return the factors of weights whose part of the kernel is cheaper through inner products.

    A weight that is used twice is left to its rows, and so is one not ``among`` those given.
    """
    spans = [(factor.columns.start, factor.columns.stop) for factor in factors]
    return {
        span: factor
        for span, factor in zip(spans, factors, strict=True)
        if spans.count(span) == 1 and _is_cheaper(factor) and (among is None or span in among)
    }


def _is_cheaper(factor: Factor) -> bool:
    c, _, o = factor.left.shape
    i = factor.right.shape[2] if factor.right is not None else 0
    return c * c * (o + i) < o * i


def _joined(span: Span, found: Sequence[Factor]) -> _Thin:
    """Return one layer's factors over all blocks; blocks with fewer channels are filled up."""
    channels = max(factor.left.shape[0] for factor in found)
    left = torch.cat([_filled(factor.left, channels) for factor in found], dim=1)
    right = torch.cat([_filled(f.right, channels) for f in found if f.right is not None], dim=1)
    return _Thin(slice(*span), left, right)


def _filled(part: Tensor, channels: int) -> Tensor:
    missing = part.new_zeros(channels - part.shape[0], *part.shape[1:])
    return torch.cat([part, missing]) if len(missing) else part
