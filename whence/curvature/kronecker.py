"""Kronecker-factored curvature, layer by layer, with its eigenvalues corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.coupling import Coupling, leading_directions
from whence.curvature.failures import needs_rows
from whence.curvature.kronecker_bases import Basis, FullBasis, layer_bases
from whence.curvature.lanczos import largest_eigenvalue
from whence.curvature.layer_rows import (
    LARGE_BLOCK_NUMBERS,
    LayerMatrix,
    RowsOf,
    RowSource,
    layer_matrices,
    layer_rows,
    row_pieces,
)
from whence.curvature.operators import Curvature, Damped
from whence.curvature.sampled_rows import SampledRows
from whence.curvature.solvers import (
    MEMORY_BUDGET,
    Damping,
    Solution,
    State,
    direct_solution,
    singular,
)
from whence.curvature.spectrum import Spectrum
from whence.jacobian import LARGE_NETWORK, Jacobian
from whence.points import linearized_at_once
from whence.term import Term


@dataclass(frozen=True, kw_only=True)
class BlocksSpectrum(Spectrum):
    """How many blocks A was cut into, and how many of them have an eigenbasis of their own.

    The others' basis is a Kronecker product, or the parameters themselves. Of all blocks some
    directions are coupled.
    """

    blocks: int
    full_blocks: int
    trace_share: float
    coupled_directions: int | None = None


@SOLVERS.named()
@dataclass(frozen=True)
class EKFAC:
    """The eigenvalue-corrected Kronecker factorisation of each layer's curvature.

    A row of J is ``Σ_c δ_c ⊗ a_c`` at a layer, c running over the derivatives that the residual
    takes of the network, over positions and over several uses of the layer. K-FAC (Martens &
    Grosse 2015, arXiv 1503.05671) takes δ and a as independent over the points; here channels are
    summed exactly, ``Σ_cc′ E[δ_c δ_c′ᵀ] ⊗ E[a_c a_c′ᵀ]``, each term of the objective having its own
    factors (Dangel et al. 2024, arXiv 2405.15603), weight and bias together. Of that only the
    eigenvectors are used: the eigenvalues are the true curvature along them (George et al. 2018,
    arXiv 1806.03884). Of one point a layer of up to ``block_limit`` parameters is exact.

    That takes layers as independent of each other, which they are not: along the ``coupled``
    directions of largest curvature, of all layers together, the whole matrix of the true
    curvature takes the place of its diagonal (:mod:`whence.curvature.coupling`). On a ResNet-18
    that lifts the rank correlation with the exact answer from 0.33 to 0.82 at a damping of 1e-3
    and from 0.85 to 1.00 at 0.1 (docs/solvers.md). ``coupled=0`` is EK-FAC as published.

    A layer whose rows are no such sums (normalization, scale and shift together; an embedding; a
    convolution in groups) has its own block of the curvature, exact for any number of points, and
    above ``block_limit`` parameters the diagonal of it.

    Parameters
    ----------
    block_limit:
        A layer with as many parameters or fewer gets the eigenvectors of the sum over channels and
        terms; a larger one those of a Kronecker product, of the partial traces of its curvature
        (or its diagonal, see above). The two are one for a term without derivatives, which is
        ordinary K-FAC.
    coupled:
        How many directions of all layers are coupled, 0 for none; they take two matrices of so
        many rows in double precision, 64 MB for 2000, and a third pass over the points.
    mc_samples:
        Rows of each point that factors are made of: its leading ones and a random combination of
        the others, whose squares are those of all in the mean, where others draw labels
        (:mod:`whence.curvature.sampled_rows`). None for all rows, of which a classifier of C
        classes has C, each a pass backward. Of samples a relative damping is that of the largest
        eigenvalue as factored.
    memory_budget:
        Bytes that rows kept in memory between products may take; above it they are made again.

    Raises
    ------
    ValueError
        If the operator is a Hessian, or a selected parameter is not that of a layer of a known
        kind (docs/supervised.md has them).
    SingularSystem
        If ``A + λI`` is singular, which is a ValueError, too.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.curvature.kronecker import EKFAC
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.func.functional_call(network, tensors, (z,))
    >>> points = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> operator = wh.GaussNewtonMatrix(wh.Objective(network, [wh.Term("data", residual, points)]))
    >>> state = EKFAC().factor(operator, wh.Damping(0.0))
    >>> round(float(state.solve(torch.tensor([[5.0]], dtype=torch.float64)).value), 9)
    0.5
    """

    block_limit: int = 2000
    coupled: int = 2000
    mc_samples: int | None = None
    memory_budget: int = MEMORY_BUDGET
    name = "ekfac"
    copies = 3
    """Matrices of the size of the right-hand sides that solving takes, these included."""

    def __post_init__(self) -> None:
        _checks.count("block_limit", self.block_limit)
        _checks.count("coupled", self.coupled, zero=True)
        if self.mc_samples is not None:
            _checks.count("mc_samples", self.mc_samples)
        _checks.positive("memory_budget", self.memory_budget)

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Find each layer's eigenvectors, and the curvature along them."""
        root = operator.root()
        if root is None:
            raise needs_rows("EKFAC", "wh.ConjugateGradient() or wh.Arnoldi()")

        # Two passes over the rows: for models whose eigenvectors are the bases, and for the
        # eigenvalues.
        layers = layer_matrices(root)
        rows = self.rows(root)
        blocks = self.blocks_of_rows(
            partial(layer_rows, rows), layers, root.parameters.vector()
        )
        coupling = None
        if self.coupled and len(blocks) > 1:
            # And a third, for their curvature across layers.
            leading = leading_directions(blocks, self.coupled)
            coupling = Coupling(partial(row_pieces, rows), blocks, leading)

        def largest_known() -> float:
            if coupling is None:
                return max(block.summary().largest for block in blocks)
            matrix = coupling.matrix
            return largest_eigenvalue(lambda v: matrix @ v, len(matrix), matrix)

        system, largest = self.system(operator, damping, largest_known)
        return _Factored(system, blocks, largest, coupling)

    def system(
        self,
        operator: Curvature,
        damping: Damping,
        largest_known: Callable[[], float],
    ) -> tuple[Damped, float]:
        """Return ``A + λI`` and the largest eigenvalue of A.

        Of all rows it is that of the true A, not of the model. Of samples it is the largest known
        from factors: to find it in A takes more passes than all else.
        """
        if self.mc_samples is not None:
            largest = largest_known()
            return Damped(operator, damping.resolve(largest)), largest

        cached = operator.cached(self.memory_budget)
        largest = largest_eigenvalue(cached.matvec, cached.size, cached.like())
        return Damped(cached, damping.resolve(largest)), largest

    def blocks(self, root: Jacobian, layers: Sequence[LayerMatrix]) -> list[Block]:
        """Return the bases of some layers with the true curvature along their directions."""
        rows_of = partial(layer_rows, self.rows(root))
        return self.blocks_of_rows(rows_of, layers, root.parameters.vector())

    def rows(self, root: Jacobian) -> RowSource:
        """Return the rows that factors are made of: all of J, or samples."""
        chunk = root.chunk
        if chunk is None:
            terms = root.objective.terms.values()
            chunk = min(self._points_at_once(root, term) for term in terms)

        rows = Jacobian(root.objective, scaled=True, chunk=chunk)
        if self.mc_samples is None:
            return rows
        return SampledRows(rows, self.mc_samples)

    def _points_at_once(self, root: Jacobian, term: Term) -> int:
        """Return how many points of a term go through the network at once."""
        # As many as have room for the rows of a single layer.
        n = linearized_at_once(term.points, root.parameters.largest)
        if root.parameters.size < LARGE_NETWORK:
            return n
        # Of larger layers rows are made in pieces, so that what is kept of each pass counts.
        passes = self.mc_samples or root.components()[term.name]
        return max(n, linearized_at_once(term.points, 1) // passes)

    def blocks_of_rows(
        self, rows_of: RowsOf, layers: Sequence[LayerMatrix], like: Tensor
    ) -> list[Block]:
        """Return the same of any rows J with ``A = JᵀJ``, in the dtype of ``like``."""
        blocks = {}
        for layer, basis in layer_bases(rows_of, layers, self.block_limit):
            eigenvalues = like.new_zeros(layer.outputs, layer.inputs)
            blocks[layer] = Block(layer, basis, eigenvalues)

        # Of a direction q it is qᵀAq = qᵀJᵀJq = Σ_rows (qᵀ row)².
        for layer, _, left, right in rows_of(list(blocks)):
            block = blocks[layer]
            curvature = block.basis.curvature(left, right)
            block.eigenvalues.add_(curvature)
        return list(blocks.values())


@dataclass(frozen=True)
class Block:
    """A layer's basis and the curvature along each of its directions, (out, in)."""

    layer: LayerMatrix
    basis: Basis
    eigenvalues: Tensor = field(repr=False)

    def inverse(self, matrices: Tensor, damping: float) -> Tensor:
        """Return the inverse of the layer's ``A + λI`` times its part of vectors."""
        # V → QᵀV → (s + λ)⁻¹QᵀV → Q(s + λ)⁻¹QᵀV
        coordinates = self.basis.into(matrices)
        coordinates /= self.eigenvalues + damping
        return self.basis.back(coordinates)

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Return the coordinates of the layer's part of vectors (P, K), (K, out, in)."""
        _, n = vectors.shape
        found = vectors.new_empty(n, *self.eigenvalues.shape)
        for some in self._columns_at_once(n):
            matrices = self.layer.matrices(vectors[:, some])
            found[some] = self.basis.into(matrices)
        return found

    def put(self, coordinates: Tensor, out: Tensor) -> None:
        """Write the vectors with these coordinates into the layer's part of ``out`` (P, K)."""
        for some in self._columns_at_once(len(coordinates)):
            matrices = self.basis.back(coordinates[some])
            self.layer.put(matrices, out[:, some])

    def _columns_at_once(self, n_columns: int) -> Iterator[slice]:
        """Yield the columns of vectors, as many at a time as may be turned at once."""
        step = max(1, LARGE_BLOCK_NUMBERS // self.layer.size)
        for start in range(0, n_columns, step):
            yield slice(start, start + step)

    def summary(self) -> BlockSummary:
        """Return what is said of the block in results."""
        is_full = isinstance(self.basis, FullBasis)
        smallest = float(self.eigenvalues.min())
        largest = float(self.eigenvalues.max())
        return BlockSummary(self.eigenvalues.numel(), smallest, largest, is_full)


@dataclass(frozen=True)
class BlockSummary:
    """The parameters of a block, its extreme eigenvalues, and whether its basis is its own."""

    size: int
    smallest: float
    largest: float
    is_full: bool


def spectrum_of(
    summaries: Sequence[BlockSummary], system: Damped, largest: float
) -> BlocksSpectrum:
    """Return what is known of A cut into blocks.

    Raises
    ------
    SingularSystem
        If ``A + λI`` is singular.
    """
    # Layers that no residual depends on have no block: their curvature is zero.
    smallest = [summary.smallest for summary in summaries]
    covered = sum(summary.size for summary in summaries)
    if covered < system.size:
        smallest.append(0.0)

    dtype = system.like().dtype
    rounding = largest * torch.finfo(dtype).eps
    if min(smallest) + system.damping <= rounding:
        raise singular(system.damping, system.size, dtype)

    return BlocksSpectrum(
        solver=EKFAC.name,
        damping=system.damping,
        largest_eigenvalue=largest,
        blocks=len(summaries),
        full_blocks=sum(summary.is_full for summary in summaries),
        # Orthogonal bases, and true curvatures along them, lose nothing.
        trace_share=1.0,
    )


def solutions_beside(covered: int, right: Tensor, damping: float) -> Tensor:
    """Return ``(0 + λ)⁻¹b`` (P, K) for those that no block covers, with room for all others.

    Numbers of all vectors stand side by side, as products with rows of J read them.
    """
    value = right.new_empty(right.shape)
    if covered < len(right):
        # Without damping there is no such part.
        value.copy_(right / damping if damping else torch.zeros_like(right))
    return value


class _Factored:
    """Each layer's eigenvectors and corrected eigenvalues, and λ."""

    def __init__(
        self,
        system: Damped,
        blocks: Sequence[Block],
        largest: float,
        coupling: Coupling | None = None,
    ) -> None:
        self._system = system
        self._blocks = blocks
        self._coupling = coupling
        summaries = [block.summary() for block in blocks]
        self.spectrum = spectrum_of(summaries, system, largest)
        if coupling is not None:
            self._factor = coupling.factor(system.damping)
            k = len(coupling.leading)
            self.spectrum = replace(self.spectrum, coupled_directions=k)

    def redamped(self, damping: float) -> _Factored:
        """Return the state with this absolute λ: bases and curvatures are known."""
        largest = self.spectrum.largest_eigenvalue
        system = self._system.redamped(damping)
        return _Factored(system, self._blocks, largest, self._coupling)

    def precondition(self, right: Tensor) -> Tensor:
        """Return the approximate inverse of ``A + λI`` times the columns of ``right``, (P, K)."""
        damping = self._system.damping
        # b → Qᵀb
        coordinates = [block.coordinates(right) for block in self._blocks]
        leading = None
        if self._coupling is not None:
            leading = self._coupling.solved(self._factor, coordinates)

        covered = sum(block.layer.size for block in self._blocks)
        value = solutions_beside(covered, right, damping)
        # Qᵀb → (s + λ)⁻¹Qᵀb → Q(s + λ)⁻¹Qᵀb
        for k, block in enumerate(self._blocks):
            # Let go of block by block, as they are as many numbers as the solutions.
            of_block = coordinates.pop(0)
            of_block /= block.eigenvalues + damping
            if leading is not None and self._coupling is not None:
                places = self._coupling.leading.places[k]
                # A view, as a copy would be written in vain.
                of_block.view(len(of_block), -1)[:, places] = leading[k]
            block.put(of_block, value)
        return value

    def solve(self, right: Tensor) -> Solution:
        """Solve approximately for the columns of ``right``, (P, K); the residual is the true one.

        ``converged`` says that the factorisation could be applied, not that it is exact.
        """
        value = self.precondition(right)
        return direct_solution(self._system, right, value)
