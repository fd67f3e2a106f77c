"""What layers of a network have to do with each other: curvature along leading directions of all.

A Kronecker factorisation takes layers as independent. The largest eigenvalues of a Gauss–Newton
matrix belong to directions that go through all of them (a shift of a logit, say), of which each
layer by itself sees a part of the curvature. In an orthogonal basis of each layer's parameters the
k directions of largest curvature are few of all, so that their whole matrix ``QᵀAQ`` (k, k), across
layers, is cheap: a pass over the rows, whose coordinates along Q are summed up as ``ZᵀZ``.
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
    """A layer's basis and the curvature along each of its directions, (out, in)."""

    @property
    def layer(self) -> LayerMatrix:
        """Whose directions."""

    @property
    def basis(self) -> Basis:
        """The directions."""

    @property
    def eigenvalues(self) -> Tensor:
        """The curvature along each of them, (out, in)."""


@dataclass(frozen=True, eq=False)
class Leading:
    """The leading directions of all layers: of each block the places, k in all."""

    places: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(len(places) for places in self.places)

    def spans(self) -> list[slice]:
        """Return where each block's directions are among all of them."""
        spans = []
        start = 0
        for places in self.places:
            spans.append(slice(start, start + len(places)))
            start += len(places)
        return spans


def leading_directions(blocks: Sequence[Directions], most: int) -> Leading:
    """Return up to so many directions of all blocks, those of the largest curvature.

    Where all directions together are no more, they are all of those.
    """
    sizes = [block.eigenvalues.numel() for block in blocks]
    # Ties go to the first, so that the same blocks give the same choice.
    curvatures = torch.cat([block.eigenvalues.flatten() for block in blocks])
    order = curvatures.argsort(descending=True, stable=True)
    chosen = order[:most].sort().values

    # From places among all directions to those within each block.
    places = []
    first = 0
    for size in sizes:
        of_block = chosen[(chosen >= first) & (chosen < first + size)]
        places.append(of_block - first)
        first += size
    return Leading(tuple(places))


class Coupling:
    """``C = QᵀAQ`` along the leading directions of all layers, (k, k) in double precision.

    Parameters
    ----------
    pieces_of:
        The rows of J with ``A = JᵀJ``.
    blocks:
        The layers' bases.
    leading:
        Which of their directions.
    """

    def __init__(
        self, pieces_of: PiecesOf, blocks: Sequence[Directions], leading: Leading
    ) -> None:
        self.leading = leading
        k = len(leading)
        like = blocks[0].eigenvalues
        matrix = torch.zeros((k, k), dtype=torch.float64, device=like.device)
        spans = dict(zip((b.layer for b in blocks), leading.spans(), strict=True))
        chosen = dict(zip((b.layer for b in blocks), leading.places, strict=True))
        bases = {block.layer: block.basis for block in blocks}
        layers = [layer for layer in bases if len(chosen[layer])]

        # Coordinates of the rows of some points, layer by layer, and then their products.
        for n, pieces in pieces_of(layers):
            coordinates = like.new_zeros(n, k)
            for layer, points, left, right in pieces:
                places = chosen[layer]
                along = bases[layer].along(left, right, places)
                coordinates[points, spans[layer]] = along
            add_self_product(matrix, coordinates.double())
        mirror(matrix)
        self.matrix = matrix

    def factor(self, damping: float) -> Tensor:
        """Return the Cholesky factor of ``C + λI``.

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
        """Return ``(C + λI)⁻¹Qᵀb`` of vectors, the part of each block (K, places).

        ``coordinates`` are those of the vectors in the basis of each block, (K, out, in).
        """
        parts = []
        for of_block, places in zip(coordinates, self.leading.places, strict=True):
            parts.append(of_block.flatten(1)[:, places])
        along = torch.cat(parts, dim=1)

        solution = solve_factored(factor, along.T.double()).T.to(along)
        return [solution[:, span] for span in self.leading.spans()]
