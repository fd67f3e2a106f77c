"""How much the terms at one place pull against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from whence.attribution.places import places_of
from whence.catalogue import INDICATORS
from whence.diagnosis.indicators.base import (
    Values,
    coordinate_names,
    ratio,
)


@INDICATORS.named("coherence")
@dataclass(frozen=True)
class Coherence:
    """How much of the influence of a place cancels between its terms: κ, 0 none, 1 all of it.

    ``κ = 1 − mean |Σ_k I_tk| / Σ_k |I_tk|`` over the places with points of several terms, k the
    terms at the place. Terms that agree about a solution pull the same way; those that contradict
    each other cancel. Its baseline is that of independent random signs of equal size:
    ``1 − E|Σ±1|/K`` at a place of K points.

    Raises
    ------
    ValueError
        When measured, if no place has points of more than one term.

    Examples
    --------
    >>> import whence as wh
    >>> from whence.attribution.result import Attribution
    >>> from whence.diagnosis.indicators import Coherence
    >>> coords = {"x": ("point", [0.1, 0.1]), "term": ("point", ["mass", "momentum"]),
    ...           "target_x": ("target", [0.5])}
    >>> table = Attribution([[3.0, -1.0]], coords, ("target", "point"))
    >>> Coherence().at_targets(table).values                      # 1 − |3 − 1|/(3 + 1)
    array([0.5])
    """

    def at_targets(self, table: xr.DataArray) -> Values:
        """Return κ of each target of an attribution (target, point)."""
        names = coordinate_names(table)
        of_points = {name: table.coords[name].values for name in names}
        places = places_of(of_points)
        counts = np.bincount(places.place_of)
        is_shared = counts > 1
        if not is_shared.any():
            raise ValueError(
                "coherence compares terms at one place, but no place has points of two: draw the "
                "points of several equations together, or leave this indicator out"
            )

        influences = table.transpose("target", "point").values
        sums = places.sums(influences)[:, is_shared]
        sizes = places.sums(np.abs(influences))[:, is_shared]
        agreement = ratio(np.abs(sums), sizes)

        # A place without any influence on a target says nothing about it.
        known = np.isfinite(agreement)
        total = np.where(known, agreement, 0.0).sum(axis=1)
        kappa = 1 - ratio(total, known.sum(axis=1))

        numbers = counts[is_shared]
        expected = [1 - random_agreement(int(count)) for count in numbers]
        baseline = np.full(len(kappa), np.mean(expected))
        return Values(kappa, baseline)


def random_agreement(n: int) -> float:
    """Return E|Σ ±1|/n of n independent signs.

    The sum is n − 2j with probability C(n, j)/2ⁿ.

    Examples
    --------
    >>> from whence.diagnosis.indicators.coherence import random_agreement
    >>> random_agreement(2), random_agreement(3)
    (0.5, 0.5)
    """
    from scipy.stats import binom  # slow to import

    minus = np.arange(n + 1)
    sizes = np.abs(n - 2 * minus) / n
    return float(sizes @ binom.pmf(minus, n, 0.5))
