"""The labelled result of an attribution."""

from __future__ import annotations

import xarray as xr

from whence.attribution.quality import Quality, quality


class Attribution(xr.DataArray):  # type: ignore[no-untyped-call]
    """An :class:`xarray.DataArray` of (target, point) that can say how far to trust it.

    Examples
    --------
    >>> from whence.attribution.result import Attribution
    >>> Attribution([[1.0, 2.0]], dims=("target", "point")).isel(target=0).sizes["point"]
    2
    """

    __slots__ = ()

    def quality(self) -> Quality:
        """Return how far the attribution can be trusted, see :func:`whence.quality`."""
        return quality(self)
