"""The neural tangent kernel's spectrum by term over training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from whence import _checks
from whence.pinn.training.array_checks import ITERATION, check_spectra
from whence.plots.style import (
    GRAY,
    TEXT,
    TITLE,
    Array,
    color_bar,
    dress,
    trimmed_colormap,
)

COLUMNS = 4
"""Panels in a row."""
MAX_LINES = 24
"""Lines in a panel."""
DECADES = 16.0
"""Decades shown below the largest eigenvalue."""


def spectra(
    arrays: Mapping[str, Array], terms: Mapping[str, str] | None = None
) -> Figure:
    """Draw each term's eigenvalues, a line for each record, from the first (light) to the last.

    An eigenvalue is the rate at which a mode of the term's residual decays under gradient flow: a
    line that falls steeply has modes that are never learnt, and terms whose lines lie far apart
    are learnt one after another. A dashed line marks the mean rate at the last record.

    Parameters
    ----------
    arrays:
        What :meth:`whence.pinn.RunFolder.spectra` returns, or a result's ``spectra``.
    terms:
        Titles of the panels by term.

    Raises
    ------
    ValueError
        If the arrays are no spectra.

    Examples
    --------
    >>> import numpy as np
    >>> from whence import plots
    >>> arrays = {"iteration": np.array([0, 100]), "pde": np.array([[4.0, 1.0], [5.0, 2.0]])}
    >>> [ax.get_title() for ax in plots.spectra(arrays).axes[:1]]
    ['pde']
    """
    check_spectra(arrays)
    names = [name for name in arrays if name != ITERATION]
    if not names:
        raise ValueError("the spectra are of no term")
    titles = dict(terms or {})
    for name in titles:
        _checks.one_of("term", name, names)

    n = len(names)
    n_columns = min(COLUMNS, n)
    n_rows = math.ceil(n / n_columns)
    size = (
        2.4 * n_columns + 1.6,
        2.7 * n_rows + 0.5,
    )
    figure = Figure(size, layout="constrained")
    table = figure.subplots(
        n_rows,
        n_columns,
        sharey=True,
        squeeze=False,
    )
    axes = list(table.flat)

    panels = _SpectraPanels(arrays, names)
    for k, name in enumerate(names):
        panels.draw(axes[k], name)
        is_leftmost = k % n_columns == 0
        label = "eigenvalue" if is_leftmost else ""
        dress(axes[k], ("number of the eigenvalue", label))
        panels.set_ticks(axes[k])
        axes[k].set_title(titles.get(name, name), fontsize=TITLE)

    # The last row may have more places than there are terms.
    for ax in axes[n:]:
        ax.set_visible(False)

    panels.draw_color_bar(figure)
    return figure


class _SpectraPanels:
    """Panels with common axes and colors: an iteration has one color in all of them."""

    def __init__(self, arrays: Mapping[str, Array], names: list[str]) -> None:
        self.arrays = arrays
        self.largest = max(float(arrays[name].max()) for name in names)

        # Evenly spread records, the first and the last among them.
        times = arrays[ITERATION]
        n_lines = min(len(times), MAX_LINES)
        places = np.linspace(0, len(times) - 1, n_lines)
        self.records = np.unique(np.rint(places).astype(int))

        # Zero, where training starts, has no logarithm: it gets the color of half the first
        # iteration that is shown after it.
        shown = times[self.records]
        last = float(shown.max())
        start = 0.5
        if last > 0:
            later = shown[shown > 0]
            start = float(later.min()) / 2
        self.times = np.maximum(times, start)
        self.norm = LogNorm(start, max(last, 2 * start))
        # Without its yellow end, which is too light on white.
        self.colormap = trimmed_colormap("viridis_r", 0.12, 1.0)

    def draw(self, ax: Axes, name: str) -> None:
        """Draw one line for each record, and the mean of the last."""
        values = self.arrays[name]  # (records, eigenvalues)
        n = values.shape[1]
        numbers = np.arange(1, n + 1)

        # Eigenvalues that are zero but for rounding end below the axis, not at minus infinity.
        smallest = self.largest * 10.0**-DECADES
        drawn = np.maximum(values, smallest / 100)
        for record in self.records:
            age = float(self.norm(self.times[record]))
            ax.plot(
                numbers,
                drawn[record],
                color=self.colormap(age),
                linewidth=1.3,
            )

        # The mean eigenvalue, the kernel's trace over n, is the mean rate of decay.
        ax.axhline(
            float(values[-1].mean()),
            color=GRAY,
            linewidth=1.0,
            linestyle="--",
        )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(1, max(2, n))
        ax.set_ylim(smallest, 5 * self.largest)

    def set_ticks(self, ax: Axes) -> None:
        ax.xaxis.set_major_locator(LogLocator(10))
        ax.xaxis.set_minor_formatter(NullFormatter())

    def draw_color_bar(self, figure: Figure) -> None:
        bar = color_bar(
            figure,
            ScalarMappable(self.norm, self.colormap),
            "iteration",
            ax=figure.axes,
            pad=0.02,
            aspect=30,
        )
        bar.ax.tick_params(labelsize=TEXT)
