"""Figures of how well a model learned, and of how well bad samples are found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from whence import _checks
from whence.arrays import ArrayLike
from whence.plots.looks import line_looks
from whence.plots.style import (
    BLUE,
    GRAY,
    INK,
    TEXT,
    TICK,
    TITLE,
    VERMILION,
    Array,
    Look,
    caption,
    color_bar,
    dress,
    legend_beside,
    title,
    trimmed_colormap,
    wrapped,
)
from whence.plots.text import Names, name_labels

MAX_COUNTS = 25
"""Classes up to which a number fits into each cell."""


def confusion(labels: ArrayLike, predicted: ArrayLike, names: Names = None) -> Figure:
    """Draw how often each class is taken for each other, with F1 of each and overall scores.

    Parameters
    ----------
    labels, predicted:
        The true and the predicted class of each sample, (n,).
    names:
        Classes in words: a mapping, or a sequence for classes 0, 1, ….

    Raises
    ------
    ValueError
        If they are not two vectors of one length.

    Examples
    --------
    >>> from whence import plots
    >>> figure = plots.confusion([0, 0, 1, 1], [0, 1, 1, 1], names=["cat", "dog"])
    >>> print(figure.get_suptitle())
    Confusion of 4 samples
    accuracy 0.750, macro F1 0.733, weighted F1 0.733
    """
    true = _read_classes("labels", labels)
    guessed = _read_classes("predicted", predicted)
    n = len(true)
    if len(guessed) != n:
        raise ValueError(f"{n} labels, but {len(guessed)} predictions")

    # Classes that occur on either side, and counts (true, predicted) of pairs of them.
    both = np.concatenate([true, guessed])
    present, places = np.unique(both, return_inverse=True)
    m = len(present)
    counts = np.zeros((m, m), dtype=int)
    np.add.at(counts, (places[:n], places[n:]), 1)

    words = list(name_labels(present.tolist(), names).values())
    return _Confusion(counts, words).draw()


def _read_classes(what: str, classes: ArrayLike) -> Array:
    if hasattr(classes, "detach"):
        classes = classes.detach().cpu().numpy()
    array: Array = np.asarray(classes)
    if array.ndim != 1 or not array.size:
        hint = "; of outputs take .argmax(1)" if array.ndim == 2 else ""
        raise ValueError(
            f"{what} must be one class for each sample, got {array.shape}{hint}"
        )

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite")
    return array


class _Confusion:
    """A confusion matrix and the scores of its classes."""

    def __init__(self, counts: Array, words: list[str]) -> None:
        self.counts = counts
        """Samples by true and by predicted class, (m, m)."""
        self.words = words
        self.support = counts.sum(axis=1)
        """Samples of each true class, (m,)."""
        # F1 = 2 TP / (2 TP + FN + FP), and TP + FN and TP + FP are the sums of a row and of a
        # column. Each class occurs in one of them, so there is no 0/0.
        self.f1 = 2 * np.diag(counts) / (self.support + counts.sum(axis=0))
        # Shares of the true class, zero where it does not occur.
        self.shares = counts / np.maximum(self.support, 1)[:, None]

        # Inches: about nine for all cells, unless they get too large or too small to read.
        m = len(words)
        cell = float(np.clip(9 / m, 0.2, 0.55))
        self.size = max(1.6, m * cell)
        self.cell = self.size / m
        self.fontsize = min(TICK, 60 * self.cell)

    def scores(self) -> str:
        accuracy = np.trace(self.counts) / self.counts.sum()
        macro = self.f1.mean()
        weighted = np.average(self.f1, weights=self.support)
        return (
            f"accuracy {accuracy:.3f}, macro F1 {macro:.3f}, weighted F1 {weighted:.3f}"
        )

    def draw(self) -> Figure:
        # Room for the names of classes, to the left and (if they are turned) below.
        longest = max(len(word) for word in self.words)
        width = self.size + 3.0 + 0.07 * longest
        height = self.size + 1.5 + 0.05 * longest
        figure = Figure((width, height), layout="constrained")
        left, right = figure.subplots(
            1,
            2,
            width_ratios=[self.size, 1.4],
            sharey=True,
        )

        self._draw_matrix(figure, left, longest)
        self._draw_f1(right)

        # Last, as both panels share the axis and each sets its ticks.
        left.set_yticks(
            range(len(self.words)),
            self.words,
            fontsize=self.fontsize,
        )

        n = self.counts.sum()
        figure.suptitle(
            f"Confusion of {n} samples\n{self.scores()}",
            fontsize=TITLE,
        )
        return figure

    def _draw_matrix(self, figure: Figure, ax: Axes, longest: int) -> None:
        m = len(self.words)
        # Without the darkest blue, on which a number could not be read.
        colormap = trimmed_colormap("Blues", 0.0, 0.95)
        colors = ScalarMappable(Normalize(0, 1), colormap)
        ax.imshow(
            self.shares,
            cmap=colormap,
            vmin=0,
            vmax=1,
            aspect="auto",
        )
        dress(ax, ("predicted class", "true class"), grid=False)
        ax.tick_params(length=0)

        # Names that are wider than a cell (in points, 72 to the inch) are turned.
        width = 0.55 * self.fontsize * longest
        is_turned = width > 72 * self.cell
        ax.set_xticks(
            range(m),
            self.words,
            fontsize=self.fontsize,
            rotation=90 if is_turned else 0,
        )

        if m > MAX_COUNTS:
            color_bar(
                figure,
                colors,
                "share of the true class",
                ax=ax,
                aspect=50,
                fraction=0.04,
                pad=0.02,
            )
            return

        for row, column in np.ndindex(m, m):
            self._write_count(ax, row, column)

    def _write_count(self, ax: Axes, row: int, column: int) -> None:
        count = self.counts[row, column]
        color = INK
        if self.shares[row, column] > 0.55:  # on a dark cell
            color = "white"
        elif not count:
            color = "0.75"

        ax.text(
            column,
            row,
            str(count),
            color=color,
            fontsize=TICK,
            ha="center",
            va="center",
        )

    def _draw_f1(self, ax: Axes) -> None:
        ax.barh(
            np.arange(len(self.f1)),
            self.f1,
            height=0.65,
            color=BLUE,
        )

        dress(ax, ("F1 (samples)", ""), grid=False)
        ax.tick_params(axis="y", left=False, labelleft=False)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])

        # Numbers right of the axis, which ends at one.
        for k, f1 in enumerate(self.f1):
            n = self.support[k]
            ax.text(
                1.04,
                k,
                f"{f1:.2f} ({n})",
                va="center",
                fontsize=self.fontsize,
                color=INK,
            )


def detection(curves: Mapping[str, xr.Dataset]) -> Figure:
    """Draw precision against recall of finding corrupted samples, a curve for each method.

    Parameters
    ----------
    curves:
        By method what :func:`whence.evaluation.bad_data.detection` returns: ``precision`` and
        ``recall`` on dimension rank, with attributes ``average_precision`` and ``share``.

    Raises
    ------
    ValueError
        If variables or attributes are missing, or methods were measured on other data.

    Examples
    --------
    >>> from whence import plots
    >>> from whence.evaluation.bad_data import detection
    >>> curve = detection([0.9, 0.1, 0.8, 0.2], [True, False, False, True])
    >>> figure = plots.detection({"influence": curve})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['influence: AP 0.833', 'random: 0.500']
    """
    _check_curves(curves)
    shares = {name: float(curve.attrs["share"]) for name, curve in curves.items()}
    share = next(iter(shares.values()))
    if not np.allclose(list(shares.values()), share):
        raise ValueError(
            f"the curves are of other data, as shares of bad samples differ: {shares}"
        )

    figure = Figure((7.4, 4.2), layout="constrained")
    ax = figure.add_subplot()
    _draw_curves(ax, curves)
    # Samples in random order have the share of bad ones as precision at any recall.
    look: Look = {"color": GRAY, "linestyle": "--", "linewidth": 1.2}
    ax.axhline(share, label=f"random: {share:.3f}", **look)

    horizontal = "recall: share of all corrupted samples that were found"
    vertical = "precision: share of corrupted\namong the samples looked at"
    dress(ax, (horizontal, vertical))
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    legend_beside(ax)

    text = (
        f"Finding corrupted samples, {100 * share:.3g} % of all, by looking at the most "
        "suspicious first"
    )
    title(figure, text, inches=7.0)
    text = "AP: average precision, the area below the curve; 1 is perfect."
    caption(figure, text, inches=7.2)
    return figure


def _draw_curves(ax: Axes, curves: Mapping[str, xr.Dataset]) -> None:
    """Draw the curves, the best first; a method's look depends on its place in ``curves``."""
    looks = line_looks(curves)
    scores = {
        name: float(curve.attrs["average_precision"]) for name, curve in curves.items()
    }
    for name in sorted(curves, key=lambda method: -scores[method]):
        precision = curves[name]["precision"].values
        recall = curves[name]["recall"].values
        label = f"{wrapped(name, 1.9)}: AP {scores[name]:.3f}"
        # Average precision is Σ_k (recall_k − recall_{k−1}) · precision_k with recall_0 = 0: the
        # area below steps at the height of their right end.
        ax.step(
            np.append(0.0, recall),
            np.append(precision[0], precision),
            where="pre",
            linewidth=1.6,
            label=label,
            **looks[name],
        )


