"""Objectives of scikit-learn's estimators, and of skorch's nets, by what they minimized.

Coefficients become the parameters of a torch module in float64; loss and penalty are those of the
estimator, divided by the number of samples N:

- ``LinearRegression``: ``(1/N) Σ ‖y − ŷ‖²``; ``Ridge``: and ``(α/N)‖w‖²``.
- ``LogisticRegression``: ``(1/N) Σ ℓ + (1/(2CN))‖w‖²`` with ℓ the cross-entropy.
- ``MLPClassifier``, ``MLPRegressor``: ``(1/N) Σ ℓ + (α/(2n))‖w‖²`` with ℓ the cross-entropy, or
  half the squared error, and n the samples of a batch.

Intercepts are not penalized where the estimator does not: then the penalty is a term of its own,
``penalty``, which stays where samples are removed. Of the convex ones the gradient is zero at the
coefficients, as well as the estimator solved, which is checked.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.adapters.optimizers import penalty_of_optimizer
from whence.arrays import ArrayLike
from whence.classification import BinaryCrossEntropy, CrossEntropy
from whence.jacobian import point_gradients
from whence.losses import Loss, Squared
from whence.objective import LossLike, Objective
from whence.points import Points, Pointwise
from whence.samples import Data, Samples
from whence.term import Term

try:
    from sklearn.base import BaseEstimator
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError(
        "this adapter needs scikit-learn: pip install whence[adapters]"
    ) from error

STATIONARY = 1e-2
"""Gradient, relative to what single samples and the penalty add to it, that is none."""
ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
ROUNDING = 1e-10
"""Length of a gradient that is none, whatever those of samples are."""
PENALTY = "penalty"
"""The term of a penalty that spares the intercepts."""


class NotStationary(UserWarning):
    """The coefficients of a convex estimator are not where its objective has its minimum."""


@dataclass(frozen=True)
class Minimized:
    """What an estimator minimized, read from it.

    Parameters
    ----------
    model:
        The module with its coefficients.
    loss:
        ℓ of a sample.
    decay:
        c of the penalty ``(c/2)‖θ‖²``.
    spares_intercepts:
        Whether it is on weights alone.
    is_convex:
        Whether the coefficients are to be at a minimum.
    weights:
        Of the samples, (N,), 1 where None.
    """

    model: nn.Module
    loss: LossLike
    decay: float = 0.0
    spares_intercepts: bool = True
    is_convex: bool = True
    weights: np.ndarray | None = None


class TwoClasses(nn.Module):
    """A classifier of two classes with one logit z: the logits of the classes are 0 and z."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (n, 2)."""
        logit = self.body(x)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


class LogProbabilities(nn.Module):
    """A net that returns probabilities, of which skorch takes the logarithm for its loss."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms, as skorch makes them."""
        output: Tensor = self.body(x)
        return torch.log(output + torch.finfo(output.dtype).eps)


