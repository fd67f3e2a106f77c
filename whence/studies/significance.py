"""Which differences between methods are real: paired tests over seeds, with Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas import Series
from scipy.stats import rankdata, wilcoxon

LEVEL = 0.05
"""Largest p of a difference that is called significant."""

Array = np.ndarray


def paired_test(values: Series, best_values: Series) -> tuple[int, float, bool]:
    """Return the number of pairs, the two-sided exact p, and whether the signed ranks are worse.

    Parameters
    ----------
    values, best_values:
        Of a method and of the best one, by seed; seeds that only one of them has are left out.

    Examples
    --------
    >>> import pandas as pd
    >>> from whence.studies.significance import paired_test
    >>> best = pd.Series([0.0] * 5)
    >>> paired_test(best + [1, 2, 3, 4, 5], best)
    (5, 0.0625, True)
    """
    # Rows of both, by seed: the same seed has the same initial network and first points.
    pairs = pd.concat(
        [values, best_values],
        axis=1,
        join="inner",
    )
    differences = (pairs.iloc[:, 0] - pairs.iloc[:, 1]).to_numpy()
    n_pairs = len(differences)
    if n_pairs == 0:
        return 0, math.nan, False

    # T₊ − T₋ = Σ sign(dᵢ) · rank|dᵢ|, above zero where the method is rather worse.
    ranks = rankdata(np.abs(differences))
    signs = np.sign(differences)
    is_worse = bool(signs @ ranks > 0)

    # Exact whatever n: scipy's own choice turns to a normal approximation.
    test = wilcoxon(differences, method="exact")
    return n_pairs, float(test.pvalue), is_worse


def holm(p: Sequence[float]) -> Array:
    """Return p-values corrected for being several, by Holm's procedure; NaN stay NaN.

    The k-th least of m becomes max over j ≤ k of min(1, (m − j + 1) p₍ⱼ₎): then the chance that
    any true equality is rejected at a level is at most that level.

    Examples
    --------
    >>> from whence.studies.significance import holm
    >>> holm([0.04, 0.01, 0.03]).round(3).tolist()
    [0.06, 0.03, 0.06]
    """
    values = np.asarray(p, dtype=float)
    corrected = np.full(len(values), math.nan)
    m = int(np.isfinite(values).sum())

    # NaN are sorted to the end.
    order = np.argsort(values, kind="stable")
    largest = 0.0
    for rank, k in enumerate(order[:m]):
        # Multiplied by how many are not yet rejected.
        factor = m - rank
        product = min(1.0, factor * values[k])
        # None is less than one before it.
        largest = max(largest, product)
        corrected[k] = largest
    return corrected


def least_p(n_pairs: int) -> float:
    """Return the least two-sided p that n pairs can have.

    All signs alike is one of the 2ⁿ equally likely patterns at either end: p = 2 / 2ⁿ.

    Examples
    --------
    >>> from whence.studies.significance import least_p
    >>> least_p(5)
    0.0625
    """
    n_patterns = 2.0**n_pairs
    # Of no pairs at all both ends are the same.
    return min(1.0, 2.0 / n_patterns)


def pairs_needed(n_comparisons: int) -> int:
    """Return how many pairs let one of several comparisons be significant.

    Examples
    --------
    >>> from whence.studies.significance import pairs_needed
    >>> pairs_needed(1), pairs_needed(6)
    (6, 8)
    """
    # The least of m corrected p is m · 2 / 2ⁿ ≤ LEVEL, so n ≥ log₂(2m / LEVEL).
    n_patterns = 2 * n_comparisons / LEVEL
    return math.ceil(math.log2(n_patterns))
