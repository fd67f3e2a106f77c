"""Influence scores whose curvature is taken elsewhere than at the training points."""

import pytest
import torch

import whence as wh
from whence import pinn
from whence.pinn.sampling.scores.base import spawn

DAMPING = 1e-3


@pytest.fixture(name="objective", scope="module")
def _objective():
    problem = pinn.zoo.load("diffusion", "soft")
    counts = {"pde": 20, "initial_u": 8, "dirichlet_u": 6}
    points = problem.sample(counts, seed=0)
    network = pinn.MLP([2, 6, 5, 1], seed=1)
    return problem.objective(network, points, {"pde": 2.0, "initial_u": 30.0})


def dense_matrix(objective, points):
    """``Σ_k (w_k/N_k) Σ_i 2 J_iᵀJ_i`` point by point, from term's residuals at given points."""
    theta = objective.parameters.vector()
    matrix = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    for name, term in objective.terms.items():
        places = points.get(name, term.points)

        def residuals(vector, term=term, places=places):
            tensors = objective.parameters.substituted(vector)
            return term.residual(tensors, places).reshape(-1)

        rows = torch.func.jacrev(residuals)(theta)
        matrix += 2 * term.weight / len(places) * rows.T @ rows
    return matrix


def by_dense_matrices(objective, candidates, score, points):
    """The score before its sign, from a dense matrix at these points."""
    matrix = dense_matrix(objective, points)
    largest = torch.linalg.eigvalsh(matrix)[-1]
    matrix.diagonal().add_(DAMPING * largest)

    tests = {}
    for k, name in enumerate(candidates):
        tests[name] = objective.draw(name, score.n_test, spawn(score.seed, 1 + k))
    tested = torch.cat(list(wh.Loss(tests).gradients(objective)))
    rows = torch.cat(list(wh.Loss(candidates).gradients(objective)))
    return tested @ torch.linalg.solve(matrix, rows.T)


def drawn(objective, score, names):
    """The points of the curvature that a score should take."""
    points = {}
    for k, name in enumerate(names):
        if score.curvature_points == "test":
            seed = spawn(score.seed, 1 + k)
            points[name] = objective.draw(name, score.n_test, seed)
        elif score.curvature_points != "training":
            seed = spawn(score.seed, 0)
            n = score.curvature_points
            points[name] = objective.draw(name, n, seed, "hammersley")
    return points


@pytest.mark.parametrize("reduce", ["abs_of_sum", "sum_of_abs"])
@pytest.mark.parametrize("where", ["training", 33, "test"])
@pytest.mark.parametrize("names", [("pde",), ("pde", "initial_u")])
def test_the_curvature_is_that_of_the_loss_at_its_points(
    objective, names, where, reduce
):
    score = pinn.InfluenceScore(
        12, reduce, damping=DAMPING, seed=5, curvature_points=where
    )
    candidates = {name: objective.draw(name, 9, seed=4) for name in names}
    points = drawn(objective, score, names)
    pairs = by_dense_matrices(objective, candidates, score, points)
    expected = pairs.sum(0).abs() if reduce == "abs_of_sum" else pairs.abs().sum(0)
    measured = score.score(objective, candidates)
    torch.testing.assert_close(measured, expected, rtol=1e-6, atol=1e-10)

    at_training = by_dense_matrices(objective, candidates, score, {})
    assert torch.allclose(at_training, pairs) is (where == "training")


def test_fresh_points_move_with_the_seed_and_shared_ones_stay_shared():
    problem = pinn.Problem(
        pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
        ("u", "v"),
        {"mass": lambda u_x, v_y: u_x + v_y, "curl": lambda u_y, v_x: u_y - v_x},
    )
    points = problem.sample({"mass": 9, "curl": 9}, seed=0)
    objective = problem.objective(pinn.MLP([2, 5, 2], seed=0), points)
    first = pinn.InfluenceScore(curvature_points=14, seed=1)
    other = pinn.InfluenceScore(curvature_points=14, seed=2)
    names = ("mass", "curl")
    moved = first.at_curvature_points(objective, names)
    mass, curl = (moved.locations(name) for name in names)
    assert torch.equal(mass, curl)
    assert mass.shape == (14, 2)
    elsewhere = other.at_curvature_points(objective, names).locations("mass")
    assert not torch.equal(mass, elsewhere)


def test_a_quantity_with_fresh_curvature(objective):
    goal = wh.Output(torch.tensor([[0.1, 0.5]], dtype=torch.float64))
    score = pinn.InfluenceScore(quantity=goal, damping=DAMPING, curvature_points=25)
    candidates = {"pde": objective.draw("pde", 7, seed=4)}
    matrix = dense_matrix(objective, drawn(objective, score, ("pde",)))
    matrix.diagonal().add_(DAMPING * torch.linalg.eigvalsh(matrix)[-1])
    rows = torch.cat(list(wh.Loss(candidates).gradients(objective)))
    gradient = next(iter(goal.gradients(objective)))[0]
    expected = (rows @ torch.linalg.solve(matrix, gradient)).abs()
    measured = score.score(objective, candidates)
    torch.testing.assert_close(measured, expected, rtol=1e-6, atol=1e-10)


def test_a_run_with_fresh_curvature_repeats_itself():
    problem = pinn.zoo.load("diffusion")
    score = pinn.InfluenceScore(n_test=30, curvature_points=40)
    resample = pinn.Resample(score, n=4, every=2, candidates=50, update="replace")

    def run():
        return pinn.train(
            problem,
            pinn.MLP([2, 6, 1], seed=0),
            points=20,
            schedule=pinn.GaussNewton(5),
            resample=resample,
            progress=False,
        )

    first, again = run(), run()
    assert torch.equal(
        first.objective.locations("pde"), again.objective.locations("pde")
    )
    started = problem.sample({"pde": 20}, seed=0)["pde"]
    assert not torch.equal(first.objective.locations("pde"), started)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature_points": 0}, "curvature_points must be a positive integer"),
        ({"curvature_points": "tests"}, "did you mean 'test'"),
        (
            {
                "curvature_points": "test",
                "quantity": wh.Output(torch.zeros(1, 2, dtype=torch.float64)),
            },
            "a number of fresh points",
        ),
    ],
)
def test_wrong_curvature_points(options, message):
    with pytest.raises(ValueError, match=message):
        pinn.InfluenceScore(**options)
