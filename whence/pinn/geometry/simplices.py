"""Sets made of simplices: segments, triangles and tetrahedra, and the distance from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.pinn.geometry.charts import Chart, Mask, stratum
from whence.pinn.geometry.rays import Indices, Rays
from whence.pinn.geometry.samplings import Array

NEAREST = 8
"""Facets to look at first for the one that is nearest to a point."""
MAX_PAIRS = 2**19
"""Pairs of a point and a facet whose distance is computed at a time."""
FAR = 1.0
"""Reaches of a facet from the surface beyond which the distance is known up to one of them."""
MORTON_BITS = 16
"""Halvings of each coordinate by which points are put in an order that keeps neighbours near."""
TINY = float(np.finfo(float).tiny)


def simplex_chart(corners: Array) -> Chart:
    """Return the chart of a union of simplices (F, k + 1, d) that do not overlap.

    Examples
    --------
    >>> two = np.array([[[0.0], [1.0]], [[1.0], [4.0]]])  # from 0 to 1, from 1 to 4
    >>> simplex_chart(two).sample(4).T
    array([[0.5, 3.5, 2.5, 1.5]])
    """
    sizes = simplex_sizes(corners)
    sides = corners[:, 1:] - corners[:, :1]
    k = corners.shape[1] - 1

    def place(unit: Array) -> Array:
        which, rest = stratum(sizes, unit[:, 0])
        cube = np.column_stack([rest, unit[:, 1:]])
        # The gaps between k sorted uniform numbers are uniform barycentric coordinates: to
        # sort is to fold the cube onto one of its k! equal simplices.
        ordered = np.sort(cube, axis=1)
        zero = np.zeros((len(unit), 1))
        weights = np.diff(
            ordered, axis=1, append=zero + 1
        )  # (n, k), without the first corner
        # From one corner on: what all corners have in common stays exact.
        start = corners[which, 0]
        along = np.einsum("nk,nkd->nd", weights, sides[which])
        return np.asarray(start + along)

    return Chart(k, corners.shape[2], place, size=float(sizes.sum()))


def simplex_sizes(corners: Array) -> Array:
    """Return the lengths, areas or volumes (F,) of simplices (F, k + 1, d).

    Examples
    --------
    >>> simplex_sizes(np.array([[[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]]))
    array([2.])
    """
    sides = corners[:, 1:] - corners[:, :1]  # (F, k, d)
    k = sides.shape[1]
    # √det(SSᵀ)/k!, whatever the dimension that the simplices lie in.
    gram = sides @ sides.transpose(0, 2, 1)
    squares = np.maximum(np.linalg.det(gram), 0.0)
    return np.asarray(np.sqrt(squares) / math.factorial(k))


def facet_normals(corners: Array) -> Array:
    """Return the normals of facets (F, d, d), d = 2 or 3, as long as twice their measure in 3-D.

    Outward where the corners run counter-clockwise, seen from outside.
    """
    sides = corners[:, 1:] - corners[:, :1]
    if corners.shape[2] == 2:
        # To the right of a walk around the inside.
        return np.stack([sides[:, 0, 1], 0.0 - sides[:, 0, 0]], axis=1)
    return np.asarray(np.cross(sides[:, 0], sides[:, 1]))


def unit_rows(vectors: Array) -> Array:
    """Return vectors (n, d) of length one; what has no length stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, TINY))


def closest_on_segments(points: Array, start: Array, end: Array) -> Array:
    """Return the share of the way (…) to the point of each segment nearest to each point."""
    side = end - start
    # The foot of the perpendicular, t = (p − a)·s/‖s‖², kept between both ends.
    along = _dot(points - start, side)
    square = np.maximum(_dot(side, side), TINY)
    return np.clip(along / square, 0.0, 1.0)


def closest_weights(points: Array, corners: Array) -> Array:
    """Return barycentric coordinates (…, d) of the points of facets nearest to points.

    Points (…, d) and facets (…, d, d), d = 2 or 3, pair by pair.
    """
    d = points.shape[-1]
    if d == 2:
        t = closest_on_segments(points, corners[..., 0, :], corners[..., 1, :])
        return np.stack([1 - t, t], axis=-1)

    # Either the foot of the perpendicular, if it falls inside the triangle …
    best = _foot_weights(points, corners)
    is_inside = (best >= 0).all(axis=-1)
    nearest = np.where(is_inside, _distance(points, corners, best), np.inf)

    # … or the nearest point of its sides.
    for i, j in ((0, 1), (1, 2), (2, 0)):
        t = closest_on_segments(points, corners[..., i, :], corners[..., j, :])
        weights = np.zeros_like(best)
        weights[..., i] = 1 - t
        weights[..., j] = t
        distance = _distance(points, corners, weights)
        is_nearer = distance < nearest
        best = np.where(is_nearer[..., None], weights, best)
        nearest = np.where(is_nearer, distance, nearest)

    return best


