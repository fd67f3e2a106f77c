"""Figures of attributions of supervised models: which samples help, which harm, what they show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine

from whence import _checks
from whence.plots.style import (
    BLUE,
    GREY,
    INK,
    TEXT,
    TICK,
    TITLE,
    VERMILION,
    Array,
    Look,
    dress,
    wrapped,
)
from whence.plots.words import Names, Story, one_target, words_for

MOST_LABELS = 50
HEAVY = 20.0
"""How many times the typical size the largest must have for the axis to be logarithmic."""
IN_A_ROW = 10


@dataclass(frozen=True)
class _Case:
    """The influences of n samples on one target, or their mean over several."""

    values: Array
    labels: Array | None
    index: Array
    own: Any
    n_targets: int
    story: Story
    sign: str

    @classmethod
    def of(
        cls, attribution: xr.DataArray, label: str, *, average: bool = False
    ) -> _Case:
        if not isinstance(attribution, xr.DataArray):
            raise TypeError(
                "expected an attribution, an xarray.DataArray such as method.attribute(...) "
                f"returns, got {_checks.shown(attribution)}"
            )
        n_targets = attribution.sizes.get("target", 1)
        several = average and n_targets > 1
        data = one_target(attribution.isel(target=0) if several else attribution)
        values = data.values
        if several:
            values = attribution.mean("target", skipna=False).values.astype(float)
            _finite(values)
            data = _shared(data, attribution)
        coords, n = data.coords, data.size
        index = coords["index"].values if "index" in coords else np.arange(n)
        own = coords[f"target_{label}"].item() if f"target_{label}" in coords else None
        labels = coords[label].values if label in coords else None
        story, sign = Story.of(data), str(data.attrs.get("sign", ""))
        return cls(values, labels, index, own, n_targets, story, sign)

    @property
    def what(self) -> str:
        """What is influenced, such as ``the loss``; a term's name says nothing of samples."""
        name = self.story.name
        return "the loss" if name.startswith("the loss of") else name

    def subject(self, named: Mapping[Any, str]) -> str:
        """Return ``the loss of target 12 (label 3)``."""
        own = named.get(self.own, "")
        if self.n_targets > 1:
            return f"{self.what} of {self.n_targets} targets" + (
                f" of label {own}" if own else ""
            )
        where = (
            f" of target {self.story.at['index']:.0f}"
            if "index" in self.story.at
            else ""
        )
        return f"{self.what}{where}" + (f" (label {own})" if own else "")

    def sides(self) -> tuple[str, str]:
        """Return what samples of positive and of negative influence do, in one word or two."""
        if not self.story.verb:
            return "positive", "negative"
        if not self.story.is_loss:
            return f"{self.story.verb} raises it", f"{self.story.verb} lowers it"
        sides = ("helps", "harms")
        return sides if self.story.verb == "removing" else (sides[1], sides[0])

    def axis(self) -> str:
        """Return a label for an axis of influences."""
        if not self.story.verb:
            return f"influence on {self.what} ({self.sign or 'sign unknown'})"
        done = {"removing": "removed", "adding": "added"}[self.story.verb]
        return f"influence: predicted change of {self.what} when the sample is {done}"

    def legend(self) -> str:
        """Return a sentence on the sign."""
        if not self.story.verb:
            return f"{self.sign or 'The sign is unknown'}."
        good, bad = self.sides()
        good, bad = (
            (f" (it {good})", f" (it {bad})") if self.story.is_loss else ("", "")
        )
        text = f"Positive: {self.story.verb} the sample would raise {self.what}{good}; "
        return f"{text}negative: lower it{bad}."

    def name_of(self, i: int, named: Mapping[Any, str]) -> str:
        """Return a sample's label in words, or nothing where it has none."""
        return "" if self.labels is None else named[self.labels[i : i + 1].tolist()[0]]

    def is_own(self, i: int) -> bool:
        """Return whether a sample is known to have the target's label."""
        return (
            self.own is not None
            and self.labels is not None
            and self.labels[i] == self.own
        )

    @property
    def caution(self) -> str:
        """Return what one must know of the numbers, or nothing."""
        return f" Caution: {self.story.warning}." if self.story.warning else ""

    def needs_labels(self, label: str) -> Array:
        """Return the labels; none are an error."""
        if self.labels is None:
            raise ValueError(
                f"the attribution has no coordinate {label!r} on dimension 'point': add one with "
                f"attribution.assign_coords({label}=('point', labels))"
            )
        return self.labels


