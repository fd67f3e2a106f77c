"""What all indicators have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from whence import _checks
from whence.attribution.places import NO_PLACE

ENTRIES_AT_ONCE = 4_000_000
"""Targets times points that are looked at together, 32 MB in float64."""


@dataclass(frozen=True, eq=False)
class Values:
    """An indicator at each target, and what the places of the points alone would give.

    Parameters
    ----------
    values:
        The indicator (T,), NaN at a target that nothing has an influence on.
    baseline:
        What it would be if all points had the same influence, (T,).
    """

    values: np.ndarray
    baseline: np.ndarray


class Indicator(Protocol):
    """A number of each target's influences."""

    def at_targets(self, table: xr.DataArray) -> Values:
        """Return the indicator at each target of an attribution (target, point).

        Raises
        ------
        ValueError
            If points or targets lack what it asks for.
        """


class Share:
    """An indicator that is a share of influence: ``Σ_i m_ti |I_ti| / Σ_i |I_ti|``.

    A subclass says in :meth:`members` how far each point counts for each target, m in [0, 1].
    With equal influences the share is the mean of m over points, which is the baseline.
    """

    @abstractmethod
    def members(
        self, points: np.ndarray, targets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Return m (T, n) for points (n, d) and targets (T, d).

        Parameters
        ----------
        points, targets:
            Their coordinates, a column for each name.
        names:
            The names of the coordinates.
        """

    @abstractmethod
    def check(self, points: np.ndarray, names: Sequence[str]) -> None:
        """Raise ``ValueError`` where points (n, d) lack what the indicator asks for."""

    def at_targets(self, table: xr.DataArray) -> Values:
        """Return the share at each target of an attribution (target, point)."""
        names = coordinate_names(table)
        points = coordinates_of(table, "point", names)
        targets = coordinates_of(table, "target", names)
        self.check(points, names)

        influences = table.transpose("target", "point").values
        shares = []
        baseline = []
        for rows in _blocks(*influences.shape):
            members = self.members(points, targets[rows], names)
            sizes = np.abs(influences[rows])
            inside = (members * sizes).sum(axis=1)
            shares.append(ratio(inside, sizes.sum(axis=1)))
            baseline.append(members.mean(axis=1))

        return Values(np.concatenate(shares), np.concatenate(baseline))


def coordinate_names(table: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the coordinates that the points of an attribution have.

    Raises
    ------
    ValueError
        If they have none, as samples, or the targets have none of them, as a loss.
    """
    names = []
    for name, coordinate in table.coords.items():
        is_of_points = coordinate.dims == ("point",) and name not in NO_PLACE
        if is_of_points:
            names.append(str(name))

    lacking = [name for name in names if f"target_{name}" not in table.coords]
    if not names or lacking:
        missing = ", ".join(lacking) or "any"
        raise ValueError(
            "indicators compare where points and targets are, but the attribution lacks "
            f"coordinates ({missing}): attribute outputs or derivatives at points of a problem"
        )
    return tuple(names)


def coordinates_of(
    table: xr.DataArray, dimension: str, names: Sequence[str]
) -> np.ndarray:
    """Return the coordinates of an attribution's points or targets, (n, d)."""
    prefix = "target_" if dimension == "target" else ""
    columns = []
    for name in names:
        column = table.coords[prefix + name].values
        # Of one target its coordinates are numbers.
        columns.append(np.atleast_1d(np.asarray(column, dtype=float)))
    return np.stack(columns, axis=1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part over whole, NaN where there is nothing."""
    is_something = whole > 0
    safe = np.where(is_something, whole, 1.0)
    return np.where(is_something, part / safe, np.nan)


def column(names: Sequence[str], name: str, what: str) -> int:
    """Return the position of a coordinate that an indicator asks for.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    _checks.one_of(f"coordinate of {what}", name, names)
    return list(names).index(name)


def _blocks(n_targets: int, n_points: int) -> Iterator[slice]:
    """Yield slices of targets whose entries are looked at together."""
    rows = max(1, ENTRIES_AT_ONCE // max(1, n_points))
    for start in range(0, n_targets, rows):
        yield slice(start, start + rows)
