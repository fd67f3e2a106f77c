"""Points of a term, and the one way through them: in blocks.

Points are what a residual is a function of: the rows of a tensor (n, d), as in a physics-informed
network, or :class:`whence.samples.Samples` of inputs and targets. Both have a length, give parts
of themselves by a slice or by indices, and can be gone through in blocks that fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor

from whence.outputs import Targets
from whence.samples import Samples

Points = Tensor | Samples
"""Points of a term: a tensor (n, d), or samples."""

Pointwise = Callable[[Mapping[str, Tensor], Points], Tensor]
"""``f(parameters by name, points) -> (n, m)``, each row from its own point alone."""

MAX_EVALUATED = 4000
"""Points evaluated at once: memory does not grow with their number."""
MIN_EVALUATED = 500
"""Least points that are evaluated at once, by however wide a network."""
CACHED_OUTPUTS = 128_000
"""Outputs of a layer that still suit the cache; those of larger blocks are new pages each time."""
MAX_LINEARIZED = 1000
"""Points linearized at once: far more leave the processor's cache and are many times slower."""
CACHED_NUMBERS = 4_000_000
"""Numbers of a block of Jacobian rows that still suit the cache."""
MAX_ROW_BYTES = 256 * 2**20
"""Bytes that the Jacobian rows of a block may take."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive points, and which of all points they are."""

    points: Points
    part: slice

    def __len__(self) -> int:
        return len(self.points)


def blocks(points: Points, size: int | None = None) -> Iterator[Block]:
    """Yield the points in order, ``size`` at a time, by default as many as evaluated at once.

    Examples
    --------
    >>> import torch
    >>> from whence.points import blocks
    >>> [(len(block), block.part) for block in blocks(torch.zeros(5, 2), size=3)]
    [(3, slice(0, 3, None)), (2, slice(3, 5, None))]
    """
    step = (
        evaluated_at_once(points) if size is None else size
    )  # the last block may be smaller
    for start in range(0, len(points), step):
        part = slice(start, min(start + step, len(points)))
        yield Block(points[part], part)


def evaluated_at_once(
    points: Points, tensors: Mapping[str, Tensor] | None = None
) -> int:
    """Return how many of these points to evaluate at once: samples have a batch size.

    Parameters
    ----------
    points:
        The points.
    tensors:
        Parameters of the network that is evaluated: the wider it is, the fewer points suit the
        cache.
    """
    if isinstance(points, Samples):
        return min(MAX_EVALUATED, points.batch_size)
    if tensors is None:
        return MAX_EVALUATED

    # A layer of n outputs has a weight (n, inputs).
    width = max((len(t) for t in tensors.values() if t.ndim), default=1)
    in_cache = max(MIN_EVALUATED, CACHED_OUTPUTS // max(1, width))
    return min(MAX_EVALUATED, in_cache)


def linearized_at_once(points: Points, n_parameters: int) -> int:
    """Return how many of these points to linearize at once, by the cache and by memory."""
    # Samples may be large themselves, so that their batch size counts too.
    most = MAX_LINEARIZED
    if isinstance(points, Samples):
        most = min(most, points.batch_size)

    # A quarter of the usual block at least: smaller ones cost more in calls than in the cache.
    in_cache = max(MAX_LINEARIZED // 4, CACHED_NUMBERS // n_parameters)
    # A row of J takes 8 bytes a parameter in float64; one point goes through in any case.
    in_memory = max(1, MAX_ROW_BYTES // (8 * n_parameters))
    return min(most, in_cache, in_memory)


def target_of(points: Points) -> Targets:
    """Return what the loss compares with at these points; locations have nothing of the kind."""
    if isinstance(points, Samples):
        return points.target
    return None


def locations(points: Points) -> Tensor:
    """Return points that are rows of coordinates, (n, d); samples are a ``TypeError``."""
    if isinstance(points, Samples):
        raise TypeError(
            "points with coordinates are needed here, got samples of supervised data"
        )

    return points


def are_samples(points: object) -> TypeGuard[Samples]:
    """Whether points are samples of supervised data."""
    return isinstance(points, Samples)


def inputs_of(points: Points) -> tuple[Tensor, Callable[[Tensor], Points]]:
    """Return the numbers of the inputs that can move, (n, d), and how to make points of them."""
    if isinstance(points, Samples):
        return points.features(), points.with_features

    def unchanged(locations: Tensor) -> Points:
        return locations

    return points, unchanged