def _finite(values: Array) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            "the attribution must have one point or more, and finite values"
        )


def _shared(first: xr.DataArray, attribution: xr.DataArray) -> xr.DataArray:
    """Return the first target without the coordinates that differ between targets."""
    found = first
    for name, coord in attribution.coords.items():
        if coord.dims == ("target",) and len(set(coord.values.tolist())) > 1:
            found = found.drop_vars(str(name))
    return found


def influence_histograms(
    attribution: xr.DataArray, label: str = "label", names: Names = None, bins: int = 60
) -> Figure:
    """Draw histograms of the influences, a panel for each label, the target's own emphasised.

    Parameters
    ----------
    attribution:
        Dimensions (target, point) or (point,); of several targets the mean over them is drawn.
    label:
        The coordinate of points that separates the panels; ``target_`` in front of it names the
        target's own.
    names:
        Labels in words: a mapping, or a sequence for labels 0, 1, ….
    bins:
        How many, over the whole range. Where it is more than 20 times the typical size the axis is
        logarithmic away from zero, and says so.

    Raises
    ------
    ValueError
        If dimensions are others, the points have no such coordinate, or it has over 50 values.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray([0.5, -0.1, 0.2], {"label": ("point", [0, 1, 1])}, "point")
    >>> figure = plots.influence_histograms(row, names=["cat", "dog"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['cat', 'dog']
    """
    _checks.count("bins", bins)
    case = _Case.of(attribution, label, average=True)
    labels = case.needs_labels(label)
    present = np.unique(labels)
    if len(present) > MOST_LABELS:
        raise ValueError(
            f"{label!r} has {len(present)} different values, and a panel for each of more than "
            f"{MOST_LABELS} cannot be read: group them into a coordinate of few values"
        )
    named = words_for(
        [*present.tolist(), *([] if case.own is None else [case.own])], names
    )
    rows = len(present)
    figure = Figure(
        (7.4, 1.5 + max(rows * (0.62 if rows > 4 else 1.0), 1.2)), layout="constrained"
    )
    axes = list(figure.subplots(rows, sharex=True, sharey=True, squeeze=False)[:, 0])
    scale, edges = _binned(axes[0], case.values, bins)
    for ax, one in zip(axes, present.tolist(), strict=True):
        words = wrapped(
            named[one] if names is not None else f"{label} {named[one]}", 1.4
        )
        if own := one == case.own:
            words += "\n(the target's)" if case.n_targets == 1 else "\n(the targets')"
        _panel(ax, case.values[labels == one], edges, words, own=own)
    _signs(axes[0], case)
    axes[-1].set_xlabel(case.axis() + scale, fontsize=TEXT)
    average = "Average influence" if case.n_targets > 1 else "Influence"
    title = f"{average} of {len(labels)} samples on {case.subject(named)}, by {label}"
    figure.suptitle(wrapped(title, 7.0, TITLE), fontsize=TITLE)
    note = "Number of samples in each bin; beside it how many there are, their mean and how many "
    note += f"are positive. {case.legend()}{case.caution}"
    figure.supxlabel(wrapped(note, 7.2, TICK), x=0.02, ha="left", fontsize=TICK)
    return figure


def _binned(ax: Axes, values: Array, bins: int) -> tuple[str, Array]:
    """Set the scale of an axis; return what to say of it and edges of bins, of which zero is one.

    A few samples often have most of the influence: then a linear axis would show one bin.
    """
    sizes = np.abs(values[values != 0])
    largest = float(sizes.max(initial=0.0)) or 1.0
    typical = float(np.median(sizes)) if len(sizes) else largest
    words = ""
    if largest > HEAVY * typical:
        linear = max(10.0 ** math.floor(math.log10(typical)), 1e-6 * largest)
        ax.set_xscale("symlog", linthresh=linear, linscale=0.5)
        words = f"\n(axis linear up to ±{linear:.0e}, logarithmic beyond)"
    scale = ax.xaxis.get_transform()
    low, high = scale.transform(
        np.array([values.min(initial=0.0), values.max(initial=0.0)])
    )
    width = ((high - low) or float(scale.transform(np.array([largest]))[0])) / bins
    steps = np.arange(math.floor(low / width), max(math.ceil(high / width), 0) + 1)
    edges = scale.inverted().transform(np.append(steps, steps[-1] + 1) * width)
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    return words, edges


