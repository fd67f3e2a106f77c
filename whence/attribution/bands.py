"""Bands: consecutive points of an attribution, as many as its chunks on disk hold.

A band is made from whole blocks of points, those that the matrix in memory is made from, so that
its numbers are the same to the last bit whoever makes it, and whatever else is made with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from whence.attribution.arguments import PreparedPoints
from whence.attribution.tiles import Tile
from whence.points import Points

CHUNK_POINTS = 16_384
"""About as many points have a chunk on disk."""


@dataclass(frozen=True)
class Band:
    """The points from ``start`` to ``stop``, of the points of all terms."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def band_width(prepared: PreparedPoints, block_size: Callable[[Points], int]) -> int:
    """Return the points of a band: whole blocks of the largest term, about a chunk of them."""
    largest = max(prepared.by_term.values(), key=len)
    size = block_size(largest)
    return min(len(prepared), size * max(1, CHUNK_POINTS // size))


def bands(n_points: int, width: int) -> Iterator[Band]:
    """Yield the bands of so many points, the last as wide as is left.

    Examples
    --------
    >>> from whence.attribution.bands import bands
    >>> [(band.start, band.stop) for band in bands(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, n_points, width):
        yield Band(start, min(start + width, n_points))


def around(
    prepared: PreparedPoints, band: Band, block_size: Callable[[Points], int]
) -> tuple[PreparedPoints, int]:
    """Return the whole blocks of points that a band touches, and the place of the first of them.

    A band may begin or end within a block where there are several terms: that block is then made
    for both of its bands.
    """
    by_term = {}
    scales = {}
    first = None
    start = 0
    for name, points in prepared.by_term.items():
        inner = _whole_blocks(
            Band(band.start - start, band.stop - start), len(points), block_size(points)
        )
        if inner:
            by_term[name] = points[inner]
            scales[name] = prepared.scale(name, inner)
            if first is None:
                first = start + inner.start
        start += len(points)

    assert first is not None
    return PreparedPoints(by_term, scales), first


def _whole_blocks(band: Band, n: int, size: int) -> slice | None:
    """Return which of n points are in blocks that a band touches, None if it touches none."""
    low = max(0, band.start)
    high = min(n, band.stop)
    if low >= high:
        return None
    return slice(low // size * size, min(n, -(-high // size) * size))


def within(tiles: Iterator[Tile], band: Band, first: int) -> Iterator[Tile]:
    """Yield the parts of tiles that lie in a band, at their places among all points.

    Parameters
    ----------
    tiles:
        Of the points from the place ``first`` on.
    """
    for tile in tiles:
        low = max(band.start - first, tile.points.start)
        high = min(band.stop - first, tile.points.stop)
        if low >= high:
            continue
        columns = slice(low - tile.points.start, high - tile.points.start)
        points = slice(first + low, first + high)
        yield Tile(tile.targets, points, tile.values[:, columns], tile.solved)
