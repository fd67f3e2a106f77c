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


def solved_by_hand(matrix, damping, right):
    """The inverse itself; λ relative to the eigenvalue of largest magnitude."""
    matrix = matrix.numpy()
    largest = np.abs(linalg.eigvalsh(matrix)).max()
    shifted = matrix + damping * largest * np.eye(len(matrix))
    return linalg.inv(shifted) @ right.numpy()


# --- forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("shape", [(5, 12), (12, 12), (30, 12), (1, 4)])
@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
def test_forms_agree_with_the_dense_inverse(form, shape, damping):
    root = random(*shape)
    right = random(shape[1], 3, seed=1)
    state = Exact(form=form).factor(Root(root), Damping(damping))
    solution = state.solve(right)

    expected = solved_by_hand(root.T @ root, damping, right)
    oracles.close(solution.value, expected, 1e-9)
    assert solution.converged
    assert solution.residual < 1e-9


@pytest.mark.parametrize("name", oracles.CASES)
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_forms_agree_on_the_curvature_of_a_problem(form, name):
    """In the directions that gradients of losses span, which is where influence looks."""
    case = oracles.CASES[name]()
    gradients, _ = oracles.loss_gradients(case)
    right = torch.as_tensor(gradients.T.copy())
    operator = GaussNewtonMatrix(case.objective)
    solution = Exact(form=form).factor(operator, Damping(1e-6)).solve(right)

    matrix = torch.as_tensor(oracles.gauss_newton(case))
    expected = solved_by_hand(matrix, 1e-6, right)
    oracles.close(gradients @ solution.value.numpy(), gradients @ expected, 1e-9)


def test_auto_takes_the_smaller_form_and_says_so():
    def form(shape, damping=1e-6):
        root = Root(random(*shape))
        state = Exact().factor(root, Damping(damping))
        return state.spectrum.solver_form

    assert form((5, 12)) == "dual"
    assert form((12, 12)) == "primal"
    assert form((30, 12)) == "primal"
    with pytest.raises(SingularSystem, match="singular"):
        form((5, 12), damping=0.0)


def test_there_is_no_dual_form_of_a_hessian():
    hessian = Matrix(symmetric([1.0, 2.0]))
    with pytest.raises(ValueError, match="dual form needs a Gauss–Newton"):
        Exact(form="dual").factor(hessian, Damping(1.0))


# --- right-hand sides and damping --------------------------------------------------------------


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_more_right_hand_sides_than_parameters(form):
    root = random(9, 6)
    right = random(6, 40, seed=1)
    solution = Exact(form=form).factor(Root(root), Damping(1e-3)).solve(right)
    expected = solved_by_hand(root.T @ root, 1e-3, right)
    oracles.close(solution.value, expected, 1e-11)


def test_columns_are_solved_independently():
    state = Exact().factor(Root(random(9, 6)), Damping(1e-3))
    right = random(6, 4, seed=1)
    whole = state.solve(right).value

    columns = [state.solve(column.unsqueeze(1)).value for column in right.unbind(1)]
    oracles.close(whole, torch.cat(columns, dim=1), 1e-12)

    zero = torch.zeros(6, 2).double()
    assert not state.solve(zero).value.any()


def test_no_damping_is_the_plain_inverse():
    root = random(30, 6)
    right = random(6, 2, seed=1)
    solution = Exact().factor(Root(root), Damping(0.0)).solve(right)
    expected = torch.linalg.solve(root.T @ root, right)
    oracles.close(solution.value, expected, 1e-12)


def test_absolute_damping():
    root = random(9, 6)
    right = random(6, 2, seed=1)
    state = Exact().factor(Root(root), Damping(0.5, relative=False))

    shifted = root.T @ root + 0.5 * torch.eye(6).double()
    expected = torch.linalg.solve(shifted, right)
    oracles.close(state.solve(right).value, expected, 1e-12)
    assert state.spectrum.damping == 0.5


def test_what_a_state_reports():
    root = random(9, 6)
    largest = float(torch.linalg.eigvalsh(root.T @ root)[-1])
    spectrum = Exact(form="primal").factor(Root(root), Damping(1e-3)).spectrum
    assert spectrum.largest_eigenvalue == pytest.approx(largest, rel=1e-12)
    assert spectrum.damping == pytest.approx(1e-3 * largest, rel=1e-12)
    assert spectrum.relative_damping == pytest.approx(1e-3)
    assert spectrum.solver_size == 6

    dual = Exact(form="dual").factor(Root(root), Damping(1e-3)).spectrum
    assert dual.solver_size == 9


# --- ill-conditioned and singular systems ------------------------------------------------------


