import numpy as np
import oracles
import pytest
import torch
from matrices import Matrix, Root, random, symmetric
from scipy import linalg

from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.datainf import DataInf
from whence.curvature.lissa import LiSSA, batched
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


def dense(matrix, damping, right):
    shifted = matrix + damping * np.abs(linalg.eigvalsh(matrix)).max() * np.eye(
        len(matrix)
    )
    return oracles.inverse_times(shifted, right)


@pytest.mark.parametrize(
    "preconditioner", PRECONDITIONERS.values(), ids=PRECONDITIONERS
)
@pytest.mark.parametrize("name", oracles.CASES)
def test_conjugate_gradients_are_exact_with_weak_damping(name, preconditioner):
    """In the directions that gradients span, where influence looks."""
    case = oracles.CASES[name]()
    gradients, _ = oracles.loss_gradients(case)
    matrix = oracles.gauss_newton(case)
    solver = ConjugateGradient(
        rtol=1e-12, max_iterations=20_000, preconditioner=preconditioner
    )
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-8))
    solution = state.solve(torch.as_tensor(gradients.T.copy()))
    expected = gradients @ dense(matrix, 1e-8, gradients.T)
    oracles.close(gradients @ solution.value.numpy(), expected, 1e-8)


def test_conjugate_gradients_reach_the_solution_itself():
    matrix = symmetric([10.0 ** (-k / 5) for k in range(40)])
    right = random(40, 7)
    operator = Root(torch.linalg.cholesky(matrix, upper=True))
    state = ConjugateGradient(rtol=1e-12).factor(operator, Damping(1e-8))
    solution = state.solve(right)
    oracles.close(solution.value, dense(matrix.numpy(), 1e-8, right.numpy()), 1e-8)
    left = right - (matrix + state.spectrum.damping * torch.eye(40)) @ solution.value
    true = float((left.norm(dim=0) / right.norm(dim=0)).max())
    assert solution.residual == pytest.approx(true, rel=2)
    assert state.spectrum.preconditioner == "nystrom"


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradient(), LiSSA(), DataInf(), Arnoldi(2), Nystrom(2)],
    ids=repr,
)
def test_more_right_hand_sides_than_parameters(solver):
    case = oracles.burgers_soft(n=6, widths=(2, 1))
    assert case.objective.parameters.size == 3
    right = random(case.objective.parameters.size, 40)
    value = (
        solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-2))
        .solve(right)
        .value
    )
    assert value.shape == right.shape
    assert bool((value.norm(dim=0) > 0).all())


def test_a_preconditioner_saves_iterations():
    matrix = symmetric([*(10.0 ** -np.arange(6)), *np.linspace(1e-6, 1e-5, 194)])
    right = random(200, 3)
    steps = {
        name: ConjugateGradient(preconditioner=given)
        .factor(Root(torch.linalg.cholesky(matrix, upper=True)), Damping(1e-7))
        .solve(right)
        for name, given in {"none": None, "nystrom": Nystrom(20)}.items()
    }
    assert all(solution.converged for solution in steps.values())
    assert steps["nystrom"].iterations < 0.5 * steps["none"].iterations


def test_columns_stop_for_themselves_and_zero_stays_zero():
    matrix = symmetric([1.0, 2.0, 3.0, 4.0])
    right = random(4, 3)
    right[:, 1] = 0
    right[:, 2] *= 1e-200
    solution = (
        ConjugateGradient(rtol=1e-10).factor(Matrix(matrix), Damping(0.0)).solve(right)
    )
    assert solution.converged
    assert not solution.value[:, 1].any()
    units = torch.tensor([1, 1, 1e-200], dtype=torch.float64)
    scaled, found = right / units, solution.value / units
    oracles.close(found, torch.linalg.solve(matrix, scaled), 1e-9)


def test_negative_curvature_is_reported():
    state = ConjugateGradient().factor(
        Matrix(symmetric([3.0, 1.0, -2.0])), Damping(1e-3)
    )
    solution = state.solve(random(3, 5))
    assert not solution.converged
    assert "negative curvature" in solution.message
    assert "gauss_newton" in solution.message


