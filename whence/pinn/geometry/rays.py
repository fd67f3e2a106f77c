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
        cells = np.floor((turned[:, :-1] - low) / size).astype(np.int64)
        is_below_or_above = ((cells >= 0) & (cells < self._shape)).all(axis=1)

        result = np.zeros(len(points), dtype=bool)
        rows = np.flatnonzero(is_below_or_above)
        flat = np.ravel_multi_index(tuple(cells[rows].T), self._shape)
        starts, facets = self._cells
        counts = starts[flat + 1] - starts[flat]

        # In blocks of so many pairs: one facet after the other of each point's cell.
        ends = np.cumsum(counts)
        blocks = np.unique(
            np.searchsorted(ends, np.arange(0, ends[-1:].sum() + 1, MAX_PAIRS))
        )
        for first, last in zip(blocks, [*blocks[1:], len(rows)], strict=True):
            block = slice(first, last)
            n_facets = counts[block]
            owner = np.repeat(np.arange(len(n_facets)), n_facets)
            offset = np.arange(len(owner)) - np.repeat(
                np.cumsum(n_facets) - n_facets, n_facets
            )
            facet = facets[np.repeat(starts[flat[block]], n_facets) + offset]

            crossed = self._crossed(turned[rows[block]][owner], facet)
            total = np.bincount(owner, weights=crossed, minlength=len(n_facets))
            result[rows[block]] = total.astype(int) % 2 == 1

        return result

    def _crossed(self, points: Array, facet: Indices) -> Mask:
        """Return whether the ray upwards from each point crosses the facet paired with it."""
        if points.shape[1] == 2:
            return self._segments_crossed(points, facet)

        ids = self.faces[facet]  # (m, 3)
        corners = self._turned[ids]
        # Twice the signed areas of the triangles of the point and each side, seen along the ray.
        areas = []
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            # From the vertex of the lower number: both neighbours compute the same number.
            swap = ids[:, i] > ids[:, j]
            a = np.where(swap[:, None], corners[:, j], corners[:, i]) - points
            b = np.where(swap[:, None], corners[:, i], corners[:, j]) - points
            area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
            area = np.where(area == 0, np.finfo(float).tiny, area)
            areas.append(np.where(swap, -area, area))

        weights = np.stack(areas, axis=1)
        is_within = (weights > 0).all(axis=1) | (weights < 0).all(axis=1)
        # The height at which the ray meets the triangle's plane, above the point.
        total = weights.sum(axis=1)
        heights = corners[:, :, 2] - points[:, 2:]
        height = (weights * heights).sum(axis=1) * np.sign(total)
        return np.asarray(is_within & (height > 0))

    def _segments_crossed(self, points: Array, facet: Indices) -> Mask:
        corners = self._turned[self.faces[facet]]  # (m, 2, 2)
        start, end = corners[:, 0], corners[:, 1]
        x, y = points.T
        # Half-open, so that a corner belongs to one of its two sides.
        is_within = (start[:, 0] > x) != (end[:, 0] > x)
        run = np.where(is_within, end[:, 0] - start[:, 0], 1.0)
        height = start[:, 1] + (x - start[:, 0]) * (end[:, 1] - start[:, 1]) / run
        return np.asarray(is_within & (height > y))

    @cached_property
    def _turn(self) -> Array:
        """An orthogonal matrix (d, d) that turns the rays along the last coordinate."""
        d = self.vertices.shape[1]
        # Any fixed one without simple ratios.
        askew = np.sqrt(np.arange(2.0, 2.0 + d * d)).reshape(d, d) % 1 + np.eye(d)
        return np.asarray(np.linalg.qr(askew)[0])

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
        size = (across.max(axis=0) - low) / np.array(self._shape) * (1 + 1e-9)
        corners = across[self.faces]  # (F, d, d − 1)
        first = np.floor((corners.min(axis=1) - low) / size)
        last = np.floor((corners.max(axis=1) - low) / size)
        return low, size, np.stack([first, last]).astype(np.int64)

    @cached_property
    def _cells(self) -> tuple[Indices, Indices]:
        """The facets over each cell one after the other, and where each cell's begin."""
        _, _, (first, last) = self._grid
        widths = last - first + 1  # (F, d − 1)
        totals = widths.prod(axis=1)
        facet = np.repeat(np.arange(len(totals)), totals)
        offset = np.arange(len(facet)) - np.repeat(np.cumsum(totals) - totals, totals)

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
