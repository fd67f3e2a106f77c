"""Data-OOB: how well a sample's label is predicted by models that were not trained on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from whence import _checks

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

Array = np.ndarray[Any, np.dtype[Any]]
Scoring = Literal["accuracy", "squared"]
BAGS = 200


@runtime_checkable
class Estimator(Protocol):
    """What fits and predicts, as estimators of scikit-learn do."""

    def fit(self, x: Array, y: Array) -> object:
        """Fit to inputs (n, …) and labels (n,)."""

    def predict(self, x: Array) -> ArrayLike:
        """Return the labels of inputs, (n,)."""


Predict = Callable[[Array, int], ArrayLike]
"""``train(indices, seed)`` trains on these samples and returns its predictions for all, (N,)."""


def data_oob(
    model: Estimator | Predict,
    data: tuple[ArrayLike, ArrayLike],
    *,
    bags: int = BAGS,
    scoring: Scoring | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Attribution:
    """Return how well each sample is predicted by models whose bags it is not in.

    An entry is ``Σ_b 1[i ∉ b] T(y_i, f_b(x_i)) / Σ_b 1[i ∉ b]`` over bags b, as many samples drawn
    with replacement (Kwon & Zou 2023, arXiv 2304.07718): T is 1 where the prediction is the label,
    else 0, or minus the squared error. Low is suspect, a label that others contradict:
    ``detection(-values, corrupted)``. It is a value of the sample, not a change of an answer: sums
    over samples predict no retraining.

    Parameters
    ----------
    model:
        An estimator with ``fit`` and ``predict``, such as any of scikit-learn, of which copies are
        fitted; or ``train(indices, seed)``, which trains on these samples, some of them repeated,
        and returns its predictions for all, (N,).
    data:
        Inputs (N, …) and labels (N,).
    bags:
        How many models.
    scoring:
        ``"accuracy"`` or ``"squared"``; by default the former where labels are classes.
    seed:
        Of what is drawn.
    progress:
        Whether a bar is shown after two seconds.

    Returns
    -------
    Attribution
        Dimension (point,); NaN for samples that are in every bag.

    Raises
    ------
    TypeError
        If the model is neither of the two.
    ValueError
        If there is not a label and a prediction for each sample.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import data_oob
    >>> x, y = np.arange(6.0)[:, None], np.array([0, 0, 1, 0, 0, 0])
    >>> def train(indices, seed):                           # the label that most have
    ...     return np.full(6, np.bincount(y[indices]).argmax())
    >>> data_oob(train, (x, y), bags=50).values.round()
    array([1., 1., 0., 1., 1., 1.])
    """
    from whence.attribution.result import Attribution  # xarray is slow to import

    _checks.count("bags", bags)
    _checks.seed("seed", seed)
    x, y = (np.asarray(part) for part in map(as_numbers, data))
    if y.shape != (len(x),) or not len(x):
        raise ValueError(
            f"data must be inputs and a label for each, got {x.shape} and {y.shape}"
        )
    if scoring is None:
        scoring = "squared" if y.dtype.kind == "f" else "accuracy"
    _checks.one_of("scoring", scoring, ("accuracy", "squared"))

    n = len(x)
    generator = np.random.default_rng(seed)
    total = np.zeros(n)
    counts = np.zeros(n)
    hidden = not progress
    bar = tqdm(range(bags), "bags", unit="bag", delay=2, leave=False, disable=hidden)
    for k in bar:
        bag = generator.integers(n, size=n)
        is_outside = np.ones(n, dtype=bool)
        is_outside[bag] = False
        if not is_outside.any():
            continue
        predictions = predicted_outside(model, x, y, bag, is_outside, seed + k)
        total[is_outside] += scores(predictions, y[is_outside], scoring)
        counts += is_outside

    values = np.full(n, np.nan)
    np.divide(total, counts, out=values, where=counts > 0)
    return Attribution(
        values,
        dims=("point",),
        coords={"index": ("point", np.arange(n)), "label": ("point", y)},
        name="influence",
        attrs={
            "method": "data_oob",
            "effect": "value",
            "sign": "how well models without the sample predict its label: low is suspect",
            "scoring": scoring,
            "bags": bags,
        },
    )


def as_numbers(values: ArrayLike) -> ArrayLike:
    """Return a tensor as an array; anything else as it is."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def predicted_outside(
    model: Estimator | Predict,
    x: Array,
    y: Array,
    bag: Array,
    is_outside: Array,
    seed: int,
) -> Array:
    """Return the predictions for the samples outside a bag, of the model that it makes."""
    if isinstance(model, Estimator) and not isinstance(model, type):
        fitted = copy.deepcopy(model)
        fitted.fit(x[bag], y[bag])
        predictions = np.asarray(fitted.predict(x[is_outside]))
    elif callable(model) and not isinstance(model, type):
        of_all = np.asarray(as_numbers(model(bag, seed)))
        if of_all.shape != y.shape:
            raise ValueError(
                f"train must return a prediction for each of {len(y)} samples, got shape "
                f"{of_all.shape}"
            )
        predictions = of_all[is_outside]
    else:
        raise TypeError(
            "model must have fit and predict, as estimators of scikit-learn, or be a function "
            f"train(indices, seed), got {_checks.describe(model)}"
        )
    return predictions


def scores(predictions: Array, labels: Array, scoring: Scoring) -> Array:
    """Return T of predictions: 1 where they are the label, or minus the squared error."""
    if scoring == "accuracy":
        return (predictions == labels).astype(float)
    return -((predictions - labels) ** 2)
