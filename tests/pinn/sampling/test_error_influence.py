"""The score by the estimated error of the solution, and points that leave for their harm."""

import pytest
import torch
from torch.func import jacrev

import whence as wh
from whence import pinn
from whence.pinn.sampling.scores.base import spawn


@pytest.fixture(name="objective", scope="module")
def _objective():
    """Two outputs and two residuals, so that components are summed; a soft condition."""
    problem = pinn.Problem(
        pinn.Interval("x", -1, 1),
        ("u", "v"),
        {"pde": lambda u, v, u_x, v_x: (u_x * v - u + 1, v_x + u - 0.5)},
        conditions=[pinn.Dirichlet(u=0.5, on="x")],
    )
    network = pinn.MLP([1, 6, 5, 2], seed=0)
    points = problem.sample({"pde": 25, "dirichlet_u": 2}, seed=0)
    return problem.objective(network, points, {"pde": 2.0, "dirichlet_u": 50.0})


def outputs_jacobian(objective, points):
    """J_u of all outputs, (n·m, P), by torch.func."""
    theta = objective.parameters.vector()
    fields = objective.fields(objective.outputs)

    def outputs(vector):
        return fields(objective.parameters.substituted(vector), points).reshape(-1)

    return jacrev(outputs)(theta)


def by_brute_force(objective, candidates, score):
    """``∇Qᵀ(A + λI)⁻¹∇ℓ(x⁺)`` by dense matrices."""
    test_points = objective.draw("pde", score.n_test, spawn(score.seed, 1))
    elsewhere = objective.with_points({"pde": test_points})
    estimated = wh.GaussNewtonMatrix(elsewhere).dense()
    estimated.diagonal().add_(score.estimate_damping.value)
    step = -torch.linalg.solve(estimated, elsewhere.loss_and_gradient()[1])

    places = objective.draw("pde", score.n_test, spawn(score.seed, 0))
    jacobian = outputs_jacobian(objective, places)
    gradient = -jacobian.T @ (jacobian @ step) / score.n_test

    matrix = wh.GaussNewtonMatrix(objective).dense()
    matrix.diagonal().add_(score.damping.value)
    vector = torch.linalg.solve(matrix, gradient)
    losses = wh.Loss({"pde": candidates})
    return torch.cat(list(losses.gradients(objective))) @ vector


def options(**changes):
    return {
        "n_test": 40,
        "damping": wh.Damping(1e-3, relative=False),
        "estimate_damping": wh.Damping(1e-4, relative=False),
        "seed": 3,
        **changes,
    }


@pytest.mark.parametrize("sign", ["abs", "positive", "negative"])
def test_the_score_is_the_influence_on_the_estimated_error(objective, sign):
    score = pinn.ErrorInfluenceScore(sign=sign, **options())
    candidates = objective.draw("pde", 12, 7)
    signed = by_brute_force(objective, candidates, score)
    parts = {
        "abs": signed.abs(),
        "positive": signed.clamp_min(0),
        "negative": (-signed).clamp_min(0),
    }
    measured = score.score(objective, candidates)
    torch.testing.assert_close(measured, parts[sign], rtol=1e-6, atol=1e-9)
    assert 0 < int((signed > 0).sum()) < len(signed)


@pytest.fixture(name="linear", scope="module")
def _linear():
    """A linear equation, u_x = cos x with u(0) = 0, and features whose span is cubic."""

    class Cubic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
            torch.nn.init.constant_(self.last.weight, 0.3)

        def forward(self, x):
            return self.last(torch.cat([x, x**2, x**3], dim=1))

    problem = pinn.Problem(
        pinn.Interval("x", 0, 1),
        ("u",),
        {"pde": lambda u_x, x: u_x - (1 + 2 * x - 3 * x**2)},  # u = x + x² − x³
    )
    network = Cubic()
    return problem.objective(network, problem.sample({"pde": 20}, seed=0))


def test_of_a_linear_equation_the_predicted_change_is_the_error(linear):
    """u + Δu is then the solution: Δθ leads to its coefficients."""
    score = pinn.ErrorInfluenceScore(n_test=30, estimate_damping=0.0)
    terms = {"pde": linear.locations("pde")}
    reached = linear.parameters.vector() + score.predicted_step(linear, terms)
    coefficients = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(reached, coefficients, rtol=1e-8, atol=1e-8)