@dataclass(frozen=True)
class Square:
    """``scale · ‖z‖²``, whatever the target: the loss of the one point of a penalty."""

    squared: Squared
    is_convex = True
    spans = True

    def value(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ℓ of each row."""
        return self.squared.value(output)

    def gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ∂ℓ/∂z."""
        return self.squared.gradient(output)

    def curvature_root(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return S with S Sᵀ = ∂²ℓ/∂z²."""
        return self.squared.curvature_root(output)

    def whitened_gradient(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return ρ with Sρ = ∂ℓ/∂z."""
        return self.squared.whitened_gradient(output)


# --- what is asked for ---------------------------------------------------------------------------


def from_estimator(
    estimator: object,
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    weight_decay: float | None = None,
) -> Objective:
    """Return the objective that a fitted estimator minimized, at its coefficients.

    Parameters
    ----------
    estimator:
        ``LinearRegression``, ``Ridge``, ``LogisticRegression``, ``MLPClassifier``,
        ``MLPRegressor``, or a net of skorch.
    X, y:
        What it was fitted to; labels of a classifier as it had them.
    sample_weight:
        As it was given to ``fit``, if it was.
    weight_decay:
        Of a net of skorch c of the penalty ``(c/2)‖θ‖²``, where its optimizer does not say it.

    Returns
    -------
    Objective
        With the term ``data``, and ``penalty`` where intercepts are not penalized. Targets of a
        classifier are class numbers, see :func:`class_numbers`.

    Raises
    ------
    ValueError
        If it is not fitted, X or y do not fit to it, or it minimized what cannot be written as a
        mean over samples and a square of parameters.
    TypeError
        If it is none of these.

    Warns
    -----
    NotStationary
        If it is convex, and its gradient is not zero: fitted to other data, or not to the end.

    Examples
    --------
    >>> import numpy as np, whence as wh
    >>> from sklearn.linear_model import Ridge
    >>> from whence.adapters.sklearn import from_estimator
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 5.0])
    >>> objective = from_estimator(Ridge(alpha=1.0).fit(X, y), X, y)
    >>> float(objective.loss_and_gradient()[1].norm()) < 1e-12
    True
    >>> effects = wh.Influence(objective, damping=0.0).attribute(wh.Loss(X, y))
    >>> effects.sizes
    Frozen({'target': 3, 'point': 3})
    """
    if is_skorch(estimator):
        return objective_of_net(cast(Net, estimator), X, y, weight_decay)
    if weight_decay is not None:
        raise ValueError(
            "weight_decay is for nets of skorch: this estimator has a penalty of its own"
        )
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(
            f"the estimator must be one of scikit-learn, got {_checks.describe(estimator)}"
        )
    check_is_fitted(estimator)
    inputs = dense_inputs(X)
    weights = None
    if sample_weight is not None:
        weights = np.asarray(sample_weight, dtype=np.float64)
    minimized = read_estimator(estimator, inputs, y, weights)
    targets = targets_of(estimator, y)

    objective = objective_of_minimized(minimized, inputs, targets)
    if minimized.is_convex:
        check_stationary(objective)
    return objective


def class_numbers(estimator: object, y: ArrayLike) -> np.ndarray:
    """Return labels as the numbers of a classifier's classes, for :class:`whence.Loss`.

    Raises
    ------
    ValueError
        If a label is none of the classes.
    """
    classes = np.asarray(estimator.classes_)  # type: ignore[attr-defined]
    labels = np.asarray(y)
    places = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    wrong = classes[places] != labels
    if wrong.any():
        raise ValueError(
            f"y has labels that the classifier does not know, such as {labels[wrong][0]!r}: its "
            f"classes are {_checks.describe(list(classes))}"
        )
    numbers: np.ndarray = places
    return numbers


# --- reading -------------------------------------------------------------------------------------


def read_estimator(
    estimator: object, X: np.ndarray, y: ArrayLike, weights: np.ndarray | None = None
) -> Minimized:
    """Return what a fitted estimator minimized, with weights of samples (N,) or without.

    Raises
    ------
    TypeError
        If it is of a kind that is not known.
    ValueError
        If its loss or penalty is.
    """
    # A Ridge is no LinearRegression in scikit-learn, and neither is a Lasso.
    if isinstance(estimator, LinearRegression):
        if estimator.positive:
            raise ValueError(
                "LinearRegression(positive=True) has a bound, not a minimum of its loss"
            )
        model = linear_module(estimator, estimator.coef_)
        return Minimized(model, Squared(), weights=weights)
    if isinstance(estimator, Ridge):
        return read_ridge(estimator, len(X), weights)
    if isinstance(estimator, LogisticRegression):
        return read_logistic(estimator, len(X), y, weights)
    if isinstance(estimator, (MLPClassifier, MLPRegressor)):
        return read_perceptron(estimator, len(X), weights)
    raise TypeError(
        f"{type(estimator).__name__} is not known here: what it minimizes must be written as a "
        "torch module with wh.Objective.supervised(model, (X, y), loss, weight_decay=…); known are "
        "LinearRegression, Ridge, LogisticRegression, MLPClassifier, MLPRegressor and nets of "
        "skorch"
    )


def read_ridge(estimator: Ridge, n: int, weights: np.ndarray | None) -> Minimized:
    """Return what was minimized of a ridge regression: ``(1/N) Σ ‖y − ŷ‖² + (α/N)‖w‖²``."""
    if estimator.positive:
        raise ValueError("Ridge(positive=True) has a bound, not a minimum of its loss")
    alpha = np.unique(np.asarray(estimator.alpha, dtype=np.float64))
    if len(alpha) > 1:
        raise ValueError(
            f"Ridge has an alpha for each target, {_checks.describe(list(alpha))}: fit one target "
            "at a time"
        )
    # ‖y − Xw − b‖² + α‖w‖², over N: c/2 = α/N.
    model = linear_module(estimator, estimator.coef_)
    decay = 2 * float(alpha[0]) / n
    return Minimized(model, Squared(), decay, weights=weights)


def read_logistic(
    estimator: LogisticRegression,
    n: int,
    y: ArrayLike,
    weights: np.ndarray | None,
) -> Minimized:
    """Return what was minimized of a logistic regression: ``(1/N) Σ ℓ + (1/(2CN))‖w‖²``."""
    name = getattr(estimator, "penalty", "deprecated")
    ratio = getattr(estimator, "l1_ratio", None) or 0.0
    if (name in ("l1", "elasticnet") and (name == "l1" or ratio)) or ratio > 0:
        raise ValueError(
            "LogisticRegression with an L1 penalty has no gradient where coefficients are zero: "
            "use L2 (l1_ratio=0)"
        )
    n_classes = len(estimator.classes_)
    by_class = getattr(estimator, "multi_class", "deprecated") == "ovr"
    if n_classes > 2 and (by_class or estimator.solver == "liblinear"):
        raise ValueError(
            "LogisticRegression is fitted here one class against the rest, which is an objective "
            "for each class: use the solver 'lbfgs', or fit each class by itself"
        )

    # C Σ s ℓ + ½‖w‖², over CN: c = 1/(CN).
    decay = 0.0
    if name is not None and np.isfinite(estimator.C):
        decay = 1 / (estimator.C * n)
    spares_intercepts = True
    if estimator.solver == "liblinear" and estimator.fit_intercept:
        if estimator.intercept_scaling != 1:
            raise ValueError(
                "LogisticRegression(solver='liblinear') penalizes the intercept over "
                f"intercept_scaling={estimator.intercept_scaling}: use 1, or another solver"
            )
        spares_intercepts = False

    model = linear_module(estimator, estimator.coef_, is_classifier=True)
    if estimator.class_weight is not None:
        of_classes = class_weights(estimator, y, weights)
        weights = of_classes if weights is None else weights * of_classes
    return Minimized(model, CrossEntropy(), decay, spares_intercepts, weights=weights)


def class_weights(
    estimator: LogisticRegression, y: ArrayLike, weights: np.ndarray | None
) -> np.ndarray:
    """Return the weight of each sample by its class, (N,)."""
    options = {}
    # From scikit-learn 1.6 on "balanced" is with regard to the weights of samples.
    if "sample_weight" in inspect.signature(compute_class_weight).parameters:
        options["sample_weight"] = weights
    by_class = compute_class_weight(
        estimator.class_weight,
        classes=estimator.classes_,
        y=np.asarray(y),
        **options,
    )
    of_samples: np.ndarray = by_class[class_numbers(estimator, y)]
    return of_samples


def read_perceptron(
    estimator: MLPClassifier | MLPRegressor, n: int, weights: np.ndarray | None
) -> Minimized:
    """Return what was minimized of a perceptron: ``(1/N) Σ ℓ + (α/(2n))‖w‖²``.

    n are the samples of a batch.
    """
    modules: list[nn.Module] = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        modules += [filled_linear(weight.T, bias), ACTIVATIONS[estimator.activation]()]
    body = nn.Sequential(*modules[:-1])  # what comes last belongs to the loss

    # The square is divided by the samples of a batch, of L-BFGS by all.
    batch = n
    if estimator.solver != "lbfgs":
        batch = min(200, n)
        if estimator.batch_size != "auto":
            batch = min(int(estimator.batch_size), n)
    decay = estimator.alpha / batch
    if weights is not None:
        if estimator.solver != "lbfgs":
            raise ValueError(
                f"{type(estimator).__name__}(solver={estimator.solver!r}) divides by the weights "
                "of each batch, which no one objective does: use the solver 'lbfgs'"
            )
        # Σ s ℓ/Σ s + (α/(2Σ s))‖w‖²
        decay = estimator.alpha / float(weights.sum())
        weights = weights * (n / float(weights.sum()))
    if isinstance(estimator, MLPRegressor):
        kind = getattr(estimator, "loss", "squared_error")
        if kind != "squared_error":
            raise ValueError(
                f"MLPRegressor(loss={kind!r}) is not known here: use 'squared_error'"
            )
        return Minimized(body, Squared(0.5), decay, is_convex=False, weights=weights)

    model: nn.Module = body
    loss: LossLike = CrossEntropy()
    is_logistic = estimator.out_activation_ == "logistic"
    if is_logistic and len(estimator.intercepts_[-1]) == 1:
        model = TwoClasses(body)
    elif is_logistic:
        loss = BinaryCrossEntropy()  # of several labels at once
    return Minimized(model, loss, decay, is_convex=False, weights=weights)


def linear_module(
    estimator: LinearRegression | Ridge | LogisticRegression,
    coefficients: np.ndarray,
    *,
    is_classifier: bool = False,
) -> nn.Module:
    """Return coefficients (d,) or (m, d) and the intercepts, if there are any, as a module."""
    weight = np.atleast_2d(coefficients)
    bias = None
    if estimator.fit_intercept:
        bias = np.broadcast_to(estimator.intercept_, len(weight))
    body = filled_linear(weight, bias)
    if is_classifier and len(weight) == 1:
        return TwoClasses(body)
    return body


def filled_linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    """Return a layer of these weights (m, d) and biases (m,)."""
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs, bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(np.array(weight, dtype=np.float64)))
        if bias is not None:
            linear.bias.copy_(torch.as_tensor(np.array(bias, dtype=np.float64)))
    return linear


def dense_inputs(X: ArrayLike) -> np.ndarray:
    """Return features as an array (n, d) of float64; sparse ones are a ``TypeError``."""
    if hasattr(X, "toarray"):
        raise TypeError(
            "X is sparse, and torch takes dense rows: give X.toarray(), where it fits in memory"
        )
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"X must have shape (n, features), got {rows.shape}")
    return rows


