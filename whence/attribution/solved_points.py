"""Gradients of points, solved: what the gradient of any target is multiplied with.

An influence ``∇fᵀ (A + λI)⁻¹ ∇ℓ·w/N`` may be solved for at either end. Solved at the points, one
solution serves any number of targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from whence.attribution.tiles import PointBlock, Solved
from whence.jacobian import point_gradients
from whence.parameters import Parameters


@dataclass(frozen=True, eq=False)
class SolvedPoints:
    """``(A + λI)⁻¹∇ℓ·w/N`` of n points, as ``basis @ coefficients``.

    Parameters
    ----------
    basis:
        B, (P, K).
    coefficients:
        C, (K, n); None where each column of the basis is a point's.
    solved:
        How well the systems were solved.

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.solved_points import SolvedPoints
    >>> from whence.attribution.tiles import Solved
    >>> basis, halves = 4 * torch.eye(2), 0.5 * torch.eye(2)
    >>> gradients = torch.tensor([[1.0, 0.0], [1.0, 3.0]])
    >>> for coefficients in (None, halves):
    ...     points = SolvedPoints(basis, coefficients, Solved())
    ...     points.influences(gradients @ basis), points.own_influences(gradients, slice(0, 2))
    (tensor([[ 4.,  0.],
            [ 4., 12.]]), tensor([ 4., 12.]))
    (tensor([[2., 0.],
            [2., 6.]]), tensor([2., 6.]))
    """

    basis: Tensor
    coefficients: Tensor | None
    solved: Solved

    def __len__(self) -> int:
        # Points are the last dimension of either.
        last = self.basis if self.coefficients is None else self.coefficients
        return last.shape[1]

    def influences(self, products: Tensor) -> Tensor:
        """Return influences on targets from ``∇fᵀB``, (t, K) to (t, n)."""
        if self.coefficients is None:
            return products

        # ∇fᵀ(A + λI)⁻¹∇ℓ·w/N = (∇fᵀB) C
        return products @ self.coefficients

    def own_influences(self, gradients: Tensor, part: slice) -> Tensor:
        """Return ``∇ℓᵀ(A + λI)⁻¹∇ℓ·w/N`` of some of the points from their ∇ℓ, (k, P) to (k,)."""
        products = gradients
        columns = self.basis[:, part]
        if self.coefficients is not None:
            products = gradients @ self.basis
            columns = self.coefficients[:, part]

        # The diagonal of (∇ℓᵀB) C, or of ∇ℓᵀB, without the rest.
        return (products * columns.T).sum(dim=1)


def gradients_of(
    block: PointBlock, parameters: Parameters, at_once: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield ∇ℓ of the points of a block, (k, P), k at a time, and which points they are."""
    linearized = point_gradients(block.term, parameters, block.points, at_once)
    for points, linear, cotangent in linearized:
        # Their places among the points of all terms.
        start = block.part.start + points.part.start
        part = slice(start, start + len(points))

        gradients = linear.rows(cotangent)
        yield part, gradients
