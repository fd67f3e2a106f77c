import numpy as np
import oracles
import pytest
import torch
from matrices import Matrix, Root, random, symmetric
from scipy import linalg

from whence.curvature.exact import Exact
from whence.curvature.failures import SingularSystem
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping


def expected(matrix, damping, right):
    matrix = matrix.numpy()
    largest = np.abs(linalg.eigvalsh(matrix)).max()
    return linalg.inv(matrix + damping * largest * np.eye(len(matrix))) @ right.numpy()


@pytest.mark.parametrize("damping", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("shape", [(5, 12), (12, 12), (30, 12), (1, 4)])
@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
def test_forms_agree_with_the_dense_inverse(form, shape, damping):
    root = random(*shape)
    right = random(shape[1], 3, seed=1)
    solution = Exact(form=form).factor(Root(root), Damping(damping)).solve(right)
    oracles.close(solution.value, expected(root.T @ root, damping, right), 1e-9)
    assert solution.converged
    assert solution.residual < 1e-9


@pytest.mark.parametrize("name", oracles.CASES)
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_forms_agree_on_the_curvature_of_a_problem(form, name):
    """In the directions that gradients of losses span, which is where influence looks."""
    case = oracles.CASES[name]()
    gradients, _ = oracles.loss_gradients(case)
    matrix = torch.as_tensor(oracles.gauss_newton(case))
    state = Exact(form=form).factor(GaussNewtonMatrix(case.objective), Damping(1e-6))
    right = torch.as_tensor(gradients.T.copy())
    found = gradients @ state.solve(right).value.numpy()
    oracles.close(found, gradients @ expected(matrix, 1e-6, right), 1e-9)


def test_auto_takes_the_smaller_form_and_says_so():
    def form(shape, damping=1e-6):
        return (
            Exact().factor(Root(random(*shape)), Damping(damping)).spectrum.solver_form
        )

    assert form((5, 12)) == "dual"
    assert form((12, 12)) == "primal"
    assert form((30, 12)) == "primal"
    with pytest.raises(SingularSystem, match="singular"):
        form((5, 12), damping=0.0)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_more_right_hand_sides_than_parameters(form):
    root, right = random(9, 6), random(6, 40, seed=1)
    solution = Exact(form=form).factor(Root(root), Damping(1e-3)).solve(right)
    oracles.close(solution.value, expected(root.T @ root, 1e-3, right), 1e-11)


def test_columns_are_solved_independently():
    state = Exact().factor(Root(random(9, 6)), Damping(1e-3))
    right = random(6, 4, seed=1)
    whole = state.solve(right).value
    each = torch.cat(
        [state.solve(c.unsqueeze(1)).value for c in right.unbind(1)], dim=1
    )
    oracles.close(whole, each, 1e-12)
    assert not state.solve(torch.zeros(6, 2).double()).value.any()


def test_no_damping_is_the_plain_inverse():
    root, right = random(30, 6), random(6, 2, seed=1)
    solution = Exact().factor(Root(root), Damping(0.0)).solve(right)
    oracles.close(solution.value, torch.linalg.solve(root.T @ root, right), 1e-12)


def test_absolute_damping():
    root, right = random(9, 6), random(6, 2, seed=1)
    state = Exact().factor(Root(root), Damping(0.5, relative=False))
    shifted = root.T @ root + 0.5 * torch.eye(6).double()
    oracles.close(state.solve(right).value, torch.linalg.solve(shifted, right), 1e-12)
    assert state.spectrum.damping == 0.5


def test_what_a_state_reports():
    root = random(9, 6)
    largest = float(torch.linalg.eigvalsh(root.T @ root)[-1])
    spectrum = Exact(form="primal").factor(Root(root), Damping(1e-3)).spectrum
    assert spectrum.largest_eigenvalue == pytest.approx(largest, rel=1e-12)
    assert spectrum.damping == pytest.approx(1e-3 * largest, rel=1e-12)
    assert spectrum.relative_damping == pytest.approx(1e-3)
    assert spectrum.solver_size == 6
    assert (
        Exact(form="dual").factor(Root(root), Damping(1e-3)).spectrum.solver_size == 9
    )


@pytest.mark.parametrize("condition", [1e6, 1e9, 1e12])
def test_ill_conditioned_systems_are_refined(condition):
    values = np.geomspace(1 / condition, 1.0, 12).tolist()
    left, _ = torch.linalg.qr(random(12, 12, seed=2))
    vectors, _ = torch.linalg.qr(random(12, 12, seed=3))
    root = left @ torch.diag(torch.tensor(values).double().sqrt()) @ vectors
    right = (root.T @ root) @ random(12, 2, seed=1)
    solution = Exact(form="primal").factor(Root(root), Damping(0.0)).solve(right)
    assert solution.converged
    assert solution.residual < 1e-12


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
def test_singular_without_damping_is_an_error(form):
    with pytest.raises(SingularSystem, match=r"damping"):
        Exact(form=form).factor(Root(random(5, 12)), Damping(0.0))


def test_no_curvature_at_all():
    zero = torch.zeros(4, 6).double()
    with pytest.raises(SingularSystem, match="damping"):
        Exact().factor(Root(zero), Damping(1e-3))
    state = Exact().factor(Root(zero), Damping(2.0, relative=False))
    oracles.close(state.solve(random(6, 2)).value, random(6, 2) / 2, 1e-14)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_nan_in_the_curvature_is_an_error(form):
    root = random(9, 6)
    root[3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Exact(form=form).factor(Root(root), Damping(1e-3))


def test_the_hint_for_single_precision_is_enough():
    root = random(9, 40).float()
    with pytest.raises(ValueError, match=r"damping=5e-05") as error:
        Exact(form="primal").factor(Root(root), Damping(1e-10))
    enough = float(str(error.value).rsplit("=", 1)[1])
    assert (
        Exact(form="primal")
        .factor(Root(root), Damping(enough))
        .solve(random(40, 2).float())
        .converged
    )


@pytest.mark.parametrize(
    ("form", "shape", "needs"),
    [
        ("primal", (5, 100), 2 * 100**2),
        ("dual", (50, 100), 50 * 200),
        ("auto", (200, 100), 20000),
    ],
)
def test_memory_budget(form, shape, needs):
    root = Root(random(*shape))
    with pytest.raises(MemoryError, match="raise memory_budget, select fewer"):
        Exact(form=form, memory_budget=8 * needs - 1).factor(root, Damping(1e-3))
    Exact(form=form, memory_budget=8 * needs).factor(root, Damping(1e-3))


def test_memory_budget_stops_before_any_work():
    case = oracles.burgers_hard()
    operator = GaussNewtonMatrix(case.objective)
    operator.dense = operator.root().dense = lambda: pytest.fail("worked")
    with pytest.raises(MemoryError):
        Exact(memory_budget=1000).factor(operator, Damping(1e-3))
    hessian = Hessian(case.objective)
    hessian.dense = lambda: pytest.fail("worked")
    with pytest.raises(MemoryError):
        Exact(memory_budget=1000).factor(hessian, Damping(1e-3))


def test_indefinite_hessian():
    matrix, right = symmetric([-2.0, -0.5, 0.3, 1.0, 4.0]), random(5, 2)
    state = Exact().factor(Matrix(matrix), Damping(1e-3))
    oracles.close(state.solve(right).value, expected(matrix, 1e-3, right), 1e-12)
    assert state.spectrum.solver_form == "indefinite"
    assert state.spectrum.negative_eigenvalues == 2
    assert state.spectrum.smallest_eigenvalue == pytest.approx(-2.0)
    assert state.spectrum.largest_eigenvalue == pytest.approx(4.0)


def test_hessian_of_a_problem_counts_its_negative_eigenvalues():
    case = oracles.burgers_hard(n=6, widths=(2, 4, 1))
    exact = oracles.loss_hessian(case)
    state = Exact().factor(Hessian(case.objective), Damping(1e-3))
    negative = int((linalg.eigvalsh(exact) < 0).sum())
    assert negative > 0
    assert state.spectrum.negative_eigenvalues == negative


def test_damping_that_meets_a_negative_eigenvalue_is_an_error():
    with pytest.raises(SingularSystem, match="singular"):
        Exact().factor(
            Matrix(symmetric([-1.0, 2.0, 4.0])), Damping(1.0, relative=False)
        )


def test_there_is_no_dual_form_of_a_hessian():
    with pytest.raises(ValueError, match="dual form needs a Gauss–Newton"):
        Exact(form="dual").factor(Matrix(symmetric([1.0, 2.0])), Damping(1.0))


def test_options_are_checked_at_construction():
    with pytest.raises(
        ValueError, match=r"unknown form .* 'primel' \(did you mean 'primal'\?\)"
    ):
        Exact(form="primel")
    with pytest.raises(ValueError, match="memory_budget"):
        Exact(memory_budget=0)
    for value in (-1e-3, float("nan"), float("inf"), True, "1"):
        with pytest.raises(
            ValueError, match="damping must be zero or a positive number"
        ):
            Damping(value)