def targets_of(estimator: object, y: ArrayLike) -> np.ndarray:
    """Return targets as the module's loss takes them: class numbers, or real numbers."""
    if not hasattr(estimator, "classes_"):
        return np.asarray(y, dtype=np.float64)
    labels = np.asarray(y)
    if labels.ndim == 2:  # several labels at once
        return labels.astype(np.float64)
    return class_numbers(estimator, y)


# --- the objective -------------------------------------------------------------------------------


def objective_of_minimized(
    minimized: Minimized, inputs: np.ndarray, targets: np.ndarray
) -> Objective:
    """Return the objective of what was minimized on data."""
    model = minimized.model
    names = [name for name, _ in model.named_parameters()]
    weights_alone = [name for name in names if name.endswith("weight")]
    spares = minimized.spares_intercepts and len(weights_alone) < len(names)

    of_all = 0.0 if spares else minimized.decay
    objective = Objective.supervised(
        model, (inputs, targets), minimized.loss, weight_decay=of_all
    )
    if minimized.weights is not None:
        weights = torch.as_tensor(minimized.weights, dtype=torch.float64)
        objective = objective.with_weights({"data": weights})
    if not spares or not minimized.decay:
        return objective

    penalty = penalty_term(objective, weights_alone, minimized.decay)
    return objective.with_terms([*objective.terms.values(), penalty])


