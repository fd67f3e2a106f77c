"""Figures of how well a model learned, and of how well bad samples are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whence import _checks
from whence.plots.style import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    TEXT,
    TICK,
    TITLE,
    VERMILION,
    Array,
    Look,
    colour_bar,
    dress,
    without_ends,
    wrapped,
)
from whence.plots.words import Names, words_for

MOST_COUNTS = 25
"""Classes up to which a number fits into each cell."""
DASHES = ("-", "--", "-.", ":")
SETS = {
    "train": ("training", BLUE),
    "training": ("training", BLUE),
    "validation": ("validation", VERMILION),
    "valid": ("validation", VERMILION),
    "val": ("validation", VERMILION),
    "test": ("test", COLOURS[2]),
    "": ("", BLUE),
}


@dataclass(frozen=True)
class _Scores:
    """Counts (true, predicted) and what follows from them."""

    counts: Array

    @property
    def support(self) -> Array:
        return self.counts.sum(axis=1)

    @property
    def f1(self) -> Array:
        """``2 TP / (2 TP + FP + FN)`` of each class; never 0/0, as each class occurs."""
        return 2 * np.diag(self.counts) / (self.support + self.counts.sum(axis=0))

    @property
    def shares(self) -> Array:
        """Counts as shares of the true class; zero where it does not occur."""
        return self.counts / np.maximum(self.support, 1)[:, None]

    def __str__(self) -> str:
        accuracy = np.trace(self.counts) / self.counts.sum()
        weighted = np.average(self.f1, weights=self.support)
        text = f"accuracy {accuracy:.3f}, macro F1 {self.f1.mean():.3f}"
        return f"{text}, weighted F1 {weighted:.3f}"


def confusion(labels: Any, predicted: Any, names: Names = None) -> Figure:
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
    true, given = _classes("labels", labels), _classes("predicted", predicted)
    if len(true) != len(given):
        raise ValueError(f"{len(true)} labels, but {len(given)} predictions")
    present, places = np.unique(np.concatenate([true, given]), return_inverse=True)
    m, words = len(present), list(words_for(present.tolist(), names).values())
    counts = np.zeros((m, m), dtype=int)
    np.add.at(counts, (places[: len(true)], places[len(true) :]), 1)
    scores = _Scores(counts)
    cell = float(np.clip(9 / m, 0.2, 0.55))
    size = max(1.6, cell * m)
    cell = size / m
    long = max(len(word) for word in words)
    figure = Figure(
        (size + 3.0 + 0.07 * long, size + 1.5 + 0.05 * long), layout="constrained"
    )
    left, right = figure.subplots(1, 2, width_ratios=[size, 1.4], sharey=True)
    _matrix(figure, left, scores, words, cell)
    _bars_of_f1(right, scores, cell)
    left.set_yticks(
        range(m), words, fontsize=min(TICK, 60 * cell)
    )  # last: both share the axis
    figure.suptitle(f"Confusion of {len(true)} samples\n{scores}", fontsize=TITLE)
    return figure


def _classes(what: str, given: Any) -> Array:
    held = (
        given.detach().cpu().numpy() if hasattr(given, "detach") else np.asarray(given)
    )
    if held.ndim != 1 or not held.size:
        hint = "; of outputs take .argmax(1)" if held.ndim == 2 else ""
        raise ValueError(
            f"{what} must be one class for each sample, got {held.shape}{hint}"
        )
    if held.dtype.kind == "f" and not np.isfinite(held).all():
        raise ValueError(f"{what} must be finite")
    classes: Array = held
    return classes


def _matrix(
    figure: Figure, ax: Axes, scores: _Scores, words: list[str], cell: float
) -> None:
    m = len(words)
    colours = ScalarMappable(Normalize(0, 1), without_ends("Blues", 0.0, 0.95))
    ax.imshow(scores.shares, cmap=colours.cmap, vmin=0, vmax=1, aspect="auto")
    dress(ax, ("predicted class", "true class"), grid=False)
    size = min(TICK, 60 * cell)
    turned = max(len(word) for word in words) * size * 0.55 > 72 * cell
    ax.set_xticks(range(m), words, fontsize=size, rotation=90 if turned else 0)
    ax.tick_params(length=0)
    if m > MOST_COUNTS:
        colour_bar(
            figure,
            colours,
            "share of the true class",
            ax=ax,
            aspect=50,
            fraction=0.04,
            pad=0.02,
        )
        return
    for row, column in np.ndindex(m, m):
        dark = scores.shares[row, column] > 0.55
        count = scores.counts[row, column]
        look: Look = {
            "color": "white" if dark else INK if count else "0.75",
            "fontsize": TICK,
        }
        ax.text(column, row, str(count), ha="center", va="center", **look)


def _bars_of_f1(ax: Axes, scores: _Scores, cell: float) -> None:
    places = np.arange(len(scores.f1))
    ax.barh(places, scores.f1, height=0.65, color=BLUE)
    dress(ax, ("F1 (samples)", ""), grid=False)
    ax.tick_params(axis="y", left=False, labelleft=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    for place, f1, n in zip(places.tolist(), scores.f1, scores.support, strict=True):
        size = min(TICK, 60 * cell)
        ax.text(1.04, place, f"{f1:.2f} ({n})", va="center", fontsize=size, color=INK)


def losses(
    history: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[float]],
) -> Figure:
    """Draw losses, and accuracies where there are some, by epoch.

    Parameters
    ----------
    history:
        A row for each epoch, or a sequence of numbers for each column. Columns end in ``loss`` or
        ``accuracy`` and may have ``train_``, ``validation_`` or ``test_`` in front; ``epoch`` is
        taken where it is there, else rows count from 1. What was not measured may be missing or
        NaN; other columns are left out.

    Raises
    ------
    ValueError
        If no column is a loss or an accuracy, or lengths differ.

    Examples
    --------
    >>> from whence import plots
    >>> figure = plots.losses({"train_loss": [1.0, 0.5, 0.3], "validation_loss": [1.1, 0.7, 0.8]})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()[:2]]
    ['training loss', 'validation loss']
    """
    table = _table(history)
    first = next(iter(table.values()))
    epochs = table.get("epoch", np.arange(1.0, len(first) + 1))
    kinds = ("loss", "accuracy")
    groups = {
        kind: [name for name in table if name.split("_")[-1] == kind] for kind in kinds
    }
    groups = {kind: columns for kind, columns in groups.items() if columns}
    if not groups:
        raise ValueError(
            "history must have columns such as 'train_loss', 'validation_loss' or "
            f"'validation_accuracy', got {', '.join(table) or 'none'}"
        )
    figure = Figure((7.0, 1.3 + 2.4 * len(groups)), layout="constrained")
    axes = list(figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0])
    for ax, (kind, columns) in zip(axes, groups.items(), strict=True):
        for name in columns:
            _curve(ax, epochs, table[name], name, kind)
        values = np.concatenate([table[name] for name in columns])
        values = values[np.isfinite(values)]
        if (
            kind == "loss"
            and len(values)
            and values.min() > 0
            and np.ptp(np.log10(values)) > 1.5
        ):
            ax.set_yscale("log")
        _best(ax, epochs, table, columns, kind)
        dress(ax, ("epoch" if ax is axes[-1] else "", kind))
        ax.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=TEXT, frameon=False
        )
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    figure.suptitle(
        " and ".join(groups).capitalize() + " during training", fontsize=TITLE
    )
    return figure


def _table(history: Any) -> dict[str, Array]:
    """Return a history as columns of numbers, NaN where there is none."""
    if isinstance(history, Mapping):
        columns = {
            str(n): list(values) for n, values in history.items() if _is_column(values)
        }
    else:
        rows = list(history)
        if not all(isinstance(row, Mapping) for row in rows):
            raise TypeError(
                "history must be rows, each a mapping such as {'epoch': 1, 'train_loss': 0.5}, or "
                "a mapping of columns"
            )
        columns = {str(n): [row.get(n) for row in rows] for row in rows for n in row}
    if not columns or not next(iter(columns.values())):
        raise ValueError("history must have one epoch or more")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of history must have one length, got {lengths}")
    wanted = [
        n for n in columns if n == "epoch" or n.split("_")[-1] in ("loss", "accuracy")
    ]
    return {name: _numbers(name, columns[name]) for name in wanted or columns}


def _is_column(values: Any) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str)


def _numbers(name: str, values: Sequence[Any]) -> Array:
    try:
        return np.array([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        raise TypeError(
            f"the column {name!r} of history must hold numbers, got {values}"
        ) from None


def _words(name: str) -> tuple[str, str, str]:
    """Return a column's name in words, its colour and its dashes."""
    front, _, kind = name.rpartition("_")
    if front in SETS:
        words, colour = SETS[front]
        return f"{words} {kind}".strip(), colour, "--" if words == "validation" else "-"
    return f"{front.replace('_', ' ')} {kind}", COLOURS[3], "-."


