"""Many steps of gradient descent on a quadratic loss at once, by functions of its curvature.

K steps move a displacement x (P,) of the parameters, under a push g (P,): the gradient that is left
out of each step. With ``T/K`` the diagonal matrix of the parameters' rates, H the curvature and C
the diagonal matrix of a penalty, a step is

    x ← (I − T(H + C)/K) x + T g/K.

With ``D = T^{1/2}`` and ``x = D y`` it is ``y ← (I − H̃/K) y + D g/K``, whose matrix is symmetric:
``H̃ = D(H + C)D``. After K steps, by the sum of a geometric series,

    y ← (I − H̃/K)^K y + Σ_{j<K} (I − H̃/K)^j D g/K,    1/K Σ_{j<K} (1 − h/K)^j = (1 − (1 − h/K)^K)/h,

    x ← D s(H̃) D⁻¹ x + D φ(H̃) D g,    s(h) = (1 − h/K)^K ≈ e^{−h},    φ(h) = (1 − s(h))/h.

``φ(H̃)`` is I where nothing has converged and ``H̃⁻¹`` where everything has. Here gradients v of
answers are pulled back through that, to ``D φ(H̃) D v``, which meets the pushes g, and to
``D⁻¹ s(H̃) D v``, which meets x before the steps: the transposes of both. With one rate for all
parameters and no penalty this is SOURCE (Bae et al. 2024, arXiv 2405.12186).
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
        The rates of each parameter, summed over the steps: the diagonal of T, (P,), positive.
    shrinkage:
        The same times its penalty: the diagonal of TC, (P,).
    form:
        ``"power"`` for ``s(h) = (1 − h/K)^K``, of equal steps, ``"exponential"`` for e^{−h}.

    Examples
    --------
    >>> import torch
    >>> from whence.curvature.unrolling import Steps
    >>> steps = Steps(2, torch.ones(1), torch.zeros(1), "power")
    >>> steps.filters(torch.tensor([0.0, 1.0, 2.0]))
    (tensor([1.0000, 0.7500, 0.5000]), tensor([1.0000, 0.2500, 0.0000]))
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
            If steps of the form ``"power"`` grow without bound, h > 2K.
        """
        # Rounding may leave eigenvalues of a semidefinite matrix a little below zero.
        h = eigenvalues.clamp_min(0)
        lost = self._lost(h)

        # φ(h) = (1 − s(h))/h → 1 as h → 0, where the quotient would be 0/0.
        is_flat = h < torch.finfo(h.dtype).eps
        divisor = torch.where(is_flat, 1.0, h)
        gathered = torch.where(is_flat, 1.0, lost / divisor)
        return gathered, 1 - lost

    def _lost(self, h: Tensor) -> Tensor:
        """Return ``1 − s(h)``."""
        if self.form == "exponential":
            return -torch.expm1(-h)

        # |1 − h/K| > 1 makes every step larger than the one before.
        if float(h.max()) > 2 * self.n_steps:
            raise ValueError(
                f"{self.n_steps} steps of this size diverge along the largest curvature: lower the "
                "learning rate, or use form='exponential'"
            )
        share = h / self.n_steps  # of an error along its direction, removed by a step
        # 1 − (1 − h/K)^K, whose digits cancel for small h/K, is −expm1(K log(1 − h/K)) there.
        rate = torch.log1p(-share.clamp_max(0.5))
        by_logarithm = -torch.expm1(self.n_steps * rate)
        by_power = 1 - (1 - share) ** self.n_steps
        return torch.where(share < 0.5, by_logarithm, by_power)


class PulledBack(Protocol):
    """The steps of a segment, with its curvature factored."""

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""


class DenseSteps:
    """By the eigenvectors of the whole matrix H̃, (P, P), in double precision: the reference.

    Parameters
    ----------
    objective:
        Whose Gauss–Newton matrix.
    visits:
        The states of the network over which it is averaged.
    steps:
        What is done on it.
    """

    def __init__(
        self, objective: Objective, visits: Sequence[Visit], steps: Steps
    ) -> None:
        self._rate_root = steps.time.double().sqrt()
        total: Tensor | None = None
        for visit in visits:
            with visit():
                matrix = GaussNewtonMatrix(objective).dense().double()
            total = matrix if total is None else total.add_(matrix)
        assert total is not None

        # H̃ = D(H + C)D, H the mean over checkpoints; as D and C are diagonal, DCD is TC.
        total.mul_(self._rate_root)
        total.mul_(self._rate_root[:, None] / len(visits))
        total.diagonal().add_(steps.shrinkage.double())
        check_finite(total)

        eigenvalues, self._eigenvectors = torch.linalg.eigh(total)
        self._filters = steps.filters(eigenvalues)

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""
        # H̃ = U diag(h) Uᵀ:  D φ(H̃) D V = D U φ(h) UᵀDV,  D⁻¹ s(H̃) D V = D⁻¹ U s(h) UᵀDV.
        rate_root = self._rate_root[:, None]
        scaled = rate_root * vectors.double()
        coordinates = self._eigenvectors.T @ scaled

        gathered, kept = self._filters
        push = self._eigenvectors @ (gathered[:, None] * coordinates)
        carry = self._eigenvectors @ (kept[:, None] * coordinates)

        pushed = rate_root * push
        carried = carry / rate_root
        return pushed.to(vectors), carried.to(vectors)


