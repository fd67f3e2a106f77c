"""Datamodels: what samples do, read off many trainings on random subsets by regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from whence import _checks
from whence.evaluation.lds import check_subsets

if TYPE_CHECKING:
    from whence.attribution.result import Attribution

Array = np.ndarray[Any, np.dtype[Any]]
FOLDS = 4


def datamodel(
    subsets: ArrayLike, actual: ArrayLike, *, alpha: float | None = None
) -> Attribution:
    """Return the linear model of a target by the samples that were trained on.

    ``f(S) ≈ b + Σ_{i ∈ S} θ_i`` is fitted to the targets of models trained on subsets by lasso
    (Ilyas et al. 2022, arXiv 2202.00622); an entry is −θ_i, the effect of removing sample i. It
    costs hundreds of trainings and predicts others best: the truth that cheap attributions are
    held to. Check it on subsets that it was not fitted to, by
    :func:`whence.evaluation.linear_datamodeling_score`.

    Parameters
    ----------
    subsets:
        Which samples were trained on, booleans (subsets, point), as
        :func:`whence.evaluation.random_subsets` draws them.
    actual:
        The targets of the models trained on them, (subsets, target).
    alpha:
        Weight of the lasso's penalty, by default that of least error in four-fold
        cross-validation, for each target.

    Raises
    ------
    ValueError
        If shapes do not fit, a target is not finite, or there are fewer than eight subsets.
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from whence.evaluation import datamodel, random_subsets
    >>> subsets = random_subsets(6, 60)
    >>> truth = np.array([3.0, 0.0, 0.0, -2.0, 0.0, 0.0])
    >>> datamodel(subsets, subsets @ truth[:, None], alpha=1e-3).values.round(1) + 0.0
    array([[-3.,  0.,  0.,  2.,  0.,  0.]])
    """
    from whence.attribution.result import Attribution  # xarray is slow to import

    linear_model = _linear_models()
    masks = np.asarray(subsets)
    truth = np.asarray(actual, dtype=float)
    check_subsets(masks, truth)
    if len(masks) < 2 * FOLDS:
        raise ValueError(
            f"a datamodel is fitted to at least {2 * FOLDS} subsets, got {len(masks)}: a few "
            "hundred are usual"
        )
    if alpha is not None:
        _checks.positive("alpha", alpha)

    # A sample that is in counts one, so that its coefficient is what adding it does.
    inputs = masks.astype(float)
    rows = []
    errors = []
    for values in truth.T:
        # In units of the target's spread, so that alpha means the same for all.
        spread = float(values.std()) or 1.0
        model = linear_model.LassoCV(cv=FOLDS)
        if alpha is not None:
            model = linear_model.Lasso(alpha)
        fitted = model.fit(inputs, values / spread)
        rows.append(-spread * fitted.coef_)
        errors.append(1 - fitted.score(inputs, values / spread))

    return Attribution(
        np.stack(rows),
        dims=("target", "point"),
        coords={"index": ("point", np.arange(masks.shape[1]))},
        name="influence",
        attrs={
            "method": "datamodel",
            "effect": "remove",
            "sign": "fitted change of the target when the point is left out of training",
            "subsets": len(masks),
            "unexplained": float(np.mean(errors)),
        },
    )


def _linear_models() -> Any:
    try:
        from sklearn import linear_model
    except ImportError as error:
        raise ImportError(
            "datamodels are fitted by scikit-learn: pip install scikit-learn"
        ) from error
    return linear_model
