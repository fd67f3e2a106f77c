"""Parts of a boundary: points on them, outward normals, cuts and unions."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.charts import Chart, Mask, shares
from whence.pinn.geometry.samplings import Array

ON = 1e-9
"""Points this close to a surface, in the units of the coordinates, count as on it."""

PointsT = TypeVar("PointsT", Tensor, NDArray[np.generic])
"""Points in the kind that they were passed in, and so the results at them."""


@dataclass(frozen=True)
class Piece:
    """A smooth piece of a boundary.

    ``off`` maps points (n, d) to how far each is from the piece (n,), zero on it, and
    ``normals`` to outward unit normals (n, d).
    """

    chart: Chart
    measure: float
    off: Callable[[Array], Array]
    normals: Callable[[Array], Array]

    def cut(self, keep: Callable[[Array], Mask], share: float) -> Piece:
        """Return what ``keep`` holds on, a ``share`` of the piece."""

        def off(points: Array) -> Array:
            # What was cut away is nowhere near, however close the points are to the surface.
            return np.where(keep(points), self.off(points), np.inf)

        chart = self.chart.restricted(keep)  # by rejection
        return Piece(chart, self.measure * share, off, self.normals)

    def flipped(self) -> Piece:
        """Return the piece with its normals turned round."""
        # From zero rather than by a minus sign, which would make negative zeros.
        return replace(self, normals=lambda points: 0.0 - self.normals(points))


@dataclass(frozen=True, eq=False)
class Part:
    """A named part of a domain's boundary, as ``domain.part(...)`` returns it.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Interval
    >>> ends = Interval("x", -1, 1).part("x")
    >>> ends
    Part(name='x', coordinates=('x',))
    >>> points = ends.sample(4)
    >>> torch.cat([points, ends.normals(points)], dim=1)
    tensor([[-1., -1.],
            [-1., -1.],
            [ 1.,  1.],
            [ 1.,  1.]], dtype=torch.float64)
    """

    name: str
    coordinates: tuple[str, ...]
    pieces: tuple[Piece, ...] = field(repr=False)

    @property
    def measure(self) -> float:
        """Length, area, … of the part; the number of points where the domain is a curve.

        Where a hole or a selection cuts the part, this is estimated from 4096 points.
        """
        return math.fsum(
            piece.measure for piece in self.pieces
        )  # exact, so that halves of one add up to it

    @property
    def size(self) -> int | None:
        """Number of points if these are few, such as the ends of a line; otherwise ``None``."""
        if any(piece.chart.unit for piece in self.pieces):
            return None
        return len(self.pieces)

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the part, float64 of shape (n, d).

        Several pieces share the points in proportion to their measure, at least one each if
        there are enough. Methods and seeds are those of ``unit_points``; ``"grid"`` may
        return fewer than n.
        """
        _checks.count("n", n)
        # In proportion to length or area, so that the union is covered evenly.
        measures = [piece.measure for piece in self.pieces]
        pairs = zip(self.pieces, shares(n, measures), strict=True)

        drawn = []

        for k, (piece, share) in enumerate(pairs):
            piece_seed = seed
            if seed is not None and k > 0:
                # The first piece keeps the seed; the others must not repeat its pattern.
                sequence = np.random.SeedSequence((seed, k))
                piece_seed = int(sequence.generate_state(1)[0])
            if share:
                drawn.append(piece.chart.sample(share, method, piece_seed))

        return torch.from_numpy(np.concatenate(drawn))

    def contains(self, points: PointsT, tolerance: float = ON) -> PointsT:
        """Return which points, shape (n, d), are within ``tolerance`` of the part, shape (n,).

        Holes and selections that cut the part are applied as they are, without tolerance.
        """
        off = self._off(rows_of(points, self.coordinates))  # (n, pieces)
        return like(points, off.min(axis=1) <= tolerance)

    def normals(self, points: PointsT, tolerance: float = 1e-6) -> PointsT:
        """Return the outward unit normals, shape (n, d), at points of the part, shape (n, d).

        They are zero along the coordinates of other factors of a product. On an edge shared by
        several pieces, the normal is that of the nearest piece, the first one in a tie.
        """
        rows = rows_of(points, self.coordinates)
        off = self._off(rows)  # (n, pieces)

        # Not "> tolerance", which would let a NaN pass.
        far = np.flatnonzero(~(off.min(axis=1) <= tolerance))
        if len(far):
            raise ValueError(
                f"normals are known on {self.name!r} only: {len(far)} of {len(rows)} points are "
                f"farther than {tolerance:g} from it, the first is row {far[0]}, "
                f"{named(self.coordinates, rows[far[0]])}"
            )

        # Each row from the piece it is nearest to; on an edge from the first of them.
        normals = np.empty_like(rows)
        nearest = off.argmin(axis=1)
        for k, piece in enumerate(self.pieces):
            is_nearest = nearest == k
            normals[is_nearest] = piece.normals(rows[is_nearest])
        return like(points, normals)

    def _off(self, rows: Array) -> Array:
        """Return how far each point is from each piece, (n, pieces)."""
        return np.stack([piece.off(rows) for piece in self.pieces], axis=1)


