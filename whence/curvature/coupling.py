"""Curvature across layers, along the leading directions of all of them together.

A Kronecker factorization takes layers as independent: with an orthogonal basis Q_l of each layer's
parameters it keeps the diagonal of ``QᵀAQ``, Q the block-diagonal matrix of all Q_l. But the
largest eigenvalues of a Gauss–Newton matrix belong to directions that go through all layers (a
shift of a logit, say), of which each layer by itself sees a part of the curvature.

The k directions of the largest curvature are few of all. Of these columns Q_k (P, k) of Q the whole
matrix ``C = Q_kᵀ A Q_k`` (k, k) takes the place of the diagonal:

    A ≈ Q diag(C, s) Qᵀ,    (A + λI)⁻¹ ≈ Q diag((C + λI)⁻¹, 1/(s + λ)) Qᵀ,

s the curvatures along the other directions. As ``A = JᵀJ``, with the weights of terms and points in
the rows of J, ``C = ZᵀZ`` of the rows' coordinates ``Z = J Q_k``: one pass over the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whence.curvature.cholesky import factor_in_place, solve_factored
from whence.curvature.kronecker_bases import Basis
from whence.curvature.layer_rows import LayerMatrix, PiecesOf
from whence.curvature.solvers import singular
from whence.symmetric_products import add_self_product, mirror


class Directions(Protocol):
    """An orthogonal basis of a layer's parameters and the curvature along each direction."""

    @property
    def layer(self) -> LayerMatrix:
        """The layer, whose parameters are a matrix (out, in)."""

    @property
    def basis(self) -> Basis:
        """The basis, of out · in directions."""

    @property
    def eigenvalues(self) -> Tensor:
        """The curvature ``qᵀAq`` along each direction q, (out, in)."""


@dataclass(frozen=True, eq=False)
class Leading:
    """Which directions of each block are coupled, k of all blocks together.

    Parameters
    ----------
    places:
        For each block the numbers of its coupled directions among its own, rising: places in its
        coordinates (out, in), flattened.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.coupling import Leading
    >>> leading = Leading((torch.tensor([0, 3]), torch.tensor([1])))
    >>> len(leading), leading.spans()
    (3, [slice(0, 2, None), slice(2, 3, None)])
    >>> table = leading.gathered([torch.arange(4.0).view(1, 2, 2), torch.ones(1, 1, 2)])
    >>> table
    tensor([[0., 3., 1.]])
    >>> leading.split(table)
    [tensor([[0., 3.]]), tensor([[1.]])]
    >>> coordinates = [torch.zeros(1, 2, 2), torch.zeros(1, 1, 2)]
    >>> leading.put(table, coordinates)
    >>> coordinates
    [tensor([[[0., 0.],
             [0., 3.]]]), tensor([[[0., 1.]]])]
    """

    places: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return k."""
        return sum(len(places) for places in self.places)

    def spans(self) -> list[slice]:
        """Return where the directions of each block are among the k of all."""
        spans = []
        start = 0
        for places in self.places:
            stop = start + len(places)
            spans.append(slice(start, stop))
            start = stop
        return spans

    def gathered(self, coordinates: Sequence[Tensor]) -> Tensor:
        """Return ``Q_kᵀV`` transposed, (K, k), from each block's ``QᵀV``, (K, out, in)."""
        parts = []
        for of_block, places in zip(coordinates, self.places, strict=True):
            flat = of_block.flatten(1)
            parts.append(flat[:, places])
        return torch.cat(parts, dim=1)

    def split(self, table: Tensor) -> list[Tensor]:
        """Return each block's columns of a table (K, k)."""
        return [table[:, span] for span in self.spans()]

    def put(self, table: Tensor, coordinates: Sequence[Tensor]) -> None:
        """Write a table (K, k) to where :meth:`gathered` reads it; other entries stay."""
        parts = self.split(table)
        for part, of_block, places in zip(parts, coordinates, self.places, strict=True):
            # A view, as a copy would be written in vain.
            flat = of_block.view(len(of_block), -1)
            flat[:, places] = part


