"""Where something is large, in words: intervals of the coordinates that hold most of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HELD = 0.5
"""Share of the whole that the points of a region hold."""
MAX_SHARE = 0.3
"""Share of all points above which half of it is nowhere in particular."""
TRIMMED = 0.05
"""Share of a region's points beyond either end of its intervals, so that one does not set them."""
MAX_EXTENT = 0.8
"""Share of a coordinate's extent above which an interval says nothing."""
MIN_EXTENT = 0.01
"""The same below which it is a value."""
EVERYWHERE = "all over the domain"


@dataclass(frozen=True)
class PlainRegion:
    """A box that holds most of something, with the words for it.

    Parameters
    ----------
    text:
        Words such as ``"at x from −0.1 to 0.1"``, or ``"all over the domain"``.
    low, high:
        Ends of the box, one for each coordinate.
    share:
        Share of all points that hold half of it.
    """

    text: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    share: float

    @property
    def mostly(self) -> str:
        """Where most of it is, to end a sentence with."""
        if self.text == EVERYWHERE:
            return EVERYWHERE
        return f"mostly {self.text}"


def region_of(
    points: Tensor, sizes: Tensor, coordinates: Sequence[str], bounds: Tensor
) -> PlainRegion:
    """Return where the sizes (n,) ≥ 0 at points (n, d) are large.

    The fewest points that hold half of the sum of all sizes are taken; the region is the box of
    the inner nine tenths of them along each coordinate. Where these are many it is everywhere.

    Parameters
    ----------
    points, sizes:
        Where, and how large: squared residuals, say.
    coordinates, bounds:
        Names of the coordinates, and lowest and highest value of each, (2, d).

    Examples
    --------
    >>> import torch
    >>> from whence.diagnosis.regions import region_of
    >>> x = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1)
    >>> sizes = torch.exp(-((x[:, 0] - 0.8) / 0.05) ** 2)
    >>> region_of(x, sizes, ["x"], torch.tensor([[0.0], [1.0]])).text
    'at x from 0.782 to 0.818'
    """
    n = len(points)
    order = sizes.argsort(descending=True)
    sums = sizes[order].cumsum(dim=0)
    # The fewest points whose sum is half of the total.
    is_less = sums < HELD * sums[-1]
    count = int(is_less.sum()) + 1
    # Even residuals need half of all points for half of the sum, a peak few.
    share = count / n
    low, high = bounds
    if share > MAX_SHARE:
        return everywhere(low, high, share)

    members = points[order[:count]]
    ends = torch.tensor(
        [TRIMMED, 1 - TRIMMED],
        dtype=members.dtype,
    )
    box = members.quantile(ends, dim=0)  # (2, d)

    words = []
    for k, name in enumerate(coordinates):
        first, last = box[:, k].tolist()
        extent = float(high[k] - low[k])
        # Nearly all of a coordinate is no place along it.
        if last - first > MAX_EXTENT * extent:
            continue
        words.append(in_words(name, first, last, extent))
    if not words:
        return everywhere(low, high, share)

    listed = ", ".join(words)
    return PlainRegion(
        f"at {listed}",
        tuple(box[0].tolist()),
        tuple(box[1].tolist()),
        share,
    )


def everywhere(low: Tensor, high: Tensor, share: float) -> PlainRegion:
    """Return the region that is the whole domain."""
    return PlainRegion(
        EVERYWHERE,
        tuple(low.tolist()),
        tuple(high.tolist()),
        share,
    )


def in_words(name: str, first: float, last: float, extent: float) -> str:
    """Return an interval in words; one that is a point to a percent is a value."""
    if last - first < MIN_EXTENT * extent:
        # From 0.499 to 0.501 says less than near 0.5.
        middle = (first + last) / 2
        return f"{name} near {middle:.3g}"
    return f"{name} from {first:.3g} to {last:.3g}"
