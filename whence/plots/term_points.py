"""The points of an attribution by term, and how they are drawn in a panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from whence import _checks
from whence.plots.influence_scale import InfluenceScale
from whence.plots.plane import Plane
from whence.plots.style import MAX_SHARP_MARKS, Array, Look
from whence.plots.text import terms_of

MIN_PERCENT = 0.1
"""Percent below which a share is only said to be less."""
SHARES = "Percent: the term's share of all |influence|."
"""What the numbers above panels are."""
EDGES: Look = {"edgecolors": "0.45", "linewidths": 0.3}


class TermPoints:
    """Points with a number each, told apart by term.

    Parameters
    ----------
    row:
        The numbers, dimension (point,), with the points' coordinates.
    terms:
        Which terms are shown, in this order; None for all.

    Raises
    ------
    ValueError
        If there is no such term.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence.plots.term_points import TermPoints
    >>> row = xr.DataArray([1.0, -3.0], {"term": ("point", ["mass", "wall"])}, "point")
    >>> points = TermPoints(row)
    >>> points.names, points.share("wall"), points.title("wall")
    (['mass', 'wall'], 0.75, 'wall: 1 point, 75 %')
    """

    def __init__(self, row: xr.DataArray, terms: Sequence[str] | None = None) -> None:
        self.row = row
        self.sizes = np.abs(row.values)
        self.of_points = terms_of(row)

        distinct = dict.fromkeys(self.of_points)
        present = list(map(str, distinct))
        for name in terms or ():
            _checks.one_of("term", name, present)
        # All of them, in the order in which they come, unless some are named.
        self.names = list(terms or present)

    @property
    def largest(self) -> float:
        """The largest absolute value that is shown."""
        return self.largest_of(self.names)

    @property
    def n_marks(self) -> int:
        """How many points the largest of the terms has."""
        counts = []
        for name in self.names:
            of_term = self.of_term(name)
            counts.append(int(of_term.sum()))
        return max(counts)

    def of_term(self, name: str) -> Array:
        """Return which points are of a term, (n,)."""
        mask: Array = self.of_points == name
        return mask

    def largest_of(self, names: Sequence[str]) -> float:
        """Return the largest absolute value of some terms, 0 where they have no points."""
        # A run may lack a term that another has.
        shown = np.isin(self.of_points, list(names))
        largest = self.sizes[shown].max(initial=0.0)
        return float(largest)

    def share(self, name: str) -> float:
        """Return the share of a term in the absolute values of all points."""
        total = float(self.sizes.sum())
        # Of nothing there are no shares.
        if not total:
            return 0.0

        of_term = self.sizes[self.of_term(name)]
        return float(of_term.sum()) / total

    def title(self, name: str) -> str:
        """Return what stands above the panel of a term."""
        n_points = int(self.of_term(name).sum())
        points = "point" if n_points == 1 else "points"
        share = percent(self.share(name))
        text = f"{n_points} {points}, {share}"
        # Points of an objective of one's own may have no term.
        return f"{name}: {text}" if name else text

    def draw(self, ax: Axes, plane: Plane, name: str, scale: InfluenceScale) -> None:
        """Draw the points of a term, colored by their numbers, the weakest first."""
        (shown,) = np.nonzero(self.of_term(name))
        # Stable, so that equal ones keep the order of the points.
        order = np.argsort(self.sizes[shown], kind="stable")
        points = self.row.isel(point=shown[order])

        horizontal, vertical = plane.names
        across = points.coords[horizontal].values
        up = points.coords[vertical].values
        ax.scatter(
            across,
            up,
            s=scale.areas(points.values),
            c=scale.colors.to_rgba(points.values),
            rasterized=len(shown) > MAX_SHARP_MARKS,
            # Points of conditions lie on the edge: marks are not cut off there.
            clip_on=False,
            zorder=3,
            **EDGES,
        )


def percent(share: float) -> str:
    """Return a share in percent: three digits, and no more than can matter.

    Examples
    --------
    >>> from whence.plots.term_points import percent
    >>> percent(0.3194), percent(0.00002), percent(0.0)
    ('31.9 %', '< 0.1 %', '0 %')
    """
    # Nothing at all is another matter than little.
    value = 100 * share
    if 0 < value < MIN_PERCENT:
        return f"< {MIN_PERCENT} %"
    return f"{value:.3g} %"
