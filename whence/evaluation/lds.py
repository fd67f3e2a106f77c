"""The linear datamodeling score: whether sums of influences predict retraining on subsets.

A model is trained anew on random subsets of its data; an attribution is good if the sum of its
entries over the samples that were left out orders what happened (Park et al. 2023, TRAK, arXiv
2303.14186, section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from whence import _checks

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, np.dtype[Any]]


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
            f"share must leave some of {n} samples in and some out, got {share!r}"
        )
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, n), dtype=bool)
    for mask in masks:
        mask[generator.choice(n, kept, replace=False)] = True
    return masks


def retrained(
    train: Callable[[Array, int], Any],
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
    shown = tqdm(
        subsets,
        desc="retraining",
        unit="model",
        delay=2,
        leave=False,
        disable=not progress,
    )
    rows = []
    for k, subset in enumerate(shown):
        chosen = np.flatnonzero(subset)
        each = [
            np.asarray(train(chosen, k * seeds + s), dtype=float) for s in range(seeds)
        ]
        rows.append(np.mean(each, axis=0))
    return np.stack(rows)


def linear_datamodeling_score(
    attribution: Any, subsets: Any, actual: Any
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

    Returns
    -------
    xarray.DataArray
        Dimension (target,), NaN where either does not vary; the attribute ``mean`` is the score,
        ``error`` its standard error over targets.

    Raises
    ------
    ValueError
        If shapes do not fit, or the attribution is of adding points.

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
    from scipy.stats import rankdata

    if getattr(attribution, "attrs", {}).get("effect", "remove") != "remove":
        raise ValueError(
            "the score is of effects of removal: attribute with effect='remove'"
        )
    effects = np.asarray(attribution, dtype=float)
    masks, found = np.asarray(subsets), np.asarray(actual, dtype=float)
    if (
        masks.dtype.kind != "b"
        or masks.ndim != 2
        or effects.ndim != 2
        or found.ndim != 2
    ):
        raise ValueError(
            "give effects (target, point), booleans (subsets, point) and actual (subsets, target), "
            f"got {effects.shape}, {masks.dtype} of shape {masks.shape}, and {found.shape}"
        )
    if effects.shape[1] != masks.shape[1] or found.shape != (len(masks), len(effects)):
        raise ValueError(
            f"shapes do not fit: effects {effects.shape}, subsets {masks.shape}, actual "
            f"{found.shape}"
        )
    predicted = effects @ (~masks).T.astype(float)
    values = _correlations(rankdata(predicted, axis=1), rankdata(found.T, axis=1))
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError("no target varies over the subsets, or no prediction does")
    error = (
        float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else float("nan")
    )
    return xr.DataArray(
        values,
        dims="target",
        name="lds",
        attrs={"mean": float(known.mean()), "error": error, "subsets": len(masks)},
    )


def _correlations(a: Array, b: Array) -> Array:
    """Return the Pearson correlation of each row of a with that of b; NaN where one is constant."""
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (a, b))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found: Array = np.full(len(a), np.nan)
    np.divide((a * b).sum(axis=1), norms, out=found, where=norms > 0)
    return found
