"""Brittleness: how few samples hold up a prediction, by what retraining without them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from whence import _checks

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, np.dtype[Any]]


def brittleness(
    attribution: ArrayLike | xr.DataArray,
    train: Callable[[Array, int], object],
    counts: Sequence[int],
    predicted: ArrayLike,
    *,
    progress: bool = True,
) -> xr.DataArray:
    """Return whether each target's prediction flips when its most helpful samples are left out.

    For every target the k samples whose removal is predicted to raise its loss the most are left
    out, and a model is trained on the others (Ilyas et al. 2022, arXiv 2202.00622, section 3.2).
    Of two attributions the one that flips more predictions with fewer samples is the better;
    compare it with rankings at random and by gradient norms alone.

    Parameters
    ----------
    attribution:
        Effects of removal on the targets' losses, (target, point): positive helps.
    train:
        ``train(kept, target)`` trains a model on these samples, by their places, and returns what
        it predicts for the target, such as a class number.
    counts:
        How many samples to leave out, each k of its own.
    predicted:
        What the model of all samples predicts for each target, (target,).
    progress:
        Whether a bar is shown after two seconds.

    Returns
    -------
    xarray.DataArray
        Dimensions (target, removed), 1 where the prediction is another one, else 0; the attribute
        ``shares`` is the mean over targets for each count.

    Raises
    ------
    ValueError
        If a count leaves no sample, shapes do not fit, or effects are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import brittleness
    >>> votes = np.array([1, 1, 0])                        # a "model" that predicts the majority
    >>> train = lambda kept, target: int(votes[kept].mean() >= 0.5)
    >>> brittleness(np.array([[2.0, 1.0, -1.0]]), train, [1, 2], [1]).values
    array([[0, 1]])
    """
    import xarray as xr  # slow to import

    effects = np.asarray(attribution, dtype=float)
    before = np.asarray(predicted)
    if effects.ndim != 2 or before.shape != (len(effects),):
        raise ValueError(
            "give effects (target, point) and a prediction for each target, got "
            f"{effects.shape} and {before.shape}"
        )
    _checks.finite("attribution", effects)
    n_targets, n_points = effects.shape
    for count in counts:
        _checks.count("a number of samples to leave out", count)
        if count >= n_points:
            raise ValueError(
                f"leaving out {count} of {n_points} samples leaves none to train on"
            )

    flips = np.zeros((n_targets, len(counts)), dtype=int)
    bar = tqdm(
        range(n_targets),
        "retraining",
        unit="target",
        delay=2,
        leave=False,
        disable=not progress,
    )
    for target in bar:
        # The most helpful samples first.
        order = np.argsort(-effects[target], kind="stable")
        for column, count in enumerate(counts):
            kept = np.sort(order[count:])
            flips[target, column] = train(kept, target) != before[target]

    return xr.DataArray(
        flips,
        dims=("target", "removed"),
        coords={"removed": list(counts)},
        name="flipped",
        attrs={"shares": flips.mean(axis=0).tolist()},
    )
