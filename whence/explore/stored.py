"""An attribution that is finished, as the page sees it: no network, and no targets but its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from whence import _checks
from whence._files import JsonObject
from whence.attribution.places import NO_PLACE
from whence.attribution.quality import quality

TARGET = "target_"
CAN = ("answer", "region")


class StoredAnswers:
    """The rows of an attribution by the places of their targets.

    Parameters
    ----------
    attribution:
        Dimensions (target, point), or (point,) of one target; numbers on disk are read row by
        row. Its points have coordinates. Its targets have them too, or are each an answer of
        their own, such as the loss of a term.
    name:
        What it is called.

    Raises
    ------
    ValueError
        If the points have no coordinates or no terms, or the targets of several quantities are
        at different places.

    Examples
    --------
    >>> from whence.attribution.result import Attribution
    >>> from whence.explore.stored import StoredAnswers
    >>> coords = {"x": ("point", [0.0, 1.0]), "t": ("point", [0.5, 0.5]),
    ...           "term": ("point", ["pde", "pde"]), "index": ("point", [0, 1]),
    ...           "target_x": ("target", [0.2]), "target_t": ("target", [0.4])}
    >>> stored = StoredAnswers(Attribution([[3.0, -1.0]], coords, ("target", "point")), "mine")
    >>> stored.run()["coordinates"], stored.influence_at(stored.run()["answers"][0], [0.0, 0.0])
    (['x', 't'], array([ 3., -1.]))
    """

    def __init__(self, attribution: xr.DataArray, name: str) -> None:
        dims = tuple(map(str, attribution.dims))
        if "point" not in dims or set(dims) - {"target", "point"}:
            raise ValueError(
                f"an attribution has the dimensions (target, point), got {dims}"
            )
        if "target" not in dims:
            attribution = attribution.expand_dims("target")
        self.attribution = attribution.transpose("target", "point")
        self.name = name
        self.coordinates = _coordinates(self.attribution)
        self.rows = _rows_by_answer(self.attribution, self.coordinates)
        """Of each answer the rows that have it."""
        self._targets = self._places_of_targets()
        terms = _texts(self.attribution["term"], self.attribution.sizes["point"])
        self._terms = list(dict.fromkeys(terms))
        self._of_points = terms

    # --- what is there ---

    def run(self) -> JsonObject:
        """Return what the page needs to know before any question."""
        places = np.concatenate([self._places(), self._targets], axis=1)
        low, high = places.min(axis=1), places.max(axis=1)
        # Where all are at one place there is still a frame to draw.
        flat = high == low
        low, high = low - 0.5 * flat, high + 0.5 * flat
        n_coordinates = len(self.coordinates)
        is_time_second = n_coordinates == 2 and self.coordinates[1] == "t"
        return {
            "title": self.name,
            "name": self.name,
            "coordinates": list(self.coordinates),
            "across": 1 if is_time_second else 0,
            "up": None if n_coordinates == 1 else 0 if is_time_second else 1,
            "low": low.tolist(),
            "high": high.tolist(),
            "first": self._targets[:, 0].tolist(),
            "fields": ["total influence"],
            "answers": list(self.rows),
            "terms": self._terms,
            "n_points": self.attribution.sizes["point"],
            "summary": {},
            "can": list(CAN),
        }

    def points(self) -> np.ndarray:
        """Return the points as columns: coordinates, term, index, and what is not known as NaN."""
        places = self._places()
        n = places.shape[1]
        index = np.arange(n)
        if "index" in self.attribution.coords:
            index = np.asarray(self.attribution["index"].values)
        numbers = {name: k for k, name in enumerate(self._terms)}
        term = np.array([numbers[name] for name in self._of_points])
        unknown = np.full(n, np.nan)
        return np.stack([*places, term, index, unknown, np.full(n, -1), unknown])

    def targets(self) -> np.ndarray:
        """Return the places of the targets, (d, T)."""
        return self._targets

    def _places(self) -> np.ndarray:
        """Return the coordinates of the points, (d, n)."""
        columns = [self.attribution[name].values for name in self.coordinates]
        return np.stack(columns).astype(float)

    def _places_of_targets(self) -> np.ndarray:
        """Return the places of every answer's targets, which are the same, (d, T)."""
        if f"{TARGET}{self.coordinates[0]}" not in self.attribution.coords:
            # Answers that are nowhere: in the middle, for want of a place.
            places = self._places()
            return ((places.min(axis=1) + places.max(axis=1)) / 2)[:, None]
        n = self.attribution.sizes["target"]
        # Of one target that was selected they are single numbers.
        columns = [
            np.full(n, self.attribution[f"{TARGET}{name}"].values)
            for name in self.coordinates
        ]
        everywhere = np.stack(columns).astype(float)
        first, *others = (everywhere[:, rows] for rows in self.rows.values())
        for other in others:
            if other.shape != first.shape or not np.array_equal(other, first):
                raise ValueError(
                    "the quantities of this attribution are explained at different places: "
                    "select one of them first"
                )
        return first

    # --- what is asked ---

    def influence_at(self, of: str, at: Sequence[float]) -> np.ndarray:
        """Return the row of the target that is nearest to a place, (n,)."""
        return np.asarray(self._nearest(of, at).values, dtype=float)

    def influence_of(self, term: str, index: int, of: str) -> np.ndarray:
        """Return the influence of a point on the targets of an answer, (T,)."""
        points = self.points()
        n_coordinates = len(self.coordinates)
        is_it = points[n_coordinates + 1] == index
        if term in self._terms:
            is_it &= points[n_coordinates] == self._terms.index(term)
        (places,) = np.nonzero(is_it)
        if term not in self._terms or not len(places):
            raise ValueError(f"the attribution has no point {index} of {term!r}")
        rows = self.attribution.isel(target=self._rows(of), point=int(places[0]))
        return np.asarray(rows.values, dtype=float)

    def totals(self, of: str) -> np.ndarray:
        """Return ``Σ|I|`` of each target of an answer, (T,)."""
        rows = self.attribution.isel(target=self._rows(of))
        # Row by row: they may be on disk, and more than memory holds.
        sums = [np.abs(row.values).sum() for row in rows]
        return np.array(sums, dtype=float)

    def answer(self, of: str, at: Sequence[float]) -> JsonObject:
        """Return in words how far the row can be trusted; values are not in an attribution."""
        row = self._nearest(of, at)
        # Numbers from elsewhere do not say how they were made.
        is_ours = bool({"effect", "solver"} & set(row.attrs))
        words = str(quality(row)) if is_ours else ""
        return {"value": None, "quality": words}

    def region(
        self, points: Mapping[str, Sequence[int]], of: str, at: Sequence[float]
    ) -> JsonObject:
        """Return what some points add up to; their effect together needs the run."""
        values = self.influence_at(of, at)
        columns = self.points()
        n_coordinates = len(self.coordinates)
        inside = np.zeros(len(values), dtype=bool)
        for name, indices in points.items():
            _checks.one_of("term", name, self._terms)
            is_of_term = columns[n_coordinates] == self._terms.index(name)
            inside |= is_of_term & np.isin(columns[n_coordinates + 1], indices)
        total = float(np.abs(values).sum())
        part = float(np.abs(values[inside]).sum())
        return {
            "size": int(inside.sum()),
            "share": part / total if total else 0.0,
            "first_order": float(values[inside].sum()),
            "exact": None,
        }

    def _rows(self, of: str) -> np.ndarray:
        """Return the rows of an answer."""
        _checks.one_of("answer", of, tuple(self.rows))
        return self.rows[of]

    def _nearest(self, of: str, at: Sequence[float]) -> xr.DataArray:
        """Return the row whose target is nearest, each coordinate in parts of its range."""
        run = self.run()
        if len(at) != len(self.coordinates):
            raise ValueError(
                f"a place has {len(self.coordinates)} coordinates "
                f"({', '.join(self.coordinates)}), got {len(at)}"
            )
        if not np.isfinite(at).all():
            raise ValueError(f"a place has finite coordinates, got {list(at)}")
        width = np.subtract(run["high"], run["low"])
        away = (self._targets - np.asarray(at, dtype=float)[:, None]) / width[:, None]
        nearest = int(np.square(away).sum(axis=0).argmin())
        return self.attribution.isel(target=int(self._rows(of)[nearest]))


