"""The training images of highest and of lowest influence, and those that look most wrong."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine

from whence import _checks
from whence.arrays import ArrayLike
from whence.plots.samples import SampleInfluences
from whence.plots.style import (
    GRAY,
    TEXT,
    TICK,
    VERMILION,
    Array,
    caption,
    title,
)
from whence.plots.text import Names, name_labels

MIN_COLUMNS = 4
"""Columns that a row has at least, so that few images stay together."""
MAX_COLUMNS = 10
MAX_NAME = 18
"""Characters of a label that fit below an image."""
PREDICTED = "model: "
"""What stands before the class that the model predicts."""
CHANNELS = (1, 3, 4)
"""Gray, colors, and colors with opacity."""


def extreme_images(
    attribution: xr.DataArray,
    images: ArrayLike,
    k: int = 8,
    target_image: ArrayLike | None = None,
    label: str = "label",
    names: Names = None,
    same_label_only: bool = False,
    of_label: Hashable | None = None,
) -> Figure:
    r"""Draw the training images of highest and of lowest influence on a target, or on average.

    Only samples of positive influence are in the first row and only of negative in the second, so
    there may be fewer than ``k``. Each has its label, its place in the data and its influence below
    it; a thick frame marks the target's label.

    Parameters
    ----------
    attribution:
        Dimensions (target, point) or (point,); of several targets the mean over them is drawn, of
        one that of ``attribution.isel(target=0)``.
    images:
        The image of each point in order: (n, H, W), (n, C, H, W) or (n, H, W, C), with C of 1, 3 or
        4. Their whole range of numbers is drawn from black to white.
    k:
        How many in each row; above 10 they go on in a further one.
    target_image:
        What the influence is on, to its left; of one target only.
    label, names:
        As in :func:`influence_histograms`.
    same_label_only:
        Show only points of the target's own label.
    of_label:
        Show only points of this label.

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
    samples = SampleInfluences.of(attribution, label, average=True)
    table = _read_images(images, len(samples))
    named = samples.name_labels(names)
    target = None
    if target_image is not None:
        if samples.n_targets > 1:
            raise ValueError(
                f"target_image is of one target, and the attribution has {samples.n_targets}: "
                "leave it out, or select one, attribution.isel(target=0)"
            )
        target = _read_target(target_image, table)

    # Which label alone is to be shown, if there is one.
    only = of_label
    allowed = None
    if same_label_only:
        if of_label is not None:
            raise ValueError("of_label names the label: leave out same_label_only")
        allowed = samples.with_target_label(label)
        only = samples.target_label
    elif of_label is not None:
        allowed = samples.with_label(label, of_label)

    chosen = [samples.strongest(sign, k, allowed) for sign in (1, -1)]
    captions = {}
    for i in np.concatenate(chosen).tolist():
        captions[i] = influence_caption(samples, i, named)
    framed = [i for i in captions if samples.has_target_label(i)]
    rows = dict(zip(row_names(samples), chosen, strict=True))

    shown_target = None
    if target is not None:
        word = named.get(samples.target_label)
        target_label = f"{label} {word}" if word else ""
        shown_target = _Target(target, target_name(samples), target_label)
    gallery = _Gallery(table, captions, framed)
    figure = gallery.draw(rows, shown_target)
    width = figure.get_figwidth()

    text = f"Samples of most {samples.noun.lower()} on {samples.subject(named)}"
    if allowed is not None:
        text += f" among those of {label} {named[only]}"
    title(figure, text, inches=width - 0.3)

    text = (
        f"{samples.legend()} Below each image: {label}, #place in the data, influence."
    )
    has_labels = samples.target_label is not None and samples.labels is not None
    if has_labels and allowed is None and framed:
        owner = "target's" if samples.n_targets == 1 else "targets'"
        text += f" Thick orange frame: the {owner} {label}."
    caption(figure, text + samples.caution(), inches=width - 0.1)
    return figure


