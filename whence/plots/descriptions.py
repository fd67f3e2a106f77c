"""Sentences on attributions of many answers, of one training point, and of terms."""

from __future__ import annotations

import numpy as np
import xarray as xr

from whence.plots.maps import describe_influence
from whence.plots.term_panels import mean_sizes
from whence.plots.term_points import TermPoints, percent
from whence.plots.text import Story, coordinates, describe_location

MAX_NAMED = 3
"""Terms of the largest share that a sentence names."""


def describe_targets(attribution: xr.DataArray) -> str:
    """Return a sentence for each quantity: which terms carry the influence on its targets.

    Of one target it is that of :func:`whence.plots.describe_influence`.

    Parameters
    ----------
    attribution:
        Dimensions (target, point), or (point,) of one target.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"x": ("point", [0.0, 1.0]), "term": ("point", ["pde", "wall"]),
    ...           "quantity": ("target", ["u", "u"])}
    >>> table = xr.DataArray([[1.0, -3.0], [-1.0, 3.0]], coords, ("target", "point"))
    >>> print(plots.describe_targets(table))
    Influence on u at 2 targets: wall 75 %, pde 25 %; the strongest point, of wall, is at (x=1).
    """
    if "target" not in attribution.dims:
        return describe_influence(attribution)

    sentences = []
    for name in quantities_of(attribution):
        part = of_quantity(attribution, name)
        # Of one answer more can be said than of many.
        if part.sizes["target"] == 1:
            sentence = describe_influence(part)
        else:
            sentence = _describe_many(part, name)
        sentences.append(sentence)
    return "\n".join(sentences)


def _describe_many(part: xr.DataArray, name: str) -> str:
    """Return which terms carry the mean influence on the targets of one quantity."""
    sizes = mean_sizes(part)
    points = TermPoints(sizes)
    n_targets = part.sizes["target"]
    if not points.largest:
        return f"No point has any influence on {name} at {n_targets} targets."

    # The terms of the largest shares, the largest first.
    shares = {}
    for term in points.names:
        shares[term] = points.share(term)
    ordered = sorted(shares, key=shares.__getitem__)
    ordered.reverse()
    listed = []
    for term in ordered[:MAX_NAMED]:
        share = percent(shares[term])
        listed.append(f"{term} {share}")
    carried = ", ".join(listed)

    # And the one point that matters most on the mean.
    strongest = int(np.argmax(sizes.values))
    names = coordinates(sizes)
    place = _place_of(sizes.isel(point=strongest), names)
    term = points.of_points[strongest]
    of_term = f", of {term}," if term else ""
    return (
        f"Influence on {name} at {n_targets} targets: {carried}; the strongest point"
        f"{of_term} is {place}."
    )


def describe_point(attribution: xr.DataArray) -> str:
    """Return a sentence for each quantity: what one training point does, and where most.

    Parameters
    ----------
    attribution:
        Of one training point, dimensions (target, point).

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> coords = {"target_x": ("target", [0.0, 1.0]), "quantity": ("target", ["u", "u"]),
    ...           "x": ("point", [0.5]), "term": ("point", ["wall"])}
    >>> column = xr.DataArray([[1.0], [-3.0]], coords, ("target", "point"))
    >>> print(plots.describe_point(column))
    The point of wall at (x=0.5) has influence from -3.0e+00 to +1.0e+00 on u, the most at (x=1).
    """
    # A place is known by the names of the points' coordinates, which one of many has no more.
    row = attribution.isel(target=0)
    names = coordinates(row)
    point = attribution.isel(point=0)
    place = _place_of(point, names)
    who = f"The point {place}"
    if "term" in point.coords:
        term = point.coords["term"].item()
        who = f"The point of {term} {place}"

    sentences = []
    for name in quantities_of(attribution):
        field = of_quantity(point, name)
        low = float(field.min())
        high = float(field.max())
        sizes = np.abs(field.values)
        strongest = int(np.argmax(sizes))

        # A target's own coordinates say where that is.
        target = field.isel(target=strongest)
        story = Story.of(target)
        where = describe_location(story.location)
        sentences.append(
            f"{who} has influence from {low:+.1e} to {high:+.1e} on {name}, the most at {where}."
        )
    return "\n".join(sentences)


def describe_terms(table: xr.Dataset) -> str:
    """Return a table of the shares of all terms in what all points do, in percent.

    Parameters
    ----------
    table:
        What :func:`whence.term_matrix` returns.

    Examples
    --------
    >>> import xarray as xr
    >>> from whence import plots
    >>> both = ("quantity", "term")
    >>> table = xr.Dataset({"share": (both, [[0.75, 0.25]]), "loss_share": ("term", [0.5, 0.5])},
    ...                    {"quantity": ["u"], "term": ["pde", "wall"]})
    >>> print(plots.describe_terms(table))
    share of  pde  wall  in %
    the loss   50    50
    u          75    25
    """
    terms = table["term"].values
    # A column for each term, below its name.
    head = ["share of", *map(str, terms)]
    of_loss = ["the loss", *_percents(table["loss_share"])]
    rows = [head, of_loss]
    for name in table["quantity"].values:
        shares = table["share"].sel(quantity=name)
        row = [str(name), *_percents(shares)]
        rows.append(row)

    # As wide as the longest entry of each column.
    widths = []
    for column in zip(*rows, strict=True):
        longest = max(map(len, column))
        widths.append(longest)

    lines = []
    for row in rows:
        cells = []
        for text, width in zip(row, widths, strict=True):
            cells.append(text.rjust(width))
        # Names stand to the left, numbers to the right.
        cells[0] = row[0].ljust(widths[0])
        line = "  ".join(cells)
        lines.append(line)
    lines[0] += "  in %"
    return "\n".join(lines)


def _percents(shares: xr.DataArray) -> list[str]:
    """Return shares in percent, without the sign for it."""
    texts = []
    for share in shares.values:
        text = percent(float(share))
        texts.append(text.removesuffix(" %"))
    return texts


def quantities_of(attribution: xr.DataArray) -> list[str]:
    """Return the names of the quantities explained, in the order in which they come."""
    names = attribution.coords["quantity"].values
    # One name may stand for all targets.
    several = np.atleast_1d(names)
    distinct = dict.fromkeys(several.tolist())
    return list(map(str, distinct))


def of_quantity(attribution: xr.DataArray, name: str) -> xr.DataArray:
    """Return the targets of one quantity alone."""
    names = attribution.coords["quantity"].values
    # Numbers of targets, as one name for all of them is no mask.
    n_targets = attribution.sizes["target"]
    of_targets = np.broadcast_to(names, n_targets)
    (chosen,) = np.nonzero(of_targets == name)
    return attribution.isel(target=chosen)


def _place_of(point: xr.DataArray, names: tuple[str, ...]) -> str:
    """Return where a point is, or that it is nowhere."""
    if not names:
        return "of no place"

    place = {}
    for name in names:
        place[name] = float(point.coords[name])
    return f"at {describe_location(place)}"
