"""The labelled result of an attribution, with what one asks of it first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from xarray.plot.accessor import DataArrayPlotAccessor

from whence import _checks
from whence.attribution.places import NO_PLACE, places_of
from whence.attribution.quality import Quality, quality
from whence.points import MAX_ROW_BYTES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from whence.explore.notebook import Page

By = Literal["value", "size"]


def smallest(keys: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k smallest keys, (n,), in rising order, equal ones as they come.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.attribution.result import smallest
    >>> smallest(np.array([3.0, 1.0, 2.0, 1.0]), 3).tolist()
    [1, 3, 2]
    """
    if k < len(keys):
        limit = np.partition(keys, k - 1)[k - 1]
        # NaN is above all; where it is among the k smallest, all are sorted.
        if limit == limit:
            near = np.flatnonzero(keys <= limit)
            return near[np.argsort(keys[near], kind="stable")][:k]
    return np.argsort(keys, kind="stable")[:k]


class AttributionPlot(DataArrayPlotAccessor):
    """What ``attribution.plot`` is: xarray's plots, and when called a figure of whence."""

    __slots__ = ("_attribution",)

    def __init__(self, attribution: xr.DataArray) -> None:
        super().__init__(attribution)
        self._attribution = attribution

    def __call__(self, **options: Any) -> Figure:  # type: ignore[override]
        """Draw the influences: on a map, as histograms by label, or as bars.

        Points of two coordinates are drawn where they are, colored by signed influence on one
        target; samples as histograms by ``label``; anything else as bars of the strongest points.

        Parameters
        ----------
        options:
            Those of :func:`whence.plots.influence_map`, such as ``problem`` to outline the domain
            and ``term``; of :func:`whence.plots.influence_histograms`; or of
            :func:`whence.plots.influence_bars`.

        Returns
        -------
        matplotlib.figure.Figure
            :func:`whence.plots.save` writes it.

        Raises
        ------
        ValueError
            If there are several targets where one is drawn: select one, ``.isel(target=0)``.
        """
        from whence import plots  # matplotlib is slow to import
        from whence.plots.text import coordinates  # as slow

        if "label" in self._attribution.coords:
            return plots.influence_histograms(self._attribution, **options)

        # Of several targets as of one, the points have the coordinates of a row.
        row = self._attribution
        if "target" in row.dims:
            row = row.isel(target=0)
        if "problem" in options or len(coordinates(row)) == 2:
            return plots.influence_map(self._attribution, **options)
        return plots.influence_bars(self._attribution, **options)


