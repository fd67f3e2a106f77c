"""Attributions of supervised models in words: which samples help, which harm."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from whence import _checks
from whence.plots.style import Array
from whence.plots.text import Names, Story, check_finite, name_labels, one_target

MAX_LISTED = 12
"""Labels that an error lists."""


@dataclass(frozen=True)
class SampleInfluences:
    """The influences of n samples on one target, or their mean over several."""

    values: Array
    """The influences, (n,)."""
    labels: Array | None
    """The samples' labels, (n,), if the attribution has them."""
    places: Array
    """Numbers of the samples in the data, (n,)."""
    target_label: Hashable
    """The label of the target, or of all targets; None if unknown or not the same."""
    n_targets: int
    story: Story
    sign: str
    kind: str = "label"
    """What the labels are called."""

    @classmethod
    def of(
        cls, attribution: xr.DataArray, label: str, *, average: bool = False
    ) -> SampleInfluences:
        """Read an attribution of one target, or of several to be averaged."""
        check_attribution(attribution)
        n_targets = attribution.sizes.get("target", 1)
        if average and n_targets > 1:
            first = one_target(attribution.isel(target=0))
            data = _drop_differing(first, attribution)
            # A target that is not finite must show, not be left out of the mean.
            mean = attribution.mean("target", skipna=False)
            values = mean.values.astype(float)
            check_finite(values)
        else:
            data = one_target(attribution)
            values = data.values

        # Numbers in the data rather than in the attribution, which may be of a part of it.
        places = np.arange(data.size)
        if "index" in data.coords:
            places = data.coords["index"].values

        labels = None
        if label in data.coords:
            labels = data.coords[label].values

        # Of several targets only if they have it in common; others were dropped above.
        target_label = None
        if f"target_{label}" in data.coords:
            target_label = data.coords[f"target_{label}"].item()

        sign = str(data.attrs.get("sign", ""))
        return cls(
            values,
            labels,
            places,
            target_label,
            n_targets,
            Story.of(data),
            sign,
            label,
        )

    def __len__(self) -> int:
        return len(self.values)

    def name_labels(self, names: Names) -> dict[Hashable, str]:
        """Return all labels of samples and of the target in words."""
        known: list[Hashable] = []
        if self.labels is not None:
            known = np.unique(self.labels).tolist()

        # The target may be of a label that no sample has.
        if self.target_label is not None:
            known.append(self.target_label)
        return name_labels(known, names)

    def require_labels(self, label: str) -> Array:
        """Return the labels; none are an error."""
        if self.labels is None:
            raise ValueError(
                f"the attribution has no coordinate {label!r} on dimension 'point': add one with "
                f"attribution.assign_coords({label}=('point', labels))"
            )
        return self.labels

    def label_of(self, i: int, named: Mapping[Hashable, str]) -> str:
        """Return a sample's label in words, or nothing where it has none."""
        if self.labels is None:
            return ""
        # A list has Python's own numbers, which the keys of the names are.
        (label,) = self.labels[i : i + 1].tolist()
        return named[label]

    def has_target_label(self, i: int) -> bool:
        """Whether a sample is known to have the target's label."""
        if self.target_label is None or self.labels is None:
            return False

        label = self.labels[i]
        return bool(label == self.target_label)

    def with_target_label(self, label: str) -> Array:
        """Return which samples have the target's label, as booleans (n,); none are an error."""
        labels = self.require_labels(label)
        if self.target_label is None and self.n_targets > 1:
            raise ValueError(
                f"the {self.n_targets} targets have no {label} in common that same_label_only "
                "could select: name one with of_label="
            )
        if self.target_label is None:
            raise ValueError(
                f"same_label_only needs the target's own label, a coordinate 'target_{label}', "
                "which the attribution does not have"
            )

        matching: Array = labels == self.target_label
        if not matching.any():
            raise ValueError(
                f"no point has the target's own {label}, {self.target_label!r}"
            )
        return matching

    def with_label(self, label: str, wanted: Hashable) -> Array:
        """Return which samples have a label, as booleans (n,); none are an error."""
        labels = self.require_labels(label)
        matching: Array = np.asarray(labels == wanted)
        if matching.shape != labels.shape or not matching.any():
            present = np.unique(labels).tolist()[:MAX_LISTED]
            listed = ", ".join(repr(value) for value in present)
            raise ValueError(
                f"no point has the {label} {wanted!r}, of such as {listed}"
            )
        return matching

    def strongest(self, sign: int, k: int, allowed: Array | None = None) -> Array:
        """Return which k samples are the strongest of a sign, the strongest first.

        ``allowed`` tells the samples that may be chosen, as booleans (n,).
        """
        signed = sign * self.values
        order: Array = np.argsort(-signed, kind="stable")
        if allowed is not None:
            order = order[allowed[order]]

        # The k-th may have the other sign already, or no influence at all.
        order = order[:k]
        return order[signed[order] > 0]

    @property
    def quantity(self) -> str:
        """What is influenced, such as ``the loss``; a term's name says nothing of samples."""
        if self.story.name.startswith("the loss of"):
            return "the loss"
        return self.story.name

    @property
    def noun(self) -> str:
        """What the values are."""
        if self.n_targets > 1:
            return "Average influence"
        return "Influence"

    def subject(self, named: Mapping[Hashable, str]) -> str:
        """Return ``the loss of target 12 (label 3)``."""
        text = self.quantity
        label = named.get(self.target_label)
        if self.n_targets > 1:
            text += f" of {self.n_targets} targets"
            # Known only if all targets have the same.
            if label:
                text += f" of {self.kind} {label}"
            return text

        if "index" in self.story.location:
            index = self.story.location["index"]
            text += f" of target {index:.0f}"
        if label:
            text += f" ({self.kind} {label})"
        return text

    def sides(self) -> tuple[str, str]:
        """Return what samples of positive and of negative influence do, in one word or two."""
        verb = self.story.verb
        if not verb:
            return "positive", "negative"
        if not self.story.is_loss:
            return f"{verb} raises it", f"{verb} lowers it"
        return self.story.judgments()

    def axis(self) -> str:
        """Return a label for an axis of influences."""
        if not self.story.verb:
            sign = self.sign or "sign unknown"
            return f"influence on {self.quantity} ({sign})"

        done = {"removing": "removed", "adding": "added"}[self.story.verb]
        return (
            f"influence: predicted change of {self.quantity} when the sample is {done}"
        )

    def legend(self) -> str:
        """Return a sentence on the sign."""
        if not self.story.verb:
            sign = self.sign or "The sign is unknown"
            return f"{sign}."

        positive, negative = self.story.asides()
        return (
            f"Positive: {self.story.verb} the sample would raise {self.quantity}{positive}; "
            f"negative: lower it{negative}."
        )

    def headings(self) -> tuple[str, str]:
        """Return what the samples of positive and of negative influence do."""
        story = self.story
        if not story.verb:
            return "Most positive", "Most negative"

        verb = story.verb.capitalize()
        raises = f"{verb} raises {self.quantity}"
        lowers = f"{verb} lowers {self.quantity}"
        if story.is_loss:
            positive, negative = story.judgments()
            raises += f" ({positive})"
            lowers += f" ({negative})"
        return raises, lowers

    def list_samples(self, chosen: Array, named: Mapping[Hashable, str]) -> str:
        """Return ``place (label) influence`` of some self."""
        entries = []
        for i in chosen:
            entry = str(self.places[i])
            if self.labels is not None:
                label = self.label_of(i, named)
                entry += f" ({label})"
            value = self.values[i]
            entries.append(f"{entry} {value:+.1e}")
        return ", ".join(entries) or "none"

    def caution(self) -> str:
        """Return what one must know of the numbers, or nothing."""
        if not self.story.warning:
            return ""
        return f" Caution: {self.story.warning}."


