"""Bodies given by points in them and on their boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, Piece, check_names
from whence.pinn.geometry.charts import Chart, Mask, box, table
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.shapes import coordinate_names
from whence.pinn.geometry.simplices import morton_order, unit_rows

Table = Tensor | NDArray[np.generic] | Sequence[Sequence[float]]
"""Points (n, d) as they may be given."""


class PointCloud(Domain):
    """A body that is known by points only, such as measured ones or nodes of a solver's mesh.

    Samples are some of these points, spread evenly over their order in space, each at most
    once. A place counts as inside within the spacing of the points, the largest distance from
    one of them to its nearest neighbour.

    Parameters
    ----------
    names
        The coordinates.
    points
        Points inside, (n, d), all different.
    boundary
        Points on the boundary (m, d), the part called ``name``; or such points by part name.
    normals
        Their outward normals (m, d), of any length; or those by part name. Without them there
        are no normal derivatives.
    measure
        The body's length, area or volume; by default that of all places that count as inside,
        estimated by points.
    name
        What the boundary is called.

    Examples
    --------
    >>> grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    >>> inlet = [[-0.5, 2.0], [-0.5, 3.0]]
    >>> cloud = PointCloud(("x", "y"), grid, {"inlet": inlet}, {"inlet": [[-1, 0], [-1, 0]]})
    >>> len(cloud.sample(16).unique(dim=0)), cloud.part("inlet").size
    (16, 2)
    """

    def __init__(
        self,
        names: Sequence[str],
        points: Table,
        boundary: Table | Mapping[str, Table] | None = None,
        normals: Table | Mapping[str, Table] | None = None,
        measure: float | None = None,
        name: str = "cloud",
    ) -> None:
        self.names = coordinate_names(names)
        self.name = name
        rows = self._rows("the points of the cloud", points)
        if len(rows) < 2:
            raise ValueError("a point cloud needs two or more points, got one")
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ValueError(
                "the points of the cloud must differ, got some of them twice"
            )
        if measure is not None:
            _checks.positive("measure", measure)

        self._points = rows[morton_order(rows)]
        self._measure = measure
        self._surfaces = self._read(boundary, normals)
        _checks.identifiers("part", self._surfaces)
        check_names(self.boundary, self.coordinates)

    def __repr__(self) -> str:
        return f"PointCloud({self.names}, {len(self._points)} points)"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The names."""
        return self.names

    @cached_property
    def bounds(self) -> Array:
        """The box around all points, those of the boundary too, shape (2, d)."""
        tables = [self._points] + [points for points, _ in self._surfaces.values()]
        rows = np.concatenate(tables)
        return np.stack([rows.min(axis=0), rows.max(axis=0)])

    @cached_property
    def measure(self) -> float:
        """The length, area or volume that was given, or that of what counts as inside."""
        if self._measure is not None:
            return float(self._measure)

        def inside(points: Array) -> Mask:
            return np.asarray(self.level(points) <= 0)

        low, high = self.bounds
        around = box(low, high)
        return around.size * around.fraction(inside)

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The parts given."""
        parts = []
        for label, (points, normals) in self._surfaces.items():
            pieces = (cloud_piece(label, points, normals),)
            parts.append(Part(label, self.names, pieces, rounding=self.rounding))
        return tuple(parts)

    @property
    def chart(self) -> Chart:
        """The points themselves."""
        return table(self._points, self.measure)

    def level(self, points: Array) -> Array:
        """Return the distance (n,) to the nearest point of all, less their spacing."""
        distances, _ = self._tree.query(points)
        return np.asarray(distances - self._spacing)

    @cached_property
    def _spacing(self) -> float:
        """The largest distance from a point inside to its nearest neighbour."""
        distances, _ = _tree_of(self._points).query(self._points, k=[2])
        return float(distances.max())

    @cached_property
    def _tree(self) -> Any:
        tables = [self._points] + [points for points, _ in self._surfaces.values()]
        return _tree_of(np.concatenate(tables))

    def _read(
        self,
        boundary: Table | Mapping[str, Table] | None,
        normals: Table | Mapping[str, Table] | None,
    ) -> dict[str, tuple[Array, Array | None]]:
        """Return the points and normals of each part, by name."""
        if boundary is None:
            boundary = {}
        if not isinstance(boundary, Mapping):
            boundary = {self.name: boundary}
        if normals is None:
            normals = {}
        if not isinstance(normals, Mapping):
            normals = {self.name: normals}

        for label in normals:
            _checks.one_of("part of the boundary in normals", label, list(boundary))

        surfaces = {}
        for label, points in boundary.items():
            rows = self._rows(f"the points of part {label!r}", points)
            directions = None
            if label in normals:
                directions = self._rows(f"the normals of {label!r}", normals[label])
                check_normals(label, rows, directions)
                directions = unit_rows(directions)[morton_order(rows)]
            surfaces[label] = (rows[morton_order(rows)], directions)
        return surfaces

    def _rows(self, what: str, given: Table) -> Array:
        """Return checked points as an array (n, d)."""
        rows = given
        if isinstance(given, Tensor):
            rows = given.detach().cpu().numpy()
        try:
            array = np.array(rows, dtype=float)
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.ndim != 2 or array.shape[1] != len(self.names) or not len(array):
            raise ValueError(
                f"{what} must have shape (n, {len(self.names)}), one column for each of "
                f"{', '.join(self.names)}, got {_checks.describe(given)}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{what} must be finite")
        return array


def check_normals(label: str, points: Array, normals: Array) -> None:
    """Raise ``ValueError`` unless there is one normal with a direction per point."""
    if normals.shape != points.shape:
        raise ValueError(
            f"part {label!r} has {len(points)} points and {len(normals)} normals: give one each"
        )
    if not np.linalg.norm(normals, axis=1).all():
        raise ValueError(f"the normals of part {label!r} must not be zero")


def cloud_piece(label: str, points: Array, normals: Array | None) -> Piece:
    """Return the piece of a boundary that is known by points, one each counted as its measure."""
    tree = _tree_of(points)

    def off(rows: Array) -> Array:
        distances, _ = tree.query(rows)
        return np.asarray(distances)

    def normals_at(rows: Array) -> Array:
        if normals is None:
            raise ValueError(
                f"part {label!r} was given without normals: pass normals= to pinn.PointCloud"
            )
        _, nearest = tree.query(rows)
        return normals[nearest]

    size = float(len(points))
    return Piece(table(points, size), size, off, normals_at)


def _tree_of(points: Array) -> Any:
    """Return a search tree of points (n, d)."""
    from scipy.spatial import cKDTree  # slow to import

    return cKDTree(points)
