"""The neural tangent kernel's spectrum by term over training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from whence import _checks
from whence.pinn.training.array_checks import ITERATION, check_spectra
from whence.plots.style import GREY, TEXT, TITLE, Array, colour_bar, dress, without_ends

COLUMNS, LINES, DECADES = 4, 24, 16.0
"""Panels in a row, lines in a panel, and decades shown below the largest eigenvalue."""


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
    for name in terms or {}:
        _checks.one_of("term", name, names)
    shown = _spread(len(arrays[ITERATION]))
    across = min(COLUMNS, len(names))
    down = -(-len(names) // across)
    figure = Figure((2.4 * across + 1.6, 2.7 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).flat
    colours, norm = (
        without_ends("viridis_r", 0.12, 1.0),
        _norm(arrays[ITERATION][shown]),
    )
    top = max(float(arrays[name].max()) for name in names)
    for k, (ax, name) in enumerate(zip(axes, names, strict=False)):
        values = np.maximum(arrays[name], top * 10.0 ** -(DECADES + 2))
        order = np.arange(1, values.shape[1] + 1)
        for record in shown:
            colour = colours(norm(_time(arrays, record)))
            ax.plot(order, values[record], color=colour, linewidth=1.3)
        ax.axhline(
            float(arrays[name][-1].mean()), color=GREY, linewidth=1.0, linestyle="--"
        )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(top * 10.0**-DECADES, top * 5)
        ax.set_xlim(1, max(2, values.shape[1]))
        ax.set_title((terms or {}).get(name, name), fontsize=TITLE)
        dress(ax, ("number of the eigenvalue", "eigenvalue" if k % across == 0 else ""))
        ax.xaxis.set_major_locator(LogLocator(10))
        ax.xaxis.set_minor_formatter(NullFormatter())
    for ax in list(axes)[len(names) :]:
        ax.set_visible(False)
    _bar(figure, colours, norm)
    return figure


def _bar(figure: Figure, colours: object, norm: Normalize) -> None:
    mappable = ScalarMappable(norm, colours)  # type: ignore[arg-type]
    bar = colour_bar(figure, mappable, "iteration", ax=figure.axes, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=TEXT)


def _spread(records: int) -> list[int]:
    """Return the numbers of up to ``LINES`` records, the first and the last among them."""
    return sorted({round(k) for k in np.linspace(0, records - 1, min(records, LINES))})


def _time(arrays: Mapping[str, Array], record: int) -> float:
    return float(max(arrays[ITERATION][record], _first(arrays[ITERATION])))


def _first(times: Array) -> float:
    """Return where the colours begin: zero has no logarithm."""
    later = times[times > 0]
    return float(later.min()) / 2 if len(later) else 0.5


def _norm(times: Array) -> Normalize:
    return LogNorm(_first(times), max(float(times.max()), 2 * _first(times)))
