"""Sentences on attributions of many answers, and of one training point."""

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
        if part.sizes["target"] == 1:
            sentences.append(describe_influence(part))
        else:
            sentences.append(_describe_many(part, name))
    return "\n".join(sentences)


def _describe_many(part: xr.DataArray, name: str) -> str:
    """Return which terms carry the mean influence on the targets of one quantity."""
    sizes = mean_sizes(part)
    points = TermPoints(sizes)
    n_targets = part.sizes["target"]
    if not points.largest:
        return f"No point has any influence on {name} at {n_targets} targets."

    shares = {term: points.share(term) for term in points.names}
    ordered = sorted(shares, key=lambda term: -shares[term])
    listed = [f"{term} {percent(shares[term])}" for term in ordered[:MAX_NAMED]]

    strongest = int(np.argmax(sizes.values))
    place = _place_of(sizes.isel(point=strongest), coordinates(sizes))
    term = points.of_points[strongest]
    return (
        f"Influence on {name} at {n_targets} targets: {', '.join(listed)}; the strongest point, of "
        f"{term}, is {place}."
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
    names = coordinates(attribution.isel(target=0))
    point = attribution.isel(point=0)
    of_term = f" of {point.coords['term'].item()}" if "term" in point.coords else ""
    where = _place_of(point, names)

    sentences = []
    for name in quantities_of(attribution):
        field = of_quantity(point, name)
        strongest = int(np.argmax(np.abs(field.values)))
        # The same coordinates, of the target in place of the point.
        target = field.isel(target=strongest)
        story = Story.of(target)
        sentences.append(
            f"The point{of_term} {where} has influence from {float(field.min()):+.1e} to "
            f"{float(field.max()):+.1e} on {name}, the most at "
            f"{describe_location(story.location)}."
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
    terms = [str(name) for name in table["term"].values]
    rows = [["share of", *terms]]
    rows.append(["the loss", *map(_number, table["loss_share"].values)])
    for name in table["quantity"].values:
        shares = table["share"].sel(quantity=name).values
        rows.append([str(name), *map(_number, shares)])

    # As wide as the longest entry of each column.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        for text, width in zip(others, widths[1:], strict=True):
            cells.append(text.rjust(width))
        lines.append("  ".join(cells))
    lines[0] += "  in %"
    return "\n".join(lines)


def _number(share: float) -> str:
    """Return a share in percent, without the sign for it."""
    return percent(share).removesuffix(" %")


def quantities_of(attribution: xr.DataArray) -> list[str]:
    """Return the names of the quantities explained, in the order in which they come."""
    names = attribution.coords["quantity"].values
    return [str(name) for name in dict.fromkeys(np.atleast_1d(names).tolist())]


def of_quantity(attribution: xr.DataArray, name: str) -> xr.DataArray:
    """Return the targets of one quantity alone."""
    is_of_it = attribution.coords["quantity"].values == name
    return attribution.isel(target=np.flatnonzero(is_of_it))


def _place_of(point: xr.DataArray, names: tuple[str, ...]) -> str:
    """Return where a point is, or that it is nowhere."""
    if not names:
        return "of no place"
    place = {name: float(point.coords[name]) for name in names}
    return f"at {describe_location(place)}"
