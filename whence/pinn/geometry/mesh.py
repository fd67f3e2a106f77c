"""Bodies bounded by closed meshes of triangles, from files or arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, Piece, check_names, named
from whence.pinn.geometry.charts import Chart, box
from whence.pinn.geometry.rays import Indices
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.shapes import coordinate_names
from whence.pinn.geometry.similarity import Similarity
from whence.pinn.geometry.simplices import Facets, morton_order, simplex_chart


class Triangulated(Protocol):
    """What has vertices and faces, such as a mesh of trimesh."""

    vertices: Array
    faces: Indices


@dataclass(frozen=True, eq=False)
class Mesh(Domain):
    """The body inside a closed mesh of triangles; its surface is the part called ``name``.

    Parameters
    ----------
    source
        A file in a format that trimesh reads, such as STL, PLY or OBJ (``pip install
        trimesh``); a pair of vertices (V, 3) and faces (F, 3); or an object that has both.
    names
        The three coordinates.
    name
        What the surface is called.

    Raises
    ------
    ValueError
        If the mesh is not closed, its faces do not all turn the same way, or it has no volume.
    ImportError
        For a file, if trimesh is not installed.

    Notes
    -----
    Points on the surface are even by area, normals are those of the faces, the volume is exact
    for the mesh. Inside and outside are told by the nearest point of the surface.

    Examples
    --------
    >>> corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    >>> body = Mesh((corners, [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]))
    >>> round(body.measure, 6), round(body.part("mesh").measure, 6)
    (0.166667, 2.366025)
    """

    source: str | os.PathLike[str] | Triangulated | tuple[object, object] = field(
        repr=False
    )
    names: tuple[str, str, str] = ("x", "y", "z")
    name: str = "mesh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", coordinate_names(self.names, 3))
        _checks.identifiers("mesh", (self.name,))
        check_closed(self._facets, self.names)
        check_names(self.boundary, self.coordinates)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The three names."""
        return self.names

    @cached_property
    def bounds(self) -> Array:
        """The enclosing box, shape (2, 3)."""
        corners = self._facets.corners.reshape(-1, 3)
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    @property
    def measure(self) -> float:
        """The volume inside."""
        return self._facets.enclosed

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """The surface."""
        facets = self._facets
        # Neighbours after each other, so that few points are spread as evenly as many.
        order = morton_order(facets.corners.mean(axis=1))
        chart = simplex_chart(facets.corners[order])

        def normals(points: Array) -> Array:
            nearest, _ = facets.nearest(points)
            return facets.normals[nearest]

        piece = Piece(chart, chart.size, facets.distance, normals)
        return (Part(self.name, self.names, (piece,), rounding=self.rounding),)

    @property
    def chart(self) -> Chart:
        """The enclosing box, its points outside rejected."""
        low, high = self.bounds
        return box(low, high).restricted(self._facets.inside)

    def level(self, points: Array) -> Array:
        """Return the distance (n,) to the surface, negative inside."""
        return self._facets.signed_distance(points)

    def moved(self, move: Similarity) -> Domain:
        """Return the mesh with moved vertices."""
        vertices = move.forward(self._facets.vertices)
        return Mesh((vertices, self._facets.faces), self.names, self.name)

    @cached_property
    def _facets(self) -> Facets:
        """The mesh, its faces turned so that they are counter-clockwise from outside."""
        vertices, faces = read(self.source)
        facets = merged(vertices, faces)
        if facets.enclosed < 0:
            return Facets(facets.vertices, facets.faces[:, ::-1])
        return facets


def read(source: object) -> tuple[Array, Indices]:
    """Return vertices (V, 3) and faces (F, 3) of a file, an object or a pair of arrays."""
    if isinstance(source, str | os.PathLike):
        source = load(Path(source))
    if hasattr(source, "vertices") and hasattr(source, "faces"):
        source = (source.vertices, source.faces)

    if not isinstance(source, tuple | list) or len(source) != 2:
        raise TypeError(
            "a mesh is made of a file's path, or of a pair of vertices (V, 3) and faces (F, 3), "
            f"got {_checks.describe(source)}"
        )

    vertices = np.asarray(source[0], dtype=float)
    faces = np.asarray(source[1])
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(
            f"the vertices of a mesh must be finite numbers of shape (V, 3), got shape "
            f"{vertices.shape}"
        )
    is_table = faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0
    if not is_table or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(
            f"the faces of a mesh must be rows of three whole numbers, shape (F, 3), got "
            f"{faces.dtype} of shape {faces.shape}"
        )
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(
            f"the faces of a mesh must name vertices 0 to {len(vertices) - 1}, got "
            f"{faces.min()} to {faces.max()}"
        )

    return vertices, faces.astype(np.intp)


def load(path: Path) -> Triangulated:
    """Return the mesh in a file."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no mesh file {path}")
    try:
        import trimesh
    except ImportError:
        raise ImportError(
            f"to read the mesh {path} needs trimesh: pip install trimesh, or give arrays, "
            "pinn.Mesh((vertices, faces))"
        ) from None

    try:
        mesh: Any = trimesh.load(path, force="mesh")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a mesh: {error}") from error
    if not len(getattr(mesh, "faces", ())):
        raise ValueError(f"{path} holds no triangles")
    result: Triangulated = mesh
    return result


def merged(vertices: Array, faces: Indices) -> Facets:
    """Return a mesh in which equal vertices are one, as in files that repeat them per face."""
    # Up to single precision, which the files are written in.
    scale = float(np.ptp(vertices, axis=0).max())
    keys = np.round((vertices - vertices.min(axis=0)) / (1e-7 * max(scale, 1e-300)))
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    joined = which.reshape(-1)[faces]

    # A face that has become a line bounds nothing.
    is_triangle = (
        (joined[:, 0] != joined[:, 1])
        & (joined[:, 1] != joined[:, 2])
        & (joined[:, 2] != joined[:, 0])
    )
    return Facets(vertices[first], joined[is_triangle])


def check_closed(facets: Facets, names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a mesh is closed, of faces that all turn the same way."""
    sides = np.concatenate([facets.faces[:, [k, (k + 1) % 3]] for k in range(3)])
    _, undirected, counts = np.unique(
        np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True
    )

    # Every side belongs to two faces …
    wrong = counts[undirected.reshape(-1)] != 2
    if wrong.any():
        start = facets.vertices[sides[wrong.argmax(), 0]]
        raise ValueError(
            f"the mesh is not closed (watertight): {int((counts != 2).sum())} of {len(counts)} "
            f"edges do not belong to two faces, one of them at {named(names, start)}; fill the "
            "holes first, such as by trimesh.repair.fill_holes"
        )

    # … which walk along it in opposite directions.
    if len(np.unique(sides, axis=0)) < len(sides):
        raise ValueError(
            "the faces of the mesh do not all turn the same way, seen from outside: turn them "
            "first, such as by trimesh.repair.fix_normals"
        )

    extent = np.ptp(facets.vertices, axis=0).max()
    if not abs(facets.enclosed) > 1e-12 * extent**3:
        raise ValueError(f"the mesh encloses no volume ({facets.enclosed:g})")
