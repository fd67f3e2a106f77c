"""Pieces of an attribution: tiles of targets by points, and what they are made from.

An attribution is the product of vectors (P, T), one for each target, with the gradients of n
points. Neither need fit in memory: :class:`Directions` are the vectors of some targets,
:class:`PointBlock` some points, and their product is a :class:`Tile` of the matrix (T, n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence.curvature.solvers import RowSolution, Solution
from whence.points import Points
from whence.term import Term


@dataclass(frozen=True)
class Solved:
    """How well several systems were solved: as well as the worst of them.

    Parameters
    ----------
    residual:
        Largest relative residual; 0 where nothing had to be solved.
    converged:
        Whether every solver reached what it promises.
    message:
        What went wrong first, empty where nothing did.

    Examples
    --------
    >>> from whence.attribution.tiles import Solved
    >>> Solved(1e-12).worst_with(Solved(1e-3, converged=False, message="too few steps"))
    Solved(residual=0.001, converged=False, message='too few steps')
    """

    residual: float = 0.0
    converged: bool = True
    message: str = ""

    @classmethod
    def worst_of(cls, parts: Mapping[str, Solved]) -> Solved:
        """Combine the qualities of parts by their names, in whose order the first message is."""
        worst = cls()
        for name in sorted(parts):
            worst = worst.worst_with(parts[name])
        return worst

    def worst_with(self, other: Solution | RowSolution | Solved) -> Solved:
        """Combine with the quality of another solve."""
        # np.maximum keeps a NaN, which Python's max may lose.
        residual = float(np.maximum(self.residual, other.residual))
        message = self.message or getattr(other, "message", "")
        return Solved(residual, self.converged and other.converged, message)


@dataclass(frozen=True, eq=False)
class Stage:
    """A state of the network that counts by ``factor``; ``at()`` puts it there for a while."""

    factor: float = 1.0
    at: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, eq=False)
class Directions:
    """For some targets the vectors (P, t) of each stage, which meet the gradients of points.

    The vectors carry the stage's factor. They are buffers that the next ones may overwrite.
    """

    targets: slice
    vectors: Sequence[tuple[Stage, Tensor]]
    solved: Solved


@dataclass(frozen=True, eq=False)
class PointBlock:
    """Some points of one term.

    Parameters
    ----------
    term:
        Whose loss they have.
    points:
        The points themselves.
    part:
        Their places among the points of all terms.
    scale:
        Factor of each point: w/N, times its own weight (n,) where points weigh differently.
    """

    term: Term
    points: Points
    part: slice
    scale: float | Tensor

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of an attribution: ``values`` (t, n) at these targets and points."""

    targets: slice
    points: slice
    values: Tensor
    solved: Solved = Solved()


def gathered(tiles: Iterator[Tile], n_points: int) -> Iterator[Tile]:
    """Yield tiles of so many points from smaller ones, of the same targets one after another.

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.tiles import Tile, gathered
    >>> halves = [Tile(slice(0, 1), slice(k, k + 2), torch.full((1, 2), k)) for k in (4, 6)]
    >>> [(tile.points, tile.values.tolist()) for tile in gathered(iter(halves), 4)]
    [(slice(4, 8, None), [[4, 4, 6, 6]])]
    """
    joined: Tensor | None = None
    solved = Solved()
    first = 0
    for tile in tiles:
        if tile.values.shape[1] == n_points:
            yield tile
            continue

        if joined is None:
            joined = tile.values.new_empty(len(tile.values), n_points)
            first = tile.points.start
        joined[:, tile.points.start - first : tile.points.stop - first] = tile.values
        solved = solved.worst_with(tile.solved)
        # Tiles of the same targets come by ascending points.
        if tile.points.stop == first + n_points:
            yield Tile(tile.targets, slice(first, first + n_points), joined, solved)
            joined = None


def stacked(tiles: Iterator[Tile], n_targets: int) -> Iterator[Tile]:
    """Yield tiles of the same points with at least so many targets each, but for the last.

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.tiles import Tile, stacked
    >>> rows = [Tile(slice(k, k + 1), slice(0, 1), torch.full((1, 1), k)) for k in range(3)]
    >>> [(tile.targets, tile.values.tolist()) for tile in stacked(iter(rows), 2)]
    [(slice(0, 2, None), [[0], [1]]), (slice(2, 3, None), [[2]])]
    """
    waiting: list[Tile] = []
    for tile in tiles:
        waiting.append(tile)
        if sum(len(of_tile.values) for of_tile in waiting) >= n_targets:
            yield _stack(waiting)
            waiting = []
    if waiting:
        yield _stack(waiting)


def _stack(tiles: Sequence[Tile]) -> Tile:
    first, last = tiles[0], tiles[-1]
    solved = Solved()
    for tile in tiles:
        solved = solved.worst_with(tile.solved)
    targets = slice(first.targets.start, last.targets.stop)
    values = torch.cat([tile.values for tile in tiles])
    return Tile(targets, first.points, values, solved)


def regrouped(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows ``size`` at a time.

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.tiles import regrouped
    >>> blocks = torch.arange(5).split([1, 3, 1])
    >>> [block.tolist() for block in regrouped(iter(blocks), 2)]
    [[0, 1], [2, 3], [4]]
    """
    waiting: list[Tensor] = []
    for block in blocks:
        for part in block.split(size):
            waiting.append(part)
            if sum(map(len, waiting)) < size:
                continue

            # Parts have at most ``size`` rows, so that what is left is less than another block.
            joined = torch.cat(waiting)
            yield joined[:size]
            rest = joined[size:]
            waiting = [rest] if len(rest) else []

    if waiting:
        yield torch.cat(waiting)


def packed(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows ``size`` at a time, in one buffer that the next of them overwrite."""
    buffer = torch.empty(0)
    filled = 0
    for block in blocks:
        if not len(buffer):
            buffer = block.new_empty(size, block.shape[1])

        start = 0
        while start < len(block):
            taken = min(len(block) - start, size - filled)
            buffer[filled : filled + taken] = block[start : start + taken]
            start += taken
            filled += taken
            if filled == size:
                yield buffer
                filled = 0

    if filled:
        yield buffer[:filled]
