"""A penalty (c/2)‖θ‖² as part of an objective, against ridge regression in closed form."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import whence as wh
from whence.evaluation.leaving_out import leave_out

N, C = 40, 0.5
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 5))
Y = X @ [1.0, -1.0, 2.0, 0.0, 0.5] + 0.3 * rng.normal(size=N)
X_TEST = rng.normal(size=(6, 5))


def ridge(kept):
    """Return the minimizer of (1/N) Σ (xw − y)² + (c/2)‖w‖² over some rows, which keep 1/N."""
    matrix = 2 * X[kept].T @ X[kept] / N + C * np.eye(5)
    return np.linalg.solve(matrix, 2 * X[kept].T @ Y[kept] / N)


W = ridge(np.arange(N))


def without(rows):
    """Return how the predictions at the test rows change without some training rows, (6,)."""
    return X_TEST @ (ridge(np.setdiff1d(np.arange(N), rows)) - W)


@pytest.fixture
def objective():
    model = nn.Linear(5, 1, bias=False).double()
    model.weight.data[:] = torch.tensor(W[None])
    data = torch.tensor(X), torch.tensor(Y)[:, None]
    return wh.Objective.supervised(model, data, nn.MSELoss(), weight_decay=C)


OUTPUT = wh.Output(torch.tensor(X_TEST))


def relative(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


def test_loss_and_gradient_have_the_penalty(objective):
    expected = np.mean((X @ W - Y) ** 2) + C / 2 * W @ W
    loss, gradient = objective.loss_and_gradient()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)
    assert gradient.abs().max() < 1e-12

    theta = objective.parameters.vector().requires_grad_()
    elsewhere = objective.parameters.substituted(1.5 * theta)
    (slope,) = torch.autograd.grad(objective.loss(elsewhere), theta)
    by_hand = 2 * X.T @ (X @ (1.5 * W) - Y) / N + 1.5 * C * W
    np.testing.assert_allclose(slope / 1.5, by_hand, rtol=1e-10)


def test_what_is_made_of_an_objective_keeps_the_penalty(objective):
    data = objective.term("data")
    half = torch.arange(0, N, 2)
    for other in (
        objective.with_points({"data": (torch.tensor(X), torch.tensor(Y)[:, None])}),
        objective.with_weights({"data": 2.0}),
        objective.with_terms([data]),
        objective.with_evaluator(objective.evaluator),
        objective.subset({"data": half}),
        wh.drop_points(objective, [3]),
    ):
        assert other.weight_decay == C
    assert objective.with_weight_decay(0).weight_decay == 0
    with pytest.raises(ValueError, match="weight_decay must be zero or a positive"):
        objective.with_weight_decay(-1.0)


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_influence_at_a_ridge_minimum(objective, curvature):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        influence = wh.Influence(objective, damping=0.0, curvature=curvature)
        attribution = influence.attribute(OUTPUT)

    matrix = 2 * X.T @ X / N + C * np.eye(5)
    expected = X_TEST @ np.linalg.solve(matrix, (2 / N) * X.T * (X @ W - Y))
    assert relative(attribution.values, expected) < 1e-9
    assert attribution.attrs["damping"] == 0
    assert attribution.attrs["weight_decay"] == C
    quality = attribution.quality()
    assert not quality.caveats
    assert "weight decay 0.5" in str(quality)


def test_exact_groups_and_leave_one_out(objective):
    influence = wh.Influence(objective, damping=0.0)
    groups = {f"s{i}": [i] for i in range(N)} | {"many": list(range(12))}
    expected = np.stack([without(rows) for rows in groups.values()], axis=1)
    effects = wh.group_influence(influence, OUTPUT, groups)
    assert relative(effects.values, expected) < 1e-9

    first_order = wh.group_influence(influence, OUTPUT, groups, method="first_order")
    each = influence.attribute(OUTPUT).values
    assert relative(first_order.values[:, :N], each) < 1e-9

    refitted = wh.leave_one_out(objective, OUTPUT, [0, 7, 39])
    assert relative(refitted.values, expected[:, [0, 7, 39]]) < 1e-7

    leverages = wh.leverage(influence).values
    inverse = np.linalg.inv(2 * X.T @ X / N + C * np.eye(5))
    hat = np.einsum("ij,jk,ik->i", X, inverse, X) * 2 / N
    np.testing.assert_allclose(leverages, hat, rtol=1e-9)


def test_damped_groups_are_anchored_refits(objective):
    influence = wh.Influence(objective, damping=wh.Damping(0.3, relative=False))
    effects = wh.group_influence(influence, OUTPUT, {"a": [0, 1, 2]})
    assert effects.attrs["damping"] == pytest.approx(0.3)
    anchor = effects.attrs["damping"]
    refitted = leave_out(objective, OUTPUT, {"a": [0, 1, 2]}, anchor=anchor)
    assert relative(effects.values, refitted.values) < 1e-7


def test_cooks_distance(objective):
    influence = wh.Influence(objective, damping=0.0)
    distances = wh.cooks_distance(influence).values
    inverse = np.linalg.inv(2 * X.T @ X / N + C * np.eye(5))
    moved = np.stack([ridge(np.delete(np.arange(N), i)) - W for i in range(N)])
    squares = np.einsum("ij,jk,ik->i", moved, 2 * X.T @ X / N, moved)
    p = np.einsum("ij,jk,ik->", X, inverse, X) * 2 / N
    variance = (2 / N) * np.sum((X @ W - Y) ** 2) / (N - p)
    np.testing.assert_allclose(distances, squares / (p * variance), rtol=1e-8)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_refit_finds_the_minimum_of_loss_and_penalty(form):
    rows = slice(0, 3 if form == "dual" else N)
    model = nn.Linear(5, 1, bias=False).double()
    data = torch.tensor(X[rows]), torch.tensor(Y[rows])[:, None]
    objective = wh.Objective.supervised(model, data, nn.MSELoss(), weight_decay=C)
    n = len(X[rows])
    matrix = 2 * X[rows].T @ X[rows] / n + C * np.eye(5)
    minimum = np.linalg.solve(matrix, 2 * X[rows].T @ Y[rows] / n)
    np.testing.assert_allclose(wh.refit(objective).theta, minimum, atol=1e-9)

    # With an anchor θ₀ at the start the minimum lies between.
    start = objective.parameters.vector().numpy()
    anchored = np.linalg.solve(
        matrix + 2.0 * np.eye(5), 2 * X[rows].T @ Y[rows] / n + 2.0 * start
    )
    found = wh.refit(objective, anchor=2.0).theta
    np.testing.assert_allclose(found, anchored, atol=1e-9)


@pytest.fixture(scope="module")
def classifier():
    """Return a small network of more parameters than rows of J, and its dense curvatures."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    data = torch.randn(9, 4).double(), torch.arange(9) % 3
    objective = wh.Objective.supervised(
        model, data, nn.CrossEntropyLoss(), weight_decay=0.05
    )
    theta = objective.parameters.vector()

    def loss(vector):
        return objective.loss(objective.parameters.substituted(vector))

    return objective, torch.autograd.functional.hessian(loss, theta)


