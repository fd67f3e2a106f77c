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
        (target, point): the largest entries come first.
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
        Dimension (target,): ``auc``, the chance that a relevant sample comes before another one;
        ``average_precision``; ``precision`` of the first k; NaN for targets without relevant
        samples or with no others. ``attrs`` has the means, and ``chance``, the share of relevant
        samples, which a random order has as precision.

    Raises
    ------
    ValueError
        If shapes do not fit, or k exceeds the number of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import retrieval
    >>> found = retrieval([[3.0, 1.0, 2.0]], [True, False, False], k=1)
    >>> float(found.auc[0]), float(found.average_precision[0]), float(found.precision[0])
    (1.0, 1.0, 1.0)
    """
    import xarray as xr  # slow to import

    scores = np.atleast_2d(np.asarray(attribution, dtype=float))
    masks = np.asarray(relevant)
    if masks.dtype.kind != "b" or masks.shape not in (scores.shape, scores.shape[1:]):
        raise ValueError(
            f"relevant must be booleans {scores.shape} or {scores.shape[1:]}, got {masks.dtype} "
            f"of shape {masks.shape}"
        )
    masks = np.broadcast_to(masks, scores.shape)
    _checks.count("k", k)
    if k > scores.shape[1]:
        raise ValueError(f"k is {k}, above the number of samples, {scores.shape[1]}")

    rows = []
    for row, mask in zip(scores, masks, strict=True):
        rows.append(_of_target(row, mask, k))

    variables = {}
    means = {}
    for name, column in zip(MEASURES, np.transpose(rows), strict=True):
        variables[name] = ("target", column)
        # Targets without relevant samples have none to find.
        known = column[np.isfinite(column)]
        means[name] = float(known.mean()) if len(known) else np.nan

    chance = float(masks.mean())
    return xr.Dataset(variables, attrs={**means, "chance": chance, "k": k})


def _of_target(scores: Array, relevant: Array, k: int) -> tuple[float, float, float]:
    """Return the area under the curve, average precision, and precision of the first k."""
    from scipy.stats import rankdata  # slow to import

    n_relevant = int(relevant.sum())
    n_others = len(scores) - n_relevant
    if not n_relevant or not n_others:
        return np.nan, np.nan, np.nan

    # Of Mann and Whitney: ranks of the relevant above the least that they could be.
    ranks = rankdata(scores)
    least = n_relevant * (n_relevant + 1) / 2
    auc = (ranks[relevant].sum() - least) / (n_relevant * n_others)

    _, precision, recall = precision_and_recall(scores, relevant)
    order = np.argsort(-scores, kind="stable")
    of_first = relevant[order[:k]].mean()
    return float(auc), average_precision(precision, recall), float(of_first)
