import numpy as np
import oracles
import pytest
import torch
from matrices import Matrix, random, symmetric
from scipy import linalg

from whence.curvature.lissa import LiSSA, batched
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Damping


def solved_by_hand(matrix, damping, right):
    """The inverse itself; λ relative to the largest eigenvalue."""
    largest = np.abs(linalg.eigvalsh(matrix)).max()
    shifted = matrix + damping * largest * np.eye(len(matrix))
    return oracles.inverse_times(shifted, right)


def neumann(matrix, damping, scale, steps, right):
    """1/s Σ_{j≤n} (I − (A + λI)/s)ʲ b."""
    shifted = matrix + damping * np.eye(len(matrix))
    power = right
    value = right
    for _ in range(steps):
        power = power - shifted @ power / scale
        value = value + power
    return value / scale


@pytest.mark.parametrize("steps", [1, 10, 200])
def test_it_is_the_truncated_series(steps):
    case = oracles.burgers_soft()
    matrix = oracles.gauss_newton(case)
    right = oracles.loss_gradients(case)[0].T
    solver = LiSSA(steps, tolerance=0.0)
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-3))
    scale = state.spectrum.scale
    assert scale == pytest.approx((1 + 1e-3) * linalg.eigvalsh(matrix)[-1])

    value = state.solve(torch.as_tensor(right.copy())).value
    expected = neumann(matrix, state.spectrum.damping, scale, steps, right)
    oracles.close(value, expected, 1e-10)


def test_it_converges_to_the_inverse_and_says_when_it_does_not():
    matrix = symmetric([1.0, 0.5, 0.2])
    right = random(3, 2)
    solution = LiSSA().factor(Matrix(matrix), Damping(1e-3)).solve(right)
    assert solution.converged
    expected = solved_by_hand(matrix.numpy(), 1e-3, right.numpy())
    oracles.close(solution.value, expected, 1e-7)

    few = LiSSA(5).factor(Matrix(matrix), Damping(1e-3)).solve(right)
    assert not few.converged
    assert "raise iterations" in few.message


@pytest.mark.parametrize(
    ("eigenvalues", "options"),
    [([1.0, 0.5, 0.2], {"scale": 0.4}), ([1.0, 0.5, -0.2], {})],
)
def test_it_detects_divergence(eigenvalues, options):
    matrix = Matrix(symmetric(eigenvalues))
    state = LiSSA(10_000, **options).factor(matrix, Damping(1e-3))
    solution = state.solve(random(3, 2))
    assert not solution.converged
    assert "diverges" in solution.message
    assert solution.iterations < 200


# --- batches -----------------------------------------------------------------------------------


def test_batches_approach_the_inverse():
    case = oracles.burgers_soft(n=40, widths=(2, 3, 1))
    matrix = oracles.gauss_newton(case)
    right = random(len(matrix), 2)
    solver = LiSSA(60, batch=25, repeats=3)
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(0.3))
    solution = state.solve(right)
    assert not solution.message
    expected = solved_by_hand(matrix, 0.3, right.numpy())
    oracles.close(solution.value, expected, 0.05)


def test_batches_see_every_point_and_keep_weights():
    case = oracles.burgers_soft(n=9)
    operators = batched(GaussNewtonMatrix(case.objective), 6, seed=0)
    batches = [next(operators).objective.terms["pde"].points for _ in range(3)]
    assert len(torch.unique(torch.cat(batches), dim=0)) == 9

    def weights(objective):
        return {name: term.weight for name, term in objective.terms.items()}

    assert weights(next(operators).objective) == weights(case.objective)


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations"),
        ({"batch": 0}, "batch"),
        ({"repeats": 2}, "give batch"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        LiSSA(**options)


def test_a_batch_above_the_number_of_points_is_refused():
    operators = batched(GaussNewtonMatrix(oracles.burgers_hard().objective), 10, 0)
    with pytest.raises(ValueError, match="above the number of points"):
        next(operators)
