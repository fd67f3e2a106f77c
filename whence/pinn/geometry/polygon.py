"""Polygons: any closed chain of edges that does not cross itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import ON, Part, Piece, check_names, named
from whence.pinn.geometry.charts import Chart
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.shapes import coordinate_names
from whence.pinn.geometry.similarity import Similarity, vector
from whence.pinn.geometry.simplices import (
    Facets,
    closest_on_segments,
    simplex_chart,
)


@dataclass(frozen=True)
class Polygon(Domain):
    """The polygon with the given vertices in turn, convex or not.

    Its parts are the edges, ``edge_0`` from the first vertex to the second, and so on;
    ``polygon`` means all of them. With a ``name`` of its own they are called after that:
    ``wing_edge_0``, … and ``wing``. Whether the vertices run clockwise does not matter.

    Raises
    ------
    ValueError
        For fewer than three vertices, repeated ones, edges that cross or touch, no area.

    Examples
    --------
    >>> corner = Polygon(("x", "y"), [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
    >>> corner.measure, corner.part("polygon").measure
    (3.0, 8.0)
    >>> corner.part("edge_3").normals(corner.part("edge_3").sample(1))
    tensor([[1., 0.]], dtype=torch.float64)
    """

    names: tuple[str, str]
    vertices: Sequence[Sequence[float]] = field(repr=False)
    name: str | None = None

    def __post_init__(self) -> None:
        names = coordinate_names(self.names, 2)
        object.__setattr__(self, "names", names)
        if self.name is not None:
            _checks.identifiers("polygon", (self.name,))

        rows = []
        # Arrays and tensors as lists of numbers.
        vertices = getattr(self.vertices, "tolist", lambda: self.vertices)()
        if isinstance(vertices, Sequence):
            for k, vertex in enumerate(vertices):
                numbers = vector(f"vertex {k}", vertex, names).tolist()
                rows.append(tuple(numbers))
        if len(rows) > 1 and rows[0] == rows[-1]:
            rows.pop()  # closed by hand
        if len(rows) < 3:
            raise ValueError(
                f"a polygon needs three or more vertices, such as [(0, 0), (1, 0), (0, 1)], "
                f"got {len(rows)}"
            )

        object.__setattr__(self, "vertices", tuple(rows))
        check_simple(np.array(rows), names)
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The two names."""
        return self.names

    @cached_property
    def bounds(self) -> Array:
        """The enclosing rectangle, shape (2, 2)."""
        corners = np.array(self.vertices)
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    @property
    def measure(self) -> float:
        """The area."""
        return self._facets.enclosed

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The edges."""
        prefix = "" if self.name is None else f"{self.name}_"
        group = "polygon" if self.name is None else self.name
        parts = []
        for k in range(len(self.vertices)):
            label = f"{prefix}edge_{k}"
            pieces = (self._edge(k),)
            parts.append(Part(label, self.names, pieces, group, self.rounding))
        return tuple(parts)

    @cached_property
    def chart(self) -> Chart:
        """The triangles that the polygon is cut into."""
        corners = self._facets.vertices
        # Around counter-clockwise, as the facets are.
        if self._is_clockwise:
            return simplex_chart(triangulate(corners[::-1]))
        return simplex_chart(triangulate(corners))

    def level(self, points: Array) -> Array:
        """Return the distance (n,) to the nearest edge, negative inside."""
        return self._facets.signed_distance(points)

    def moved(self, move: Similarity) -> Domain:
        """Return the polygon with moved vertices."""
        corners = move.forward(np.array(self.vertices))
        return Polygon(self.names, corners.tolist(), self.name)

    @cached_property
    def _is_clockwise(self) -> bool:
        return signed_area(np.array(self.vertices)) < 0

    @cached_property
    def _facets(self) -> Facets:
        """The edges, each from its first corner to its second, around counter-clockwise."""
        m = len(self.vertices)
        start = np.arange(m)
        edges = np.stack([start, (start + 1) % m], axis=1)
        if self._is_clockwise:
            edges = edges[:, ::-1]
        return Facets(np.array(self.vertices), edges)

    def _edge(self, k: int) -> Piece:
        """Return edge k."""
        ends = self._facets.corners[k]
        start, end = ends
        normal = self._facets.normals[k]
        chart = simplex_chart(ends[None])

        def off(points: Array) -> Array:
            t = closest_on_segments(points, start, end)[:, None]
            closest = (1 - t) * start + t * end
            away = points - closest
            return np.asarray(np.linalg.norm(away, axis=1))

        def normals(points: Array) -> Array:
            return np.broadcast_to(normal, points.shape).copy()

        return Piece(chart, chart.size, off, normals)


def Triangle(
    names: Sequence[str],
    a: Sequence[float],
    b: Sequence[float],
    c: Sequence[float],
    name: str | None = None,
) -> Polygon:
    """Return the triangle with three corners, a polygon of the edges ab, bc and ca.

    Examples
    --------
    >>> Triangle(("x", "y"), (0, 0), (1, 0), (0, 1)).measure
    0.5
    """
    return Polygon(coordinate_names(names, 2), [a, b, c], name)  # type: ignore[arg-type]


def signed_area(corners: Array) -> float:
    """Return the area of a polygon (m, 2), negative if its corners run clockwise.

    Examples
    --------
    >>> signed_area(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    -0.5
    """
    # The shoelace formula, about a corner so that large coordinates do not cancel.
    start = corners - corners[0]
    end = np.roll(start, -1, axis=0)
    return float(cross(start, end).sum() / 2)


def cross(first: Array, second: Array) -> Array:
    """Return the third component (…) of the cross product of plane vectors (…, 2)."""
    x, y = first[..., 0], first[..., 1]
    return np.asarray(x * second[..., 1] - y * second[..., 0])


def check_simple(corners: Array, names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless the corners (m, 2) bound an area without crossing."""
    m = len(corners)
    extent = float(np.ptp(corners, axis=0).max())
    least = ON * extent

    ends = np.roll(corners, -1, axis=0)
    for i in range(m):
        # Against all later edges, by the distances of each one's ends from the other.
        others = np.arange(i + 1, m)
        gaps = edge_gaps(corners[i], ends[i], corners[others], ends[others])
        is_neighbor = (others == i + 1) | ((i == 0) & (others == m - 1))
        touching = others[(gaps <= least) & ~is_neighbor]
        if len(touching):
            k = int(touching[0])
            raise ValueError(
                f"the polygon crosses or touches itself: edge {i} from "
                f"({named(names, corners[i])}) and edge {k} from ({named(names, corners[k])}) "
                "meet; list the vertices in turn around it"
            )

    area = abs(signed_area(corners))
    if not area > least * extent:
        raise ValueError(
            f"the polygon of {m} vertices has no area ({area:g}): its vertices lie on a line, or "
            "run to and fro"
        )

    # Neighbours share a corner, and must not run back over each other there.
    before = corners - np.roll(corners, 1, axis=0)
    after = ends - corners
    turned_back = (np.abs(cross(before, after)) <= least * extent) & (
        (before * after).sum(axis=1) <= 0
    )
    if turned_back.any():
        k = int(turned_back.argmax())
        raise ValueError(
            f"vertex {k} of the polygon, {named(names, corners[k])}, is repeated, or the edges "
            "run back over each other there: leave it out"
        )


def edge_gaps(start: Array, end: Array, starts: Array, ends: Array) -> Array:
    """Return the distances (m,) between a segment and others (m, 2)."""
    # Segments that cross have each other's ends on both sides.
    side_a = cross(end - start, starts - start)
    side_b = cross(end - start, ends - start)
    side_c = cross(ends - starts, start - starts)
    side_d = cross(ends - starts, end - starts)
    is_crossing = (side_a * side_b < 0) & (side_c * side_d < 0)

    # Others are nearest at an end of one of them.
    gaps = []
    for point, a, b in (
        (start, starts, ends),
        (end, starts, ends),
        (starts, start, end),
        (ends, start, end),
    ):
        t = closest_on_segments(point, a, b)[..., None]
        gaps.append(np.linalg.norm(point - ((1 - t) * a + t * b), axis=-1))
    return np.where(is_crossing, 0.0, np.min(gaps, axis=0))


def triangulate(corners: Array) -> Array:
    """Return the triangles (m − 2, 3, 2) that a polygon (m, 2) is cut into.

    Its corners run counter-clockwise. One corner, or ear, is cut off after another (Meisters,
    1975).

    Examples
    --------
    >>> triangulate(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])).shape
    (2, 3, 2)
    """
    left = list(range(len(corners)))
    triangles = []
    while len(left) > 3:
        ring = corners[left]
        before = np.roll(ring, 1, axis=0)
        after = np.roll(ring, -1, axis=0)
        # Corners that point outwards, the widest first: slivers are left for last.
        heights = cross(ring - before, after - ring)
        order = np.argsort(-heights)
        k = next((k for k in order if is_ear(ring, int(k))), int(order[0]))
        triangles.append([before[k], ring[k], after[k]])
        left.pop(int(k))

    triangles.append(list(corners[left]))
    return np.array(triangles)


def is_ear(ring: Array, k: int) -> bool:
    """Whether corner k of a ring (m, 2) can be cut off: no other corner is in its triangle."""
    # With the corner in the middle of three, at the start.
    turned = np.roll(ring, 1 - k, axis=0)
    a, b, c = turned[:3]
    others = turned[3:]
    inside = np.ones(len(others), dtype=bool)
    for start, end in ((a, b), (b, c), (c, a)):
        inside &= cross(end - start, others - start) >= 0
    return bool(cross(b - a, c - b) >= 0 and not inside.any())
