"""Figures of problems, runs, models and attributions.

Each function returns a :class:`matplotlib.figure.Figure` of its own: no display, no global state.
:func:`save` writes it.
"""

from whence.plots.bars import influence_bars
from whence.plots.fields import rounds, solution
from whence.plots.histograms import influence_histograms
from whence.plots.images import extreme_images
from whence.plots.indicators import indicator_bars
from whence.plots.maps import describe_influence, influence_map
from whence.plots.march import march
from whence.plots.samples import describe_samples
from whence.plots.scores import confusion, detection, label_report
from whence.plots.slices import slices
from whence.plots.spectra import spectra
from whence.plots.style import save
from whence.plots.training import convergence, losses

__all__ = [
    "confusion",
    "convergence",
    "describe_influence",
    "describe_samples",
    "detection",
    "extreme_images",
    "indicator_bars",
    "influence_bars",
    "influence_histograms",
    "influence_map",
    "label_report",
    "losses",
    "march",
    "rounds",
    "save",
    "slices",
    "solution",
    "spectra",
]
