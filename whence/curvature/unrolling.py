"""Many steps of gradient descent on a quadratic loss at once, by functions of its curvature.

A step moves a displacement x of the parameters and a push g, a gradient that is left out of each
step, as ``x ← (I − T H/K)x + T g/K``, with T/K the diagonal matrix of the rates of the parameters.
With ``D = T^{1/2}`` and ``H̃ = D(H + C)D``, C the diagonal matrix of a penalty, K steps are

    x ← D s(H̃) D⁻¹ x + D φ(H̃) D g,   s(h) = (1 − h/K)^K ≈ e^{−h},   φ(h) = (1 − s(h))/h,

so that ``φ(H̃)`` is I where nothing has converged and ``H̃⁻¹`` where everything has. Here gradients
of answers are pulled back through that: the transposes of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from whence.curvature.coupling import Coupling, leading_directions
from whence.curvature.failures import check_finite
from whence.curvature.kronecker import EKFAC, Block
from whence.curvature.layer_rows import (
    LayerMatrix,
    LayerRow,
    Piece,
    RowSource,
    layer_matrices,
    layer_rows,
    row_pieces,
)
from whence.curvature.operators import GaussNewtonMatrix
from whence.jacobian import Jacobian
from whence.objective import Objective

Form = Literal["exponential", "power"]
Visit = Callable[[], AbstractContextManager[object]]
"""Puts the network into a state for a while."""


@dataclass(frozen=True, eq=False)
class Steps:
    """K steps, by what all of them do together.

    Parameters
    ----------
    n_steps:
        K.
    time:
        The rates of each parameter, summed over the steps: the diagonal of T, (P,).
    shrinkage:
        The same times its penalty: the diagonal of TC, (P,).
    form:
        ``"power"`` for ``(1 − h/K)^K``, of equal steps, ``"exponential"`` for e^{−h}.
    """

    n_steps: int
    time: Tensor
    shrinkage: Tensor
    form: Form = "exponential"

    def filters(self, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ(h) and s(h) of eigenvalues h of H̃.

        Raises
        ------
        ValueError
            If steps of the form ``"power"`` grow without bound.
        """
        # Rounding may leave eigenvalues of a semidefinite matrix a little below zero.
        h = eigenvalues.clamp_min(0)
        lost = -torch.expm1(-h)
        if self.form == "power":
            if float(h.max()) > 2 * self.n_steps:
                raise ValueError(
                    f"{self.n_steps} steps of this size diverge along the largest curvature: lower "
                    "the learning rate, or use form='exponential'"
                )
            lost = 1 - (1 - h / self.n_steps) ** self.n_steps

        # (1 − s(h))/h → 1 as h → 0
        is_flat = h < torch.finfo(h.dtype).eps
        gathered = torch.where(is_flat, 1.0, lost / torch.where(is_flat, 1.0, h))
        return gathered, 1 - lost


class PulledBack(Protocol):
    """The steps of a segment, with its curvature factored."""

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""


class DenseSteps:
    """By the eigenvectors of the whole matrix H̃, (P, P), in double precision: the reference."""

    def __init__(
        self, objective: Objective, visits: Sequence[Visit], steps: Steps
    ) -> None:
        self._root = steps.time.double().sqrt()
        total: Tensor | None = None
        for visit in visits:
            with visit():
                matrix = GaussNewtonMatrix(objective).dense().double()
            total = matrix if total is None else total.add_(matrix)
        assert total is not None

        # H̃ = D(H + C)D with H the mean over checkpoints
        total.mul_(self._root).mul_(self._root[:, None] / len(visits))
        total.diagonal().add_(steps.shrinkage.double())
        check_finite(total)
        eigenvalues, self._vectors = torch.linalg.eigh(total)
        self._filters = steps.filters(eigenvalues)

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""
        root = self._root[:, None]
        coordinates = self._vectors.T @ (root * vectors.double())
        gathered, kept = self._filters

        pushed = root * (self._vectors @ (gathered[:, None] * coordinates))
        carried = (self._vectors @ (kept[:, None] * coordinates)) / root
        return pushed.to(vectors), carried.to(vectors)