def suspicious_images(
    ranked: xr.Dataset,
    images: ArrayLike,
    k: int = 16,
    label: str = "label",
    names: Names = None,
) -> Figure:
    r"""Draw the training images that look most wrong, the most suspicious first.

    Each has its label below it, of a classifier the class that the model predicts, then its place
    in the data and its suspicion; a thick frame marks those that the model predicts otherwise.

    Parameters
    ----------
    ranked:
        What :func:`whence.evaluation.suspects` returns, or some of its points.
    images:
        The image of each of these points in order, as in :func:`extreme_images`.
    k:
        How many; above 10 they go on in a further row.
    label, names:
        As in :func:`influence_histograms`.

    Raises
    ------
    TypeError
        If these are no suspects.
    ValueError
        If shapes do not suit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from whence import plots
    >>> known = {"suspicion": ("point", [0.1, 0.7]), "rank": ("point", [1, 0])}
    >>> ranked = xr.Dataset(known, {"label": ("point", [0, 1])})
    >>> figure = plots.suspicious_images(ranked, np.random.rand(2, 8, 8), names=["cat", "dog"])
    >>> [axes.get_xlabel() for axes in figure.axes if axes.images]
    ['dog\n#1  7.0e-01', 'cat\n#0  1.0e-01']
    """
    _checks.count("k", k)
    if not isinstance(ranked, xr.Dataset) or not {"suspicion", "rank"} <= set(ranked):
        raise TypeError(
            "expected what whence.evaluation.suspects(method) returns, an xarray.Dataset with "
            f"suspicion and rank, got {_checks.describe(ranked)}"
        )
    table = _read_images(images, ranked.sizes["point"])
    chosen = np.argsort(ranked["rank"].values, kind="stable")[:k]
    captions, framed = suspect_captions(ranked.isel(point=chosen), chosen, label, names)
    figure = _Gallery(table, captions, framed).draw({"most\nsuspicious": chosen}, None)

    width = figure.get_figwidth()
    n_shown = len(chosen)
    title(figure, f"The {n_shown} most suspicious training samples", inches=width - 0.3)
    parts = ["#place in the data, suspicion"]
    if "predicted" in ranked:
        parts = ["what the model predicts", *parts]
    if label in ranked.coords:
        parts = [label, *parts]
    text = f"Below each image: {', '.join(parts)}."
    if framed:
        text += f" Thick orange frame: the model predicts another {label}."
    caption(figure, text, inches=width - 0.1)
    return figure


@dataclass(frozen=True)
class _Target:
    """The image that others are compared with, what it is called and its label in words."""

    image: Array
    name: str
    label: str