def _foot_weights(points: Array, corners: Array) -> Array:
    """Return barycentric coordinates (…, 3) of the feet of perpendiculars to triangles."""
    first = corners[..., 1, :] - corners[..., 0, :]
    second = corners[..., 2, :] - corners[..., 0, :]
    away = points - corners[..., 0, :]

    # Normal equations of p − a ≈ v·first + w·second, by Cramer's rule.
    a = _dot(first, first)
    b = _dot(first, second)
    c = _dot(second, second)
    right_1 = _dot(away, first)
    right_2 = _dot(away, second)
    determinant = np.maximum(a * c - b * b, TINY)

    v = (c * right_1 - b * right_2) / determinant
    w = (a * right_2 - b * right_1) / determinant
    return np.stack([1 - v - w, v, w], axis=-1)


def _dot(first: Array, second: Array) -> Array:
    return np.asarray((first * second).sum(axis=-1))


def _distance(points: Array, corners: Array, weights: Array) -> Array:
    closest = (weights[..., None] * corners).sum(axis=-2)
    return np.asarray(np.linalg.norm(points - closest, axis=-1))


def morton_order(points: Array) -> Indices:
    """Return an order of points (n, d) in which neighbours in the order are near in space.

    Examples
    --------
    >>> morton_order(np.array([[0.0, 0.0], [9.0, 9.0], [1.0, 1.0], [8.0, 8.0]]))
    array([0, 2, 3, 1])
    """
    d = points.shape[1]
    extent = np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny)
    unit = (points - points.min(axis=0)) / extent
    cells = np.minimum(unit * 2**MORTON_BITS, 2**MORTON_BITS - 1).astype(np.int64)

    # The bits of the coordinates in turn, the highest first: sorted by octants, then within.
    keys = []
    for bit in range(MORTON_BITS):
        for column in range(d):
            keys.append((cells[:, column] >> bit) & 1)
    return np.lexsort(keys)


