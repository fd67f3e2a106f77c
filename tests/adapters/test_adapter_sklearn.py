"""scikit-learn's estimators: stationary where they should be, and exact by retraining them."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

import whence as wh
from whence.adapters.sklearn import NotStationary, class_numbers, from_estimator
from whence.evaluation import suspects

RNG = np.random.default_rng(0)
N, D, T = 30, 3, 4
X = RNG.standard_normal((N, D))
Y = X @ [1.0, -2.0, 0.5] + 0.7 + 0.3 * RNG.standard_normal(N)
TWO = np.stack([Y, X[:, 0] + 0.2 * RNG.standard_normal(N)], axis=1)
LABELS = (Y + 0.5 * RNG.standard_normal(N) > Y.mean()).astype(int)
THREE = np.digitize(Y + 0.5 * RNG.standard_normal(N), [-1.0, 1.5])
X_TEST = RNG.standard_normal((T, D))
Y_TEST = RNG.standard_normal(T)
WEIGHTS = RNG.uniform(0.5, 2.0, N)
EXACT = 1e-8
TIGHT = {"tol": 1e-12, "max_iter": 10_000}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotStationary)
        yield


CONVEX = {
    "least squares": (LinearRegression(), Y),
    "without intercept": (LinearRegression(fit_intercept=False), Y),
    "two targets": (LinearRegression(), TWO),
    "ridge": (Ridge(alpha=3.0), Y),
    "ridge without intercept": (Ridge(alpha=3.0, fit_intercept=False), Y),
    "ridge of two targets": (Ridge(alpha=3.0), TWO),
    "logistic": (LogisticRegression(C=0.5, **TIGHT), LABELS),
    "logistic of three": (LogisticRegression(C=2.0, **TIGHT), THREE),
    "logistic without intercept": (
        LogisticRegression(fit_intercept=False, **TIGHT),
        THREE,
    ),
    "balanced": (LogisticRegression(class_weight="balanced", **TIGHT), LABELS),
    "liblinear": (LogisticRegression(solver="liblinear", **TIGHT), LABELS),
    "without penalty": (LogisticRegression(C=np.inf, **TIGHT), LABELS),
}


@pytest.mark.parametrize("name", CONVEX)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_zero_at_the_coefficients(name, weighted):
    estimator, y = CONVEX[name]
    weights = WEIGHTS if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        fitted = estimator.fit(X, y, sample_weight=weights)
    objective = from_estimator(fitted, X, y, sample_weight=weights)
    _, gradient = objective.loss_and_gradient()
    assert float(gradient.norm()) < 1e-6
    # The same test sees a coefficient that is moved.
    theta = objective.parameters.vector()
    with objective.parameters.at(theta + 1e-3):
        assert float(objective.loss_and_gradient()[1].norm()) > 1e-5


def test_losses_are_those_of_the_estimator():
    fitted = Ridge(alpha=3.0).fit(X, Y)
    residual = fitted.predict(X) - Y
    expected = (residual @ residual + 3.0 * fitted.coef_ @ fitted.coef_) / N
    assert np.isclose(float(from_estimator(fitted, X, Y).loss()), expected, rtol=1e-12)

    fitted = LogisticRegression(C=0.5).fit(X, LABELS)
    p = fitted.predict_proba(X)[np.arange(N), LABELS]
    square = float((fitted.coef_**2).sum())
    expected = (0.5 * -np.log(p).sum() + 0.5 * square) / (0.5 * N)
    value = float(from_estimator(fitted, X, LABELS).loss())
    assert np.isclose(value, expected, rtol=1e-12)


# --- influence against refits ------------------------------------------------------------------


def derivative(estimator, y, losses, k, step=1e-5):
    """Return −(1/N) d losses / d(weight of sample k over N), by two fits with weights."""
    values = []
    for sign in (1, -1):
        weights = np.ones(N)
        weights[k] += sign * step
        values.append(losses(estimator.fit(X, y, sample_weight=weights)))
    return -(values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("intercept", [True, False])
def test_influence_of_a_ridge_is_the_derivative_of_a_refit(intercept):
    estimator = Ridge(alpha=3.0, fit_intercept=intercept)
    objective = from_estimator(estimator.fit(X, Y), X, Y)
    influence = wh.Influence(objective, damping=0.0)
    effects = influence.attribute(wh.Loss(X_TEST, Y_TEST))
    assert effects.shape == (T, N)

    def losses(fitted):
        return (fitted.predict(X_TEST) - Y_TEST) ** 2

    for k in (0, 7):
        expected = derivative(estimator, Y, losses, k)
        assert np.allclose(effects.values[:, k], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("y", [LABELS, THREE], ids=["two", "three"])
def test_influence_of_a_logistic_regression_is_the_derivative_of_a_refit(y):
    estimator = LogisticRegression(C=0.8, solver="newton-cg", tol=1e-13, max_iter=1000)
    test_labels = y[:T]
    objective = from_estimator(estimator.fit(X, y), X, y)
    # Intercepts of three classes may shift together, which no sample determines.
    influence = wh.Influence(objective, damping=wh.Damping(1e-11))
    effects = influence.attribute(wh.Loss(X_TEST, test_labels))

    def losses(fitted):
        return -np.log(fitted.predict_proba(X_TEST)[np.arange(T), test_labels])

    for k in (0, 7):
        expected = derivative(estimator, y, losses, k, step=1e-4)
        assert np.allclose(effects.values[:, k], expected, rtol=1e-4, atol=1e-7)


def test_removing_samples_of_a_ridge_is_exact():
    """The penalty stays, and intercepts are not penalized: leaving out equals fitting without."""
    objective = from_estimator(Ridge(alpha=3.0).fit(X, Y), X, Y)
    left_out = [2, 5, 11]
    effects = wh.group_influence(
        wh.Influence(objective, damping=0.0),
        wh.Output(X_TEST),
        {"three": left_out},
    )
    kept = np.setdiff1d(np.arange(N), left_out)
    again = Ridge(alpha=3.0).fit(X[kept], Y[kept])
    change = again.predict(X_TEST) - Ridge(alpha=3.0).fit(X, Y).predict(X_TEST)
    assert np.abs(effects.values.ravel() - change).max() <= EXACT * np.abs(change).max()


# --- networks ----------------------------------------------------------------------------------

PERCEPTRONS = {
    "regressor": (MLPRegressor, Y),
    "two classes": (MLPClassifier, LABELS),
    "three classes": (MLPClassifier, THREE),
    "labels": (MLPClassifier, np.stack([LABELS, 1 - LABELS], 1)),
}


@pytest.mark.parametrize("name", PERCEPTRONS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "logistic", "identity"])
def test_a_perceptron_has_the_loss_that_it_reports(name, activation):
    kind, y = PERCEPTRONS[name]
    fitted = kind(
        hidden_layer_sizes=(5, 4),
        activation=activation,
        alpha=0.3,
        solver="lbfgs",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.set_params(max_iter=30).fit(X, y)
    objective = from_estimator(fitted, X, y)
    assert np.isclose(float(objective.loss()), fitted.loss_, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after so few steps
        effects = wh.Influence(objective).attribute(wh.Loss(X_TEST, y[:T]))
    assert effects.shape == (T, N)


def test_a_perceptron_of_small_batches_has_the_penalty_of_a_batch():
    fitted = MLPRegressor(
        hidden_layer_sizes=(3,), alpha=0.5, batch_size=10, max_iter=2, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(X, Y)
    objective = from_estimator(fitted, X, Y)
    square = sum(float((w**2).sum()) for w in fitted.coefs_)
    fit = 0.5 * np.square(fitted.predict(X) - Y).mean()
    assert np.isclose(float(objective.loss()), fit + 0.5 * 0.5 * square / 10, rtol=1e-9)


def test_a_perceptron_with_weights_of_samples():
    fitted = MLPRegressor(hidden_layer_sizes=(3,), alpha=0.5, solver="lbfgs")
    if "sample_weight" not in inspect.signature(fitted.fit).parameters:
        pytest.skip("scikit-learn before 1.7")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.set_params(max_iter=20).fit(X, Y, sample_weight=WEIGHTS)
    objective = from_estimator(fitted, X, Y, sample_weight=WEIGHTS)
    assert np.isclose(float(objective.loss()), fitted.loss_, rtol=1e-9)
    with pytest.raises(ValueError, match="weights of each batch"):
        from_estimator(fitted.set_params(solver="adam"), X, Y, sample_weight=WEIGHTS)


# --- skorch ------------------------------------------------------------------------------------


def test_nets_of_skorch():
    skorch = pytest.importorskip("skorch")
    x = X.astype(np.float32)

    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(D, 3)

        def forward(self, x):
            return self.body(x).softmax(1)

    net = skorch.NeuralNetClassifier(
        Probabilities, max_epochs=3, verbose=0, optimizer__weight_decay=0.1
    ).fit(x, THREE)
    objective = from_estimator(net, x, THREE)
    p = net.predict_proba(x)[np.arange(N), THREE]
    square = sum(float(t.detach().square().sum()) for t in net.module_.parameters())
    assert objective.weight_decay == 0.1
    expected = -np.log(p).mean() + 0.05 * square
    assert np.isclose(float(objective.loss()), expected, rtol=1e-5)
    effects = wh.Influence(objective).attribute(wh.Loss(x[:T], THREE[:T]))
    assert effects.shape == (T, N)

    regressor = skorch.NeuralNetRegressor(
        nn.Linear(D, 1), max_epochs=2, verbose=0, optimizer=torch.optim.AdamW
    ).fit(x, Y.astype(np.float32)[:, None])
    with pytest.raises(ValueError, match="AdamW decays weights apart"):
        from_estimator(regressor, x, Y[:, None])
    assert from_estimator(regressor, x, Y[:, None], weight_decay=0.0).weight_decay == 0
    with pytest.raises(ValueError, match="not fitted"):
        from_estimator(skorch.NeuralNetRegressor(nn.Linear), x, Y[:, None])


# --- bad input ---------------------------------------------------------------------------------


def test_text_labels_are_numbered():
    names = np.array(["no", "yes"])[LABELS]
    fitted = LogisticRegression(**TIGHT).fit(X, names)
    objective = from_estimator(fitted, X, names)
    assert np.array_equal(objective.terms["data"].points.labels(), LABELS)
    assert class_numbers(fitted, ["yes", "no"]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="'maybe'"):
        class_numbers(fitted, ["yes", "maybe"])


@pytest.mark.parametrize(
    ("estimator", "y", "error", "message"),
    [
        (Lasso(), Y, TypeError, "Lasso is not known here"),
        (LinearRegression(positive=True), Y, ValueError, "positive=True"),
        (LogisticRegression(l1_ratio=1, solver="saga"), LABELS, ValueError, "L1"),
        (Ridge([1.0, 2.0]), TWO, ValueError, "alpha for each target"),
        (
            LogisticRegression(solver="liblinear", intercept_scaling=2),
            LABELS,
            ValueError,
            "intercept_scaling",
        ),
    ],
)
def test_what_cannot_be_expressed_is_an_error(estimator, y, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X, y)
    with pytest.raises(error, match=message):
        from_estimator(estimator, X, y)


def test_bad_input_is_an_error_that_says_what_to_do():
    from scipy.sparse import csr_array
    from sklearn.exceptions import NotFittedError

    fitted = Ridge().fit(X, Y)
    with pytest.raises(NotFittedError):
        from_estimator(Ridge(), X, Y)
    with pytest.raises(TypeError, match="sparse"):
        from_estimator(fitted, csr_array(X), Y)
    with pytest.raises(TypeError, match="must be one of scikit-learn"):
        from_estimator(nn.Linear(2, 2), X, Y)
    with pytest.raises(ValueError, match="penalty of its own"):
        from_estimator(fitted, X, Y, weight_decay=0.1)
    with pytest.warns(NotStationary, match="the X, y and sample_weight of fit"):
        from_estimator(fitted, X, Y + 10 * X[:, 0])


# --- what follows from an objective with a penalty of its own ------------------------------------


def test_a_penalty_is_no_sample():
    fitted = LogisticRegression(C=0.5, **TIGHT).fit(X, LABELS)
    objective = from_estimator(fitted, X, LABELS)
    influence = wh.Influence(objective, damping=0.0)
    assert list(objective.terms) == ["data", "penalty"]
    assert objective.n_points == N
    own = influence.self_influence()
    assert own.shape == (N,)
    whole = influence.attribute(wh.Loss())
    assert np.allclose(np.diag(whole.values), own.values, rtol=1e-9)
    assert suspects(influence).sizes["point"] == N
    assert wh.GradDot(objective).attribute(wh.Loss()).shape == (N, N)


def test_a_refit_without_samples_keeps_the_penalty():
    objective = from_estimator(Ridge(alpha=3.0).fit(X, Y), X, Y)
    fewer = wh.drop_points(objective, [2, 5])
    kept = np.setdiff1d(np.arange(N), [2, 5])
    again = Ridge(alpha=3.0).fit(X[kept], Y[kept])
    theta = wh.refit(fewer).theta.numpy()
    expected = np.append(again.coef_, again.intercept_)
    assert np.abs(theta - expected).max() < EXACT