class _Gallery:
    """Images on one scale, from the least to the largest number of all."""

    def __init__(
        self, table: Array, captions: Mapping[int, str], framed: Sequence[int]
    ) -> None:
        self.table = table
        self.captions = captions
        self.framed = framed
        # Either end is NaN if any number is.
        self.low = float(table.min())
        self.high = float(table.max())
        if not math.isfinite(self.high - self.low):
            raise ValueError("images must be finite")

        height, width = table.shape[1:3]
        self.slope = height / width

    def draw(self, rows: Mapping[str, Array], target: _Target | None) -> Figure:
        """Draw rows of images by their names, and the target beside them."""
        longest = max(len(row) for row in rows.values())
        n_columns = min(max(longest, MIN_COLUMNS), MAX_COLUMNS)

        # A row goes on in further lines; one without images still says "none".
        n_lines = []
        for row in rows.values():
            needed = math.ceil(len(row) / n_columns)
            n_lines.append(max(1, needed))

        # Inches: an image is 0.98 wide with 0.14 between, and below it are the lines of its
        # caption.
        n_words = max(
            (text.count("\n") + 1 for text in self.captions.values()), default=1
        )
        caption_height = 0.14 + 0.14 * n_words
        images_width = 1.12 * n_columns
        target_width = 0.0 if target is None else 1.9
        width = max(images_width + target_width + 0.5, 5.5)
        image_height = 0.98 * float(np.clip(self.slope, 0.4, 2.5))
        height = sum(n_lines) * (image_height + caption_height) + 0.95
        figure = Figure(
            (width, height),
            layout=ConstrainedLayoutEngine(h_pad=0.07),
        )

        # The target spans all rows, left of the images.
        widths = [images_width] if target is None else [1.7, images_width]
        grid = figure.add_gridspec(
            len(rows),
            len(widths),
            height_ratios=n_lines,
            width_ratios=widths,
        )
        if target is not None:
            self._draw_target(figure.add_subplot(grid[:, 0]), target)

        for k, (name, chosen) in enumerate(rows.items()):
            shape = (n_lines[k], n_columns)
            self._draw_row(figure, grid[k, -1], shape, name, chosen)
        return figure

    def _draw_target(self, ax: Axes, target: _Target) -> None:
        self._draw_image(ax, target.image)
        ax.set_title(target.name, fontsize=TEXT + 1)
        if target.label:
            ax.set_xlabel(target.label, fontsize=TEXT)
        _frame(ax, is_thick=bool(target.label))

    def _draw_row(
        self,
        figure: Figure,
        place: SubplotSpec,
        shape: tuple[int, int],
        name: str,
        chosen: Array,
    ) -> None:
        """Draw some of the images, with a name before the first."""
        # Empty places keep their size, so that images of both rows are aligned.
        grid = place.subgridspec(*shape)
        axes = []
        for cell in np.ndindex(shape):
            ax = figure.add_subplot(grid[cell])
            ax.set(xticks=[], yticks=[])
            ax.set_box_aspect(self.slope)
            ax.spines[:].set_visible(False)
            axes.append(ax)

        for ax, i in zip(axes, chosen.tolist(), strict=False):
            self._draw_image(ax, self.table[i])
            ax.set_xlabel(
                self.captions[i],
                fontsize=TICK - 0.5,
                linespacing=1.15,
            )
            _frame(ax, is_thick=i in self.framed)

        axes[0].set_ylabel(
            name,
            fontsize=TEXT,
            fontweight="bold",
        )

        if not len(chosen):
            axes[0].text(
                0.5,
                0.5,
                "none",
                fontsize=TEXT,
                color=GRAY,
                ha="center",
                va="center",
            )

    def _draw_image(self, ax: Axes, image: Array) -> None:
        # Images with colors have no color map, so that numbers must be in 0 … 1 themselves; the
        # target may have some outside the range of the others.
        span = (self.high - self.low) or 1.0
        shifted = image.astype(float) - self.low
        scaled = np.clip(shifted / span, 0, 1)
        ax.imshow(
            scaled,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        ax.set(xticks=[], yticks=[])


# --- what stands beside images -------------------------------------------------------------------


def row_names(samples: SampleInfluences) -> list[str]:
    """Return the names of the rows, each in two short lines."""
    story = samples.story
    if not story.verb:
        return ["most\npositive", "most\nnegative"]
    if not story.is_loss:
        return [f"{story.verb}\nraises it", f"{story.verb}\nlowers it"]

    adjectives = {"helps": "helpful", "harms": "harmful"}
    return [f"most\n{adjectives[judgment]}" for judgment in story.judgments()]


def target_name(samples: SampleInfluences) -> str:
    """Return what a target is called, with its number if it has one."""
    location = samples.story.location
    if "index" in location:
        return f"target {location['index']:.0f}"
    return "target"


def influence_caption(
    samples: SampleInfluences, i: int, named: Mapping[Hashable, str]
) -> str:
    """Return what stands below a sample's image: its label, its place and its influence."""
    place = samples.places[i]
    value = samples.values[i]
    line = f"#{place}  {value:+.1e}"
    if samples.labels is None:
        return line
    return f"{_short(samples.label_of(i, named))}\n{line}"


def suspect_captions(
    suspects: xr.Dataset, chosen: Array, label: str, names: Names
) -> tuple[dict[int, str], list[int]]:
    """Return what stands below each of some suspects, and which the model predicts otherwise."""
    n = len(chosen)
    places = chosen
    if "index" in suspects.coords:
        places = suspects["index"].values
    labels = suspects[label].values.tolist() if label in suspects.coords else None
    predicted = None
    if "predicted" in suspects and labels is not None:
        predicted = suspects["predicted"].values.tolist()
    named = name_labels({*(labels or []), *(predicted or [])}, names)

    captions = {}
    framed = []
    for k in range(n):
        lines = []
        if labels is not None:
            lines.append(_short(named[labels[k]]))
        if labels is not None and predicted is not None:
            guess = _short(named[predicted[k]], MAX_NAME - len(PREDICTED))
            lines.append(f"{PREDICTED}{guess}")
            if predicted[k] != labels[k]:
                framed.append(int(chosen[k]))
        suspicion = float(suspects["suspicion"].values[k])
        lines.append(f"#{places[k]}  {suspicion:.1e}")
        captions[int(chosen[k])] = "\n".join(lines)
    return captions, framed


def _short(name: str, length: int = MAX_NAME) -> str:
    """Return a name that does not run into those of the neighbours."""
    if len(name) <= length:
        return name
    return name[: length - 1] + "…"


def _frame(ax: Axes, *, is_thick: bool) -> None:
    color = "0.6"
    width = 0.8
    if is_thick:
        color = VERMILION
        width = 2.5

    spines = ax.spines[:]
    spines.set_visible(True)
    spines.set_color(color)
    spines.set_linewidth(width)


# --- reading images ------------------------------------------------------------------------------


def _read_images(images: ArrayLike, n: int) -> Array:
    """Return images (n, H, W) or (n, H, W, C), with their own numbers."""
    table = _to_array("images", images)
    if table.ndim not in (3, 4):
        raise ValueError(
            "images must have shape (n, H, W), (n, C, H, W) or (n, H, W, C), got "
            f"{tuple(table.shape)}"
        )
    if len(table) != n:
        raise ValueError(
            f"the attribution has {n} points, but there are {len(table)} images"
        )

    if table.ndim == 3:
        return table
    return _channels_last("images", table)


def _read_target(image: ArrayLike, table: Array) -> Array:
    """Return the target's image in the shape of the others."""
    array = _to_array("target_image", image)
    shape = table.shape[1:]
    if array.ndim == 3 and array.shape != shape:
        array = _channels_last("target_image", array[None])[0]

    if array.shape != shape:
        raise ValueError(
            f"target_image must be like the images, {shape}, got {array.shape}"
        )
    return array


def _to_array(what: str, numbers: ArrayLike) -> Array:
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu().numpy()
    array: Array = np.asarray(numbers)
    if array.dtype.kind not in "fiub" or not array.size:
        raise TypeError(
            f"{what} must be an array or tensor of numbers, got {array.dtype}"
        )

    if array.dtype.kind == "b":  # booleans cannot be scaled
        return array.astype(np.uint8)
    return array


def _channels_last(what: str, table: Array) -> Array:
    """Return (n, C, H, W) or (n, H, W, C) as the latter, without C if there is one channel."""
    # Images of three rows are rarer than channels in front: these win.
    if table.shape[1] in CHANNELS:
        table = np.moveaxis(table, 1, -1)
    elif table.shape[-1] not in CHANNELS:
        raise ValueError(
            f"{what} must have 1, 3 or 4 channels, got shape {tuple(table.shape)}"
        )

    if table.shape[-1] == 1:
        return table[..., 0]
    return table