def _curve(ax: Axes, epochs: Array, values: Array, name: str, kind: str) -> None:
    measured = np.isfinite(values)
    words, colour, dashes = _words(name)
    few = measured.sum() <= 30
    look: Look = {"marker": "o" if few else "", "markersize": 3.5, "linewidth": 1.6}
    ax.plot(
        epochs[measured], values[measured], dashes, color=colour, label=words, **look
    )


def _best(
    ax: Axes,
    epochs: Array,
    table: Mapping[str, Array],
    columns: Sequence[str],
    kind: str,
) -> None:
    """Mark the best epoch of validation, which is the one that is usually kept."""
    for name in columns:
        words = _words(name)[0]
        values = table[name]
        if not words.startswith("validation") or np.isfinite(values).sum() < 2:
            continue
        best = int(np.nanargmin(values) if kind == "loss" else np.nanargmax(values))
        which = "lowest" if kind == "loss" else "highest"
        text = f"{which} {words}:\n{values[best]:.3g} at epoch {epochs[best]:g}"
        look: Look = {
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markersize": 10,
        }
        ax.plot(epochs[best], values[best], "o", label=text, **look)


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
    >>> found = detection([0.9, 0.1, 0.8, 0.2], [True, False, False, True])
    >>> figure = plots.detection({"influence": found})
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
    scores = {
        name: float(curve.attrs["average_precision"]) for name, curve in curves.items()
    }
    styles = {name: k for k, name in enumerate(curves)}
    for name in sorted(curves, key=lambda n: -scores[n]):
        k, curve = styles[name], curves[name]
        precision, recall = curve["precision"].values, curve["recall"].values
        steps = np.append(0.0, recall), np.append(precision[0], precision)
        look: Look = {
            "color": COLOURS[k % 6],
            "linestyle": DASHES[k // 6 % len(DASHES)],
        }
        label = f"{wrapped(name, 1.9)}: AP {scores[name]:.3f}"
        # The area below such steps is the average precision.
        ax.step(*steps, where="pre", linewidth=1.6, label=label, **look)
    ax.axhline(
        share, color=GREY, linestyle="--", linewidth=1.2, label=f"random: {share:.3f}"
    )
    across = "recall: share of all corrupted samples that were found"
    dress(ax, (across, "precision: share of corrupted\namong the samples looked at"))
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=TEXT, frameon=False
    )
    title = f"Finding corrupted samples, {100 * share:.3g} % of all, by looking at the most "
    figure.suptitle(wrapped(f"{title}suspicious first", 7.0, TITLE), fontsize=TITLE)
    note = "AP: average precision, the area below the curve; 1 is perfect."
    figure.supxlabel(note, x=0.02, ha="left", fontsize=TICK)
    return figure


