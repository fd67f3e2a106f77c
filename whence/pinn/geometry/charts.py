"""Uniform samples of any set that a unit cube can be mapped to."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whence.pinn.geometry.samplings.base import (
    MAX_DRAWN,
    Array,
    sampling_of,
    unit_blocks,
    unit_points,
)
from whence.pinn.geometry.similarity import Similarity

Mask = NDArray[np.bool_]

MAX_PROPOSALS = 256
"""Times the points asked for that rejection proposes at most."""
MIN_PROPOSALS = 2**20
"""Proposals that are made in any case before giving up."""
MAX_REFINEMENT = 64
"""Times the points asked for that a grid may have before points are rejected."""
FRACTION_POINTS = 4096
"""Points by which the share of a set is estimated."""
DEFAULT_MEMORY = 2**36
"""Bytes of memory to reckon with where the system does not say how many it has."""


def everywhere(points: Array) -> Mask:
    """Return True for each point, (n,): what keeps all of them."""
    return np.ones(len(points), dtype=bool)


@dataclass(frozen=True)
class Chart:
    """A set described by a map from a unit cube that covers it evenly, and a filter.

    Uniform points of the cube become uniform points of a superset; those that ``keep``
    accepts are uniform in the set. Holes and selections are thus cut by rejection, while the
    points that remain are still those of a low-discrepancy set.

    Parameters
    ----------
    unit
        Dimension of the unit cube: zero for a single point, one for a curve.
    dimension
        Number of coordinates of a point.
    place
        Map from (n, unit) in [0, 1) to (n, dimension), of constant Jacobian determinant.
    keep
        Map from placed points (n, dimension) to booleans (n,); by default all are kept.
    size
        Length, area, … of all that ``place`` covers, before anything is rejected.
    """

    unit: int
    dimension: int
    place: Callable[[Array], Array]
    keep: Callable[[Array], Mask] = everywhere
    size: float = 1.0

    @property
    def count(self) -> int | None:
        """Number of points of the set if it is finite: a single point; otherwise ``None``."""
        return None if self.unit else 1

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Array:
        """Return exactly n points of the set, shape (n, dimension); for a grid, at most n.

        Examples
        --------
        >>> right = Chart(1, 1, lambda u: u, keep=lambda p: p[:, 0] > 0.5)
        >>> right.sample(2).T
        array([[0.625, 0.875]])
        """
        check_room(n, max(self.unit, self.dimension))
        sampling = sampling_of(method)
        # A grid cannot have any number of points: it is refined instead.
        if sampling.may_return_fewer:
            return self._refined(n, method)

        points = self._enough(n, method, seed)
        if sampling.is_ordered:
            # In order of the first coordinate: to cut the end off would leave a gap there.
            return thinned(points, n)

        return points[:n]

    def _enough(self, n: int, method: str, seed: int | None) -> Array:
        """Return n or more points: more are proposed until so many are kept."""
        proposed = n
        limit = max(MAX_PROPOSALS * n, MIN_PROPOSALS)

        while True:
            points = self._drawn(proposed, method, seed)
            n_kept = len(points)
            if n_kept >= n:
                return points

            # They are drawn again with others: two rounds are not held at a time.
            del points
            if proposed >= limit:
                raise ValueError(
                    f"only {n_kept} of {proposed} proposed points lie in the set to sample, "
                    f"too few to draw {n}: describe the set by a smaller domain"
                )

            # With kept/proposed for the share accepted, that many more are expected to do. From
            # below, so that as few points as possible are drawn and then dropped.
            missing = (n - n_kept) * proposed / max(n_kept, 1)
            more = proposed + math.ceil(missing)
            proposed = min(more, 8 * proposed, limit)

    def fraction(self, keep: Callable[[Array], Mask]) -> float:
        """Return the share of the set, in [0, 1], on which ``keep`` holds, by 4096 points.

        Examples
        --------
        >>> Chart(1, 1, lambda u: u).fraction(lambda p: p[:, 0] < 0.25)
        0.25
        """
        n = FRACTION_POINTS if self.unit else 1
        # A shift makes the coordinates generic: no half or quarter is met by accident.
        points = self.sample(n, seed=0)
        return float(np.mean(keep(points)))

    def restricted(self, keep: Callable[[Array], Mask]) -> Chart:
        """Return the chart of the points on which ``keep`` holds too.

        Examples
        --------
        >>> Chart(1, 1, lambda u: u).restricted(lambda p: p[:, 0] < 0.5).sample(2).T
        array([[0.125, 0.375]])
        """

        def both(points: Array) -> Mask:
            # What is rejected already need not be a point at all, see ``mixture``.
            kept = np.array(self.keep(points))
            kept[kept] = keep(points[kept])
            return kept

        return Chart(self.unit, self.dimension, self.place, both, self.size)

    def moved(self, move: Similarity) -> Chart:
        """Return the chart of the image of the set under a similarity."""
        # Of a curve in space the length grows by the factor, of a surface its square.
        size = self.size * move.factor**self.unit
        return Chart(
            self.unit,
            self.dimension,
            place=lambda unit: move.forward(self.place(unit)),
            keep=lambda points: self.keep(move.back(points)),
            size=size,
        )

    def _drawn(self, proposed: int, method: str, seed: int | None) -> Array:
        """Return those of the points proposed that are kept, placed block by block."""
        # Rows that are never written, those of rejected points, take no memory.
        points = np.empty((proposed, self.dimension))
        n_kept = 0

        for unit in unit_blocks(proposed, self.unit, method, seed):
            kept = self._kept(unit)
            points[n_kept : n_kept + len(kept)] = kept
            n_kept += len(kept)

        return points[:n_kept]

    def _kept(self, unit: Array) -> Array:
        points = self.place(unit)
        return points[self.keep(points)]

    def _refined(self, n: int, method: str) -> Array:
        """Return at most n points, of as fine a grid as that allows."""
        unit = unit_points(n, self.unit, method)
        best = self._kept(unit)

        # What is rejected is spent on a finer grid, while no more than n of its points remain.
        wanted = n * len(unit) // max(len(best), 1)
        cells = min(wanted, MAX_REFINEMENT * n)

        while cells > n:
            points = self._kept(unit_points(cells, self.unit, method))
            if len(best) <= len(points) <= n:
                best = points
                break
            cells -= max(1, cells // 50)

        if len(best) == 0:
            raise ValueError(
                f"no centre of a grid of {n} cells lies in the set to sample: "
                f"ask for more points, or choose method='hammersley'"
            )

        return best


@dataclass(frozen=True, eq=False)
class Table(Chart):
    """The chart of a finite set, the rows of a table, made by ``table``.

    Each row is drawn at most once, unless in a product.
    """

    rows: Array = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Array:
        """Return n different rows, spread evenly over their order; at random if so called."""
        total = len(self.rows)
        if sampling_of(method).may_return_fewer:
            n = min(n, total)
        if n > total:
            raise ValueError(
                f"the set to sample has {total} points, too few to draw {n}"
            )

        rng = np.random.default_rng(seed)
        if method == "random":
            return self.rows[rng.permutation(total)[:n]]

        # One of every total/n rows, the first of them by the seed.
        offset = 0.5 if seed is None else float(rng.random())
        return self.rows[((np.arange(n) + offset) * total / n).astype(int)]

    def fraction(self, keep: Callable[[Array], Mask]) -> float:
        """Return the share of the rows on which ``keep`` holds."""
        return float(np.mean(keep(self.rows)))

    def restricted(self, keep: Callable[[Array], Mask]) -> Chart:
        """Return the chart of the rows on which ``keep`` holds."""
        kept = keep(self.rows)
        return table(self.rows[kept], self.size * float(np.mean(kept)))

    def moved(self, move: Similarity) -> Chart:
        """Return the chart of the images of the rows."""
        size = self.size * move.factor ** len(self.rows.T)
        return table(move.forward(self.rows), size)


def table(rows: Array, size: float) -> Table:
    """Return the chart of the rows (n, d) of a table.

    Examples
    --------
    >>> table(np.array([[3.0], [4.0], [5.0], [6.0]]), size=4.0).sample(2).T
    array([[4., 6.]])
    """

    def place(unit: Array) -> Array:
        return rows[(unit[:, 0] * len(rows)).astype(int)]

    return Table(1, rows.shape[1], place, everywhere, size, rows)


def product(charts: Sequence[Chart]) -> Chart:
    """Return the chart of a Cartesian product, columns in the order of its factors.

    Examples
    --------
    >>> square = product([Chart(1, 1, lambda u: u), Chart(1, 1, lambda u: 10 * u)])
    >>> square.sample(2)
    array([[0.25, 5.  ],
           [0.75, 2.5 ]])
    """
    # Where each factor's columns end, in the cube and in the points.
    unit_ends = np.cumsum([chart.unit for chart in charts])
    column_ends = np.cumsum([chart.dimension for chart in charts])

    def place(unit: Array) -> Array:
        parts = np.split(unit, unit_ends[:-1], axis=1)
        placed = [c.place(part) for c, part in zip(charts, parts, strict=True)]
        return np.concatenate(placed, axis=1)

    def keep(points: Array) -> Mask:
        parts = np.split(points, column_ends[:-1], axis=1)
        kept = [c.keep(part) for c, part in zip(charts, parts, strict=True)]
        return np.asarray(np.logical_and.reduce(kept))

    size = math.prod(chart.size for chart in charts)
    return Chart(int(unit_ends[-1]), int(column_ends[-1]), place, keep, size)


def box(low: Array, high: Array) -> Chart:
    """Return the chart of the points between two corners, (d,) each.

    Examples
    --------
    >>> box(np.array([0.0, 5.0]), np.array([10.0, 6.0])).sample(2)
    array([[2.5 , 5.5 ],
           [7.5 , 5.25]])
    """

    def place(unit: Array) -> Array:
        # Clipped, as rounding may put a point past a side.
        return np.clip(low + (high - low) * unit, low, high)

    return Chart(len(low), len(low), place, size=float(np.prod(high - low)))


def mixture(charts: Sequence[Chart]) -> Chart:
    """Return the chart of the union of disjoint sets, each as dense as the others.

    Examples
    --------
    >>> left, right = box(np.zeros(1), np.ones(1)), box(np.ones(1), np.full(1, 4.0))
    >>> mixture([left, right]).sample(4).T
    array([[0.5, 1.5, 2.5, 3.5]])
    """
    # In proportion to what is proposed, not to what is kept of it: density is then the same.
    sizes = np.array([chart.size for chart in charts])
    units = max(chart.unit for chart in charts)
    columns = charts[0].dimension

    def place(unit: Array) -> Array:
        which, rest = stratum(sizes, unit[:, 0])
        points = np.full((len(unit), columns), np.nan)

        for k, chart in enumerate(charts):
            chosen = which == k
            cube = np.column_stack([rest[chosen], unit[chosen, 1 : chart.unit]])
            placed = chart.place(cube)
            # A point cannot say which set proposed it: what that set rejects is no number.
            placed[~chart.keep(placed)] = np.nan
            points[chosen] = placed

        return points

    def keep(points: Array) -> Mask:
        return np.asarray(np.isfinite(points).all(axis=1))

    return Chart(units, columns, place, keep, float(sizes.sum()))


def thinned(points: Array, n: int) -> Array:
    """Return n of the rows at equal distances in their order; the rows are overwritten.

    Examples
    --------
    >>> thinned(np.arange(6.0)[:, None], 3).T
    array([[0., 2., 4.]])
    """
    total = len(points)
    if total == n:
        return points

    # Row i comes from ⌊i·total/n⌋ ≥ i. In rising order no row is read after it was overwritten,
    # so that blocks are thinned where they are.
    for start in range(0, n, MAX_DRAWN):
        stop = min(start + MAX_DRAWN, n)
        sources = np.arange(start, stop) * total // n
        points[start:stop] = points[sources]
    return points[:n]


def stratum(sizes: Array, share: Array) -> tuple[NDArray[np.intp], Array]:
    """Return which of several sets a share (n,) of their total falls in, and how far into it.

    Examples
    --------
    >>> stratum(np.array([1.0, 3.0]), np.array([0.125, 0.625]))
    (array([0, 1]), array([0.5, 0.5]))
    """
    ends = np.cumsum(sizes)
    along = share * ends[-1]
    # From the right: a set of no size is never chosen.
    which = np.minimum(np.searchsorted(ends, along, side="right"), len(sizes) - 1)
    rest = (along - (ends - sizes)[which]) / sizes[which]
    return which, np.clip(rest, 0.0, np.nextafter(1.0, 0.0))


def check_room(n: int, columns: int) -> None:
    """Raise ``ValueError`` if a table of n points would not fit in this machine's memory."""
    memory = DEFAULT_MEMORY
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    # Eight bytes a number, of the cube's points and of those placed from them.
    largest = memory // (2 * 8 * max(columns, 1))
    if n > largest:
        raise ValueError(
            f"{n} points of {columns} coordinates would not fit in memory: "
            f"ask for at most {largest}"
        )


def shares(n: int, measures: Sequence[float]) -> list[int]:
    """Split n in proportion to the measures, by largest remainders.

    The shares add up to n, and none is zero unless n is smaller than their number.

    Examples
    --------
    >>> shares(10, [1.0, 2.0, 0.001])
    [3, 6, 1]
    """
    exact = (
        n * np.asarray(measures) / math.fsum(measures)
    )  # real numbers that add up to n
    split = np.floor(exact).astype(int)

    # What rounding down left over goes where it took most.
    left_over = n - int(split.sum())
    order = np.argsort(split - exact, kind="stable")
    split[order[:left_over]] += 1

    # A piece of tiny measure gets a point too, from the piece that has most of them.
    while n >= len(split) and split.min() == 0:
        split[split.argmax()] -= 1
        split[split.argmin()] += 1
    return [int(share) for share in split]
