"""The part of a domain where a predicate holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from whence import _checks
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.boundary import Part, named, predicate, restricted
from whence.pinn.geometry.charts import Chart, Mask
from whence.pinn.geometry.samplings import Array

RARE_POINTS = 2**17
"""Points among which one must lie in a subdomain, or it counts as empty."""


@dataclass(frozen=True)
class Subdomain(Domain, made_by="where"):
    """The points of a domain where a function of coordinates holds; see ``Domain.where``.

    Examples
    --------
    >>> from whence.pinn.geometry.domain import Interval
    >>> late = (Interval("x", 0, 1) * Interval("t", 0, 2)).where(lambda t: t > 1.5, name="late")
    >>> late
    Subdomain('late', of ('x', 't'))
    >>> late.measure, bool((late.sample(100)[:, 1] > 1.5).all())
    (0.5, True)
    """

    domain: Domain
    predicate: Callable[..., Tensor]
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            _checks.identifiers("subdomain", (self.name,))
        if not callable(self.predicate):
            raise TypeError(
                "where takes a function of coordinates that returns booleans, such as "
                f"lambda {self.coordinates[0]}: {self.coordinates[0]} > 0, got "
                f"{self.predicate!r}"
            )
        if not self._share:
            raise ValueError(
                f"the subdomain{self._label} is empty: the function holds at none of the "
                f"points tried, up to {RARE_POINTS} of the domain, whose bounds are "
                f"{named(self.coordinates, self.domain.bounds.T)}"
            )

    def __repr__(self) -> str:
        label = "" if self.name is None else f"{self.name!r}, "
        return f"Subdomain({label}of {self.coordinates})"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The coordinates of the domain."""
        return self.domain.coordinates

    @property
    def bounds(self) -> Array:
        """The bounds of the whole domain, shape (2, d)."""
        return self.domain.bounds

    @property
    def measure(self) -> float:
        """The domain's measure times the share of its points where the function holds."""
        return self.domain.measure * self._share

    @cached_property
    def boundary(self) -> tuple[Part, ...]:
        """What the function holds on of the domain's boundary."""

        def keep(points: Array, normals: object) -> Mask:
            return self._holds(points)

        cuts = [restricted(part, keep) for part in self.domain.boundary]
        return tuple(part for part in cuts if part is not None)

    def ends_along(self, coordinate: str) -> tuple[str, ...]:
        """Return what the domain calls the ends of a coordinate."""
        return self.domain.ends_along(coordinate)

    @property
    def chart(self) -> Chart:
        """The domain's chart, the points rejected where the function does not hold."""
        return self.domain.chart.restricted(self._holds)

    def level(self, points: Array) -> Array:
        """Return the domain's level, above all bounds where the function does not hold."""
        return np.where(self._holds(points), self.domain.level(points), np.inf)

    @cached_property
    def _holds(self) -> Callable[[Array], Mask]:
        """The function, as one of points (n, d)."""
        what = f"the points of a subdomain{self._label}"
        return predicate(self.predicate, self.coordinates, what)

    @property
    def _label(self) -> str:
        return "" if self.name is None else f" {self.name!r}"

    @cached_property
    def _share(self) -> float:
        """The share of the domain where the function holds, by more points if it is small."""
        chart = self.domain.chart
        share = chart.fraction(self._holds)
        if share > 0.01 or chart.count is not None:
            return share

        points = chart.sample(RARE_POINTS, seed=0)
        return float(np.mean(self._holds(points)))
