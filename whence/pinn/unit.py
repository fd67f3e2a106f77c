"""Points of the unit cube, and uniform samples of anything they can be mapped to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whence._checks import count, one_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

METHODS = ("hammersley", "sobol", "halton", "latin_hypercube", "grid", "random")

# Rejection proposes at most this many times the points asked for, or this many in all if more.
_PROPOSALS, _LEAST = 256, 2**20


def unit_points(
    n: int, dimension: int, method: str = "hammersley", seed: int | None = None
) -> Array:
    """Return points spread over the unit cube [0, 1)^dimension.

    Parameters
    ----------
    n
        How many points; for ``"grid"``, at most how many.
    dimension
        Columns of the result. With zero, all methods but ``"grid"`` return n empty rows.
    method
        - ``"hammersley"``: (i + 1/2)/n, then the radical inverses of i + 1 in bases 2, 3, 5, …;
          no coordinate is ever zero. An integer seed shifts all points by one random vector,
          modulo one (Cranley and Patterson, 1976).
        - ``"sobol"``, ``"halton"``: scrambled sequences.
        - ``"latin_hypercube"``: one point in each of n slices along every coordinate.
        - ``"grid"``: the centres of equal cells, k or k + 1 of them along each coordinate, as
          many as do not exceed n. The number returned can be smaller than n; no seed is used.
        - ``"random"``: independent and uniform.
    seed
        Equal seeds give equal points. ``None`` gives the plain Hammersley set, and fresh
        entropy to the methods that are random by nature. No global random state is used.

    Returns
    -------
    numpy.ndarray
        Points in float64, shape (n, dimension).

    Examples
    --------
    >>> unit_points(4, 2)
    array([[0.125, 0.5  ],
           [0.375, 0.25 ],
           [0.625, 0.75 ],
           [0.875, 0.125]])
    >>> unit_points(5, 2, "grid").shape
    (4, 2)
    """
    count("n", n)
    count("dimension", dimension, zero=True)
    one_of("sampling method", method, METHODS)
    if seed is not None:
        count("seed", seed, zero=True)
    if method == "grid":
        return _grid(n, dimension)
    if dimension == 0:
        return np.zeros((n, 0))
    unit = (
        _hammersley(n, dimension, seed)
        if method == "hammersley"
        else _drawn(n, dimension, method, np.random.default_rng(seed))
    )
    # Rounding may put a point of a half-open slice on its far end.
    return np.minimum(unit, np.nextafter(1.0, 0.0))


def _hammersley(n: int, dimension: int, seed: int | None) -> Array:
    from scipy.stats import qmc  # which takes a third of a second to import

    unit = np.empty((n, dimension))
    unit[:, 0] = (np.arange(n) + 0.5) / n
    if dimension > 1:
        # Index zero is the origin: a corner of every domain, so the sequence starts at one.
        unit[:, 1:] = (
            qmc.Halton(dimension - 1, scramble=False).fast_forward(1).random(n)
        )
    if seed is None:
        return unit
    return np.asarray((unit + np.random.default_rng(seed).random(dimension)) % 1.0)


def _drawn(n: int, dimension: int, method: str, rng: np.random.Generator) -> Array:
    from scipy.stats import qmc

    if method == "sobol":
        # A whole power of two is drawn, which keeps scipy from warning; its start is the same.
        sequence = qmc.Sobol(dimension, scramble=True, seed=rng)
        return np.asarray(sequence.random_base2((n - 1).bit_length())[:n])
    if method == "halton":
        return np.asarray(qmc.Halton(dimension, scramble=True, seed=rng).random(n))
    if method == "latin_hypercube":
        return np.asarray(qmc.LatinHypercube(dimension, seed=rng).random(n))
    return rng.random((n, dimension))


def _grid(n: int, dimension: int) -> Array:
    if dimension == 0:
        return np.zeros((1, 0))
    base = round(n ** (1 / dimension))
    base -= base**dimension > n
    counts = [base] * dimension
    for k in range(dimension):
        if math.prod(counts) // base * (base + 1) <= n:
            counts[k] = base + 1
    axes = [(np.arange(c) + 0.5) / c for c in counts]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimension)


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
    """

    unit: int
    dimension: int
    place: Callable[[Array], Array]
    keep: Callable[[Array], Mask] = lambda points: np.ones(len(points), dtype=bool)

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
        if method == "grid":
            return self._grid(n)
        tried, limit = n, max(_PROPOSALS * n, _LEAST)
        while True:
            points = self._kept(unit_points(tried, self.unit, method, seed))
            if len(points) >= n:
                break
            if tried >= limit:
                raise ValueError(
                    f"only {len(points)} of {tried} proposed points lie in the set to sample, "
                    f"too few to draw {n}: describe the set by a smaller domain"
                )
            # From below, so that as few points as possible are drawn and then dropped.
            missing = (n - len(points)) * tried / max(len(points), 1)
            tried = min(tried + math.ceil(missing), 8 * tried, limit)
        if method == "hammersley":
            # In order of the first coordinate: to cut the end off would leave a gap there.
            return points[np.arange(n) * len(points) // n]
        return points[:n]

    def fraction(self, keep: Callable[[Array], Mask]) -> float:
        """Return the share of the set, in [0, 1], on which ``keep`` holds, by 4096 points.

        Examples
        --------
        >>> Chart(1, 1, lambda u: u).fraction(lambda p: p[:, 0] < 0.25)
        0.25
        """
        # A shift makes the coordinates generic: no half or quarter is met by accident.
        return float(np.mean(keep(self.sample(4096 if self.unit else 1, seed=0))))

    def restricted(self, keep: Callable[[Array], Mask]) -> Chart:
        """Return the chart of the points on which ``keep`` holds too.

        Examples
        --------
        >>> Chart(1, 1, lambda u: u).restricted(lambda p: p[:, 0] < 0.5).sample(2).T
        array([[0.125, 0.375]])
        """
        return Chart(
            self.unit,
            self.dimension,
            self.place,
            lambda points: self.keep(points) & keep(points),
        )

    def _kept(self, unit: Array) -> Array:
        points = self.place(unit)
        return points[self.keep(points)]

    def _grid(self, n: int) -> Array:
        unit = unit_points(n, self.unit, "grid")
        best = self._kept(unit)
        # What is rejected is spent on a finer grid, while no more than n of its points remain.
        tried = min(n * len(unit) // max(len(best), 1), 64 * n)
        while tried > n:
            points = self._kept(unit_points(tried, self.unit, "grid"))
            if len(best) <= len(points) <= n:
                best = points
                break
            tried -= max(1, tried // 50)
        if len(best) == 0:
            raise ValueError(
                f"no centre of a grid of {n} cells lies in the set to sample: "
                f"ask for more points, or choose method='hammersley'"
            )
        return best


def product(charts: Sequence[Chart]) -> Chart:
    """Return the chart of a Cartesian product, columns in the order of its factors.

    Examples
    --------
    >>> square = product([Chart(1, 1, lambda u: u), Chart(1, 1, lambda u: 10 * u)])
    >>> square.sample(2)
    array([[0.25, 5.  ],
           [0.75, 2.5 ]])
    """
    units = np.cumsum([c.unit for c in charts])[:-1]
    columns = np.cumsum([c.dimension for c in charts])[:-1]

    def place(unit: Array) -> Array:
        parts = np.split(unit, units, axis=1)
        return np.concatenate(
            [c.place(u) for c, u in zip(charts, parts, strict=True)], axis=1
        )

    def keep(points: Array) -> Mask:
        parts = np.split(points, columns, axis=1)
        kept = [c.keep(p) for c, p in zip(charts, parts, strict=True)]
        return np.asarray(np.logical_and.reduce(kept))

    return Chart(
        sum(c.unit for c in charts), sum(c.dimension for c in charts), place, keep
    )


def shares(n: int, measures: Sequence[float]) -> list[int]:
    """Split n in proportion to the measures, by largest remainders.

    The shares add up to n, and none is zero unless n is smaller than their number.

    Examples
    --------
    >>> shares(10, [1.0, 2.0, 0.001])
    [3, 6, 1]
    """
    exact = n * np.asarray(measures) / math.fsum(measures)
    split = np.floor(exact).astype(int)
    order = np.argsort(split - exact, kind="stable")
    split[order[: n - int(split.sum())]] += 1
    while n >= len(split) and split.min() == 0:
        split[split.argmax()] -= 1
        split[split.argmin()] += 1
    return [int(s) for s in split]
