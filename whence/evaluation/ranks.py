"""Rank correlations, row by row."""

from __future__ import annotations

import numpy as np


def spearman_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Spearman correlation of each row of a with that of b; NaN where one is constant.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation.ranks import spearman_rows
    >>> spearman_rows(np.array([[1, 2, 3], [1, 1, 1]]), np.array([[1, 9, 8], [1, 2, 3]]))
    array([0.5, nan])
    """
    from scipy.stats import rankdata  # slow to import

    # Ranks 1 … n have the mean (n + 1)/2, ties or not.
    mean = (a.shape[1] + 1) / 2
    a_ranks = rankdata(a, axis=1) - mean
    b_ranks = rankdata(b, axis=1) - mean

    # Pearson's correlation of the ranks: Σab / √(Σa² Σb²).
    products = (a_ranks * b_ranks).sum(axis=1)
    a_squares = (a_ranks**2).sum(axis=1)
    b_squares = (b_ranks**2).sum(axis=1)
    norms = np.sqrt(a_squares * b_squares)

    correlations = np.full(len(a), np.nan)
    np.divide(
        products,
        norms,
        out=correlations,
        where=norms > 0,
    )
    return correlations


def precision_and_recall(
    scores: np.ndarray, relevant: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many entries are looked at, precision and recall, going down a ranking.

    The highest scores come first; entries of equal scores count together.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation.ranks import precision_and_recall
    >>> precision_and_recall(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]))
    (array([1, 3]), array([1.        , 0.66666667]), array([0.5, 1. ]))
    """
    order = np.argsort(-scores, kind="stable")
    # The last of each run of equals.
    is_last = np.append(np.diff(scores[order]) != 0, True)
    last = np.flatnonzero(is_last)

    looked = last + 1
    hits = np.cumsum(relevant[order])[last]
    return looked, hits / looked, hits / relevant.sum()


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return ``Σ_k (R_k − R_{k−1}) P_k``, the mean precision where each relevant entry is found."""
    steps = np.diff(recall, prepend=0.0)
    return float((steps * precision).sum())


def rank_agreement(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean of the rows' Spearman correlations; a row without ranks counts as 0."""
    correlations = spearman_rows(actual, predicted)
    correlations = np.nan_to_num(correlations)
    return float(correlations.mean())