def _check_curves(curves: Any) -> None:
    if isinstance(curves, xr.Dataset) or not isinstance(curves, Mapping):
        raise TypeError(
            "curves must be a mapping from a method's name to its curve, such as "
            f"{{'influence': detection(...)}}, got {type(curves).__name__}"
        )
    if not curves:
        raise ValueError("curves must hold one method or more, got none")
    for name, curve in curves.items():
        _check_curve(name, curve)


def _check_curve(name: str, curve: object) -> None:
    if not isinstance(curve, xr.Dataset):
        raise TypeError(
            f"the curve of {name!r} must be an xarray.Dataset such as "
            f"whence.evaluation.bad_data.detection returns, got {type(curve).__name__}"
        )
    for variable in ("precision", "recall"):
        if variable not in curve or curve[variable].dims != ("rank",):
            raise ValueError(
                f"the curve of {name!r} has no {variable!r} on dimension 'rank'"
            )
    for attribute in ("average_precision", "share"):
        if attribute not in curve.attrs:
            raise ValueError(f"the curve of {name!r} has no attribute {attribute!r}")


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
    >>> found = label_report([5.0, 1.0, 3.0, 2.0], [True, False, False, False], [0, 0, 1, 1])
    >>> figure = plots.label_report(found, names=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['cat', 'dog']
    """
    if not isinstance(report, xr.Dataset):
        raise TypeError(
            "report must be an xarray.Dataset such as whence.evaluation.bad_data.label_report "
            f"returns, got {_checks.shown(report)}"
        )
    for variable in ("corrupted", "clean", "n_corrupted", "n_clean"):
        if variable not in report or report[variable].dims != ("label",):
            raise ValueError(f"report has no {variable!r} on dimension 'label'")
    labels = report["label"].values.tolist()
    words = list(words_for(labels, names).values())
    figure = Figure((7.0, 1.5 + max(0.46 * len(words), 1.0)), layout="constrained")
    ax = figure.add_subplot()
    places = np.arange(len(words))
    for kind, shift, colour in (("corrupted", -0.2, VERMILION), ("clean", 0.2, BLUE)):
        values, counts = report[kind].values.astype(float), report[f"n_{kind}"].values
        drawn = np.nan_to_num(values)
        bars = ax.barh(places + shift, drawn, height=0.38, color=colour, label=kind)
        texts = [f"n = {n}" if n else f"no {kind} sample" for n in counts]
        ax.bar_label(bars, texts, padding=3, fontsize=TICK - 1.5, color="0.35")
    dress(ax, ("mean suspicion: higher is more suspicious", "label"))
    ax.grid(False, axis="y")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(places, words)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(words) - 0.45, -0.55)
    ax.margins(x=0.12)
    place: Look = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1),
        "ncols": 2,
        "frameon": False,
    }
    ax.legend(fontsize=TEXT, borderaxespad=0.2, **place)
    figure.suptitle("Suspicion of corrupted and clean samples by label", fontsize=TITLE)
    return figure