class BlockSteps:
    """By each layer's eigenvectors and the leading directions of all, as :class:`whence.EKFAC`.

    The rates of a layer are taken as a product of one number for each output and one for each
    input, the nearest in their logarithms; a penalty that differs among the parameters of a layer
    as its mean.
    """

    def __init__(
        self,
        objective: Objective,
        visits: Sequence[Visit],
        steps: Steps,
        ekfac: EKFAC,
    ) -> None:
        self._steps = steps
        with visits[0]():
            layers = layer_matrices(Jacobian(objective, scaled=True))
        rows = _MeanRows(objective, visits, steps.time, layers, ekfac)

        like = objective.parameters.vector()
        self._blocks = ekfac.blocks_of_rows(rows.layer_rows, layers, like)
        self._roots = [rows.root(block.layer) for block in self._blocks]
        self._shifts = [self._shift(block) for block in self._blocks]
        self._filters = []
        for block, shift in zip(self._blocks, self._shifts, strict=True):
            self._filters.append(steps.filters(block.eigenvalues + shift))

        self._coupling: Coupling | None = None
        if ekfac.coupled and len(self._blocks) > 1:
            leading = leading_directions(self._blocks, ekfac.coupled)
            self._coupling = Coupling(rows.row_pieces, self._blocks, leading)
            self._factor_coupling(self._coupling)

    def _shift(self, block: Block) -> float:
        """Return the mean shrinkage of a block's parameters."""
        shrinkage = block.layer.matrices(self._steps.shrinkage[:, None])
        return float(shrinkage.mean())

    def _factor_coupling(self, coupling: Coupling) -> None:
        """Find the eigenvectors of the curvature along the leading directions of all layers."""
        matrix = coupling.matrix.clone()
        spans = coupling.leading.spans()
        for span, shift in zip(spans, self._shifts, strict=True):
            matrix.diagonal()[span] += shift
        check_finite(matrix)
        eigenvalues, self._leading_vectors = torch.linalg.eigh(matrix)
        self._leading_filters = self._steps.filters(eigenvalues)

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""
        # Where nothing is curved pushes add up as they are, and the penalty alone shrinks.
        gathered, kept = self._steps.filters(self._steps.shrinkage)
        pushed = (self._steps.time * gathered)[:, None] * vectors
        carried = kept[:, None] * vectors

        coordinates = []
        for block, root in zip(self._blocks, self._roots, strict=True):
            matrices = block.layer.matrices(vectors) * root
            coordinates.append(block.basis.into(matrices))

        along_pushed, along_carried = self._leading(coordinates)
        for k, block in enumerate(self._blocks):
            of_push, of_kept = self._filters[k]
            push = coordinates[k] * of_push
            carry = coordinates[k] * of_kept
            if self._coupling is not None:
                places = self._coupling.leading.places[k]
                push.flatten(1)[:, places] = along_pushed[k]
                carry.flatten(1)[:, places] = along_carried[k]
            root = self._roots[k]
            block.layer.put(block.basis.back(push) * root, pushed)
            block.layer.put(block.basis.back(carry) / root, carried)
        return pushed, carried

    def _leading(
        self, coordinates: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return φ and s of the coupled directions times vectors, each block's part."""
        if self._coupling is None:
            return (), ()
        leading = self._coupling.leading
        parts = []
        for of_block, places in zip(coordinates, leading.places, strict=True):
            parts.append(of_block.flatten(1)[:, places])

        joined = torch.cat(parts, dim=1)  # (K, k)
        turned = joined.double() @ self._leading_vectors
        results = []
        for filtered in self._leading_filters:
            back = (turned * filtered) @ self._leading_vectors.T
            results.append(back.to(joined))
        pushed, carried = results
        spans = leading.spans()
        return [pushed[:, span] for span in spans], [carried[:, span] for span in spans]


class _MeanRows:
    """Rows whose ``JᵀJ`` is ``DHD``, H the mean over checkpoints and D the roots of the rates."""

    def __init__(
        self,
        objective: Objective,
        visits: Sequence[Visit],
        time: Tensor,
        layers: Sequence[LayerMatrix],
        ekfac: EKFAC,
    ) -> None:
        self._objective = objective
        self._visits = visits
        self._ekfac = ekfac
        self._factors = {layer: outer_root(layer, time) for layer in layers}

    def root(self, layer: LayerMatrix) -> Tensor:
        """Return D of a layer's parameters, (out, in)."""
        left, right = self._factors[layer]
        return left[:, None] * right

    def _roots(self) -> Iterator[RowSource]:
        """Yield the rows at each checkpoint, where the network is meanwhile."""
        for visit in self._visits:
            with visit():
                root = Jacobian(self._objective, scaled=True)
                yield self._ekfac.rows(root)

    def _scaled(
        self, layer: LayerMatrix, left: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor]:
        # With D = d eᵀ entry by entry:  D ∘ (δ aᵀ) = (d ∘ δ)(e ∘ a)ᵀ
        of_outputs, of_inputs = self._factors[layer]
        share = len(self._visits) ** -0.5
        return left * (of_outputs * share), right * of_inputs

    def layer_rows(self, layers: Sequence[LayerMatrix]) -> Iterator[LayerRow]:
        """Yield the rows of some layers, checkpoint by checkpoint."""
        for root in self._roots():
            for layer, term, left, right in layer_rows(root, layers):
                yield layer, term, *self._scaled(layer, left, right)

    def row_pieces(
        self, layers: Sequence[LayerMatrix]
    ) -> Iterator[tuple[int, Iterator[Piece]]]:
        """Yield the rows of some points with how many they are, checkpoint by checkpoint."""
        for root in self._roots():
            for n, pieces in row_pieces(root, layers):
                yield n, self._scaled_pieces(pieces)

    def _scaled_pieces(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for layer, points, left, right in pieces:
            yield layer, points, *self._scaled(layer, left, right)


def outer_root(layer: LayerMatrix, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return d (out,) and e (in,) with ``d eᵀ ≈ √T``, the nearest in their logarithms.

    Exact where all rates are the same, or the layer has a single row.
    """
    (matrix,) = layer.matrices(time[:, None])
    logarithms = 0.5 * matrix.log()
    # The best sum a_i + b_j of a matrix has the means of its rows and columns.
    left = logarithms.mean(dim=1)
    right = logarithms.mean(dim=0) - logarithms.mean()
    return left.exp(), right.exp()


def factored_steps(
    objective: Objective,
    visits: Sequence[Visit],
    steps: Steps,
    ekfac: EKFAC | None,
) -> PulledBack:
    """Return the steps of a segment, exact or, where there is one, by Kronecker factors."""
    if ekfac is None:
        return DenseSteps(objective, visits, steps)
    return BlockSteps(objective, visits, steps, ekfac)
