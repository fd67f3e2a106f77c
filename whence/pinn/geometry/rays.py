"""Which points lie inside a closed curve or surface, by rays that count what they cross."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whence.pinn.geometry.charts import Mask
from whence.pinn.geometry.samplings import Array

Indices = NDArray[np.intp]

MAX_CELLS = 512
"""Cells along each coordinate, at most, of the grid in which facets are looked up."""
MAX_PAIRS = 2**21
"""Pairs of a point and a facet below or above it that are compared at a time."""


@dataclass(frozen=True, eq=False)
class Rays:
    """A closed curve of segments or surface of triangles, and rays along one direction.

    A point is inside if the ray from it crosses the surface an odd number of times. The
    direction is askew to all axes, as surfaces along them are common. Facets that share a side
    agree to the last bit on which of them a ray crosses there.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> rays = Rays(square, np.array([[0, 1], [1, 2], [2, 3], [3, 0]]))
    >>> rays.inside(np.array([[0.5, 0.5], [1.5, 0.5]]))
    array([ True, False])
    """

    vertices: Array
    faces: Indices

    def inside(self, points: Array) -> Mask:
        """Return which points (n, d) are inside, (n,)."""
        turned = points @ self._turn
        low, size, _ = self._grid
        steps = (turned[:, :-1] - low) / size
        cells = np.floor(steps).astype(np.int64)
        in_grid = (cells >= 0) & (cells < self._shape)

        # What is beside the surface, seen along the rays, is outside.
        rows = np.flatnonzero(in_grid.all(axis=1))
        columns = tuple(cells[rows].T)
        flat = np.ravel_multi_index(columns, self._shape)
        starts, _ = self._cells
        counts = starts[flat + 1] - starts[flat]

        result = np.zeros(len(points), dtype=bool)
        for first, last in blocks_of(counts, MAX_PAIRS):
            block = slice(first, last)
            crossings = self._crossings(turned[rows[block]], flat[block])
            result[rows[block]] = crossings % 2 == 1

        return result

    def _crossings(self, points: Array, cells: Indices) -> Indices:
        """Return how often the ray from each point, in a cell, crosses the surface, (n,)."""
        starts, facets = self._cells
        counts = starts[cells + 1] - starts[cells]
        owner, offset = ranges(counts)

        # One pair after the other: each facet of the cell that a point is in.
        facet = facets[starts[cells][owner] + offset]
        crossed = self._crossed(points[owner], facet)
        total = np.bincount(owner, weights=crossed, minlength=len(counts))
        return total.astype(np.int64)

    def _crossed(self, points: Array, facet: Indices) -> Mask:
        """Return whether the ray upwards from each point crosses the facet paired with it."""
        if points.shape[1] == 2:
            return self._segments_crossed(points, facet)

        ids = self.faces[facet]  # (m, 3)
        corners = self._turned[ids]
        away = corners - points[:, None, :]
        # Twice the signed area, seen along the ray, of the triangle of the point and the side
        # opposite to each corner: barycentric coordinates of where the ray meets the plane.
        areas = [_side_area(ids, away, (k + 1) % 3, (k + 2) % 3) for k in range(3)]
        weights = np.stack(areas, axis=1)

        is_left = (weights > 0).all(axis=1)
        is_right = (weights < 0).all(axis=1)
        # The height of that place above the point, times the positive sum of the weights.
        height = (weights * away[:, :, 2]).sum(axis=1)
        height = np.where(is_right, -height, height)
        return np.asarray((is_left | is_right) & (height > 0))

    def _segments_crossed(self, points: Array, facet: Indices) -> Mask:
        """Return whether the ray upwards from each point crosses the segment paired with it."""
        corners = self._turned[self.faces[facet]]  # (m, 2, 2)
        start_x, start_y = corners[:, 0].T
        end_x, end_y = corners[:, 1].T
        x, y = points.T

        # Half-open, so that a corner belongs to one of its two sides.
        is_within = (start_x > x) != (end_x > x)
        run = np.where(is_within, end_x - start_x, 1.0)
        slope = (end_y - start_y) / run
        height = start_y + (x - start_x) * slope
        return np.asarray(is_within & (height > y))

    @cached_property
    def _turn(self) -> Array:
        """An orthogonal matrix (d, d) that turns the rays along the last coordinate."""
        d = self.vertices.shape[1]
        # Any fixed one without simple ratios.
        roots = np.sqrt(np.arange(2.0, 2.0 + d * d))
        askew = np.eye(d) + roots.reshape(d, d) % 1
        orthogonal, _ = np.linalg.qr(askew)
        return np.asarray(orthogonal)

    @cached_property
    def _turned(self) -> Array:
        return self.vertices @ self._turn

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Cells along each coordinate across the rays."""
        across = self.vertices.shape[1] - 1
        n = math.ceil(len(self.faces) ** (1 / across))
        return (min(n, MAX_CELLS),) * across

    @cached_property
    def _grid(self) -> tuple[Array, Array, Array]:
        """Lowest corner and size of the cells (d − 1,), and those of each facet (2, F, d − 1)."""
        across = self._turned[:, :-1]
        low = across.min(axis=0)
        extent = across.max(axis=0) - low
        size = extent / np.array(self._shape) * (1 + 1e-9)  # the last corner inside

        steps = (across[self.faces] - low) / size  # (F, d, d − 1)
        first = np.floor(steps.min(axis=1))
        last = np.floor(steps.max(axis=1))
        return low, size, np.stack([first, last]).astype(np.int64)

    @cached_property
    def _cells(self) -> tuple[Indices, Indices]:
        """The facets over each cell one after the other, and where each cell's begin."""
        _, _, (first, last) = self._grid
        widths = last - first + 1  # (F, d − 1)
        facet, offset = ranges(widths.prod(axis=1))

        # The offset within a facet's block of cells as one number per coordinate.
        columns = []
        for k in reversed(range(first.shape[1])):
            width = widths[facet, k]
            columns.append(first[facet, k] + offset % width)
            offset = offset // width
        cell = np.ravel_multi_index(tuple(reversed(columns)), self._shape)

        order = np.argsort(cell, kind="stable")
        counts = np.bincount(cell, minlength=math.prod(self._shape))
        starts = np.concatenate([[0], np.cumsum(counts)])
        return starts, facet[order]


