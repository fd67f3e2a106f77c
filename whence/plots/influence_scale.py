"""Colors and areas that show influences, the same in every panel of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from whence.plots.style import Array, Look, color_bar, trimmed_colormap

LINEAR_DECADES = 2
"""Decades below the largest influence, rounded down, at which the scale of colors turns linear."""
MAGNITUDE_DECADES = 3
"""Decades of sizes, below the largest, that colors resolve."""
AREAS = (8.0, 30.0)
"""Least and largest area of a mark of middling influence, in square points."""


class InfluenceScale:
    """What color and area an influence has: purple to orange through white at zero.

    Influences span decades and have both signs, so the scale is logarithmic away from zero.

    Parameters
    ----------
    largest:
        The largest absolute influence that is shown.
    n_marks:
        How many marks a panel has at most: the more, the smaller.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.plots.influence_scale import InfluenceScale
    >>> scale = InfluenceScale(2.0, n_marks=100)
    >>> float(scale.norm(0.0)), scale.areas(np.array([0.0, 2.0])).round().tolist()
    (0.5, [21.0, 66.0])
    """

    extend = "neither"

    def __init__(self, largest: float, n_marks: int) -> None:
        # Where nothing has influence any scale will do.
        self.largest = largest or 1.0
        self.area = float(np.clip(12000 / max(n_marks, 1), *AREAS))

        decade = math.floor(math.log10(self.largest))
        self.linear = 10.0 ** (decade - LINEAR_DECADES)
        self.norm: Normalize = SymLogNorm(
            self.linear,
            linscale=0.5,
            vmin=-self.largest,
            vmax=self.largest,
            base=10,
        )
        # Without the ends, which are hardly darker than the marks' edges.
        colormap = trimmed_colormap("PuOr_r", 0.06, 0.94)
        self.colors = ScalarMappable(self.norm, colormap)

    def areas(self, values: Array) -> Array:
        """Return the areas of marks in square points."""
        # The root keeps the weak visible.
        shares = np.abs(values) / self.largest
        relative = np.sqrt(shares)
        areas: Array = self.area * (0.7 + 1.5 * relative)
        return areas

    def draw_bar(
        self, figure: Figure, axes: Axes | Sequence[Axes], label: str, **options: object
    ) -> None:
        """Draw the color bar beside some panels."""
        # What the caller says of the bar comes last, and so counts.
        look: Look = {"aspect": 28, "extend": self.extend, **options}
        bar = color_bar(
            figure,
            self.colors,
            label,
            ax=axes,
            **look,
        )
        if isinstance(self.norm, SymLogNorm):
            bar.minorlocator = SymmetricalLogLocator(
                base=10,
                linthresh=self.linear,
                subs=range(2, 10),
            )


class MagnitudeScale(InfluenceScale):
    """The same for sizes, which have no sign: light to dark over three decades."""

    extend = "min"

    def __init__(self, largest: float, n_marks: int) -> None:
        super().__init__(largest, n_marks)
        least = self.largest * 10.0**-MAGNITUDE_DECADES
        # The light end would not show on white.
        colormap = trimmed_colormap("YlGnBu", 0.15, 1.0)
        self.norm = LogNorm(least, self.largest)
        self.colors = ScalarMappable(self.norm, colormap)