def test_a_point_of_positive_influence_lowers_the_error_when_trained_on(linear):
    """One Gauss–Newton step with a bit more weight on the point, against its prediction."""
    score = pinn.ErrorInfluenceScore(
        n_test=400, sign="positive_shifted", damping=0.0, estimate_damping=0.0
    )
    candidates = linear.draw("pde", 6, seed=5)
    shifted = score.score(linear, candidates)
    solution = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    theta = linear.parameters.vector()

    places = linear.draw("pde", 400, spawn(0, 0))
    jacobian = outputs_jacobian(linear, places)
    matrix = wh.GaussNewtonMatrix(linear).dense()
    losses = wh.Loss({"pde": candidates})
    gradients = torch.cat(list(losses.gradients(linear)))

    def error(parameters):
        return (jacobian @ (parameters - solution)).square().mean() / 2

    weight = 1e-6
    gains = []
    for gradient in gradients:
        moved = theta - weight * torch.linalg.solve(matrix, gradient)
        gains.append((error(theta) - error(moved)) / weight)
    gains = torch.stack(gains)
    expected = gains - gains.min().clamp_max(0)
    torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=1e-6)


def test_a_run_resamples_by_the_estimated_error():
    result = pinn.train(
        pinn.zoo.load("diffusion"),
        pinn.MLP([2, 6, 1], seed=0),
        points=30,
        schedule=pinn.GaussNewton(6),
        resample=pinn.Resample(
            pinn.ErrorInfluenceScore(n_test=30), n=4, every=2, candidates=40
        ),
        validation=20,
        progress=False,
        keep="last",
    )
    # None after the last step.
    assert result.objective.n_points == 30 + 2 * 4


# --- points that leave for their harm ---


@pytest.mark.parametrize(
    "score", [pinn.InfluenceScore(n_test=50), pinn.ErrorInfluenceScore(n_test=50)]
)
def test_the_most_harmful_points_leave(objective, score):
    resample = pinn.Resample(
        score,
        n=8,
        update="replace",
        candidates=40,
        leave="harmful",
        terms=("pde",),
    )
    before = objective.locations("pde")
    renewed = resample.update_points(objective, round=1, seed=0)["pde"]
    assert len(renewed) == len(before) == 25
    seed = spawn(spawn(0, 1000), 3)
    options = {"n_test": 50, "seed": seed}
    positive = type(score)(sign="positive_shifted", **options)
    help_of_each = positive.score(objective, {"pde": before})
    stays = (before[:, None] == renewed[None, :]).all(dim=2).any(dim=1)
    assert int(stays.sum()) == 25 - 8
    assert help_of_each[~stays].max() <= help_of_each[stays].min()


def test_harm_needs_a_score_with_a_sign_and_points_that_leave():
    with pytest.raises(TypeError, match=r"needs a score with a sign, got ResidualSc"):
        pinn.Resample(pinn.ResidualScore(), update="replace", leave="harmful")
    with pytest.raises(ValueError, match="does nothing where no points leave"):
        pinn.Resample(leave="harmful")
    with pytest.raises(ValueError, match="leave"):
        pinn.Resample(leave="youngest")
    grown = pinn.Resample(leave="harmful", max_points=50)
    assert grown.leave == "harmful"


def test_pinned_points_stay_whatever_their_harm():
    problem = pinn.zoo.load("diffusion")
    first = problem.draw("pde", 5, seed=9)
    result = pinn.train(
        problem,
        pinn.MLP([2, 6, 1], seed=0),
        points=20,
        pinned={"pde": first},
        schedule=pinn.GaussNewton(3),
        resample=pinn.Resample(
            pinn.InfluenceScore(n_test=30),
            n=15,
            every=1,
            update="replace",
            candidates=40,
            leave="harmful",
        ),
        validation=20,
        progress=False,
        keep="last",
    )
    rows = {tuple(row) for row in result.objective.locations("pde").tolist()}
    assert {tuple(row) for row in first.tolist()} <= rows