def check_attribution(attribution: object) -> None:
    """Raise ``TypeError`` unless this is a labelled array."""
    if not isinstance(attribution, xr.DataArray):
        raise TypeError(
            "expected an attribution, an xarray.DataArray such as method.attribute(...) returns, "
            f"got {_checks.describe(attribution)}"
        )


def _drop_differing(first: xr.DataArray, attribution: xr.DataArray) -> xr.DataArray:
    """Return the first target without the coordinates that differ between targets."""
    for name, coordinate in attribution.coords.items():
        if coordinate.dims != ("target",):
            continue
        distinct = set(coordinate.values.tolist())
        if len(distinct) > 1:
            first = first.drop_vars(str(name))
    return first


def describe_samples(
    attribution: xr.DataArray, label: str = "label", names: Names = None, k: int = 3
) -> str:
    """Return three lines: how the influence is spread, and the k samples that matter most.

    Of several targets the mean over them. Samples are named by their place in the data.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> from whence.attribution.labels import SIGN
    >>> known = {"label": ("point", [0, 1, 1]), "quantity": "loss data", "target_index": 4}
    >>> about = {"effect": "remove", "sign": SIGN["remove"]}
    >>> row = xr.DataArray([0.5, -0.1, 0.2], known, "point", attrs=about)
    >>> print(plots.describe_samples(row, names=["cat", "dog"]))        # doctest: +ELLIPSIS
    Influence of 3 samples on the loss of target 4: 2 positive, 1 negative; the strongest 10 % ...
    Removing raises the loss (helps): 0 (cat) +5.0e-01, 2 (dog) +2.0e-01.
    Removing lowers the loss (harms): 1 (dog) -1.0e-01.
    """
    _checks.count("k", k)
    samples = SampleInfluences.of(attribution, label, average=True)
    named = samples.name_labels(names)
    subject = samples.subject(named)
    n = len(samples)
    if not samples.values.any():
        return f"None of the {n} samples has any influence on {subject}."

    n_positive = np.sum(samples.values > 0)
    n_negative = np.sum(samples.values < 0)

    # How concentrated: the share of the total absolute influence that a tenth of them carries.
    sizes = np.sort(np.abs(samples.values))
    tenth = math.ceil(n / 10)
    percent = 100 * sizes[-tenth:].sum() / sizes.sum()
    summary = (
        f"{samples.noun} of {n} samples on {subject}: "
        f"{n_positive} positive, {n_negative} negative; "
        f"the strongest 10 % carry {percent:.0f} % of the total absolute influence"
    )
    if samples.story.warning:
        summary += f" (but {samples.story.warning})"

    lines = [f"{summary}."]
    for sign, heading in zip((1, -1), samples.headings(), strict=True):
        chosen = samples.strongest(sign, k)
        listed = samples.list_samples(chosen, named)
        lines.append(f"{heading}: {listed}.")
    return "\n".join(lines)