def _panel(ax: Axes, values: Array, edges: Array, words: str, *, own: bool) -> None:
    colour = VERMILION if own else BLUE
    ax.hist(values, edges.tolist(), color=colour, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.8)
    dress(ax, ("", ""))
    ax.locator_params(axis="y", nbins=3, integer=True)
    look: Look = {"fontweight": "bold", "color": VERMILION} if own else {"color": INK}
    place: Look = {"rotation": 0, "ha": "right", "va": "center"}
    ax.set_ylabel(words, fontsize=TEXT, labelpad=8, **place, **look)
    share = 100 * np.mean(values > 0)
    text = f"n = {len(values)}\nmean {values.mean():+.1e}\n{share:.0f} % positive"
    beside: Look = {"transform": ax.transAxes, "va": "center", "color": look["color"]}
    ax.text(1.015, 0.5, text, fontsize=TICK - 1, linespacing=1.1, **beside)


def _signs(ax: Axes, case: _Case) -> None:
    """Write above a panel what the two sides of zero mean."""
    positive, negative = case.sides()
    look: Look = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    look |= {"fontsize": TEXT, "va": "bottom", "color": INK}
    ax.annotate(f"{positive} →", (0, 1), (6, 3), ha="left", **look)
    ax.annotate(f"← {negative}", (0, 1), (-6, 3), ha="right", **look)


def describe_samples(
    attribution: xr.DataArray, label: str = "label", names: Names = None, k: int = 3
) -> str:
    """Return three lines: how the influence is spread, and the k samples that matter most.

    Of several targets the mean over them. Samples are named by their place in the data.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> from whence.attribution.method import SIGN
    >>> known = {"label": ("point", [0, 1, 1]), "quantity": "loss data", "target_index": 4}
    >>> about = {"effect": "remove", "sign": SIGN["remove"]}
    >>> row = xr.DataArray([0.5, -0.1, 0.2], known, "point", attrs=about)
    >>> print(plots.describe_samples(row, names=["cat", "dog"]))        # doctest: +ELLIPSIS
    Influence of 3 samples on the loss of target 4: 2 positive, 1 negative; the strongest 10 % ...
    Removing raises the loss (helps): 0 (cat) +5.0e-01, 2 (dog) +2.0e-01.
    Removing lowers the loss (harms): 1 (dog) -1.0e-01.
    """
    _checks.count("k", k)
    case = _Case.of(attribution, label, average=True)
    values, labels = case.values, case.labels
    known = [] if labels is None else np.unique(labels).tolist()
    named = words_for([*known, *([] if case.own is None else [case.own])], names)
    subject = case.subject(named)
    if not values.any():
        return f"None of the {len(values)} samples has any influence on {subject}."
    sizes = np.sort(np.abs(values))
    few = math.ceil(len(sizes) / 10)
    share = 100 * sizes[-few:].sum() / sizes.sum()
    average = "Average influence" if case.n_targets > 1 else "Influence"
    lines = [
        f"{average} of {len(values)} samples on {subject}: {np.sum(values > 0)} positive, "
        f"{np.sum(values < 0)} negative; the strongest 10 % carry {share:.0f} % of the total "
        f"absolute influence{f' (but {case.story.warning})' if case.story.warning else ''}."
    ]
    for sign, side in zip((1, -1), case.sides(), strict=True):
        chosen = _extreme(values, sign, k)
        of = [
            f" ({case.name_of(i, named)})" if labels is not None else "" for i in chosen
        ]
        each = [
            f"{case.index[i]}{word} {values[i]:+.1e}"
            for i, word in zip(chosen, of, strict=True)
        ]
        lines.append(f"{_heading(case, sign, side)}: {', '.join(each) or 'none'}.")
    return "\n".join(lines)


def _heading(case: _Case, sign: int, side: str) -> str:
    if not case.story.verb:
        return f"Most {side}"
    does = f"{case.story.verb.capitalize()} {'raises' if sign > 0 else 'lowers'} {case.what}"
    return f"{does} ({side})" if case.story.is_loss else does


def _extreme(values: Array, sign: int, k: int) -> Array:
    """Return where the k strongest values of a sign are, the strongest first."""
    order = np.argsort(-sign * values, kind="stable")[:k]
    chosen: Array = order[sign * values[order] > 0]
    return chosen