def _check_curves(curves: object) -> None:
    if isinstance(curves, xr.Dataset) or not isinstance(curves, Mapping):
        raise TypeError(
            "curves must be a mapping from a method's name to its curve, such as "
            f"{{'influence': detection(...)}}, got {type(curves).__name__}"
        )
    if not curves:
        raise ValueError("curves must hold one method or more, got none")

    for name, curve in curves.items():
        what = f"the curve of {name!r}"
        if not isinstance(curve, xr.Dataset):
            raise TypeError(
                f"{what} must be an xarray.Dataset such as "
                f"whence.evaluation.bad_data.detection returns, got {type(curve).__name__}"
            )

        _check_variables(what, curve, ("precision", "recall"), "rank")
        for attribute in ("average_precision", "share"):
            if attribute not in curve.attrs:
                raise ValueError(f"{what} has no attribute {attribute!r}")


def _check_variables(
    what: str, dataset: xr.Dataset, variables: tuple[str, ...], dimension: str
) -> None:
    for variable in variables:
        if variable not in dataset or dataset[variable].dims != (dimension,):
            raise ValueError(f"{what} has no {variable!r} on dimension {dimension!r}")


def label_report(report: xr.Dataset, names: Names = None) -> Figure:
    """Draw the mean suspicion of corrupted and of clean samples, two bars for each label.

    Parameters
    ----------
    report:
        What :func:`whence.evaluation.bad_data.label_report` returns: ``corrupted``, ``clean`` and
        their numbers ``n_corrupted``, ``n_clean`` on dimension label.
    names:
        Labels in words: a mapping, or a sequence for labels 0, 1, ….

    Raises
    ------
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> from whence import plots
    >>> from whence.evaluation.bad_data import label_report
    >>> report = label_report([5.0, 1.0, 3.0, 2.0], [True, False, False, False], [0, 0, 1, 1])
    >>> figure = plots.label_report(report, names=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['cat', 'dog']
    """
    if not isinstance(report, xr.Dataset):
        raise TypeError(
            "report must be an xarray.Dataset such as whence.evaluation.bad_data.label_report "
            f"returns, got {_checks.describe(report)}"
        )
    variables = ("corrupted", "clean", "n_corrupted", "n_clean")
    _check_variables("report", report, variables, "label")

    words = list(name_labels(report["label"].values.tolist(), names).values())
    n = len(words)
    figure = Figure((7.0, 1.5 + max(0.46 * n, 1.0)), layout="constrained")
    ax = figure.add_subplot()
    _draw_bars(ax, report, "corrupted", -0.2, VERMILION)
    _draw_bars(ax, report, "clean", 0.2, BLUE)

    dress(ax, ("mean suspicion: higher is more suspicious", "label"))
    ax.grid(False, axis="y")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(n), words)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(n - 0.45, -0.55)  # the first label on top
    ax.margins(x=0.12)  # room for the numbers at the ends of the bars

    place: Look = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1),
        "ncols": 2,
        "borderaxespad": 0.2,
    }
    ax.legend(fontsize=TEXT, frameon=False, **place)
    figure.suptitle("Suspicion of corrupted and clean samples by label", fontsize=TITLE)
    return figure


def _draw_bars(
    ax: Axes, report: xr.Dataset, kind: str, shift: float, color: str
) -> None:
    """Draw a bar for each label, NaN as none, with the number of samples at its end."""
    means = report[kind].values.astype(float)
    bars = ax.barh(
        np.arange(len(means)) + shift,
        np.nan_to_num(means),
        height=0.38,
        color=color,
        label=kind,
    )

    # A bar of no length may be a mean of zero or of no samples.
    texts = []
    for n in report[f"n_{kind}"].values:
        text = f"n = {n}" if n else f"no {kind} sample"
        texts.append(text)

    ax.bar_label(
        bars,
        texts,
        padding=3,
        fontsize=TICK - 1.5,
        color="0.35",
    )
