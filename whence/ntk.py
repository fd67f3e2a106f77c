"""The neural tangent kernel ``K = J Jᵀ`` of an objective, without the rows of wide layers.

A row of J at a linear layer is ``Σ_c δ_c ⊗ a_c`` over channels c, so the layer's part of the
kernel is ``Σ_cc′ (δ_c·δ′_c′)(a_c·a′_c′)``: two thin products and an elementwise one in place of
a product over all the layer's weights. It is taken where it is the cheaper of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.jacobian import Jacobian, self_product
from whence.linearization import Factor
from whence.objective import Objective

TILE_ROWS, TILE_COLUMNS = 100, 200


@dataclass(frozen=True)
class _Thin:
    """One layer's rows as ``Σ_c left[c] ⊗ right[c]``: left (c, R, out), right (c, R, in)."""

    columns: slice
    left: Tensor
    right: Tensor

    def add_gram(self, gram: Tensor) -> None:
        """Add the layer's part to the blocks of ``gram`` on and below the diagonal."""
        channels, n = self.left.shape[:2]
        for i in range(0, n, TILE_ROWS):
            rows = slice(i, min(i + TILE_ROWS, n))
            for j in range(0, rows.stop, TILE_COLUMNS):
                others = slice(j, min(j + TILE_COLUMNS, rows.stop))
                tile = gram[rows, others]
                a, b = (
                    self._products(self.left, rows, others),
                    self._products(self.right, rows, others),
                )
                for c in range(channels):
                    for d in range(channels):
                        tile.addcmul_(a[c, :, d], b[c, :, d])

    def _products(self, part: Tensor, rows: slice, others: slice) -> Tensor:
        """Return every inner product between two ranges of rows, (c, rows, c, others)."""
        channels, _, features = part.shape
        one, two = part[:, rows], part[:, others]
        product = one.reshape(-1, features) @ two.reshape(-1, features).T
        return product.view(channels, one.shape[1], channels, two.shape[1])

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
        self._thin: list[_Thin] = []
        blocks = list(jacobian.factors())
        thin = _cheaper_thin(blocks)
        self.right = torch.cat([right for _, right in blocks])
        self._direct = torch.ones(self.size, dtype=torch.bool, device=self.right.device)
        for columns in thin:
            self._thin.append(_joined(columns, blocks))
            self._direct[columns] = False
        if thin:
            self._rows = _direct_rows(blocks, self._direct, self.right)
        else:
            self._rows = jacobian.system()[0]
        self.gram = self_product(self._rows)
        for part in self._thin:
            part.add_gram(self.gram)
        if self._thin:
            lower = self.gram.tril()
            self.gram = lower + lower.tril(-1).T

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Return ``Jᵀ y``, shape (P,)."""
        total = vector.new_zeros(self.size)
        total[self._direct] = self._rows.T @ vector
        for part in self._thin:
            total[part.columns] = part.rmatvec(vector)
        return total


Block = tuple[list[Factor] | None, Tensor]


def _cheaper_thin(blocks: list[Block]) -> list[slice]:
    """Return the weights whose part of the kernel is cheaper through inner products.

    A weight that is used twice, or not in every block, is left to its rows.
    """
    if any(factors is None for factors, _ in blocks):
        return []
    counts: dict[tuple[int, int], list[int]] = {}
    for factors, _ in blocks:
        for factor in factors or ():
            c, _, o = factor.left.shape
            i = factor.right.shape[2] if factor.right is not None else 0
            counts.setdefault((factor.columns.start, factor.columns.stop), []).append(
                1 if c * c * (o + i) < o * i else 0
            )
    return [slice(*key) for key, wins in counts.items() if len(wins) == len(blocks) and all(wins)]


def _joined(columns: slice, blocks: list[Block]) -> _Thin:
    """Return one layer's factors over all blocks; blocks with fewer channels are filled up."""
    found = [next(f for f in factors or () if f.columns == columns) for factors, _ in blocks]
    channels = max(factor.left.shape[0] for factor in found)
    left = torch.cat([_filled(factor.left, channels) for factor in found], dim=1)
    right = torch.cat([_filled(f.right, channels) for f in found if f.right is not None], dim=1)
    return _Thin(columns, left, right)


def _filled(part: Tensor, channels: int) -> Tensor:
    missing = part.new_zeros(channels - part.shape[0], *part.shape[1:])
    return torch.cat([part, missing]) if len(missing) else part


def _direct_rows(blocks: list[Block], direct: Tensor, like: Tensor) -> Tensor:
    """Return the rows of every parameter that has no thin form, (R, number of them)."""
    place = torch.cumsum(direct, 0) - 1
    rows = like.new_zeros(len(like), int(direct.sum()))
    start = 0
    for factors, right in blocks:
        part = rows[start : start + len(right)]
        for factor in factors or ():
            if bool(direct[factor.columns.start]):
                first = int(place[factor.columns.start])
                part[:, first : first + factor.columns.stop - factor.columns.start] += factor.rows()
        start += len(right)
    return rows