def test_too_few_iterations_are_reported():
    matrix = symmetric([10.0**-k for k in range(12)])
    solution = (
        ConjugateGradient(max_iterations=3)
        .factor(Matrix(matrix), Damping(0.0))
        .solve(random(12, 2))
    )
    assert (solution.converged, solution.iterations) == (False, 3)
    assert "max_iterations" in solution.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rtol": 0.0}, "rtol"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"preconditioner": "jacoby"}, "did you mean 'jacobi'"),
    ],
)
def test_wrong_options_of_conjugate_gradients(options, said):
    with pytest.raises(ValueError, match=said):
        ConjugateGradient(**options)


def test_preconditioners_that_do_not_suit():
    hessian = Hessian(oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective)
    with pytest.raises(
        ValueError, match=r"'jacobi' needs a Gauss–Newton .*, or preconditioner=None"
    ):
        ConjugateGradient(preconditioner="jacobi").factor(hessian, Damping(1e-3))
    with pytest.raises(ValueError, match="cannot precondition"):
        ConjugateGradient(preconditioner=DataInf()).factor(
            GaussNewtonMatrix(oracles.burgers_hard().objective), Damping(1e-3)
        )


def neumann(matrix, damping, scale, steps, right):
    """1/s Σ_{j≤n} (I − (A + λI)/s)ʲ b."""
    shifted = matrix + damping * np.eye(len(matrix))
    value = power = right
    for _ in range(steps):
        power = power - shifted @ power / scale
        value = value + power
    return value / scale


@pytest.mark.parametrize("steps", [1, 10, 200])
def test_lissa_is_the_truncated_series(steps):
    case = oracles.burgers_soft()
    matrix = oracles.gauss_newton(case)
    right = oracles.loss_gradients(case)[0].T
    state = LiSSA(steps, tolerance=0.0).factor(
        GaussNewtonMatrix(case.objective), Damping(1e-3)
    )
    scale = state.spectrum.scale
    assert scale == pytest.approx((1 + 1e-3) * linalg.eigvalsh(matrix)[-1])
    found = state.solve(torch.as_tensor(right.copy())).value
    oracles.close(
        found, neumann(matrix, state.spectrum.damping, scale, steps, right), 1e-10
    )


def test_lissa_converges_to_the_inverse_and_says_when_it_does_not():
    matrix, right = symmetric([1.0, 0.5, 0.2]), random(3, 2)
    solution = LiSSA().factor(Matrix(matrix), Damping(1e-3)).solve(right)
    assert solution.converged
    oracles.close(solution.value, dense(matrix.numpy(), 1e-3, right.numpy()), 1e-7)
    few = LiSSA(5).factor(Matrix(matrix), Damping(1e-3)).solve(right)
    assert not few.converged
    assert "raise iterations" in few.message


@pytest.mark.parametrize(
    ("eigenvalues", "options"),
    [([1.0, 0.5, 0.2], {"scale": 0.4}), ([1.0, 0.5, -0.2], {})],
)
def test_lissa_detects_divergence(eigenvalues, options):
    state = LiSSA(10_000, **options).factor(
        Matrix(symmetric(eigenvalues)), Damping(1e-3)
    )
    solution = state.solve(random(3, 2))
    assert not solution.converged
    assert "diverges" in solution.message
    assert solution.iterations < 200


def test_lissa_in_batches_approaches_the_inverse():
    case = oracles.burgers_soft(n=40, widths=(2, 3, 1))
    matrix = oracles.gauss_newton(case)
    right = random(len(matrix), 2)
    solver = LiSSA(300, batch=25, repeats=3)
    solution = solver.factor(GaussNewtonMatrix(case.objective), Damping(0.3)).solve(
        right
    )
    assert not solution.message
    oracles.close(solution.value, dense(matrix, 0.3, right.numpy()), 0.1)


def test_batches_see_every_point_and_keep_weights():
    case = oracles.burgers_soft(n=9)
    operators = batched(GaussNewtonMatrix(case.objective), 6, seed=0)
    seen = torch.cat([next(operators).objective.terms["pde"].points for _ in range(3)])
    assert len(torch.unique(seen, dim=0)) == 9
    terms = next(operators).objective.terms
    assert {name: term.weight for name, term in terms.items()} == {
        name: term.weight for name, term in case.objective.terms.items()
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iterations": 0}, "iterations"),
        ({"batch": 0}, "batch"),
        ({"repeats": 2}, "give batch"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_wrong_options_of_lissa(options, said):
    with pytest.raises(ValueError, match=said):
        LiSSA(**options)
    with pytest.raises(ValueError, match="above the number of points"):
        next(batched(GaussNewtonMatrix(oracles.burgers_hard().objective), 10, 0))