def _side_area(ids: Indices, away: Array, i: int, j: int) -> Array:
    """Return twice the signed area (m,) between a point and side ij of each triangle."""
    # From the vertex of the lower number: both neighbours compute the same number.
    swap = ids[:, i] > ids[:, j]
    column = swap[:, None]
    start = np.where(column, away[:, j], away[:, i])
    end = np.where(column, away[:, i], away[:, j])

    x, y, _ = start.T
    end_x, end_y, _ = end.T
    area = x * end_y - y * end_x

    # On the side itself, by the rule of one of the two.
    area = np.where(area == 0, np.finfo(float).tiny, area)
    return np.where(swap, -area, area)


def ranges(counts: Indices) -> tuple[Indices, Indices]:
    """Return for each of so many entries per row the row, and its number in it.

    Examples
    --------
    >>> ranges(np.array([2, 0, 3]))
    (array([0, 0, 2, 2, 2]), array([0, 1, 0, 1, 2]))
    """
    rows = np.arange(len(counts))
    owner = np.repeat(rows, counts)
    starts = np.cumsum(counts) - counts
    number = np.arange(len(owner)) - starts[owner]
    return owner, number


def blocks_of(counts: Indices, most: int) -> list[tuple[int, int]]:
    """Return blocks of rows, first and last + 1, of about ``most`` entries together.

    Examples
    --------
    >>> blocks_of(np.array([2, 2, 2, 2]), 4)
    [(0, 2), (2, 4)]
    """
    starts = np.cumsum(counts) - counts
    numbers = starts // most
    # Where the number of the block changes.
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    ends = [*firsts[1:], len(counts)]

    blocks = []
    for first, last in zip(firsts, ends[: len(firsts)], strict=True):
        blocks.append((first, last))
    return blocks