def restricted(part: Part, keep: Callable[[Array], Mask]) -> Part | None:
    """Return what ``keep`` holds on of a part, or ``None`` if that is nothing."""
    pieces = []
    for piece in part.pieces:
        share = piece.chart.fraction(keep)
        if share == 1:
            pieces.append(piece)
        elif share > 0:
            pieces.append(piece.cut(keep, share))

    if not pieces:
        return None

    return replace(part, pieces=tuple(pieces))


def flipped(part: Part, name: str) -> Part:
    """Return a part with its normals turned round, under a name."""
    pieces = tuple(piece.flipped() for piece in part.pieces)
    return Part(name, part.coordinates, pieces)


def union(names: Iterable[str], parts: Iterable[Part]) -> Part:
    """Return the union of parts of one boundary, its name made of the names."""
    # Pieces only: what each part was called is in the new name.
    members = list(parts)
    pieces = tuple(piece for part in members for piece in part.pieces)
    return Part(" + ".join(names), members[0].coordinates, pieces)


def predicate(
    on: Callable[..., Tensor], coordinates: tuple[str, ...]
) -> Callable[[Array], Mask]:
    """Return a function of coordinates, by argument name, as one of points (n, d)."""
    names = []
    what = "coordinate in the arguments of the function"

    for name, parameter in inspect.signature(on).parameters.items():
        # An argument with a default is the function's own business, unless it is a coordinate.
        if name in coordinates or parameter.default is inspect.Parameter.empty:
            _checks.one_of(what, name, coordinates)
            names.append(name)

    def keep(points: Array) -> Mask:
        columns = {}
        for name in names:
            # A copy, which the user's function may change.
            columns[name] = torch.tensor(points[:, coordinates.index(name)])

        chosen = torch.as_tensor(on(**columns))
        if chosen.dtype != torch.bool or chosen.shape != (len(points),):
            raise ValueError(
                f"a function that selects boundary points must return a boolean tensor of shape "
                f"({len(points)},), got {chosen.dtype} of shape {tuple(chosen.shape)}"
            )

        return np.asarray(chosen.numpy())

    return keep


def ends_of(coordinate: str) -> tuple[str, str]:
    """Return the names of an interval's two ends."""
    return f"{coordinate}_min", f"{coordinate}_max"


def named(names: tuple[str, ...], values: Array) -> str:
    """Return coordinates and their values in words."""
    pairs = zip(names, values, strict=True)
    return ", ".join(f"{name}={value.tolist()}" for name, value in pairs)


def rows_of(
    points: Tensor | NDArray[np.generic], coordinates: tuple[str, ...]
) -> Array:
    """Return checked points, shape (n, d), as a float64 array."""
    if not isinstance(points, Tensor):
        points = torch.tensor(np.asarray(points, dtype=float))
    what = f"points of coordinates {coordinates}"
    checked = _checks.points(what, points, len(coordinates))
    return np.asarray(checked.detach().cpu().double().numpy())


def like(points: PointsT, result: Array | Mask) -> PointsT:
    """Return a result as what the points are: an array, or a tensor of their dtype and device."""
    if not isinstance(points, Tensor):
        return result

    tensor = torch.from_numpy(result).to(points.device)
    # Booleans stay, numbers come back in the dtype of the points.
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.to(points.dtype)


def check_names(parts: Iterable[Part], coordinates: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if two parts, or a part and a coordinate, share a name."""
    # The name of a coordinate means both its ends, so that it is taken too.
    names = Counter([part.name for part in parts] + list(coordinates))
    for name, count in names.items():
        if count > 1:
            raise ValueError(
                f"two parts of the boundary, or a part and a coordinate, are called {name!r}: "
                f"give the disk another name=, such as {name + '_2'!r}"
            )