@pytest.mark.parametrize("condition", [1e6, 1e9, 1e12])
def test_ill_conditioned_systems_are_refined(condition):
    eigenvalues = np.geomspace(1 / condition, 1.0, 12)
    singular_values = torch.as_tensor(eigenvalues).sqrt()
    left, _ = torch.linalg.qr(random(12, 12, seed=2))
    vectors, _ = torch.linalg.qr(random(12, 12, seed=3))
    root = left @ torch.diag(singular_values) @ vectors

    right = (root.T @ root) @ random(12, 2, seed=1)
    solution = Exact(form="primal").factor(Root(root), Damping(0.0)).solve(right)
    assert solution.converged
    assert solution.residual < 1e-12


@pytest.mark.parametrize("form", ["auto", "primal", "dual"])
def test_singular_without_damping_is_an_error(form):
    root = Root(random(5, 12))
    with pytest.raises(SingularSystem, match=r"damping"):
        Exact(form=form).factor(root, Damping(0.0))


def test_no_curvature_at_all():
    zero = Root(torch.zeros(4, 6).double())
    with pytest.raises(SingularSystem, match="damping"):
        Exact().factor(zero, Damping(1e-3))

    state = Exact().factor(zero, Damping(2.0, relative=False))
    right = random(6, 2)
    oracles.close(state.solve(right).value, right / 2, 1e-14)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_nan_in_the_curvature_is_an_error(form):
    root = random(9, 6)
    root[3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Exact(form=form).factor(Root(root), Damping(1e-3))


def test_the_hint_for_single_precision_is_enough():
    root = Root(random(9, 40).float())
    with pytest.raises(SingularSystem, match=r"damping=5e-05") as error:
        Exact(form="primal").factor(root, Damping(1e-10))

    _, hint = str(error.value).rsplit("=", 1)
    state = Exact(form="primal").factor(root, Damping(float(hint)))
    assert state.solve(random(40, 2).float()).converged


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "shape", "numbers"),
    [
        ("primal", (5, 100), 2 * 100**2),
        ("dual", (50, 100), 50 * 400),
        ("auto", (200, 100), 20000),
    ],
)
def test_memory_budget(form, shape, numbers):
    root = Root(random(*shape))
    with pytest.raises(MemoryError, match="raise memory_budget, select fewer"):
        Exact(form=form, memory_budget=8 * numbers - 1).factor(root, Damping(1e-3))
    Exact(form=form, memory_budget=8 * numbers).factor(root, Damping(1e-3))


def test_memory_budget_stops_before_any_work():
    def worked():
        pytest.fail("worked")

    case = oracles.burgers_hard()
    operator = GaussNewtonMatrix(case.objective)
    operator.dense = worked
    operator.root().dense = worked
    with pytest.raises(MemoryError):
        Exact(memory_budget=1000).factor(operator, Damping(1e-3))

    hessian = Hessian(case.objective)
    hessian.dense = worked
    with pytest.raises(MemoryError):
        Exact(memory_budget=1000).factor(hessian, Damping(1e-3))


# --- Hessians ----------------------------------------------------------------------------------


def test_indefinite_hessian():
    matrix = symmetric([-2.0, -0.5, 0.3, 1.0, 4.0])
    right = random(5, 2)
    state = Exact().factor(Matrix(matrix), Damping(1e-3))
    expected = solved_by_hand(matrix, 1e-3, right)
    oracles.close(state.solve(right).value, expected, 1e-12)

    spectrum = state.spectrum
    assert spectrum.solver_form == "indefinite"
    assert spectrum.negative_eigenvalues == 2
    assert spectrum.smallest_eigenvalue == pytest.approx(-2.0)
    assert spectrum.largest_eigenvalue == pytest.approx(4.0)


def test_hessian_of_a_problem_counts_its_negative_eigenvalues():
    case = oracles.burgers_hard(n=6, widths=(2, 4, 1))
    eigenvalues = linalg.eigvalsh(oracles.loss_hessian(case))
    negative = int((eigenvalues < 0).sum())
    assert negative > 0

    state = Exact().factor(Hessian(case.objective), Damping(1e-3))
    assert state.spectrum.negative_eigenvalues == negative


def test_damping_that_meets_a_negative_eigenvalue_is_an_error():
    hessian = Matrix(symmetric([-1.0, 2.0, 4.0]))
    with pytest.raises(SingularSystem, match="singular"):
        Exact().factor(hessian, Damping(1.0, relative=False))


def test_a_hessian_that_is_not_finite_is_an_error():
    matrix = symmetric([-1.0, 2.0, 4.0])
    matrix[1, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite") as error:
        Exact().factor(Matrix(matrix), Damping(1e-3))
    assert not isinstance(error.value, SingularSystem)


# --- options -----------------------------------------------------------------------------------


def test_options_are_checked_at_construction():
    unknown_form = r"unknown form .* 'primel' \(did you mean 'primal'\?\)"
    with pytest.raises(ValueError, match=unknown_form):
        Exact(form="primel")
    with pytest.raises(ValueError, match="memory_budget"):
        Exact(memory_budget=0)


@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), True, "1"])
def test_damping_is_zero_or_positive(value):
    with pytest.raises(ValueError, match="damping must be zero or a positive number"):
        Damping(value)