def leading_directions(blocks: Sequence[Directions], count: int) -> Leading:
    """Return the directions of the largest curvature among those of all blocks.

    Parameters
    ----------
    blocks:
        The layers' bases and curvatures.
    count:
        How many directions; all of them where there are no more.
    """
    # Ties go to the first, so that the same blocks give the same choice.
    curvatures = torch.cat([block.eigenvalues.flatten() for block in blocks])
    order = curvatures.argsort(descending=True, stable=True)
    chosen = order[:count].sort().values

    # From places among all directions to those within each block.
    places = []
    start = 0
    for block in blocks:
        stop = start + block.eigenvalues.numel()
        is_of_block = (chosen >= start) & (chosen < stop)
        places.append(chosen[is_of_block] - start)
        start = stop
    return Leading(tuple(places))


class Coupling:
    """``C = Q_kᵀ A Q_k`` along the leading directions of all layers.

    ``matrix`` is C, (k, k), in double precision. It is symmetric and positive semidefinite.

    Parameters
    ----------
    pieces_of:
        The rows of J with ``A = JᵀJ``.
    blocks:
        The layers' bases.
    leading:
        Which of their directions are coupled.
    """

    def __init__(
        self, pieces_of: PiecesOf, blocks: Sequence[Directions], leading: Leading
    ) -> None:
        self.leading = leading
        self.matrix = coupled_curvature(pieces_of, blocks, leading)

    def factor(self, damping: float) -> Tensor:
        """Return the lower Cholesky factor of ``C + λI``, (k, k).

        Raises
        ------
        SingularSystem
            If that is singular.
        """
        shifted = self.matrix.clone()
        shifted.diagonal().add_(damping)

        factor, is_factored = factor_in_place(shifted)
        if not is_factored:
            raise singular(damping, len(shifted), shifted.dtype)
        return factor

    def solved(self, factor: Tensor, coordinates: Sequence[Tensor]) -> list[Tensor]:
        """Return ``(C + λI)⁻¹ Q_kᵀV`` of K vectors V, each block's part transposed, (K, places).

        Parameters
        ----------
        factor:
            What :meth:`factor` returned.
        coordinates:
            ``QᵀV`` in the basis of each block, (K, out, in).
        """
        along = self.leading.gathered(coordinates)  # (K, k)

        right = along.T.double()
        solution = solve_factored(factor, right)
        return self.leading.split(solution.T.to(along))


def coupled_curvature(
    pieces_of: PiecesOf, blocks: Sequence[Directions], leading: Leading
) -> Tensor:
    """Return ``C = Q_kᵀ JᵀJ Q_k`` from a pass over the rows of J, (k, k) in double precision."""
    places_of: dict[LayerMatrix, Tensor] = {}
    span_of: dict[LayerMatrix, slice] = {}
    basis_of: dict[LayerMatrix, Basis] = {}
    for block, places, span in zip(
        blocks, leading.places, leading.spans(), strict=True
    ):
        # Of a layer without a leading direction no rows are needed.
        if len(places):
            places_of[block.layer] = places
            span_of[block.layer] = span
            basis_of[block.layer] = block.basis

    k = len(leading)
    like = blocks[0].eigenvalues
    matrix = torch.zeros((k, k), dtype=torch.float64, device=like.device)
    for n_rows, pieces in pieces_of(list(basis_of)):
        # Z = J Q_k of these rows, a layer's columns at a time ...
        coordinates = like.new_zeros(n_rows, k)
        for layer, rows, left, right in pieces:
            along = basis_of[layer].along(left, right, places_of[layer])
            coordinates[rows, span_of[layer]] = along

        # ... and their part of C = Σ ZᵀZ.
        add_self_product(matrix, coordinates.double())
    mirror(matrix)
    return matrix
