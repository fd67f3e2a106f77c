"""Shapley values of nearest neighbours: what a sample is worth to its neighbourhood, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from whence import _checks

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

Array = np.ndarray[Any, np.dtype[Any]]
LabelledFeatures = tuple[ArrayLike, ArrayLike]
"""Features (n, …) and labels (n,)."""

NEIGHBORS = 5
"""Neighbours that vote, unless another number is asked for."""
BLOCK_NUMBERS = 2**24
"""Distances that are held at once."""


def knn_shapley(
    train: LabelledFeatures, test: LabelledFeatures, *, neighbors: int = NEIGHBORS
) -> Attribution:
    """Return the exact Shapley values of training samples for the votes of nearest neighbours.

    The target of a test sample is the error of K neighbours, the share of K votes that are not for
    its label: ``1 − (1/K) Σ_{k ≤ min(K, |S|)} 1[y_k = y]`` over the nearest of a subset S. An entry
    is the mean rise of that error when the sample is left out, over all orders in which samples
    may come in: the Shapley value of Jia et al. 2019 (arXiv 1908.08619, theorem 1), positive for a
    sample that helps, in O(n log n) for each target. No network is asked: give the features of one
    (its last hidden layer, say) rather than raw inputs.

    Parameters
    ----------
    train, test:
        Features (n, …) and labels (n,) of the samples that vote, and of those that are voted on.
    neighbors:
        K.

    Returns
    -------
    Attribution
        Dimensions (target, point); ``-values.mean("target")`` is a suspicion that
        :func:`whence.evaluation.detection` takes. A row adds up to ``1 −`` the error of all samples
        together.

    Raises
    ------
    ValueError
        If features and labels do not fit each other, are not finite, or labels are no classes.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import knn_shapley
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> knn_shapley((x, [1, 0, 1]), (x[:1], [1]), neighbors=1).values.round(4)
    array([[ 0.8333, -0.1667,  0.3333]])
    """
    from whence.attribution.result import Attribution  # xarray is slow to import

    _checks.count("neighbors", neighbors)
    features, labels = check_features("train", train)
    test_features, test_labels = check_features("test", test)
    if features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"train and test need as many features, got {features.shape[1]} and "
            f"{test_features.shape[1]}"
        )

    block = max(1, BLOCK_NUMBERS // len(features))
    rows = []
    starts = range(0, len(test_features), block)
    for start in tqdm(starts, "neighbours", unit="block", delay=2, leave=False):
        part = slice(start, start + block)
        distances = torch.cdist(
            torch.as_tensor(test_features[part]), torch.as_tensor(features)
        )
        # Of equally near ones the first counts as the nearer.
        order = np.argsort(distances.numpy(), axis=1, kind="stable")
        votes = labels[order] == test_labels[part, None]
        values = np.empty_like(votes, dtype=float)
        np.put_along_axis(values, order, values_by_rank(votes, neighbors), axis=1)
        rows.append(values)

    return Attribution(
        np.concatenate(rows),
        dims=("target", "point"),
        coords={
            "index": ("point", np.arange(len(labels))),
            "label": ("point", labels),
            "target_label": ("target", test_labels),
        },
        name="influence",
        attrs={
            "method": "knn_shapley",
            "effect": "remove",
            "quantity": f"error of {neighbors} nearest neighbours",
            "sign": "mean rise of the error when the point is left out, over all orders",
            "neighbors": neighbors,
        },
    )


def values_by_rank(votes: Array, neighbors: int) -> Array:
    """Return Shapley values (t, n) of samples in the order of their distance, from their votes.

    With v_i whether the i-th nearest votes for the label, from the farthest to the nearest:
    ``s_n = v_n min(K, n)/(nK)`` and ``s_i = s_{i+1} + (v_i − v_{i+1}) min(K, i)/(iK)``.
    """
    n = votes.shape[1]
    ranks = np.arange(1, n + 1)
    shares = np.minimum(neighbors, ranks) / (ranks * neighbors)

    # What each adds to the value of the next one farther away, and the farthest to nothing.
    following = np.zeros_like(votes, dtype=float)
    following[:, :-1] = votes[:, 1:]
    steps = (votes - following) * shares
    return np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]


def check_features(what: str, data: LabelledFeatures) -> tuple[Array, Array]:
    """Return features (n, d) in double precision and labels (n,) of some samples.

    Raises
    ------
    ValueError
        If they are no such pair.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            f"{what} must be features and labels, (x, y), got {_checks.describe(data)}"
        )
    x, y = (torch.as_tensor(part).detach().cpu().numpy() for part in data)
    if not len(x) or y.shape != (len(x),):
        raise ValueError(
            f"{what} needs a label for each of one or more samples, got features {x.shape} and "
            f"labels {y.shape}"
        )
    if y.dtype.kind not in "biu":
        raise ValueError(
            f"the labels of {what} must be classes, which votes can be for, got {y.dtype}"
        )
    features = x.reshape(len(x), -1).astype(float)
    _checks.finite(f"features of {what}", features)
    return features, y
