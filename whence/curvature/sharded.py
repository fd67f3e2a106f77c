"""EKFAC whose factors no process holds together: layers go to the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from whence.curvature.failures import needs_rows
from whence.curvature.kronecker import (
    EKFAC,
    Block,
    BlocksSpectrum,
    BlockSummary,
    solutions_beside,
    spectrum_of,
)
from whence.curvature.layer_rows import LayerMatrix, layer_matrices
from whence.curvature.operators import Curvature, Damped
from whence.curvature.solvers import Damping, Solution, State, direct_solution
from whence.jacobian import Jacobian
from whence.workers import (
    DIED,
    MAX_DEATHS,
    alone,
    answer_of,
    check_client,
    check_processes,
    check_versions,
)

if TYPE_CHECKING:
    from distributed import Client

Answer = TypeVar("Answer")
Names = tuple[str, ...]
"""Parameters of a layer, by which workers know it."""


@dataclass(frozen=True)
class ShardedEKFAC:
    """:class:`whence.EKFAC` with each layer's factors on one of several workers.

    A layer of n outputs and m inputs has factors of n² + m² numbers, and their eigenvectors: of a
    wide network more than the parameters, and than one process may hold. A worker makes those of
    its layers in passes over all data, so that workers share memory and eigenvectors, not passes.
    To solve, each gets its layers' part of the right-hand sides. Workers know nothing of each
    other's layers: results are those of ``EKFAC(coupled=0)``, the residual the true one.

    A worker that dies takes its layers along: others make them again.

    Parameters
    ----------
    client:
        Of a dask cluster. Workers must be able to import what the model is made of, and reach its
        data.
    ekfac:
        Options of the factorisation.

    Raises
    ------
    TypeError
        If the client is none.
    ValueError
        As of :class:`whence.EKFAC`; if its directions are coupled; or if workers have another
        version of whence.
    SingularSystem
        If ``A + λI`` is singular, which is a ValueError, too.

    Examples
    --------
    With ``from dask.distributed import Client``::

        client = Client("tcp://10.0.0.1:8786")
        influence = wh.Influence(model, data, loss, solver=ShardedEKFAC(client))
    """

    client: Client = field(repr=False, compare=False)
    ekfac: EKFAC = field(default_factory=lambda: EKFAC(coupled=0))
    name = EKFAC.name

    def __post_init__(self) -> None:
        check_client(self.client)
        if self.ekfac.coupled:
            raise ValueError(
                "layers on several workers are taken as independent of each other, but EKFAC is to "
                f"couple {self.ekfac.coupled} directions of them: give EKFAC(coupled=0)"
            )

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Have workers find the eigenvectors of their layers, and the curvature along them."""
        root = operator.root()
        if root is None:
            raise needs_rows("EKFAC", "wh.ConjugateGradient() or wh.Arnoldi()")
        check_versions(self.client)
        check_processes(self.client)

        shards = shared_out(layer_matrices(root), len(self.client.nthreads()))
        factors = Factors(self, root, shards)
        # The largest eigenvalue is found here meanwhile.
        system, largest = self.ekfac.system(operator, damping, factors.largest)
        spectrum = spectrum_of(factors.summaries(), system, largest)
        return _Sharded(system, factors, spectrum)


class Factors:
    """The factors of all layers, on workers."""

    def __init__(
        self,
        solver: ShardedEKFAC,
        root: Jacobian,
        shards: Sequence[Sequence[LayerMatrix]],
    ) -> None:
        self._solver = solver
        self._root = root
        self._shards = shards
        self._make()

    def _make(self) -> None:
        client = self._solver.client
        # Kept, as the factors of a worker that dies are made of it again.
        self._sent = client.scatter(self._root, broadcast=True, hash=False)
        self._blocks = []
        for layers in self._shards:
            arguments = (self._solver.ekfac, self._sent, layers)
            self._blocks.append(client.submit(blocks_of, *arguments, pure=False))

    def summaries(self) -> list[BlockSummary]:
        """Return what is said of each block."""
        by_shard = self._asked(summaries_of, [() for _ in self._shards])
        return [summary for summaries in by_shard for summary in summaries]

    def largest(self) -> float:
        """Return the largest eigenvalue of a layer."""
        return max(summary.largest for summary in self.summaries())

    def solve_into(self, value: Tensor, right: Tensor, damping: float) -> None:
        """Write the inverse times ``right`` (P, K) into ``value``, where there are blocks."""
        arguments = []
        for layers in self._shards:
            parts = {layer.names: layer.matrices(right) for layer in layers}
            arguments.append((parts, damping))

        by_shard = self._asked(inverses_of, arguments)
        for layers, solved in zip(self._shards, by_shard, strict=True):
            for layer in layers:
                # Layers that no residual depends on have no block.
                if layer.names in solved:
                    layer.put(solved[layer.names], value)

    def _asked(
        self,
        function: Callable[..., Answer],
        arguments: Sequence[tuple[object, ...]],
    ) -> list[Answer]:
        """Return ``function(blocks, *arguments)`` of each shard, made where its blocks are.

        What was lost with its workers is made again.
        """
        client = self._solver.client
        for _ in range(MAX_DEATHS):
            futures = []
            for blocks, of_shard in zip(self._blocks, arguments, strict=True):
                futures.append(client.submit(function, blocks, *of_shard, pure=False))
            try:
                return [answer_of(future) for future in futures]
            except CancelledError:
                check_versions(client)
                self._make()
        raise RuntimeError(DIED)


def shared_out(layers: Sequence[LayerMatrix], n: int) -> list[list[LayerMatrix]]:
    """Return the layers of each of up to n workers, with about as many numbers of factors each."""
    shards: list[list[LayerMatrix]] = [[] for _ in range(min(n, len(layers)))]
    loads = [0] * len(shards)
    # The largest first, each to whoever has least.
    for layer in sorted(layers, key=factor_size, reverse=True):
        least = loads.index(min(loads))
        shards[least].append(layer)
        loads[least] += factor_size(layer)
    return shards


def factor_size(layer: LayerMatrix) -> int:
    """Return the numbers of a layer's factors."""
    return layer.outputs**2 + layer.inputs**2


def blocks_of(
    ekfac: EKFAC, root: Jacobian, layers: Sequence[LayerMatrix]
) -> list[Block]:
    """Return the factors of some layers; they stay where they are made."""
    with alone():
        return ekfac.blocks(root, layers)


def summaries_of(blocks: Sequence[Block]) -> list[BlockSummary]:
    """Return what is said of blocks, which is small."""
    return [block.summary() for block in blocks]


def inverses_of(
    blocks: Sequence[Block], parts: Mapping[Names, Tensor], damping: float
) -> dict[Names, Tensor]:
    """Return the inverse times the parts of vectors, of the layers that have blocks."""
    solved = {}
    for block in blocks:
        names = block.layer.names
        solved[names] = block.inverse(parts[names], damping)
    return solved


class _Sharded:
    """Factors on workers, and λ."""

    def __init__(
        self, system: Damped, factors: Factors, spectrum: BlocksSpectrum
    ) -> None:
        self._system = system
        self._factors = factors
        self.spectrum = spectrum

    def precondition(self, right: Tensor) -> Tensor:
        """Return the approximate inverse of ``A + λI`` times the columns of ``right``, (P, K)."""
        damping = self._system.damping
        value = solutions_beside(0, right, damping)
        self._factors.solve_into(value, right, damping)
        return value

    def solve(self, right: Tensor) -> Solution:
        """Solve approximately for columns ``right``, (P, K); the residual is the true one."""
        return direct_solution(self._system, right, self.precondition(right))
