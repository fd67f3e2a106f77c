"""Parts of a boundary: points on them, outward normals, cuts and unions."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.charts import Chart, Mask, check_room, shares
from whence.pinn.geometry.samplings import Array
from whence.pinn.geometry.similarity import Similarity

ON = 1e-9
"""Points this close to a surface count as on it, as a share of the extent of the domain."""
NEAR = 1e3
"""Times that distance at which a point is still near enough to ask for its normal."""


class Keep(Protocol):
    """Which points of a surface to keep, by where they are and by its normals there."""

    def __call__(self, points: Array, normals: Callable[[Array], Array]) -> Mask:
        """Return booleans (n,) for points (n, d)."""


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

    def moved(self, move: Similarity) -> Piece:
        """Return the image of the piece under a similarity."""
        return Piece(
            self.chart.moved(move),
            self.measure * move.factor**self.chart.unit,
            off=lambda points: move.factor * self.off(move.back(points)),
            normals=lambda points: move.turn(self.normals(move.back(points))),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """A named part of a domain's boundary, or a surface in it, as ``domain.part(...)`` returns it.

    Parameters
    ----------
    name, coordinates
        What it is called, and the names of the columns of its points.
    pieces
        The smooth pieces that it is made of.
    group
        Name of the shape that it belongs to, which means all parts of that shape.
    rounding
        Distance at which points count as on it.

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
    group: str | None = field(default=None, repr=False)
    rounding: float = field(default=ON, repr=False)

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
        counts = [piece.chart.count for piece in self.pieces]
        total = 0
        for count in counts:
            if count is None:
                return None
            total += count
        return total

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over the part, float64 of shape (n, d).

        Several pieces share the points in proportion to their measure, at least one each if
        there are enough. Methods and seeds are those of ``unit_points``; ``"grid"`` may
        return fewer than n.
        """
        _checks.count("n", n)
        check_room(n, len(self.coordinates))
        # In proportion to length or area, so that the union is covered evenly.
        measures = [piece.measure for piece in self.pieces]
        pairs = zip(self.pieces, shares(n, measures), strict=True)

        # Filled piece by piece, so that no piece is held beside the others.
        points = np.empty((n, len(self.coordinates)))
        n_drawn = 0

        for k, (piece, share) in enumerate(pairs):
            piece_seed = seed
            if seed is not None and k > 0:
                # The first piece keeps the seed; the others must not repeat its pattern.
                sequence = np.random.SeedSequence((seed, k))
                piece_seed = int(sequence.generate_state(1)[0])
            if share:
                rows = piece.chart.sample(share, method, piece_seed)
                points[n_drawn : n_drawn + len(rows)] = rows
                n_drawn += len(rows)

        # A grid may have fewer.
        return torch.from_numpy(points[:n_drawn])

    def contains(self, points: PointsT, tolerance: float | None = None) -> PointsT:
        """Return which points, shape (n, d), are within ``tolerance`` of the part, shape (n,).

        By default that is a billionth of the extent of the domain, or what rounding may do.
        Holes and selections that cut the part are applied as they are, without tolerance.
        """
        distance = tolerance_at(points, tolerance, self.rounding)
        off = self._off(rows_of(points, self.coordinates))  # (n, pieces)
        return like(points, off.min(axis=1) <= distance)

    def normals(self, points: PointsT, tolerance: float | None = None) -> PointsT:
        """Return the outward unit normals, shape (n, d), at points of the part, shape (n, d).

        Points must be within ``tolerance`` of it, by default a millionth of the extent. Normals
        are zero along the coordinates of other factors of a product. On an edge shared by
        several pieces, the normal is that of the nearest piece, the first one in a tie.
        """
        distance = tolerance_at(points, tolerance, NEAR * self.rounding)
        rows = rows_of(points, self.coordinates)
        off = self._off(rows)  # (n, pieces)

        # Not "> distance", which would let a NaN pass.
        far = np.flatnonzero(~(off.min(axis=1) <= distance))
        if len(far):
            raise ValueError(
                f"normals are known on {self.name!r} only: {len(far)} of {len(rows)} points are "
                f"farther than {distance:g} from it, the first is row {far[0]}, "
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


def restricted(part: Part, keep: Keep) -> Part | None:
    """Return what ``keep`` holds on of a part, or ``None`` if that is nothing.

    It is called with points (n, d) and the function of them that gives the part's normals.
    """
    pieces = []
    for piece in part.pieces:
        keep_here = functools.partial(keep, normals=piece.normals)
        share = piece.chart.fraction(keep_here)
        if share == 1:
            pieces.append(piece)
        elif share > 0:
            pieces.append(piece.cut(keep_here, share))

    if not pieces:
        return None

    return replace(part, pieces=tuple(pieces))


def flipped(part: Part) -> Part:
    """Return a part with its normals turned round."""
    return replace(part, pieces=tuple(piece.flipped() for piece in part.pieces))


def union(names: Iterable[str], parts: Iterable[Part]) -> Part:
    """Return the union of parts of one boundary, its name made of the names."""
    # Pieces only: what each part was called is in the new name.
    members = list(parts)
    pieces = tuple(piece for part in members for piece in part.pieces)
    first = members[0]
    return Part(" + ".join(names), first.coordinates, pieces, rounding=first.rounding)


def predicate(
    on: Callable[..., Tensor],
    coordinates: tuple[str, ...],
    what: str = "boundary points",
) -> Callable[[Array], Mask]:
    """Return a function of coordinates, by argument name, as one of points (n, d)."""
    names = []
    label = "coordinate in the arguments of the function"
    try:
        parameters = inspect.signature(on).parameters
    except ValueError:
        raise ValueError(
            f"a function that selects {what} must have coordinates for arguments, such as "
            f"lambda {coordinates[0]}: {coordinates[0]} > 0, got {on!r}"
        ) from None

    for name, parameter in parameters.items():
        # An argument with a default is the function's own business, unless it is a coordinate.
        if name in coordinates or parameter.default is inspect.Parameter.empty:
            _checks.one_of(label, name, coordinates)
            names.append(name)

    def keep(points: Array) -> Mask:
        columns = {}
        for name in names:
            # A copy, which the user's function may change.
            columns[name] = torch.tensor(points[:, coordinates.index(name)])

        try:
            chosen = torch.as_tensor(on(**columns))
        except Exception as error:
            raise ValueError(
                f"a function that selects {what} raised {type(error).__name__}: {error}; it is "
                f"called with tensors of shape ({len(points)},) by name, {', '.join(names)}"
            ) from error

        if chosen.dtype != torch.bool or chosen.shape != (len(points),):
            raise ValueError(
                f"a function that selects {what} must return a boolean tensor of shape "
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


def tolerance_at(
    points: Tensor | NDArray[np.generic], tolerance: float | None, default: float
) -> float:
    """Return the distance that counts as none: the one asked for, or a default.

    The default grows to the rounding of single precision where the points have that.
    """
    if tolerance is not None:
        return _checks.number("tolerance", tolerance)

    # Of numbers in single or half precision; those in double have less than the default.
    single = isinstance(points, np.ndarray) and points.dtype == np.float32
    table = torch.as_tensor(points) if single else points
    if not isinstance(table, Tensor) or not table.is_floating_point():
        return default
    if not table.numel():
        return default

    largest = float(table.detach().abs().max())
    return max(default, 4 * torch.finfo(table.dtype).eps * largest)


def rounding_of(bounds: Array) -> float:
    """Return the distance below which a point of a domain with these bounds (2, d) is on it."""
    extent = float((bounds[1] - bounds[0]).min())
    # Far from the origin the coordinates' own rounding is larger.
    largest = float(np.abs(bounds).max())
    return max(ON * extent, 32 * float(np.finfo(float).eps) * largest)


def check_names(parts: Iterable[Part], coordinates: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if two parts, or a part and a coordinate, share a name."""
    members = list(parts)
    groups = {part.group for part in members if part.group is not None}
    # The name of a coordinate means both its ends, that of a shape all its parts.
    names = Counter([part.name for part in members] + [*coordinates, *groups])
    for name, count in names.items():
        if count > 1:
            raise ValueError(
                f"two parts of the boundary, or a part and a coordinate, are called {name!r}: "
                f"give one of the shapes another name=, such as {name + '_2'!r}"
            )


def check_coordinates(names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for names that cannot be coordinates of one domain.

    Derivatives are written with the names of coordinates in a row, so that none of these may
    be read in two ways: with ``x`` and ``xx``, what is ``u_xx``?
    """
    _checks.identifiers("coordinate", names)
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        listed = ", ".join(map(repr, twice))
        raise ValueError(
            f"a domain, such as the product of two, must have different coordinates, got "
            f"{listed} more than once in {names}"
        )

    # The order of differentiation does not matter: what counts is how often along each.
    readings: dict[str, tuple[str, ...]] = {}
    for order in (1, 2, 3):
        for along in itertools.combinations_with_replacement(names, order):
            for written in set(itertools.permutations(along)):
                text = "".join(written)
                other = readings.setdefault(text, along)
                if other != along:
                    raise ValueError(
                        f"coordinates {', '.join(names)} make derivatives ambiguous: u_{text} "
                        f"is one along {' and '.join(other)}, or along {' and '.join(along)}; "
                        "give one of them another name"
                    )
