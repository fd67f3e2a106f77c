"""Figures of problems, runs, models and attributions.

Each function returns a :class:`matplotlib.figure.Figure` of its own: no display, no global state.
:func:`save` writes it.
"""

from whence.plots.bars import influence_bars
from whence.plots.comparison import compared_influence
from whence.plots.damping import damping
from whence.plots.descriptions import describe_point, describe_targets, describe_terms
from whence.plots.diagnosis import diagnosis
from whence.plots.fields import rounds, solution
from whence.plots.histograms import influence_histograms
from whence.plots.images import extreme_images, suspicious_images
from whence.plots.indicators import indicator_bars
from whence.plots.influence_fields import influence_field, smoothed_influence
from whence.plots.leave_one_out import leave_one_out
from whence.plots.maps import describe_influence, influence_map
from whence.plots.march import march
from whence.plots.samples import describe_samples
from whence.plots.scores import confusion, detection, label_report
from whence.plots.slices import slices
from whence.plots.spectra import spectra
from whence.plots.studies import study_boxes, study_convergence, study_ratio
from whence.plots.study_points import study_points
from whence.plots.style import save
from whence.plots.term_panels import influence_by_term, mean_influence
from whence.plots.term_summary import term_matrix, term_shares
from whence.plots.training import convergence, losses

__all__ = [
    "compared_influence",
    "confusion",
    "convergence",
    "damping",
    "describe_influence",
    "describe_point",
    "describe_samples",
    "describe_targets",
    "describe_terms",
    "detection",
    "diagnosis",
    "extreme_images",
    "indicator_bars",
    "influence_bars",
    "influence_by_term",
    "influence_field",
    "influence_histograms",
    "influence_map",
    "label_report",
    "leave_one_out",
    "losses",
    "march",
    "mean_influence",
    "rounds",
    "save",
    "slices",
    "smoothed_influence",
    "solution",
    "spectra",
    "study_boxes",
    "study_convergence",
    "study_points",
    "study_ratio",
    "suspicious_images",
    "term_matrix",
    "term_shares",
]
