"""Points of several terms at one place: which they are, and sums over them.

A problem with three equations has three points wherever it has a collocation point, one of each
term. What a place does to an answer is the sum of what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NO_PLACE = ("term", "index", "label")
"""What is known of a point beside where it is."""


@dataclass(frozen=True, eq=False)
class Places:
    """Distinct places of n points, in the order in which points come to them.

    Parameters
    ----------
    first:
        The first point at each place, (M,).
    place_of:
        The place of each point, (n,).
    """

    first: np.ndarray
    place_of: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums over the points of each place, (…, n) to (…, M)."""
        # In an order where the points of a place follow each other, places are sums of runs.
        order = np.argsort(self.place_of, kind="stable")
        places = np.arange(len(self.first))
        ordered = self.place_of[order]
        starts = np.searchsorted(ordered, places)
        in_runs = values[..., order]
        totals: np.ndarray = np.add.reduceat(in_runs, starts, axis=-1)
        return totals

    def joined_names(self, names: np.ndarray) -> np.ndarray:
        """Return the names (n,) at each place, each once and in order, as in ``a + b``."""
        at_places: list[list[str]] = [[] for _ in self.first]
        for place, name in zip(self.place_of, names, strict=True):
            at_place = at_places[place]
            # Two points of one term at a place are summed under the same name.
            if name not in at_place:
                at_place.append(name)

        joined = [" + ".join(at_place) for at_place in at_places]
        return np.array(joined, dtype=object)


def places_of(coordinates: Mapping[str, np.ndarray]) -> Places:
    """Return the distinct places of points: where all coordinates are equal.

    Parameters
    ----------
    coordinates:
        The coordinates by name, (n,) each.

    Raises
    ------
    ValueError
        If there are none, as of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.attribution.places import places_of
    >>> places = places_of({"x": np.array([0.5, 0.1, 0.5]), "t": np.array([1.0, 1.0, 1.0])})
    >>> places.place_of, places.sums(np.array([1.0, 10.0, 100.0]))
    (array([0, 1, 0]), array([101.,  10.]))
    """
    if not coordinates:
        raise ValueError(
            "the points have no coordinates to sum them by: samples have none, so ask for single "
            "points, or for by_term()"
        )

    columns = list(coordinates.values())
    table = np.stack(columns, axis=1)  # (n, d)
    # -0.0 is no other place than 0.0.
    table = table + 0.0
    distinct = np.unique(table, axis=0, return_index=True, return_inverse=True)
    _, first, place_of = distinct
    place_of = place_of.reshape(-1)  # a column in some versions of NumPy

    # unique() sorts places by coordinates; they are to stand in the order of the points, so a
    # place's new number is the place of its first point among the first points.
    order = np.argsort(first)
    new_number = np.empty_like(order)
    new_number[order] = np.arange(len(order))
    return Places(first[order], new_number[place_of])
