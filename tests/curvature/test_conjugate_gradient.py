import numpy as np
import oracles
import pytest
import torch
from matrices import Matrix, Root, random, symmetric
from scipy import linalg

from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.datainf import DataInf
from whence.curvature.lowrank import Arnoldi, Nystrom
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping

PRECONDITIONERS = {
    "auto": "auto",
    "none": None,
    "jacobi": "jacobi",
    "nystrom": Nystrom(6),
    "arnoldi": Arnoldi(6),
}


def root_of(matrix):
    return Root(torch.linalg.cholesky(matrix, upper=True))


def solved_by_hand(matrix, damping, right):
    """The inverse itself; λ relative to the largest eigenvalue."""
    largest = np.abs(linalg.eigvalsh(matrix)).max()
    shifted = matrix + damping * largest * np.eye(len(matrix))
    return oracles.inverse_times(shifted, right)


# --- solutions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preconditioner", PRECONDITIONERS.values(), ids=PRECONDITIONERS
)
@pytest.mark.parametrize("name", oracles.CASES)
def test_conjugate_gradients_are_exact_with_weak_damping(name, preconditioner):
    """In the directions that gradients span, where influence looks."""
    case = oracles.CASES[name]()
    gradients, _ = oracles.loss_gradients(case)
    solver = ConjugateGradient(
        rtol=1e-12, max_iterations=20_000, preconditioner=preconditioner
    )
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-8))
    solution = state.solve(torch.as_tensor(gradients.T.copy()))

    matrix = oracles.gauss_newton(case)
    expected = solved_by_hand(matrix, 1e-8, gradients.T)
    oracles.close(gradients @ solution.value.numpy(), gradients @ expected, 1e-8)


def test_conjugate_gradients_reach_the_solution_itself():
    matrix = symmetric([10.0 ** (-k / 5) for k in range(40)])
    right = random(40, 7)
    state = ConjugateGradient(rtol=1e-12).factor(root_of(matrix), Damping(1e-8))
    solution = state.solve(right)
    expected = solved_by_hand(matrix.numpy(), 1e-8, right.numpy())
    oracles.close(solution.value, expected, 1e-8)

    shifted = matrix + state.spectrum.damping * torch.eye(40)
    error = right - shifted @ solution.value
    residual = float((error.norm(dim=0) / right.norm(dim=0)).max())
    assert solution.residual == pytest.approx(residual, rel=2)
    assert state.spectrum.preconditioner == "nystrom"


def test_columns_stop_for_themselves_and_zero_stays_zero():
    matrix = symmetric([1.0, 2.0, 3.0, 4.0])
    units = torch.tensor([1, 1, 1e-200], dtype=torch.float64)
    right = random(4, 3)
    right[:, 1] = 0
    right[:, 2] *= 1e-200
    state = ConjugateGradient(rtol=1e-10).factor(Matrix(matrix), Damping(0.0))
    solution = state.solve(right)
    assert solution.converged
    assert not solution.value[:, 1].any()

    expected = torch.linalg.solve(matrix, right / units)
    oracles.close(solution.value / units, expected, 1e-9)


# --- preconditioners ---------------------------------------------------------------------------


def test_a_preconditioner_saves_iterations():
    matrix = symmetric([*(10.0 ** -np.arange(6)), *np.linspace(1e-6, 1e-5, 194)])
    right = random(200, 3)

    def solution(preconditioner):
        solver = ConjugateGradient(preconditioner=preconditioner)
        return solver.factor(root_of(matrix), Damping(1e-7)).solve(right)

    plain = solution(None)
    better = solution(Nystrom(20))
    assert plain.converged
    assert better.converged
    assert better.iterations < 0.5 * plain.iterations


def test_preconditioners_that_do_not_suit():
    hessian = Hessian(oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective)
    jacobi = r"'jacobi' needs a Gauss–Newton .*, or preconditioner=None"
    with pytest.raises(ValueError, match=jacobi):
        ConjugateGradient(preconditioner="jacobi").factor(hessian, Damping(1e-3))

    operator = GaussNewtonMatrix(oracles.burgers_hard().objective)
    solver = ConjugateGradient(preconditioner=DataInf())
    with pytest.raises(ValueError, match="cannot precondition"):
        solver.factor(operator, Damping(1e-3))


# --- what is reported --------------------------------------------------------------------------


def test_negative_curvature_is_reported():
    hessian = Matrix(symmetric([3.0, 1.0, -2.0]))
    solution = ConjugateGradient().factor(hessian, Damping(1e-3)).solve(random(3, 5))
    assert not solution.converged
    assert "negative curvature" in solution.message
    assert "gauss_newton" in solution.message


def test_too_few_iterations_are_reported():
    matrix = Matrix(symmetric([10.0**-k for k in range(12)]))
    state = ConjugateGradient(max_iterations=3).factor(matrix, Damping(0.0))
    solution = state.solve(random(12, 2))
    assert not solution.converged
    assert solution.iterations == 3
    assert "max_iterations" in solution.message


def test_a_residual_after_a_restart_is_the_true_one():
    """Weak damping in single precision: what the iteration carries along drifts away from it."""
    rows = random(30, 40).float()
    right = random(40, 6, seed=1).float()
    solver = ConjugateGradient(rtol=1e-7, preconditioner=None)
    state = solver.factor(Root(rows), Damping(1e-4))
    solution = state.solve(right)

    # The product of the solver rounds, too.
    rows, right, value = rows.double(), right.double(), solution.value.double()
    error = right - rows.T @ (rows @ value) - state.spectrum.damping * value
    residual = float((error.norm(dim=0) / right.norm(dim=0)).max())
    assert solution.residual == pytest.approx(residual, rel=0.25)
    assert not solution.converged
    assert "about what rounding allows" in solution.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": 0.0}, "rtol"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"preconditioner": "jacoby"}, "did you mean 'jacobi'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ConjugateGradient(**options)