def test_operators_have_the_penalty(classifier):
    objective, hessian = classifier
    plain = wh.GaussNewtonMatrix(objective.with_weight_decay(0)).dense()
    eye = torch.eye(len(plain), dtype=plain.dtype)
    vectors = torch.randn(len(plain), 3, dtype=plain.dtype)
    for operator, matrix in (
        (wh.GaussNewtonMatrix(objective), plain + 0.05 * eye),
        (wh.Hessian(objective), hessian),
    ):
        for same in (operator, operator.cached(2**30)):
            torch.testing.assert_close(same.dense(), matrix)
            torch.testing.assert_close(same.matmat(vectors), matrix @ vectors)
        assert operator.root() is None
    trace = wh.GaussNewtonMatrix(objective).trace()
    assert trace == pytest.approx(float(plain.trace()) + 0.05 * len(plain))


@pytest.mark.parametrize(
    "solver",
    [
        wh.Exact(),
        wh.Exact(form="dual"),
        wh.Exact(form="primal"),
        wh.ConjugateGradient(),
        wh.LiSSA(iterations=5000),
        wh.Nystrom(rank=27),
        wh.Arnoldi(rank=27),
    ],
    ids=lambda solver: f"{solver.name}-{getattr(solver, 'form', '')}",
)
def test_every_solver_solves_with_the_penalty(classifier, solver):
    objective, _ = classifier
    influence = wh.Influence(objective, damping=0.0, solver=solver)
    right = torch.randn(objective.parameters.size, 2, dtype=torch.float64)
    matrix = wh.GaussNewtonMatrix(objective).dense()
    solution = influence.solve(right)
    expected = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(solution.value, expected, rtol=1e-5, atol=1e-5)


def test_a_model_with_a_penalty_is_an_argument_too(objective):
    model, data = objective.network, (torch.tensor(X), torch.tensor(Y)[:, None])
    influence = wh.Influence(model, data, nn.MSELoss(), weight_decay=C)
    assert influence.objective.weight_decay == C
    with pytest.raises(TypeError, match="an Objective has weight_decay of its own"):
        wh.Influence(objective, weight_decay=C)


def test_without_the_penalty_the_warning_says_how_to_give_it(objective):
    influence = wh.Influence(objective.with_weight_decay(0), damping=0.0)
    with pytest.warns(wh.FarFromMinimum, match="give weight_decay="):
        influence.attribute(OUTPUT)
