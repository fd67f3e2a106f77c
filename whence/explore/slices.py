"""Lines and planes through a domain, on which fields are looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whence.pinn.pde.problem import Problem

PLANE_RESOLUTION = 101
"""Places of a displayed plane along each side."""
LINE_RESOLUTION = 401
"""Places of a displayed line."""


@dataclass(frozen=True)
class Grid:
    """The places of a slice.

    Parameters
    ----------
    places:
        Those within the domain, (m, d).
    inside:
        Which of all places those are, (n,) of a line, (up, across) of a plane.
    """

    places: np.ndarray
    inside: np.ndarray

    def filled(self, values: np.ndarray) -> np.ndarray:
        """Return values at the places (m,) in the shape of the slice, NaN outside of the domain."""
        table = np.full(self.inside.shape, np.nan)
        table[self.inside] = values
        return table


@dataclass(frozen=True)
class Slice:
    """A plane through a point along two coordinates, or a line along one.

    Parameters
    ----------
    across:
        Column of the coordinate that goes across.
    up:
        Column of the one that goes up; None of a line.
    through:
        The point, (d,): the other coordinates stay as it has them.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.explore.slices import Slice
    >>> problem = pinn.zoo.load("burgers")
    >>> cut = Slice.of(problem)                       # time goes across, x up
    >>> cut.across, cut.up, cut.grid(problem, 3).inside.shape
    (1, 0, (3, 3))
    """

    across: int
    up: int | None
    through: tuple[float, ...]

    @classmethod
    def of(cls, problem: Problem, at: np.ndarray | None = None) -> Slice:
        """Return the slice that is looked at first: along space if it can.

        ``at`` is a point of it, (d,), by default the middle.
        """
        low, high = problem.domain.bounds
        if at is None:
            at = (low + high) / 2
        through = tuple(float(value) for value in at)
        coordinates = problem.coordinates
        if len(coordinates) == 1:
            return cls(0, None, through)
        if len(coordinates) == 2 and coordinates[1] == problem.time:
            # Time goes across, as in every figure.
            return cls(1, 0, through)
        if len(coordinates) == 2:
            return cls(0, 1, through)

        # Time has a slider of its own, where two coordinates of space fill a plane.
        space = [k for k, name in enumerate(coordinates) if name != problem.time]
        across, up, *_ = space
        return cls(across, up, through)

    def check(self, problem: Problem) -> None:
        """Raise ``ValueError`` unless these are coordinates of the problem, and a point of it."""
        n = len(problem.coordinates)
        columns = [self.across] if self.up is None else [self.across, self.up]
        is_good = all(0 <= column < n for column in columns)
        if not is_good or len(set(columns)) < len(columns):
            raise ValueError(
                f"a slice goes along one or two different coordinates, 0 to {n - 1}, got {columns}"
            )
        if len(self.through) != n:
            raise ValueError(
                f"a slice goes through a point of {n} coordinates "
                f"({', '.join(problem.coordinates)}), got {len(self.through)}"
            )

    def grid(self, problem: Problem, n: int | None = None) -> Grid:
        """Return the slice's places, n along each side."""
        self.check(problem)
        low, high = problem.domain.bounds
        through = np.asarray(self.through)
        if self.up is None:
            n = n or LINE_RESOLUTION
            places = np.tile(through, (n, 1))
            places[:, self.across] = np.linspace(low[self.across], high[self.across], n)
            shape: tuple[int, ...] = (n,)
        else:
            n = n or PLANE_RESOLUTION
            horizontal = np.linspace(low[self.across], high[self.across], n)
            vertical = np.linspace(low[self.up], high[self.up], n)
            # Row k is at the height vertical[k].
            columns, rows = np.meshgrid(horizontal, vertical)
            places = np.tile(through, (n * n, 1))
            places[:, self.across] = columns.ravel()
            places[:, self.up] = rows.ravel()
            shape = (n, n)

        inside = problem.domain.contains(places)
        return Grid(places[inside], inside.reshape(shape))
