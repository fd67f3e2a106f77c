"""Fields that are known at the nodes of quadratic triangles, such as finite elements give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from whence.pinn.zoo._reference_points import Array

CANDIDATES = 12
"""Triangles of nearest middles among which a point's own is looked for."""

CURVED_STEPS = 6
"""Steps to a point's place in a triangle with curved sides, each of which gains two digits."""


@dataclass(frozen=True, eq=False)
class TriangleFields:
    """Fields at the nodes of triangles: corners, and the middles of sides.

    A side may be curved, through its two corners and its middle (isoparametric elements). A point
    in no triangle is in that which it is the least outside of, whose polynomial goes on there.

    Parameters
    ----------
    places:
        Nodes, (n, 2).
    triangles:
        Numbers of the nodes of each triangle, (m, 6): corners a, b, c, middles of ab, bc, ac.
    values:
        Fields at the nodes, (n, k).

    Examples
    --------
    >>> import numpy as np
    >>> places = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0], [0.5, 0.5], [0, 0.5]])
    >>> square = places[:, :1] ** 2
    >>> fields = TriangleFields(places, np.arange(6)[None], square)
    >>> fields.at(np.array([[0.3, 0.2]])).round(12).tolist()
    [[0.09]]
    """

    places: Array
    triangles: np.ndarray
    values: Array

    def at(self, points: Array) -> Array:
        """Return the fields at points (N, 2): (N, k)."""
        corners = self.places[self.triangles[:, :3]]  # (m, 3, 2)
        middles = corners.mean(axis=1)
        n_candidates = min(CANDIDATES, len(middles))
        _, nearest = cKDTree(middles).query(points, k=n_candidates)
        # Of one triangle alone there is no second dimension.
        nearest = np.reshape(nearest, (len(points), n_candidates))

        # The triangle of which the least barycentric coordinate is the greatest has the point.
        barycentric = _barycentric(corners[nearest], points)  # (N, candidates, 3)
        least = barycentric.min(axis=2)
        best = least.argmax(axis=1)
        rows = np.arange(len(points))
        own = nearest[rows, best]
        nodes = self.triangles[own]  # (N, 6)
        weights = self._weights(points, nodes, barycentric[rows, best])  # (N, 6)

        at_nodes = self.values[nodes]  # (N, 6, k)
        return np.asarray(np.einsum("nj,njk->nk", weights, at_nodes))

    def _weights(self, points: Array, nodes: np.ndarray, barycentric: Array) -> Array:
        """Return the shape functions of each point in its triangle, whose sides may be curved."""
        places = self.places[nodes]  # (N, 6, 2)
        corners = places[:, None, :3]
        for _ in range(CURVED_STEPS):
            # Newton's method with the slopes of the straight triangle: where it leads is where
            # Σ w_j(λ) place_j is the point, and at once where no side is curved.
            weights = _quadratic(barycentric)
            reached = np.einsum("nj,njk->nk", weights, places)
            wanted = _barycentric(corners, points)[:, 0]
            now = _barycentric(corners, reached)[:, 0]
            barycentric = barycentric + wanted - now
        return _quadratic(barycentric)


def _barycentric(corners: Array, points: Array) -> Array:
    """Return λ with ``Σ λ = 1`` and ``Σ λ_j corner_j = point``: (N, m, 3), corners (N, m, 3, 2)."""
    a, b, c = np.moveaxis(corners, 2, 0)
    ab = b - a
    ac = c - a
    ap = points[:, None] - a

    # By Cramer's rule: ap = λ_b ab + λ_c ac.
    area = _cross(ab, ac)
    of_b = _cross(ap, ac) / area
    of_c = _cross(ab, ap) / area
    of_a = 1 - of_b - of_c
    return np.stack([of_a, of_b, of_c], axis=-1)


def _cross(first: Array, second: Array) -> Array:
    """Return the area that two vectors (…, 2) span, with its sign: (…)."""
    x, y = np.moveaxis(first, -1, 0)
    other_x, other_y = np.moveaxis(second, -1, 0)
    return np.asarray(x * other_y - y * other_x)


def _quadratic(barycentric: Array) -> Array:
    """Return the six quadratic shape functions by barycentric coordinates (N, 3): (N, 6)."""
    # λ(2λ − 1) is one at its corner, 4 λ_a λ_b at the middle of ab, and each zero at the others.
    of_corners = barycentric * (2 * barycentric - 1)
    a, b, c = barycentric.T
    products = np.stack([a * b, b * c, a * c], axis=1)
    of_middles = 4 * products
    return np.concatenate([of_corners, of_middles], axis=1)