class BlockSteps:
    """By each layer's eigenvectors and the leading directions of all, as :class:`whence.EKFAC`.

    The rates of a layer are taken as a product of one number for each output and one for each
    input, the nearest in their logarithms; a penalty that differs among the parameters of a layer
    as its mean.

    Parameters
    ----------
    objective, visits, steps:
        As those of :class:`DenseSteps`.
    ekfac:
        How layers are factored, and how many of their directions are coupled.
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
        rows = MeanRows(objective, visits, steps.time, layers, ekfac)

        # The curvature DHD along the directions of each layer, of which TC shifts all alike.
        like = objective.parameters.vector()
        self._blocks = ekfac.blocks_of_rows(rows.layer_rows, layers, like)
        self._rate_roots = [rows.rate_root(block.layer) for block in self._blocks]
        shifts = [mean_of(block, steps.shrinkage) for block in self._blocks]
        self._filters = []
        for block, shift in zip(self._blocks, shifts, strict=True):
            eigenvalues = block.eigenvalues + shift
            self._filters.append(steps.filters(eigenvalues))

        self._leading: LeadingSteps | None = None
        if ekfac.coupled and len(self._blocks) > 1:
            leading = leading_directions(self._blocks, ekfac.coupled)
            coupling = Coupling(rows.row_pieces, self._blocks, leading)
            self._leading = LeadingSteps(coupling, shifts, steps)

    def pull_back(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``D φ(H̃) D V`` and ``D⁻¹ s(H̃) D V`` for columns V, (P, K)."""
        # Parameters of no block are not curved: H̃ is TC there, and D and D⁻¹ cancel beside it.
        gathered, kept = self._steps.filters(self._steps.shrinkage)
        pushed = (self._steps.time * gathered)[:, None] * vectors
        carried = kept[:, None] * vectors

        # QᵀDV of each block, (K, out, in), φ and s times it, and back: D Q φ QᵀDV, D⁻¹ Q s QᵀDV.
        coordinates = self._coordinates(vectors)
        pushes, carries = self._filtered(coordinates)
        for k, block in enumerate(self._blocks):
            rate_root = self._rate_roots[k]
            push = block.basis.back(pushes[k])
            block.layer.put(push * rate_root, pushed)
            carry = block.basis.back(carries[k])
            block.layer.put(carry / rate_root, carried)
        return pushed, carried

    def _coordinates(self, vectors: Tensor) -> list[Tensor]:
        """Return ``QᵀDV`` of each block, (K, out, in)."""
        coordinates = []
        for block, rate_root in zip(self._blocks, self._rate_roots, strict=True):
            matrices = block.layer.matrices(vectors) * rate_root
            coordinates.append(block.basis.into(matrices))
        return coordinates

    def _filtered(
        self, coordinates: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return φ and s times the coordinates of each block."""
        pushes = []
        carries = []
        for of_block, (gathered, kept) in zip(coordinates, self._filters, strict=True):
            pushes.append(of_block * gathered)
            carries.append(of_block * kept)

        # Along coupled directions it is functions of their whole matrix.
        if self._leading is not None:
            self._leading.put_filtered(coordinates, pushes, carries)
        return pushes, carries


def mean_of(block: Block, values: Tensor) -> float:
    """Return the mean of the values (P,) of a block's parameters."""
    matrices = block.layer.matrices(values[:, None])
    return float(matrices.mean())


class LeadingSteps:
    """The steps along the leading directions of all layers, by the eigenvectors of their curvature.

    Parameters
    ----------
    coupling:
        The curvature ``C = Q_kᵀ DHD Q_k`` along these directions.
    shifts:
        What the penalty adds to the curvature of each block.
    steps:
        What is done on it.
    """

    def __init__(
        self, coupling: Coupling, shifts: Sequence[float], steps: Steps
    ) -> None:
        self._leading = coupling.leading
        matrix = coupling.matrix.clone()
        for span, shift in zip(self._leading.spans(), shifts, strict=True):
            matrix.diagonal()[span] += shift
        check_finite(matrix)

        eigenvalues, self._eigenvectors = torch.linalg.eigh(matrix)
        self._filters = steps.filters(eigenvalues)

    def put_filtered(
        self,
        coordinates: Sequence[Tensor],
        pushes: Sequence[Tensor],
        carries: Sequence[Tensor],
    ) -> None:
        """Write φ and s times the coordinates of blocks into those of pushes and carries.

        All are (K, out, in) for each block; only entries of leading directions are written.
        """
        # C = U diag(h) Uᵀ:  φ(C) Q_kᵀV = U φ(h) Uᵀ Q_kᵀV, here with vectors as rows.
        along = self._leading.gathered(coordinates)  # (K, k)
        turned = along.double() @ self._eigenvectors
        for values, filtered in zip(self._filters, (pushes, carries), strict=True):
            scaled = turned * values
            table = scaled @ self._eigenvectors.T
            self._leading.put(table.to(along), filtered)


class MeanRows:
    """Rows whose ``JᵀJ`` is ``DHD``, H the mean over checkpoints and D the roots of the rates.

    Parameters
    ----------
    objective, visits:
        Whose rows, and the states of the network at which they are made.
    time:
        The diagonal of T = D², (P,).
    layers:
        All layers that rows are asked for.
    ekfac:
        Which rows: all, or samples.
    """

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

    def rate_root(self, layer: LayerMatrix) -> Tensor:
        """Return D of a layer's parameters, (out, in)."""
        of_outputs, of_inputs = self._factors[layer]
        return of_outputs[:, None] * of_inputs

    def layer_rows(self, layers: Sequence[LayerMatrix]) -> Iterator[LayerRow]:
        """Yield the rows of some layers, checkpoint by checkpoint."""
        for source in self._sources():
            for layer, term, left, right in layer_rows(source, layers):
                yield layer, term, *self._scaled(layer, left, right)

    def row_pieces(
        self, layers: Sequence[LayerMatrix]
    ) -> Iterator[tuple[int, Iterator[Piece]]]:
        """Yield the rows of some points with how many they are, checkpoint by checkpoint."""
        for source in self._sources():
            for n_rows, pieces in row_pieces(source, layers):
                yield n_rows, self._scaled_pieces(pieces)

    def _sources(self) -> Iterator[RowSource]:
        """Yield the rows at each checkpoint, where the network is meanwhile."""
        for visit in self._visits:
            with visit():
                jacobian = Jacobian(self._objective, scaled=True)
                yield self._ekfac.rows(jacobian)

    def _scaled_pieces(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for layer, points, left, right in pieces:
            yield layer, points, *self._scaled(layer, left, right)

    def _scaled(
        self, layer: LayerMatrix, left: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the factors of rows of ``J D/√M``, for M checkpoints."""
        # With D = d eᵀ as a matrix (out, in), entry by entry:  D ∘ (δ aᵀ) = (d ∘ δ)(e ∘ a)ᵀ.
        of_outputs, of_inputs = self._factors[layer]
        # Squares of rows over √M add up to the mean over checkpoints.
        share = len(self._visits) ** -0.5
        return left * (of_outputs * share), right * of_inputs


def outer_root(layer: LayerMatrix, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return d (out,) and e (in,) with ``d eᵀ ≈ √T``, the nearest in their logarithms.

    Exact where all rates are the same, or the layer has a single row.
    """
    # log √T_ij ≈ a_i + b_j. The least squares are solved by the means of rows and of columns, of
    # which the mean of all is part of both: a_i = M_i·, b_j = M_·j − M_··.
    (matrix,) = layer.matrices(time[:, None])
    logarithms = 0.5 * matrix.log()
    mean = logarithms.mean()

    of_outputs = logarithms.mean(dim=1)
    of_inputs = logarithms.mean(dim=0) - mean
    return of_outputs.exp(), of_inputs.exp()


def factored_steps(
    objective: Objective,
    visits: Sequence[Visit],
    steps: Steps,
    ekfac: EKFAC | None,
) -> PulledBack:
    """Return the steps of a segment by Kronecker factors, or without ``ekfac`` exactly."""
    if ekfac is None:
        return DenseSteps(objective, visits, steps)
    return BlockSteps(objective, visits, steps, ekfac)
