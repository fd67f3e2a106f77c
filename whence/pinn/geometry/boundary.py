"""Parts of a boundary: points on them, outward normals, cuts and unions."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.charts import Chart, Mask, shares
from whence.pinn.geometry.samplings import Array

# Points this close to a surface, in the units of the coordinates, count as on it.
ON = 1e-9

Given = TypeVar("Given", Tensor, NDArray[Any])


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
        return math.fsum(piece.measure for piece in self.pieces)

    @property
    def size(self) -> int | None:
        """Number of points if these are few, such as the ends of a line; otherwise ``None``."""
        return (
            len(self.pieces)
            if all(piece.chart.unit == 0 for piece in self.pieces)
            else None
        )

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the part, float64 of shape (n, d).

        Several pieces share the points in proportion to their measure, at least one each if
        there are enough. Methods and seeds are those of ``unit_points``; ``"grid"`` may
        return fewer than n.
        """
        _checks.count("n", n)
        each = zip(
            self.pieces,
            shares(n, [piece.measure for piece in self.pieces]),
            strict=True,
        )
        return torch.from_numpy(
            np.concatenate(
                [
                    piece.chart.sample(share, method, _seed(seed, k))
                    for k, (piece, share) in enumerate(each)
                    if share
                ]
            )
        )

    def contains(self, points: Given, tolerance: float = ON) -> Given:
        """Return which points, shape (n, d), are within ``tolerance`` of the part, shape (n,).

        Holes and selections that cut the part are applied as they are, without tolerance.
        """
        off = self._off(rows_of(points, self.coordinates))
        return like(points, off.min(axis=1) <= tolerance)

    def normals(self, points: Given, tolerance: float = 1e-6) -> Given:
        """Return the outward unit normals, shape (n, d), at points of the part, shape (n, d).

        They are zero along the coordinates of other factors of a product. On an edge shared by
        several pieces, the normal is that of the nearest piece, the first one in a tie.
        """
        rows = rows_of(points, self.coordinates)
        off = self._off(rows)
        far = np.flatnonzero(~(off.min(axis=1) <= tolerance))
        if len(far):
            raise ValueError(
                f"normals are known on {self.name!r} only: {len(far)} of {len(rows)} points are "
                f"farther than {tolerance:g} from it, the first is row {far[0]}, "
                f"{named(self.coordinates, rows[far[0]])}"
            )
        normals = np.empty_like(rows)
        nearest = off.argmin(axis=1)
        for k, piece in enumerate(self.pieces):
            normals[nearest == k] = piece.normals(rows[nearest == k])
        return like(points, normals)

    def _off(self, rows: Array) -> Array:
        return np.stack([piece.off(rows) for piece in self.pieces], axis=1)


def restricted(part: Part, keep: Callable[[Array], Mask]) -> Part | None:
    """Return what ``keep`` holds on of a part, or ``None`` if that is nothing."""
    found = [(piece, piece.chart.fraction(keep)) for piece in part.pieces]
    left = tuple(
        piece if share == 1 else _cut(piece, keep, share)
        for piece, share in found
        if share
    )
    return replace(part, pieces=left) if left else None


def _cut(piece: Piece, keep: Callable[[Array], Mask], share: float) -> Piece:
    def off(points: Array) -> Array:
        return np.where(keep(points), piece.off(points), np.inf)

    return replace(
        piece,
        chart=piece.chart.restricted(keep),
        measure=piece.measure * share,
        off=off,
    )


def flipped(part: Part, name: str) -> Part:
    """Return a part with its normals turned round, under a name."""
    return Part(name, part.coordinates, tuple(_flip(piece) for piece in part.pieces))


def _flip(piece: Piece) -> Piece:
    # From zero rather than by a minus sign, which would make negative zeros.
    return replace(piece, normals=lambda points: 0.0 - piece.normals(points))


def union(names: Iterable[str], parts: Iterable[Part]) -> Part:
    """Return the union of parts of one boundary, its name made of the names."""
    found = list(parts)
    pieces = tuple(piece for part in found for piece in part.pieces)
    return Part(" + ".join(names), found[0].coordinates, pieces)


def predicate(
    on: Callable[..., Any], coordinates: tuple[str, ...]
) -> Callable[[Array], Mask]:
    """Return a function of coordinates, by argument name, as one of points (n, d)."""
    names = []
    for name, parameter in inspect.signature(on).parameters.items():
        if name in coordinates or parameter.default is inspect.Parameter.empty:
            _checks.one_of(
                "coordinate in the arguments of the function", name, coordinates
            )
            names.append(name)

    def keep(points: Array) -> Mask:
        columns = {c: torch.tensor(points[:, k]) for k, c in enumerate(coordinates)}
        chosen = torch.as_tensor(on(**{name: columns[name] for name in names}))
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


def _seed(seed: int | None, k: int) -> int | None:
    # The first piece keeps the seed; the others must not repeat its pattern.
    if seed is None or k == 0:
        return seed
    return int(np.random.SeedSequence((seed, k)).generate_state(1)[0])


def named(names: tuple[str, ...], values: Array) -> str:
    """Return coordinates and their values in words."""
    return ", ".join(f"{c}={v.tolist()}" for c, v in zip(names, values, strict=True))


def rows_of(points: Tensor | NDArray[Any], coordinates: tuple[str, ...]) -> Array:
    """Return checked points, shape (n, d), as a float64 array."""
    given = (
        points
        if isinstance(points, Tensor)
        else torch.tensor(np.asarray(points, dtype=float))
    )
    what = f"points of coordinates {coordinates}"
    checked = _checks.points(what, given, len(coordinates))
    return np.asarray(checked.detach().cpu().double().numpy())


def like(points: Given, result: Array | Mask) -> Given:
    """Return a result as what the points are: an array, or a tensor of their dtype and device."""
    if not isinstance(points, Tensor):
        return result
    tensor = torch.from_numpy(result).to(points.device)
    return tensor if tensor.dtype == torch.bool else tensor.to(points.dtype)


def check_names(parts: Iterable[Part], coordinates: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if two parts, or a part and a coordinate, share a name."""
    names = Counter([part.name for part in parts] + list(coordinates))
    twice = [name for name, k in names.items() if k > 1]
    if twice:
        raise ValueError(
            f"two parts of the boundary, or a part and a coordinate, are called {twice[0]!r}: "
            f"give the disk another name=, such as {twice[0] + '_2'!r}"
        )
