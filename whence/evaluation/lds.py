"""The linear datamodeling score: whether sums of influences predict retraining on subsets.

A model is trained again on random subsets of its data; an attribution is good if the sum of its
entries over the samples that were left out orders what happened (Park et al. 2023, TRAK, arXiv
2303.14186, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from whence import _checks
from whence.evaluation.ranks import spearman_rows

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, np.dtype[Any]]

BOOTSTRAP = 200


def random_subsets(n: int, count: int, share: float = 0.5, seed: int = 0) -> Array:
    """Return ``count`` random subsets of n samples as booleans (count, n), each of this share.

    Examples
    --------
    >>> from whence.evaluation.lds import random_subsets
    >>> random_subsets(6, 2).sum(axis=1)
    array([3, 3])
    """
    _checks.count("n", n)
    _checks.count("count", count)
    kept = round(share * n) if 0 < share < 1 else 0
    if not 0 < kept < n:
        raise ValueError(
            f"share must leave some of {n} samples in and some out, got {_checks.describe(share)}"
        )

    generator = np.random.default_rng(seed)
    masks = np.zeros((count, n), dtype=bool)
    for mask in masks:
        mask[generator.choice(n, kept, replace=False)] = True
    return masks


def retrained(
    train: Callable[[Array, int], ArrayLike],
    subsets: Array,
    seeds: int = 1,
    progress: bool = True,
) -> Array:
    """Return the targets of models trained on subsets, (subsets, targets).

    Parameters
    ----------
    train:
        ``train(indices, seed)`` trains a model on these samples and returns the targets, (T,).
    subsets:
        Booleans (subsets, n).
    seeds:
        How many models are trained on each subset, whose targets are averaged: what comes from
        the seed alone no attribution can predict.
    progress:
        Whether a bar is shown after two seconds.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation.lds import retrained
    >>> retrained(lambda chosen, seed: [chosen.sum()], np.array([[True, True], [False, True]]))
    array([[1.],
           [1.]])
    """
    _checks.count("seeds", seeds)
    progress_bar = tqdm(
        subsets,
        desc="retraining",
        unit="model",
        delay=2,
        leave=False,
        disable=not progress,
    )
    rows = []
    for k, subset in enumerate(progress_bar):
        indices = np.flatnonzero(subset)
        targets = []
        for s in range(seeds):
            # No two models of all share a seed.
            values = train(indices, k * seeds + s)
            targets.append(np.asarray(values, dtype=float))
        rows.append(np.mean(targets, axis=0))
    return np.stack(rows)


def linear_datamodeling_score(
    attribution: ArrayLike | xr.DataArray,
    subsets: ArrayLike,
    actual: ArrayLike,
    *,
    bootstrap: int = BOOTSTRAP,
) -> xr.DataArray:
    """Return, for each target, the Spearman correlation of predicted and actual retraining.

    Predicted for a subset: the sum of the entries (effects of removal) of the samples outside it.

    Parameters
    ----------
    attribution:
        Effects of removal, (target, point): of sign and scale no matter which, if one for all.
    subsets:
        Which samples were trained on, booleans (subsets, point).
    actual:
        The targets of the models trained on them, (subsets, target).
    bootstrap:
        How many times subsets are drawn again, with replacement, for the score's interval.

    Returns
    -------
    xarray.DataArray
        Dimension (target,), NaN where either does not vary; the attribute ``mean`` is the score,
        ``error`` its standard error over targets, ``low`` and ``high`` the interval that holds it
        in 95 of 100 draws of other subsets.

    Raises
    ------
    ValueError
        If shapes do not fit, numbers are not finite (a training that diverged), or the attribution
        is of adding points.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation.lds import linear_datamodeling_score
    >>> subsets = np.array([[True, False, True], [True, True, False], [False, True, True]])
    >>> effects = np.array([[1.0, 2.0, 3.0]])           # the truth: 2, 3 and 1 above the full fit
    >>> float(linear_datamodeling_score(effects, subsets, [[7.0], [8.0], [6.0]])[0])
    1.0
    """
    import xarray as xr  # slow to import

    if getattr(attribution, "attrs", {}).get("effect", "remove") != "remove":
        raise ValueError(
            "the score is of effects of removal: attribute with effect='remove'"
        )
    effects = np.asarray(attribution, dtype=float)
    masks = np.asarray(subsets)
    truth = np.asarray(actual, dtype=float)
    _check_shapes(effects, masks, truth)
    _checks.finite("attribution", effects)
    _checks.finite("actual", truth)

    # The effects of all samples that a subset leaves out, added up: (targets, subsets).
    predicted = effects @ (~masks).T.astype(float)
    values = spearman_rows(predicted, truth.T)
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError("no target varies over the subsets, or no prediction does")

    _checks.count("bootstrap", bootstrap)
    low, high = bootstrapped(predicted, truth.T, bootstrap)
    error = math.nan
    if len(known) > 1:
        # Standard error of the mean, s/√T, over the T targets that have a correlation.
        error = float(known.std(ddof=1) / len(known) ** 0.5)
    return xr.DataArray(
        values,
        dims="target",
        name="lds",
        attrs={
            "mean": float(known.mean()),
            "error": error,
            "low": low,
            "high": high,
            "subsets": len(masks),
        },
    )


def bootstrapped(predicted: Array, truth: Array, draws: int) -> tuple[float, float]:
    """Return between what the mean correlation lies in 95 of 100 draws of the columns."""
    generator = np.random.default_rng(0)
    n_columns = predicted.shape[1]
    means = []
    for _ in range(draws):
        columns = generator.integers(n_columns, size=n_columns)
        correlations = spearman_rows(predicted[:, columns], truth[:, columns])
        known = correlations[np.isfinite(correlations)]
        if len(known):
            means.append(known.mean())
    if not means:
        return math.nan, math.nan
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def check_subsets(masks: Array, truth: Array) -> None:
    """Raise ``ValueError`` unless these are booleans (subsets, point) and finite targets."""
    are_tables = masks.ndim == truth.ndim == 2 and masks.dtype.kind == "b"
    if not are_tables or len(masks) != len(truth):
        raise ValueError(
            "give booleans (subsets, point) and actual (subsets, target), got "
            f"{masks.dtype} of shape {masks.shape} and {truth.shape}"
        )
    _checks.finite("actual", truth)


def _check_shapes(effects: Array, masks: Array, truth: Array) -> None:
    are_tables = effects.ndim == masks.ndim == truth.ndim == 2
    if not are_tables or masks.dtype.kind != "b":
        raise ValueError(
            "give effects (target, point), booleans (subsets, point) and actual (subsets, target), "
            f"got {effects.shape}, {masks.dtype} of shape {masks.shape}, and {truth.shape}"
        )
    expected = (len(masks), len(effects))
    if effects.shape[1] != masks.shape[1] or truth.shape != expected:
        raise ValueError(
            f"shapes do not fit: effects {effects.shape}, subsets {masks.shape}, actual "
            f"{truth.shape}"
        )