def extreme_images(
    attribution: xr.DataArray,
    images: Any,
    k: int = 8,
    target_image: Any = None,
    label: str = "label",
    names: Names = None,
    same_label_only: bool = False,
) -> Figure:
    r"""Draw the training images of highest and of lowest influence on one target.

    Only samples of positive influence are in the first row and only of negative in the second, so
    there may be fewer than ``k``. Each has its label, its place in the data and its influence below
    it; a thick frame marks the target's label.

    Parameters
    ----------
    attribution:
        Of one target, such as ``method.attribute(...).isel(target=0)``.
    images:
        The image of each point in order: (n, H, W), (n, C, H, W) or (n, H, W, C), with C of 1, 3 or
        4. Their whole range of numbers is drawn from black to white.
    k:
        How many in each row; above 10 they go on in a further one.
    target_image:
        What the influence is on, to its left.
    label, names:
        As in :func:`influence_histograms`.
    same_label_only:
        Show only points of the target's own label.

    Raises
    ------
    ValueError
        If shapes do not suit, or labels that are needed are missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence import plots
    >>> row = xr.DataArray([0.5, -0.1, 0.2], {"label": ("point", [0, 1, 1])}, "point")
    >>> figure = plots.extreme_images(row, np.random.rand(3, 8, 8))
    >>> [axes.get_xlabel() for axes in figure.axes if axes.images]
    ['0\n#0  +5.0e-01', '1\n#2  +2.0e-01', '1\n#1  -1.0e-01']
    """
    _checks.count("k", k)
    case = _Case.of(attribution, label)
    table = _images(images, len(case.values))
    known = [] if case.labels is None else np.unique(case.labels).tolist()
    named = words_for([*known, *([] if case.own is None else [case.own])], names)
    allowed = _allowed(case, label) if same_label_only else np.arange(len(case.values))
    chosen = [allowed[_extreme(case.values[allowed], sign, k)] for sign in (1, -1)]
    show = _Shown(table, case, named)
    target = None if target_image is None else _target(target_image, table)
    across = max(1, min(IN_A_ROW, *[max(len(c) for c in chosen)] * 2))
    lines = [max(1, math.ceil(len(c) / across)) for c in chosen]
    slope = float(np.clip(table.shape[1] / table.shape[2], 0.4, 2.5))
    width = 1.12 * across + (1.9 if target is not None else 0.0) + 0.5
    size = max(width, 5.5), sum(lines) * (0.98 * slope + 0.42) + 0.95
    figure = Figure(size, layout=ConstrainedLayoutEngine(h_pad=0.07))
    outer = figure.add_gridspec(
        2, 1 if target is None else 2, height_ratios=lines,
        width_ratios=None if target is None else [1.7, 1.12 * across],
    )  # fmt: skip
    if target is not None:
        show.target(figure.add_subplot(outer[:, 0]), target)
    for place, words, part, n in zip(
        (0, 1), _row_names(case), chosen, lines, strict=True
    ):
        show.row(figure, outer[place, -1], (n, across), words, part)
    only = f" among those of label {named[case.own]}" if same_label_only else ""
    title = f"Samples of most influence on {case.subject(named)}{only}"
    figure.suptitle(wrapped(title, size[0] - 0.3, TITLE), fontsize=TITLE)
    note = f"{case.legend()} Below each image: label, #place in the data, influence."
    if case.own is not None and case.labels is not None and not same_label_only:
        note += " Thick orange frame: the target's label."
    words = wrapped(note + case.caution, size[0] - 0.1, TICK)
    figure.supxlabel(words, x=0.02, ha="left", fontsize=TICK)
    return figure


def _row_names(case: _Case) -> tuple[str, str]:
    words = {"helps": "most\nhelpful", "harms": "most\nharmful"}
    first, second = (words.get(side, f"most\n{side}") for side in case.sides())
    if case.story.verb and not case.story.is_loss:
        return f"{case.story.verb}\nraises it", f"{case.story.verb}\nlowers it"
    return first, second


def _allowed(case: _Case, label: str) -> Array:
    labels = case.needs_labels(label)
    if case.own is None:
        raise ValueError(
            f"same_label_only needs the target's own label, a coordinate 'target_{label}', which "
            "the attribution does not have"
        )
    found: Array = np.flatnonzero(labels == case.own)
    if not len(found):
        raise ValueError(f"no point has the target's own {label}, {case.own!r}")
    return found