class Attribution(xr.DataArray):  # type: ignore[no-untyped-call]
    """An :class:`xarray.DataArray` of (target, point) that can say how far to trust it.

    ``attribution.plot()`` draws it, see :class:`AttributionPlot`; ``attribution.plot.scatter`` and
    the like are xarray's own.

    Examples
    --------
    >>> from whence.attribution.result import Attribution
    >>> Attribution([[1.0, 2.0]], dims=("target", "point")).isel(target=0).sizes["point"]
    2
    """

    __slots__ = ()

    @property
    def plot(self) -> AttributionPlot:  # type: ignore[override]
        """Plots of the numbers by xarray; when called, whence's figure of the attribution."""
        return AttributionPlot(self)

    def quality(self) -> Quality:
        """Return how far the attribution can be trusted, see :func:`whence.quality`."""
        return quality(self)

    def explore(self) -> Page:
        """Return a page on which a click on a target shows where it comes from.

        Jupyter shows it; ``attribution.explore().save("page.html")`` writes it as a file that
        opens anywhere. Influences on it are rounded to 16 bits of the strongest of their target.

        Raises
        ------
        ValueError
            If the points have no coordinates, or there are more than 20 million influences.

        Examples
        --------
        >>> from whence.attribution.result import Attribution
        >>> coords = {"x": ("point", [0.0, 1.0]), "t": ("point", [0.5, 0.5]),
        ...           "term": ("point", ["pde", "pde"]),
        ...           "target_x": ("target", [0.2]), "target_t": ("target", [0.4])}
        >>> page = Attribution([[3.0, -1.0]], coords, ("target", "point")).explore()
        >>> "<iframe" in page._repr_html_()
        True
        """
        from whence.explore.notebook import page_of_attribution  # slow to import

        return page_of_attribution(self, str(self.attrs.get("quantity", "attribution")))

    def top(self, k: int = 10, by: By = "value") -> Attribution:
        """Return the k points of largest influence, the largest first.

        Parameters
        ----------
        k:
            How many points; all, if there are fewer.
        by:
            ``"value"`` for the largest values; ``"size"`` for the largest absolute values.

        Returns
        -------
        Attribution
            Dimension (point,) of one target; of several (target, rank), rank 0 the first. With
            the coordinates, ``term`` and ``index`` of the points, and all attributes.

        Raises
        ------
        ValueError
            If k is no positive integer, or the dimensions are not (target, point).

        Examples
        --------
        >>> from whence.attribution.result import Attribution
        >>> coords = {"x": ("point", [0.0, 0.5, 1.0]), "index": ("point", [0, 1, 2])}
        >>> row = Attribution([0.2, -3.0, 1.0], coords, "point")
        >>> row.top(2).values, row.top(2).x.values
        (array([1. , 0.2]), array([1., 0.]))
        >>> row.top(2, by="size")["index"].values
        array([1, 2])
        """
        _checks.one_of("order", by, ("value", "size"))
        if by == "size":
            return self._extremes(k, lambda values: -np.abs(values))
        return self._extremes(k, np.negative)

    def bottom(self, k: int = 10) -> Attribution:
        """Return the k points of most negative influence, the most negative first.

        Shapes and errors are those of :meth:`top`.

        Examples
        --------
        >>> from whence.attribution.result import Attribution
        >>> table = Attribution([[0.2, -3.0, 1.0], [0.5, 0.4, 0.3]], dims=("target", "point"))
        >>> table.bottom(2).dims, table.bottom(2).values
        (('target', 'rank'), array([[-3. ,  0.2],
               [ 0.3,  0.4]]))
        """
        return self._extremes(k, np.asarray)

    def _extremes(
        self, k: int, keys: Callable[[np.ndarray], np.ndarray]
    ) -> Attribution:
        """Return the k points of smallest keys, of each target where there are several."""
        _checks.count("k", k)
        self._check_dimensions()
        table = self.transpose("target", "point", missing_dims="ignore")

        places = np.array(
            [smallest(row, k) for values in self._rows() for row in keys(values)]
        )
        if self.sizes.get("target", 1) == 1:
            row = table.isel(target=0) if "target" in table.dims else table
            return row.isel(point=places.reshape(-1))

        # Each target has points of its own, so that their coordinates are (target, rank) too,
        # which an index of one dimension cannot be.
        if "term" in table.xindexes:
            table = table.drop_indexes("term")
        return table.isel(
            target=xr.DataArray(np.arange(len(places)), dims="target"),
            point=xr.DataArray(places, dims=("target", "rank")),
        )

    def by_term(self) -> Attribution:
        """Return the sum of the influences of each term's points, dimensions (target, term).

        To first order this is the effect of all points of a term at once.

        Examples
        --------
        >>> from whence.attribution.result import Attribution
        >>> coords = {"term": ("point", ["pde", "pde", "data"])}
        >>> Attribution([[0.5, 1.0, 3.0]], coords, ("target", "point")).by_term().values
        array([[1.5, 3. ]])
        """
        self._check_dimensions()
        if "term" not in self.coords:
            raise ValueError("the points have no coordinate 'term' to sum them by")

        of_points = np.full(self.sizes["point"], self.coords["term"].values)
        names = list(dict.fromkeys(of_points.tolist()))
        parts = []
        for rows in self._rows():
            of_terms = [rows[:, of_points == name].sum(axis=-1) for name in names]
            parts.append(np.stack(of_terms, axis=1))
        sums = np.concatenate(parts)

        return self._summed(
            sums if "target" in self.dims else sums[0],
            "term",
            {"term": names},
            "sum over the points of each term",
        )

    def by_place(self) -> Attribution:
        """Return the sum of the influences of all points at one place, whatever their terms.

        To first order this is the effect of leaving a collocation point out of every equation at
        once. Points are at one place where all their coordinates are equal.

        Returns
        -------
        Attribution
            The same dimensions, with a point for each place, in the order in which they come
            first. ``term`` joins the names of the terms summed, as in ``"mass + momentum"``; there
            is no ``index``.

        Raises
        ------
        ValueError
            If the points have no coordinates, as samples have none, or the dimensions are not
            (target, point).

        Examples
        --------
        >>> from whence.attribution.result import Attribution
        >>> coords = {
        ...     "x": ("point", [0.1, 0.2, 0.1]),
        ...     "term": ("point", ["mass", "mass", "momentum"])}
        >>> places = Attribution([[0.5, 1.0, 3.0]], coords, ("target", "point")).by_place()
        >>> places.values, places["term"].values.tolist()
        (array([[3.5, 1. ]]), ['mass + momentum', 'mass'])
        """
        self._check_dimensions()
        of_points = {}
        for name, coordinate in self.coords.items():
            if coordinate.dims == ("point",) and name not in NO_PLACE:
                of_points[str(name)] = coordinate.values

        places = places_of(of_points)
        coords: dict[str, Any] = {}
        for name, values in of_points.items():
            # Equal at all points of a place, so those of the first one.
            coords[name] = ("point", values[places.first])

        if "term" in self.coords:
            # Of a selection of one term, its name is that of all points.
            terms = np.full(self.sizes["point"], self.coords["term"].values)
            coords["term"] = ("point", places.joined_names(terms))

        values = self.transpose(..., "point").values
        sums = self._summed(
            places.sums(values), "point", coords, "sum over the points at each place"
        )
        return sums.set_xindex("term") if "term" in coords else sums

    def _rows(self) -> Iterator[np.ndarray]:
        """Yield the numbers of some targets at a time, (t, n), read now where they are on disk."""
        table = self.transpose("target", "point", missing_dims="ignore")
        if "target" not in table.dims:
            yield table.values[None]
            return
        n_targets, n_points = table.shape
        step = max(1, MAX_ROW_BYTES // (n_points * table.dtype.itemsize))
        for start in range(0, n_targets, step):
            yield table.isel(target=slice(start, start + step)).values

    def _summed(
        self, sums: np.ndarray, dim: str, coords: dict[str, Any], reduction: str
    ) -> Attribution:
        """Return sums over points, their last dimension ``dim``, with the labels of targets."""
        for name, coordinate in self.coords.items():
            # A scalar ``term`` is that of the points, which the new coordinates say.
            if "point" not in coordinate.dims and name not in coords:
                coords[str(name)] = coordinate

        kept = tuple(dimension for dimension in self.dims if dimension != "point")
        return Attribution(
            sums,
            coords=coords,
            dims=(*kept, dim),
            name=self.name,
            attrs={**self.attrs, "reduction": reduction},
        )

    def _check_dimensions(self) -> None:
        if "point" not in self.dims or set(self.dims) - {"point", "target"}:
            raise ValueError(
                f"this needs the dimensions (target, point), or (point,) of one target, got "
                f"{self.dims}: select the rest with isel"
            )
