"""Shapley and Beta-Shapley values by retraining: what a sample adds to subsets of every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from whence import _checks

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

Array = np.ndarray[Any, np.dtype[Any]]
Train = Callable[[Array, int], ArrayLike]
"""``train(indices, seed)`` trains on these samples and returns the targets, (T,)."""

PERMUTATIONS = 100


def beta_shapley(
    train: Train,
    n: int,
    *,
    empty: ArrayLike | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    permutations: int = PERMUTATIONS,
    tolerance: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> Attribution:
    """Return what samples add to models trained on subsets, a mean over subsets of every size.

    An entry (target f, sample i) is ``(1/n) Σ_j w_j E[f(S) − f(S ∪ i)]`` with S of j − 1 samples:
    the mean change of f when the sample is removed, so that of a loss positive helps, as
    everywhere; of a utility the value is minus that. ``w_j = 1`` for ``alpha = beta = 1``, Shapley
    values (Ghorbani & Zou 2019, arXiv 1904.02868); else those of Beta(α, β), by which α > β weighs
    small subsets more, where a sample's effect stands out of the noise (Kwon & Zou 2022, arXiv
    2110.14049; (16, 1) there). Samples come in in random orders, so that an order costs n
    trainings.

    Parameters
    ----------
    train:
        ``train(indices, seed)`` trains a model on these samples and returns the targets, such as
        losses of test samples, (T,). The seed is that of the order.
    n:
        How many samples there are.
    empty:
        The targets without any sample, (T,), such as those of a constant; by default what
        ``train`` returns of no indices.
    alpha, beta:
        α and β.
    permutations:
        How many orders.
    tolerance:
        An order ends where all targets are as near to those of all samples, in shares of what all
        samples change: what follows counts as adding nothing.
    seed:
        Of the orders.
    progress:
        Whether a bar is shown after two seconds.

    Returns
    -------
    Attribution
        Dimensions (target, point); ``attrs["sampling_error"]`` is the standard error of an entry
        relative to their root mean square.

    Raises
    ------
    ValueError
        If a number is out of range, or targets are not finite or differ in number.

    Examples
    --------
    Of a loss that is a sum of what samples contribute, whatever the others:

    >>> import numpy as np
    >>> from whence.evaluation import beta_shapley
    >>> worth = np.array([3.0, 0.0, -1.0])
    >>> values = beta_shapley(lambda chosen, seed: [-worth[chosen].sum()], 3, permutations=4)
    >>> values.values
    array([[ 3.,  0., -1.]])
    """
    from whence.attribution.result import Attribution  # xarray is slow to import

    _checks.count("n", n)
    _checks.count("permutations", permutations)
    _checks.positive("tolerance", tolerance, zero=True)
    weights = size_weights(n, alpha, beta)
    if empty is None:
        empty = train(np.arange(0), seed)
    start = check_targets(empty, None)
    full = check_targets(train(np.arange(n), seed), start)
    close = tolerance * np.abs(full - start)

    generator = np.random.default_rng(seed)
    total = np.zeros((len(start), n))
    squares = np.zeros_like(total)
    rounds = range(permutations)
    hidden = not progress
    for k in tqdm(rounds, "orders", unit="order", delay=2, leave=False, disable=hidden):
        order = generator.permutation(n)
        entries = np.zeros_like(total)
        before = start
        for j in range(n):
            if tolerance and bool((np.abs(before - full) <= close).all()):
                break
            after = check_targets(train(np.sort(order[: j + 1]), seed + k), start)
            entries[:, order[j]] = weights[j] * (before - after)
            before = after
        total += entries
        squares += entries**2

    values = total / permutations
    return Attribution(
        values,
        dims=("target", "point"),
        coords={"index": ("point", np.arange(n))},
        name="influence",
        attrs={
            "method": "beta_shapley",
            "effect": "remove",
            "sign": "mean change of the target when the point is left out, over subsets",
            "alpha": alpha,
            "beta": beta,
            "permutations": permutations,
            "sampling_error": sampling_error(values, squares, permutations),
        },
    )


def size_weights(n: int, alpha: float, beta: float) -> Array:
    """Return w_j of the place j = 1, …, n in an order, of mean 1.

    ``w_j = n C(n − 1, j − 1) B(j + β − 1, n − j + α)/B(α, β)``.

    Examples
    --------
    >>> from whence.evaluation.beta_shapley import size_weights
    >>> size_weights(3, 1.0, 1.0).round(9), size_weights(3, 4.0, 1.0).round(9)
    (array([1., 1., 1.]), array([2. , 0.8, 0.2]))
    """
    _checks.positive("alpha", alpha)
    _checks.positive("beta", beta)
    weights = []
    for j in range(1, n + 1):
        # In logarithms, as binomials of many samples exceed every float.
        binomial = log_beta(j, n - j + 1)
        mixed = log_beta(j + beta - 1, n - j + alpha) - log_beta(alpha, beta)
        # n C(n − 1, j − 1) = 1/B(j, n − j + 1)
        weights.append(math.exp(mixed - binomial))
    return np.array(weights)


def log_beta(a: float, b: float) -> float:
    """Return ``log B(a, b)``."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def sampling_error(values: Array, squares: Array, permutations: int) -> float:
    """Return the standard error of the mean of entries, relative to their root mean square."""
    if permutations < 2:
        return math.inf
    # Rounding may leave a variance of nothing a little below zero.
    variance = np.maximum(squares / permutations - values**2, 0)
    error = np.sqrt(np.mean(variance / (permutations - 1)))
    size = np.sqrt(np.mean(values**2))
    return float(error / size) if size else math.inf


def check_targets(values: ArrayLike, like: Array | None) -> Array:
    """Return the targets of a training, (T,), as many as before.

    Raises
    ------
    ValueError
        If they are not finite numbers, or another number of them.
    """
    targets = np.atleast_1d(np.asarray(values, dtype=float))
    is_vector = targets.ndim == 1 and bool(np.isfinite(targets).all())
    if not is_vector or (like is not None and targets.shape != like.shape):
        expected = "(T,)" if like is None else f"{like.shape}"
        raise ValueError(
            f"train must return finite targets {expected}, also of few samples, got shape "
            f"{targets.shape}; give empty= where nothing can be trained without samples"
        )
    return targets