def _images(given: Any, n: int) -> Array:
    """Return images (n, H, W) or (n, H, W, C), with their own numbers."""
    table = _array("images", given)
    if table.ndim not in (3, 4):
        raise ValueError(
            "images must have shape (n, H, W), (n, C, H, W) or (n, H, W, C), got "
            f"{tuple(table.shape)}"
        )
    if len(table) != n:
        raise ValueError(
            f"the attribution has {n} points, but there are {len(table)} images"
        )
    return table if table.ndim == 3 else _channels_last("images", table)


def _array(what: str, given: Any) -> Array:
    held = (
        given.detach().cpu().numpy() if hasattr(given, "detach") else np.asarray(given)
    )
    if held.dtype.kind not in "fiub" or not held.size:
        raise TypeError(
            f"{what} must be an array or tensor of numbers, got {held.dtype}"
        )
    numbers: Array = held.astype(np.uint8) if held.dtype.kind == "b" else held
    return numbers


def _channels_last(what: str, table: Array) -> Array:
    if table.shape[1] in (1, 3, 4):
        table = np.moveaxis(table, 1, -1)
    elif table.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{what} must have 1, 3 or 4 channels, got shape {tuple(table.shape)}"
        )
    return table[..., 0] if table.shape[-1] == 1 else table


def _target(given: Any, table: Array) -> Array:
    image = _array("target_image", given)
    if image.ndim == 3 and image.shape != table.shape[1:]:
        image = _channels_last("target_image", image[None])[0]
    if image.shape != table.shape[1:]:
        raise ValueError(
            f"target_image must be like the images, {table.shape[1:]}, got {image.shape}"
        )
    return image


class _Shown:
    """Draws images on one scale, from the least to the largest number of all."""

    def __init__(self, table: Array, case: _Case, named: Mapping[Any, str]) -> None:
        self.table, self.case, self.named = table, case, named
        self.low, self.high = float(table.min()), float(table.max())
        if not np.isfinite([self.low, self.high]).all():
            raise ValueError("images must be finite")

    def target(self, ax: Axes, image: Array) -> None:
        """Draw what the influence is on."""
        self._draw(ax, image)
        at, own = self.case.story.at.get("index"), self.named.get(self.case.own, "")
        ax.set_title("target" if at is None else f"target {at:.0f}", fontsize=TEXT + 1)
        ax.set_xlabel(f"label {own}" if own else "", fontsize=TEXT)
        _frame(ax, thick=bool(own))

    def row(
        self,
        figure: Figure,
        place: SubplotSpec,
        shape: tuple[int, int],
        words: str,
        part: Array,
    ) -> None:
        """Draw some of the images, with a name before the first."""
        inner = place.subgridspec(*shape)
        axes = [
            figure.add_subplot(inner[r, c])
            for r in range(shape[0])
            for c in range(shape[1])
        ]
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            ax.set_box_aspect(self.table.shape[1] / self.table.shape[2])
            ax.spines[:].set_visible(False)
        for ax, i in zip(axes, part, strict=False):
            self._draw(ax, self.table[i])
            ax.set_xlabel(self._caption(i), fontsize=TICK - 0.5, linespacing=1.15)
            _frame(ax, thick=self.case.is_own(i))
        axes[0].set_ylabel(words, fontsize=TEXT, fontweight="bold")
        if not len(part):
            axes[0].text(
                0.5, 0.5, "none", ha="center", va="center", fontsize=TEXT, color=GREY
            )

    def _draw(self, ax: Axes, image: Array) -> None:
        scaled = (image.astype(float) - self.low) / ((self.high - self.low) or 1.0)
        ax.imshow(
            np.clip(scaled, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        ax.set(xticks=[], yticks=[])

    def _caption(self, i: int) -> str:
        values, labels = self.case.values, self.case.labels
        line = f"#{self.case.index[i]}  {values[i]:+.1e}"
        if labels is None:
            return line
        name = self.case.name_of(i, self.named)
        return f"{name if len(name) <= 18 else name[:17] + '…'}\n{line}"


def _frame(ax: Axes, *, thick: bool) -> None:
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(VERMILION if thick else "0.6")
    ax.spines[:].set_linewidth(2.5 if thick else 0.8)
