"""What an attribution is about, in words."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from whence.attribution.labels import SIGN
from whence.plots.style import Array

VERBS = {"remove": "removing", "add": "adding"}
NUMERIC = "fiu"
"""Kinds of numpy's dtypes that are real numbers."""

Names = Mapping[Hashable, str] | Sequence[str] | None
"""Labels in words: by label, or in the order of labels 0, 1, …."""


@dataclass(frozen=True)
class Story:
    """What an attribution of one target is about, in words."""

    name: str
    """What is influenced, such as ``the loss of data`` or ``u``."""
    location: Mapping[str, float]
    """Where the target is: a number for each of its coordinates; none of an aggregate."""
    is_loss: bool
    verb: str
    """``removing`` or ``adding``; empty where the attribution does not say what its sign means."""
    warning: str

    @classmethod
    def of(cls, data: xr.DataArray) -> Story:
        """Read it from the attributes and coordinates."""
        name, is_loss = _describe_quantity(data)

        # A target's own coordinates are scalars called target_x, target_t, ….
        location = {}
        for coordinate, values in data.coords.items():
            is_number = values.ndim == 0 and values.dtype.kind in NUMERIC
            prefix, _, of_target = str(coordinate).partition("target_")
            # Beside targets that have a place, an aggregate is at NaN.
            if is_number and of_target and not prefix and np.isfinite(values):
                location[of_target] = float(values)

        # Methods that are not leave-one-out predictions have signs of their own meaning, and
        # of these nothing is said in words.
        attrs = data.attrs
        effect = str(attrs.get("effect"))
        verb = ""
        if effect in SIGN and attrs.get("sign") == SIGN[effect]:
            verb = VERBS.get(effect, "")

        warning = ""
        if not attrs.get("solver_converged", 1):
            warning = "the solver did not converge"

        return cls(
            name,
            location,
            is_loss,
            verb,
            warning,
        )

    def __str__(self) -> str:
        if not self.location:
            return self.name
        return f"{self.name} at {describe_location(self.location)}"

    def judgments(self) -> tuple[str, str]:
        """Return what points of positive and of negative influence do to a loss.

        A point whose removal would raise the loss, or whose addition would lower it, helps.
        """
        if self.verb == "removing":
            return "helps", "harms"
        return "harms", "helps"

    def asides(self) -> tuple[str, str]:
        """Return :meth:`judgments` as asides such as `` (it helps)``, empty if not of a loss."""
        if not self.is_loss:
            return "", ""

        positive, negative = self.judgments()
        return f" (it {positive})", f" (it {negative})"

    def caption(self, sign: str) -> str:
        """Say what the two colors mean."""
        if self.verb:
            positive, negative = self.asides()
            where = " at the star" if self.location else ""
            text = (
                f"Orange: {self.verb} the point would raise {self.name}{where}{positive}; "
                f"purple: lower it{negative}"
            )
        else:
            text = f"Orange: positive; purple: negative. {sign}".strip(" .")

        text += ". Larger marks are stronger; the colour scale is logarithmic away from zero."
        if self.warning:
            text += f" Caution: {self.warning}."
        return text


def _describe_quantity(data: xr.DataArray) -> tuple[str, bool]:
    """Return the name of what is influenced, and whether it is a loss."""
    name = data.attrs.get("quantity", "")
    if "quantity" in data.coords:
        name = data.coords["quantity"].item()
    name = str(name)

    if name == "the point's own loss":  # of a self-influence
        return name, True
    if name == "total loss":  # of all terms
        return f"the {name}", True
    if name.startswith(("sum of", "mean of")):
        is_loss = name.startswith(("sum of loss", "mean of loss"))
        return f"the {name}", is_loss

    # Such as "loss pde", "residual initial_u" or an output's name.
    kind, _, term = name.partition(" ")
    is_loss = kind == "loss"
    if kind in ("loss", "residual"):
        name = f"the {kind}"
        if term:
            name += f" of {term}"
    return name or "the target", is_loss


def one_target(attribution: xr.DataArray) -> xr.DataArray:
    """Return the attribution of its one target, dimension (point,)."""
    dimensions = set(attribution.dims)
    if "point" not in dimensions or dimensions - {"point", "target"}:
        raise ValueError(f"expected dimensions (target, point), got {attribution.dims}")

    n_targets = attribution.sizes.get("target", 1)
    if n_targets != 1:
        raise ValueError(
            f"the attribution has {n_targets} targets: select one, "
            "attribution.isel(target=0)"
        )

    data = attribution
    if "target" in dimensions:
        data = data.squeeze("target")
    data = data.astype(float)
    check_finite(data.values)
    return data


def check_finite(values: Array) -> None:
    """Raise ``ValueError`` unless there are values and all are finite."""
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            "the attribution must have one point or more, and finite values"
        )


def coordinates(data: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the points' own coordinates."""
    names = []
    for name, values in data.coords.items():
        if values.dims != ("point",) or values.dtype.kind not in NUMERIC:
            continue
        # Numbers of the points are no place.
        if name not in ("index", "point"):
            names.append(str(name))
    return tuple(names)


def terms_of(data: xr.DataArray) -> Array:
    """Return the term of each point."""
    # One name stands for all points where the attribution is of one term.
    terms = data.coords.get("term", "")
    return np.full(data.size, terms)


def describe_location(location: Mapping[str, float]) -> str:
    """Return a place such as ``(x=0.1, t=0.5)``."""
    numbers = []
    for name, value in location.items():
        numbers.append(f"{name}={value:.3g}")
    listed = ", ".join(numbers)
    return f"({listed})"


def name_labels(labels: Iterable[Hashable], names: Names) -> dict[Hashable, str]:
    """Return each label in words; numbers as they are where no names are given."""
    labels = list(labels)
    if names is None:
        plain = {}
        for label in labels:
            # Whole numbers kept as floats lose their ".0".
            plain[label] = f"{label:g}" if isinstance(label, float) else str(label)
        return plain

    is_collection = isinstance(names, (Mapping, Sequence, np.ndarray))
    if isinstance(names, str) or not is_collection:
        raise TypeError(
            "names must be a mapping from label to name, or a sequence of names for labels 0, 1, "
            f"…, got {names!r}"
        )

    known: Mapping[Hashable, str]
    known = names if isinstance(names, Mapping) else dict(enumerate(names))

    missing = [label for label in labels if label not in known]
    if missing:
        raise ValueError(
            f"names has none for the labels {missing[:5]}: it has {list(known)[:10]}"
        )
    return {label: str(known[label]) for label in labels}