def penalty_term(objective: Objective, names: Sequence[str], decay: float) -> Term:
    """Return ``(c/2)‖w‖²`` of some parameters w as a term of one point.

    Its residual is w, and its loss the square; its point has a sample's form and nothing in it.
    """

    def parameters_of(tensors: dict[str, Tensor], points: Points) -> Tensor:
        flat = torch.cat([tensors[name].reshape(-1) for name in names])
        return flat.expand(len(points), -1)

    samples = objective.terms["data"].points
    assert isinstance(samples, Samples)
    first = samples[:1].batch
    nothing = Samples.from_batch(first.map(torch.zeros_like))
    loss = cast(Loss, Square(Squared(decay / 2)))
    residual = cast("Pointwise", parameters_of)
    return Term(PENALTY, residual, nothing, loss=loss, source="penalty")


def check_stationary(objective: Objective) -> None:
    """Warn where the gradient of an objective is not zero beside what it is the sum of."""
    _, gradient = objective.loss_and_gradient()
    term = objective.terms["data"]
    lengths = []
    for _, linear, cotangent in point_gradients(
        term, objective.parameters, term.points
    ):
        lengths.append(linear.rows(cotangent).norm(dim=1))

    # What the gradient would be if those of samples did not cancel.
    sizes = torch.cat(lengths)
    if term.total_weights is not None:
        sizes = sizes * term.total_weights
    size = float(sizes.mean())
    length = float(gradient.norm())
    if length > STATIONARY * size + ROUNDING:
        warnings.warn(
            f"the gradient of the objective at the coefficients has length {length:.1e}, those of "
            f"samples {size:.1e}: give the X, y and sample_weight of fit, and fit to a smaller tol",
            NotStationary,
            stacklevel=3,
        )


# --- skorch --------------------------------------------------------------------------------------


def is_skorch(estimator: object) -> bool:
    """Whether this is a net of skorch, which need not be installed to ask."""
    return any(kind.__module__.startswith("skorch") for kind in type(estimator).__mro__)


class Net(Protocol):
    """What is read of a net of skorch."""

    initialized_: bool
    module_: nn.Module
    criterion_: nn.Module
    optimizer_: torch.optim.Optimizer


def objective_of_net(
    net: Net, X: Data, y: ArrayLike, weight_decay: float | None
) -> Objective:
    """Return the objective of a fitted net of skorch.

    Raises
    ------
    ValueError
        If it is not fitted, or its optimizer has no one penalty.
    """
    if not getattr(net, "initialized_", False):
        raise ValueError("the net is not fitted: call net.fit(X, y) first")
    if weight_decay is None:
        weight_decay = penalty_of_optimizer(net.optimizer_)

    model = net.module_
    criterion = net.criterion_
    # skorch takes the logarithm of what a classifier with this loss returns.
    if isinstance(criterion, nn.NLLLoss):
        model = LogProbabilities(model)
    targets = np.asarray(y)
    if isinstance(criterion, (nn.BCEWithLogitsLoss, nn.BCELoss)):
        targets = targets.astype(np.float64)
    return Objective.supervised(
        model, (X, targets), criterion, weight_decay=weight_decay
    )
