"""Histograms of the influences of samples, a panel for each label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from whence import _checks
from whence.arrays import ArrayLike
from whence.plots.grouping import Groups, with_coordinate
from whence.plots.samples import SampleInfluences, check_attribution
from whence.plots.style import (
    BLUE,
    INK,
    TEXT,
    TICK,
    VERMILION,
    Array,
    Look,
    caption,
    dress,
    title,
    wrapped,
)
from whence.plots.text import Names

HEAVY = 20.0
"""How many times the typical size the largest must have for the axis to be logarithmic."""
MAX_TICKS = 4
"""Ticks on either side of zero on a logarithmic axis."""


def influence_histograms(
    attribution: xr.DataArray,
    label: str | ArrayLike = "label",
    names: Names = None,
    bins: int = 60,
) -> Figure:
    """Draw histograms of the influences, a panel for each label, the target's own emphasised.

    Parameters
    ----------
    attribution:
        Dimensions (target, point) or (point,); of several targets the mean over them is drawn.
    label:
        What separates the panels: any coordinate of the points by its name, such as ``"term"`` or
        ``"x"`` (``target_`` in front of it names the target's own), or a value for each point.
        More than 12 floating-point numbers are put into ranges; of more than 50 other values the
        most frequent are shown.
    names:
        Labels in words: a mapping, or a sequence for labels 0, 1, …; then nothing is put into
        ranges.
    bins:
        How many, over the whole range. Where it is more than 20 times the typical size the axis is
        logarithmic away from zero, and says so.

    Raises
    ------
    ValueError
        If dimensions are others, the points have no such coordinate, or some of it is not finite.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray([0.5, -0.1, 0.2], {"label": ("point", [0, 1, 1])}, "point")
    >>> figure = plots.influence_histograms(row, names=["cat", "dog"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['cat', 'dog']

    By anything else that is known of the points:

    >>> figure = plots.influence_histograms(row, label=["old", "new", "new"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['group new', 'group old']
    """
    _checks.count("bins", bins)
    check_attribution(attribution)
    attribution, label = with_coordinate(attribution, label)
    note = ""
    if names is None and label in attribution.coords:
        groups = Groups.of(attribution, label)
        attribution, names, note = groups.attribution, groups.names, groups.note

    samples = SampleInfluences.of(attribution, label, average=True)
    labels = samples.require_labels(label)
    present = np.unique(labels).tolist()
    named = samples.name_labels(names)

    # Many panels are low: their heights are compared, not read.
    panel_height = 0.62 if len(present) > 4 else 1.0
    height = 1.5 + max(panel_height * len(present), 1.2)
    figure = Figure((7.4, height), layout="constrained")
    table = figure.subplots(
        len(present),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    axes = list(table[:, 0])

    scale = _Scale.of(samples.values)
    scale.apply(axes[0])
    edges = scale.edges(axes[0], samples.values, bins)
    owner = "the target's" if samples.n_targets == 1 else "the targets'"
    for ax, value in zip(axes, present, strict=True):
        name = named[value]
        if names is None:  # a number alone would not say of what
            name = f"{label} {name}"
        name = wrapped(name, 1.4)
        is_of_target = value == samples.target_label
        if is_of_target:
            name += f"\n({owner})"

        of_label = samples.values[labels == value]
        _draw_panel(ax, of_label, edges, name, is_of_target)

    scale.set_ticks(axes[0])
    _explain_signs(axes[0], samples)
    axes[-1].set_xlabel(samples.axis() + scale.note, fontsize=TEXT)

    subject = samples.subject(named)
    text = f"{samples.noun} of {len(samples)} samples on {subject}, by {label}"
    title(figure, text, inches=7.0)
    text = (
        "Number of samples in each bin; beside it how many there are, their mean and how many "
        f"are positive. {samples.legend()}{samples.caution()}"
    )
    if note:
        text += f" {note[0].upper()}{note[1:]}."
    caption(figure, text, inches=7.2)
    return figure


@dataclass(frozen=True)
class _Scale:
    """The axis of influences: linear, or linear near zero and logarithmic beyond.

    A few samples often have most of the influence: then a linear axis would show one bin.
    """

    largest: float
    linear: float | None
    """Where the logarithmic part begins, if there is one."""

    @classmethod
    def of(cls, values: Array) -> _Scale:
        sizes = np.abs(values[values != 0])
        if not len(sizes):
            return cls(1.0, None)

        largest = float(sizes.max())
        typical = float(np.median(sizes))
        if largest <= HEAVY * typical:
            return cls(largest, None)

        # Linear up to the decade of the typical size, but never over so many decades that the
        # ticks could not be told apart.
        decade = math.floor(math.log10(typical))
        linear = max(10.0**decade, 1e-6 * largest)
        return cls(largest, linear)

    @property
    def note(self) -> str:
        """What the axis's label must say of it."""
        if self.linear is None:
            return ""
        return f"\n(axis linear up to ±{self.linear:.0e}, logarithmic beyond)"

    def apply(self, ax: Axes) -> None:
        if self.linear is None:
            return
        ax.set_xscale(
            "symlog",
            linthresh=self.linear,
            linscale=0.5,
        )

    def set_ticks(self, ax: Axes) -> None:
        """Put few ticks on a logarithmic axis: those of matplotlib overlap around zero."""
        if self.linear is None:
            return
        first = math.ceil(math.log10(self.linear))
        last = math.floor(math.log10(self.largest))
        if first > last:
            return

        # Powers of ten from the largest down, as many decades apart as leaves few enough.
        n_decades = last - first + 1
        step = math.ceil(n_decades / MAX_TICKS)
        powers = 10.0 ** np.arange(last, first - 1, -step)
        ticks = np.concatenate([-powers, [0.0], powers[::-1]])
        ax.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
        ax.xaxis.set_minor_locator(NullLocator())

    def edges(self, ax: Axes, values: Array, bins: int) -> Array:
        """Return edges of bins that are equally wide on the axis, of which zero is one."""
        # In the coordinates of the axis, where bins of one width are drawn so.
        transform = ax.xaxis.get_transform()
        ends = np.array([values.min(initial=0.0), values.max(initial=0.0)])
        low, high = transform.transform(ends)
        span = high - low
        if not span:  # all influences are zero
            (span,) = transform.transform(np.array([self.largest]))
        width = span / bins

        first = math.floor(low / width)
        last = max(math.ceil(high / width), 0) + 1
        places = width * np.arange(first, last + 1)
        edges: Array = transform.inverted().transform(places)

        # Rounding must leave no value outside.
        edges[0] = min(edges[0], values.min())
        edges[-1] = max(edges[-1], values.max())
        return edges


def _draw_panel(
    ax: Axes, values: Array, edges: Array, name: str, is_of_target: bool
) -> None:
    """Draw the histogram of one label, with its numbers beside it."""
    color = VERMILION if is_of_target else BLUE
    ax.hist(values, edges.tolist(), color=color, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.8)
    dress(ax, ("", ""))
    ax.locator_params(axis="y", nbins=3, integer=True)

    text_color = VERMILION if is_of_target else INK
    ax.set_ylabel(
        name,
        rotation=0,
        ha="right",
        va="center",
        labelpad=8,
        color=text_color,
        fontsize=TEXT,
        fontweight="bold" if is_of_target else "normal",
    )

    # Beside the panel, where no bar can be.
    mean = values.mean()
    percent = 100 * np.mean(values > 0)
    ax.text(
        1.015,
        0.5,
        f"n = {len(values)}\nmean {mean:+.1e}\n{percent:.0f} % positive",
        transform=ax.transAxes,
        va="center",
        color=text_color,
        fontsize=TICK - 1,
        linespacing=1.1,
    )


def _explain_signs(ax: Axes, samples: SampleInfluences) -> None:
    """Write above a panel what the two sides of zero mean."""
    positive, negative = samples.sides()
    # At zero of the axis, a few points of print above the panel and to either side.
    look: Look = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "fontsize": TEXT,
        "va": "bottom",
        "color": INK,
    }
    ax.annotate(f"{positive} →", (0, 1), (6, 3), ha="left", **look)
    ax.annotate(f"← {negative}", (0, 1), (-6, 3), ha="right", **look)
