"""Whether the samples that ought to matter come first: retrieval by an attribution.

Mislabelled samples among all, samples of a target's subclass, poisoned ones with a shortcut: the
truth is which samples are relevant to which target, and an attribution a ranking of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from whence import _checks
from whence.evaluation.ranks import average_precision, precision_and_recall

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, np.dtype[Any]]
MEASURES = ("auc", "average_precision", "precision")


def retrieval(
    attribution: ArrayLike | xr.DataArray, relevant: ArrayLike, *, k: int = 10
) -> xr.Dataset:
    """Return how well an attribution's order finds the relevant samples, for each target.

    Parameters
    ----------
    attribution:
        (target, point), or (point,) of a single target: the largest entries come first.
    relevant:
        Which samples ought to: booleans (target, point), or (point,) for all targets. For a
        target's subclass ``subclass == target_subclass[:, None]``; for a shortcut which samples
        carry it; for wrong labels which they are, with minus the attribution if these are to be
        the ones that harm.
    k:
        How many of the first samples ``precision`` looks at.

    Returns
    -------
    xarray.Dataset
        Dimension (target,), each from 0 to 1:

        - ``auc``, the area under the receiver operating characteristic: the chance that a relevant
          sample comes before another one, ties counting half;
        - ``average_precision``, ``Σ_j (R_j − R_{j−1}) P_j`` over precision P and recall R going
          down the ranking, ties counting together;
        - ``precision``, the share of relevant samples among the first k.

        NaN for targets without relevant samples or with no others. ``attrs`` has the means over the
        other targets, and ``chance``, the share of relevant samples, which a random order has as
        precision.

    Raises
    ------
    ValueError
        If the attribution is no table of finite numbers, shapes do not fit, or k exceeds the number
        of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import retrieval
    >>> measured = retrieval([[3.0, 1.0, 2.0]], [True, False, False], k=1)
    >>> float(measured.auc[0]), float(measured.average_precision[0]), float(measured.precision[0])
    (1.0, 1.0, 1.0)
    """
    import xarray as xr  # slow to import

    scores, masks = checked_tables(attribution, relevant)
    _checks.count("k", k)
    n_targets, n_samples = scores.shape
    if k > n_samples:
        raise ValueError(f"k is {k}, above the number of samples, {n_samples}")

    table = np.empty((n_targets, len(MEASURES)))
    for target in range(n_targets):
        table[target] = measures_of(scores[target], masks[target], k)

    variables = {}
    means = {}
    for name, column in zip(MEASURES, table.T, strict=True):
        variables[name] = ("target", column)
        # Targets without relevant samples have none to find.
        known = column[np.isfinite(column)]
        means[name] = float(known.mean()) if len(known) else np.nan

    chance = float(masks.mean())
    return xr.Dataset(variables, attrs={**means, "chance": chance, "k": k})


def checked_tables(
    attribution: ArrayLike | xr.DataArray, relevant: ArrayLike
) -> tuple[Array, Array]:
    """Return an attribution, and which samples are relevant, both as (target, point).

    Raises
    ------
    ValueError
        If the former is no table of finite numbers, or the latter no booleans of its shape.
    """
    scores = np.atleast_2d(np.asarray(attribution, dtype=float))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            "attribution must be numbers (target, point), one or more of either, got shape "
            f"{np.shape(attribution)}"
        )
    _checks.finite("attribution", scores)

    masks = np.asarray(relevant)
    fitting = (scores.shape, scores.shape[1:])
    if masks.dtype.kind != "b" or masks.shape not in fitting:
        raise ValueError(
            f"relevant must be booleans {scores.shape} or {scores.shape[1:]}, got {masks.dtype} "
            f"of shape {masks.shape}"
        )
    return scores, np.broadcast_to(masks, scores.shape)


def measures_of(scores: Array, relevant: Array, k: int) -> tuple[float, float, float]:
    """Return the area under the curve, average precision, and precision of the first k."""
    n_relevant = int(relevant.sum())
    n_others = len(scores) - n_relevant
    if not n_relevant or not n_others:
        return np.nan, np.nan, np.nan

    auc = area_under_curve(scores, relevant)
    _, precision, recall = precision_and_recall(scores, relevant)

    order = np.argsort(-scores, kind="stable")
    of_first = relevant[order[:k]].mean()
    return auc, average_precision(precision, recall), float(of_first)


def area_under_curve(scores: Array, relevant: Array) -> float:
    """Return the share of pairs of a relevant and another sample whose scores are in that order.

    By Mann and Whitney's statistic. Of n_r relevant samples, ranks from the lowest score, the rank
    of one counts the samples below it, half of its ties, and itself. Summed over the relevant ones,
    pairs of two of them and each itself make ``n_r(n_r + 1)/2``, whatever the scores; the rest are
    the pairs with others that are in order.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation.retrieval import area_under_curve
    >>> area_under_curve(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]))
    0.75
    """
    from scipy.stats import rankdata  # slow to import

    n_relevant = int(relevant.sum())
    n_others = len(scores) - n_relevant
    ranks = rankdata(scores)

    among_relevant = n_relevant * (n_relevant + 1) / 2
    in_order = ranks[relevant].sum() - among_relevant
    return float(in_order / (n_relevant * n_others))