def _coordinates(attribution: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the points' coordinates that are places."""
    names = []
    for name, coordinate in attribution.coords.items():
        is_number = np.issubdtype(coordinate.dtype, np.number)
        is_of_points = coordinate.dims == ("point",) and name not in NO_PLACE
        if is_of_points and is_number and name != "point":
            names.append(str(name))
    if not names or "term" not in attribution.coords:
        raise ValueError(
            "this attribution has no coordinates of its points, so there is no place to show them: "
            "whence plot draws it, and whence explore MODEL.py shows samples"
        )
    return tuple(names)


def _rows_by_answer(
    attribution: xr.DataArray, coordinates: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the rows of each quantity; of targets without places each is one."""
    n = attribution.sizes["target"]
    labels = [str(attribution.attrs.get("quantity", "answer"))] * n
    if "quantity" in attribution.coords:
        labels = _texts(attribution["quantity"], n)
    if f"{TARGET}{coordinates[0]}" not in attribution.coords:
        labels = [f"{label} ({row})" for row, label in enumerate(labels)]
    rows: dict[str, list[int]] = {name: [] for name in labels}
    for row, name in enumerate(labels):
        rows[name].append(row)
    return {name: np.array(places) for name, places in rows.items()}


def _texts(labels: xr.DataArray, n: int) -> list[str]:
    """Return n texts, which may be one for all.

    Those of a zarr folder are of numpy's StringDType, which does not turn into other texts.
    """
    return [str(text) for text in np.broadcast_to(labels.values, n).tolist()]
