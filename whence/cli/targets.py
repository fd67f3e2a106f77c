"""Where ``whence influence RUN`` explains answers: a point, those of a file, a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence.arrays import to_locations
from whence.pinn.geometry.boundary import named
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.tables import read_table
from whence.pinn.training.result import Result

GRID_POINTS = 10_000
"""Points of the grid on which the largest error is searched."""
WHOLE = "domain"
"""What ``--region`` calls all of the domain."""


@dataclass(frozen=True)
class Where:
    """Where answers are explained, as the command line says it.

    Parameters
    ----------
    at:
        Coordinates of a point, or one file of points; none if not given.
    region:
        Lowest and highest value of each coordinate, or names of parts of the boundary, or
        ``domain``; none if not given.
    n:
        About how many points of a region.
    otherwise:
        The region where neither is given; none for the point of the largest error.
    """

    at: Sequence[str] = ()
    region: Sequence[str] = ()
    n: int = 400
    otherwise: Sequence[str] = ()

    @property
    def flag(self) -> str:
        """The flag that was given, empty if none was."""
        # Both given is an error of its own.
        if self.region:
            return "--region"
        return "--at" if self.at else ""

    @property
    def is_box(self) -> bool:
        """Whether answers are explained on a grid in a box, or in the whole domain."""
        region = self.region or self.otherwise
        is_whole = list(region) == [WHOLE]
        return is_whole or any(map(is_number, region))

    def points(self, result: Result) -> Tensor:
        """Return the points (n, d), float64.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If both are given, numbers are missing, points lie outside the domain, or none of the
            region is in it.
        """
        if self.at and self.region:
            raise ValueError("--at and --region both say where: leave one of them out")

        problem = result.problem
        region = self.region
        if not self.at and not region:
            region = self.otherwise
        if region:
            return region_points(problem, region, self.n)
        if not self.at:
            return worst_point(result)

        # A single word that is no number is the name of a file.
        if len(self.at) == 1 and not is_number(self.at[0]):
            return file_points(problem, Path(self.at[0]))
        return point_of(problem, numbers("--at", self.at))


def point_of(problem: Problem, at: Sequence[float]) -> Tensor:
    """Return the point of ``--at``, (1, d); one outside the domain is an error."""
    if len(at) != len(problem.coordinates):
        listed = ", ".join(problem.coordinates)
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({listed}), got {len(at)}; or it names "
            "a file of points"
        )

    point = torch.tensor([at], dtype=torch.float64)  # (1, d)
    is_finite = all(map(math.isfinite, at))
    if not is_finite or not bool(problem.domain.contains(point).all()):
        text = " ".join(map(str, at))
        raise ValueError(
            f"--at {text} lies outside the domain, whose bounds are {bounds_in_words(problem)}"
        )

    return point


def file_points(problem: Problem, path: Path) -> Tensor:
    """Return the points of a file with a column for each coordinate, (n, d)."""
    # Columns of other names are left out.
    what = f"--at {path}"
    table = read_table(what, path)
    points = to_locations(what, table, problem.coordinates)
    # Points outside are an error that names the first row.
    problem.check_points(None, points)
    return points


def region_points(problem: Problem, region: Sequence[str], n: int) -> Tensor:
    """Return about n points of a box in the domain, or of parts of its boundary, (n, d)."""
    if list(region) == [WHOLE]:
        low, high = problem.domain.bounds
        return box_points(problem, low, high, n)

    # A name stands for a part of the boundary; numbers are the sides of a box.
    if not any(map(is_number, region)):
        part = problem.domain.part(list(region))
        return part.sample(n)

    d = len(problem.coordinates)
    ends = numbers("--region", region)
    if len(ends) != 2 * d:
        pairs = " ".join(f"{name}_min {name}_max" for name in problem.coordinates)
        raise ValueError(
            f"--region takes {2 * d} numbers ({pairs}), names of parts of the boundary, or "
            f"{WHOLE}, got {len(ends)}"
        )
    low, high = np.array(ends).reshape(d, 2).T
    is_finite = np.isfinite(ends).all()
    # A box of no width is a line, or a point, and may be meant.
    if not is_finite or (low > high).any():
        text = " ".join(region)
        raise ValueError(
            f"--region takes the lowest and then the highest value of each coordinate, got {text}"
        )
    return box_points(problem, low, high, n)


def box_points(problem: Problem, low: np.ndarray, high: np.ndarray, n: int) -> Tensor:
    """Return a regular grid of about n points of a box, those that are in the domain."""
    counts = grid_counts(high - low, n)
    axes = []
    for first, last, count in zip(low, high, counts, strict=True):
        # The middles of cells: none lies on an edge, where answers may be given.
        middles = (np.arange(count) + 0.5) / count
        axes.append(first + middles * (last - first))

    grid = np.meshgrid(*axes, indexing="ij")
    columns = [column.ravel() for column in grid]
    points = np.stack(columns, axis=1)
    is_inside = problem.domain.contains(points)
    if not is_inside.any():
        raise ValueError(
            f"--region has no points of the domain, whose bounds are {bounds_in_words(problem)}: "
            "move it, make it larger, or raise --targets"
        )
    return torch.from_numpy(points[is_inside])


def grid_counts(sides: np.ndarray, n: int) -> list[int]:
    """Return how many cells along each side make about n cubes of a box.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.cli.targets import grid_counts
    >>> grid_counts(np.array([4.0, 1.0]), 100)
    [20, 5]
    >>> grid_counts(np.array([4.0, 0.0]), 100)     # a line
    [100, 1]
    """
    # Along a side of no length there is one cell.
    long = sides[sides > 0]
    # A box without any length is one point.
    if not len(long):
        return [1] * len(sides)

    # n cubes of width h fill the box: n hᵏ = its volume over the k sides that have a length.
    width = float(np.prod(long) / n) ** (1 / len(long))
    counts = np.round(sides / width)
    return [max(1, int(count)) for count in counts]


def worst_point(result: Result) -> Tensor:
    """Return the grid point of the largest error, or without a reference residual, (1, d)."""
    problem = result.problem
    grid = problem.domain.sample(GRID_POINTS, "grid")
    if problem.solution is not None:
        values = result.solution.error(grid)
    else:
        values = result.solution.residual(grid)

    # The 1-norm over outputs or residual components, (n,).
    sizes = values.abs().sum(dim=1)
    worst = int(sizes.argmax())
    return grid[worst : worst + 1]  # a slice, (1, d), where an index gives (d,)


def bounds_in_words(problem: Problem) -> str:
    """Return the ends of each coordinate, for messages."""
    return named(problem.coordinates, problem.domain.bounds.T)


def is_number(word: str) -> bool:
    """Whether a word can be read as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def numbers(flag: str, words: Sequence[str]) -> list[float]:
    """Return words as numbers; any other is an error that names the flag."""
    # All of them, so that the first that is none is named.
    values = []
    for word in words:
        if not is_number(word):
            raise ValueError(f"{flag} takes numbers, got {word!r} among them")
        values.append(float(word))
    return values