@dataclass(frozen=True, eq=False)
class Facets:
    """A closed curve of segments or surface of triangles, with the signed distance from it.

    Parameters
    ----------
    vertices
        Points (V, d), d = 2 or 3.
    faces
        Rows of the corners of each facet (F, d), counter-clockwise seen from outside.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> around = Facets(square, np.array([[0, 1], [1, 2], [2, 3], [3, 0]]))
    >>> around.signed_distance(np.array([[0.5, 0.25], [2.0, 1.0]]))
    array([-0.25,  1.  ])
    """

    vertices: Array
    faces: Indices

    @cached_property
    def corners(self) -> Array:
        """The corners of each facet, (F, d, d)."""
        return self.vertices[self.faces]

    @cached_property
    def normals(self) -> Array:
        """The outward unit normal of each facet, (F, d)."""
        return unit_rows(facet_normals(self.corners))

    @cached_property
    def sizes(self) -> Array:
        """The length or area of each facet, (F,)."""
        return simplex_sizes(self.corners)

    @cached_property
    def enclosed(self) -> float:
        """The area or volume inside, by the divergence theorem; negative if inside out."""
        d = self.vertices.shape[1]
        # ∫ 1 dV = 1/d ∮ x·n dA, and x·n is constant on a facet; about the middle, for rounding.
        middle = self.vertices.mean(axis=0)
        along = ((self.corners[:, 0] - middle) * self.normals).sum(axis=1)
        return float((along * self.sizes).sum() / d)

    def signed_distance(self, points: Array) -> Array:
        """Return the distance (n,) from points to the surface, negative inside.

        Exact close to the surface, and farther off than a facet's size up to that size.
        """
        distance = self.distance(points)
        return np.where(self.inside(points), -distance, distance)

    def distance(self, points: Array) -> Array:
        """Return the distance (n,) from points to the surface."""
        facet, weights = self.nearest(points)
        return _distance(points, self.corners[facet], weights)

    def inside(self, points: Array) -> Mask:
        """Return which points are inside, (n,)."""
        return self._rays.inside(points)

    def nearest(self, points: Array) -> tuple[Indices, Array]:
        """Return the nearest facet (n,) to each point, and where on it by weights (n, d)."""
        # Training asks for the normals at the same points in every step.
        known, facet, weights = self._last.get("nearest", (None, None, None))
        if known is not None and np.array_equal(known, points):
            return facet, weights

        facet, weights = self._search(points)
        self._last["nearest"] = (points.copy(), facet, weights)
        return facet, weights

    @cached_property
    def _last(self) -> dict[str, tuple[Any, Any, Any]]:
        """The last points asked for, and the answer."""
        return {}

    def _search(self, points: Array) -> tuple[Indices, Array]:
        """Return what ``nearest`` does, among more and more facets until it is sure."""
        n, d = points.shape
        facet = np.zeros(n, dtype=np.intp)
        weights = np.zeros((n, d))
        todo = np.arange(n)
        k = min(NEAREST, len(self._centers))

        while len(todo):
            unsure = []
            rows_at_a_time = max(1, MAX_PAIRS // k)
            for start in range(0, len(todo), rows_at_a_time):
                rows = todo[start : start + rows_at_a_time]
                facet[rows], weights[rows], is_sure = self._nearest_of(points[rows], k)
                unsure.append(rows[~is_sure])

            todo = np.concatenate(unsure)
            k = min(4 * k, len(self._centers))

        return facet, weights

    def _nearest_of(
        self, points: Array, k: int
    ) -> tuple[Indices, Array, NDArray[np.bool_]]:
        """Return the nearest facet of those at the k nearest centres, and whether of all."""
        to_center, center = self._tree.query(points, k=np.arange(1, k + 1))
        candidates = self._owners[center]
        corners = self.corners[candidates]  # (n, k, d, d)
        weights = closest_weights(points[:, None, :], corners)
        distances = _distance(points[:, None, :], corners, weights)

        best = distances.argmin(axis=1)
        rows = np.arange(len(points))
        # No point of a facet is nearer than one of its centres less their reach.
        is_sure = to_center[:, -1] - self._reach >= distances[rows, best]
        # Far off, where many facets are as near, any of them will do.
        is_sure |= to_center[:, 0] > FAR * self._reach
        if k == len(self._centers):
            is_sure[:] = True
        return candidates[rows, best], weights[rows, best], is_sure

    @cached_property
    def _rays(self) -> Rays:
        return Rays(self.vertices, self.faces)

    @property
    def _centers(self) -> Array:
        return self._spread[0]

    @property
    def _owners(self) -> Indices:
        return self._spread[1]

    @property
    def _reach(self) -> float:
        return self._spread[2]

    @cached_property
    def _spread(self) -> tuple[Array, Indices, float]:
        """Points on the facets, whose they are, and within what distance all of each is of one.

        Large facets have many such points, so that this distance is short beside small ones.
        """
        middles = self.corners.mean(axis=1, keepdims=True)
        reach = np.linalg.norm(self.corners - middles, axis=2).max(axis=1)
        d = self.vertices.shape[1]

        wanted = float(np.median(reach))
        pieces = np.ceil(reach / wanted)
        excess = (pieces ** (d - 1)).sum() / (8 * len(reach) + 1000)
        if excess > 1:
            wanted *= excess ** (1 / (d - 1))
            pieces = np.ceil(reach / wanted)

        centers = []
        owners = []
        for count in np.unique(pieces):
            owner = np.flatnonzero(pieces == count)
            weights = split_centers(int(count), d)  # (parts, d)
            placed = np.einsum("pk,fkd->fpd", weights, self.corners[owner])
            centers.append(placed.reshape(-1, d))
            owners.append(np.repeat(owner, len(weights)))

        longest = float((reach / pieces).max())
        return np.concatenate(centers), np.concatenate(owners), longest

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree  # slow to import

        return cKDTree(self._centers)


def split_centers(n: int, corners: int) -> Array:
    """Return the barycentric coordinates of the middles of a facet's parts, its sides cut in n.

    Examples
    --------
    >>> split_centers(2, 2)
    array([[0.25, 0.75],
           [0.75, 0.25]])
    >>> split_centers(2, 3).shape
    (4, 3)
    """
    if corners == 2:
        t = (np.arange(n) + 0.5) / n
        return np.stack([t, 1 - t], axis=1)

    rows = []
    for i in range(n):
        for j in range(n - i):
            # Triangles that stand like the whole, and those on their heads between them.
            rows.append((i + 1 / 3, j + 1 / 3))
            if i + j < n - 1:
                rows.append((i + 2 / 3, j + 2 / 3))
    first = np.array(rows) / n
    return np.column_stack([first, 1 - first.sum(axis=1)])
