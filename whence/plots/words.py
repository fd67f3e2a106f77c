"""What an attribution is about, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from whence.attribution.method import SIGN
from whence.plots.style import Array


@dataclass(frozen=True)
class Story:
    """What an attribution of one target is about, in words; ``verb`` is empty if sign unknown."""

    name: str
    at: Mapping[str, float]
    is_loss: bool
    verb: str
    warning: str

    @classmethod
    def of(cls, data: xr.DataArray) -> Story:
        """Read it from the attributes and coordinates."""
        attrs, coords = data.attrs, data.coords
        name = str(
            coords["quantity"].item()
            if "quantity" in coords
            else attrs.get("quantity", "")
        )
        kind, _, rest = name.partition(" ")
        is_loss = kind == "loss" or name.startswith(("sum of loss", "mean of loss"))
        is_loss = is_loss or name == "the point's own loss"  # of a self-influence
        if kind in ("loss", "residual"):
            name = f"the {kind} of {rest}" if rest else f"the {kind}"
        elif name.startswith(("sum of", "mean of")):
            name = f"the {name}"
        single = {str(n): v for n, v in coords.items() if v.ndim == 0}
        at = {n[7:]: v for n, v in single.items() if n.startswith("target_")}
        at = {n: float(v) for n, v in at.items() if v.dtype.kind in "fiu"}
        effect = str(attrs.get("effect"))
        known = effect in SIGN and attrs.get("sign") == SIGN[effect]
        verb = {"remove": "removing", "add": "adding"}.get(effect, "") if known else ""
        warning = (
            "" if attrs.get("solver_converged", 1) else "the solver did not converge"
        )
        return cls(name or "the target", at, is_loss, verb, warning)

    def __str__(self) -> str:
        return f"{self.name} at {shown_at(self.at)}" if self.at else self.name

    def caption(self, sign: str) -> str:
        """Say what the two colours mean."""
        text = f"Orange: positive; purple: negative. {sign}".strip(" .")
        if self.verb:
            good, bad = (
                ("helps", "harms") if self.verb == "removing" else ("harms", "helps")
            )
            good, bad = (f" (it {good})", f" (it {bad})") if self.is_loss else ("", "")
            where = " at the star" if self.at else ""
            text = f"Orange: {self.verb} the point would raise {self.name}{where}{good}; purple: "
            text += f"lower it{bad}"
        text += ". Larger marks are stronger; the colour scale is logarithmic away from zero."
        return f"{text} Caution: {self.warning}." if self.warning else text


def one_target(attribution: xr.DataArray) -> xr.DataArray:
    """Return the attribution of its one target, dimension (point,)."""
    if "point" not in attribution.dims or set(attribution.dims) - {"point", "target"}:
        raise ValueError(f"expected dimensions (target, point), got {attribution.dims}")
    if (n := attribution.sizes.get("target", 1)) != 1:
        raise ValueError(
            f"the attribution has {n} targets: select one, attribution.isel(target=0)"
        )
    data = attribution.squeeze("target" if "target" in attribution.dims else []).astype(
        float
    )
    if data.size == 0 or not np.isfinite(data.values).all():
        raise ValueError(
            "the attribution must have one point or more, and finite values"
        )
    return data


def coordinates(data: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the points' own coordinates."""
    own = [(str(n), v) for n, v in data.coords.items() if v.dims == ("point",)]
    return tuple(
        n for n, v in own if n not in ("index", "point") and v.dtype.kind in "fiu"
    )


def terms_of(data: xr.DataArray) -> Array:
    """Return the term of each point."""
    return np.full(data.size, data.coords.get("term", ""))


def shown_at(at: Mapping[str, float]) -> str:
    """Return a place such as ``(x=0.1, t=0.5)``."""
    return f"({', '.join(f'{name}={value:.3g}' for name, value in at.items())})"


Names = Mapping[Any, str] | Sequence[str] | None


def words_for(labels: Iterable[Any], names: Names) -> dict[Any, str]:
    """Return each label in words; numbers as they are where no names are given."""
    if names is None:
        return {
            one: f"{one:g}" if isinstance(one, float) else str(one) for one in labels
        }
    if isinstance(names, str) or not isinstance(names, (Mapping, Sequence, np.ndarray)):
        raise TypeError(
            "names must be a mapping from label to name, or a sequence of names for labels 0, 1, "
            f"…, got {names!r}"
        )
    known = names if isinstance(names, Mapping) else dict(enumerate(names))
    missing = [one for one in labels if one not in known]
    if missing:
        raise ValueError(
            f"names has none for the labels {missing[:5]}: it has {list(known)[:10]}"
        )
    return {one: str(known[one]) for one in labels}
