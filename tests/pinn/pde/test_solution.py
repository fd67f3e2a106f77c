"""Solutions: what goes in and comes out, derivatives, and errors that name the nearest."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from whence import pinn

ROWS = [[0.1, 0.5], [-0.3, 0.25], [0.9, 0.0]]


@pytest.fixture(scope="module")
def problem():
    return pinn.zoo.load("burgers")


@pytest.fixture(scope="module")
def solution(problem):
    return pinn.Solution(problem, problem.network(seed=0))


def two_outputs():
    return pinn.Problem(
        pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        ("u", "p"),
        {"pde": lambda u_t, p_x: (u_t - p_x, u_t + p_x)},
        name="pair",
    )


# --- what goes in and comes out -----------------------------------------------------------------


def test_a_tensor_for_a_tensor(solution):
    points = torch.tensor(ROWS, dtype=torch.float64)
    assert isinstance(solution(points), torch.Tensor)
    assert solution(points).shape == (3, 1)
    assert solution.u(points).shape == (3,)
    assert not solution(points).requires_grad


def test_an_array_for_arrays_lists_and_tuples(solution):
    expected = solution(torch.tensor(ROWS, dtype=torch.float64)).numpy()
    for points in (ROWS, tuple(map(tuple, ROWS)), np.array(ROWS), np.array(ROWS, "f4")):
        values = solution(points)
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_array_equal(solution(ROWS), expected)


def test_a_data_frame_for_a_data_frame_whose_columns_are_found_by_name(solution):
    frame = pd.DataFrame(
        {"t": [0.5, 0.25, 0.0], "id": ["a", "b", "c"], "x": [0.1, -0.3, 0.9]},
        index=[7, 8, 9],
    )
    # Only numbers can be read together: the text is left out.
    table = solution(frame[["t", "x"]], "u", "u_x")
    assert list(table.columns) == ["u", "u_x"]
    assert list(table.index) == [7, 8, 9]
    np.testing.assert_array_equal(table.to_numpy(), solution(ROWS, "u", "u_x"))
    series = solution.u(frame[["t", "x"]])
    assert series.name == "u"
    np.testing.assert_array_equal(series.to_numpy(), solution.u(ROWS))


def test_integers_are_numbers(solution):
    np.testing.assert_array_equal(solution([[0, 1]]), solution([[0.0, 1.0]]))


def test_a_network_in_float32_takes_points_of_any_dtype(problem):
    network = problem.network(seed=0).float()
    solution = pinn.Solution(problem, network)
    assert solution(torch.tensor(ROWS, dtype=torch.float64)).dtype == torch.float32
    assert solution.error(ROWS).dtype == np.float64


def test_names_choose_columns_and_their_order(solution):
    values = solution(ROWS, "u_t", "x", "u")
    assert values.shape == (3, 3)
    np.testing.assert_array_equal(values[:, 0], solution.u_t(ROWS))
    np.testing.assert_array_equal(values[:, 1], np.array(ROWS)[:, 0])
    np.testing.assert_array_equal(values[:, 2], solution.u(ROWS))
    np.testing.assert_array_equal(solution.field("u_t", ROWS), solution.u_t(ROWS))


def test_all_outputs_by_default():
    problem = two_outputs()
    solution = pinn.Solution(problem, pinn.MLP([2, 8, 2], seed=0))
    points = [[0.5, 0.5], [0.25, 0.75]]
    values = solution(points)
    assert values.shape == (2, 2)
    np.testing.assert_array_equal(values[:, 1], solution.p(points))
    frame = pd.DataFrame(points, columns=["x", "t"])
    assert list(solution(frame).columns) == ["u", "p"]
    assert list(solution.residual(frame).columns) == ["pde_0", "pde_1"]


def test_more_points_than_are_evaluated_at_once(problem, solution):
    points = problem.domain.sample(9001, seed=1)
    values = solution(points)
    assert values.shape == (9001, 1)
    torch.testing.assert_close(values[8500:8503], solution(points[8500:8503]))


# --- values -------------------------------------------------------------------------------------


def test_the_ansatz_is_part_of_the_solution(problem, solution):
    points = torch.tensor([[1.0, 0.5], [-1.0, 0.3], [0.2, 0.0]], dtype=torch.float64)
    values = solution.u(points)
    assert values[:2].abs().max() < 1e-12
    assert values[2] == pytest.approx(-np.sin(np.pi * 0.2), abs=1e-12)
    assert solution.network(points).abs().max() > 1e-3


def test_derivatives_are_the_fields_of_the_objective(problem, solution):
    names = ("u", "u_x", "u_t", "u_xx", "u_xt", "u_xxx")
    points = problem.domain.sample(20, seed=2)
    objective = problem.objective(solution.network, {"pde": points})
    expected = objective.fields(names)(objective.parameters.tensors(), points)
    torch.testing.assert_close(solution(points, *names), expected, rtol=0, atol=0)


def test_derivatives_against_central_differences(problem, solution):
    points = np.array([[0.3, 0.4], [-0.5, 0.6]])
    step = 1e-5
    for k, name in enumerate(("u_x", "u_t")):
        shift = np.zeros(2)
        shift[k] = step
        above = solution.u(points + shift)
        below = solution.u(points - shift)
        difference = (above - below) / (2 * step)
        np.testing.assert_allclose(
            getattr(solution, name)(points), difference, rtol=1e-7
        )


def test_u_tx_is_u_xt(solution):
    np.testing.assert_array_equal(solution.u_tx(ROWS), solution.u_xt(ROWS))


def test_the_residual_is_the_objectives(problem, solution):
    points = problem.domain.sample(30, seed=3)
    objective = problem.objective(solution.network, {"pde": points})
    values = solution.residual(points)
    term = objective.term("pde")
    expected = term.residual(objective.parameters.tensors(), points)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-12, atol=1e-14)
    assert isinstance(solution.residual(ROWS), np.ndarray)


def test_the_residual_of_a_condition(problem):
    soft = pinn.zoo.load("burgers", "soft")
    solution = pinn.Solution(soft, soft.network(seed=0))
    points = soft.draw("initial_u", 5, seed=0)
    expected = solution.u(points) + torch.sin(torch.pi * points[:, 0])
    residual = solution.residual(points, "initial_u")
    torch.testing.assert_close(residual[:, 0], expected, rtol=1e-12, atol=1e-14)


def test_the_error_is_the_solution_less_the_reference(problem, solution):
    points = problem.domain.sample(30, seed=3)
    expected = solution(points) - problem.reference(points)
    torch.testing.assert_close(solution.error(points), expected)
    relative = problem.relative_l2(solution.network, points)
    norm = torch.linalg.vector_norm
    ratio = norm(solution.error(points)) / norm(problem.reference(points))
    assert float(ratio) == pytest.approx(relative, rel=1e-12)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["__call__", "residual", "error", "u_x"])
@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([[5.0, 0.5]], ValueError, r"1 of 1 points.*outside.*row 0: \[5.0, 0.5\]"),
        ([[0.5, 0.5], [0.5, 2.0]], ValueError, "row 1"),
        ([[0.5]], ValueError, r"shape \(n, 2\)"),
        ([0.5, 0.5], ValueError, r"shape \(n, 2\)"),
        ([], ValueError, r"shape \(n, 2\)"),
        ([[0.5, float("nan")]], ValueError, "must be finite"),
        ([["a", "b"]], TypeError, "rows of 2 numbers"),
        ([[0.5, 0.5], [0.5]], TypeError, "rows of 2 numbers"),
        (None, TypeError, "torch.Tensor of shape"),
        (torch.tensor([[0, 1]]), TypeError, "floating-point"),
        (pd.DataFrame({"x": [0.5]}), ValueError, "'t' is missing among x"),
    ],
)
def test_points_that_mean_nothing(solution, method, points, error, message):
    with pytest.raises(error, match=message):
        getattr(solution, method)(points)


def test_points_off_the_boundary_of_a_condition():
    soft = pinn.zoo.load("burgers", "soft")
    solution = pinn.Solution(soft, soft.network(seed=0))
    with pytest.raises(ValueError, match="of term 'initial_u' lie outside its domain"):
        solution.residual([[0.5, 0.5]], "initial_u")


def test_unknown_names_suggest_the_nearest(solution):
    with pytest.raises(ValueError, match=r"unknown name 'u_xy'.*did you mean"):
        solution(ROWS, "u_xy")
    with pytest.raises(AttributeError, match=r"unknown name 'v'.*an output \(u\)"):
        solution.v  # noqa: B018
    with pytest.raises(
        ValueError, match=r"unknown term 'pdf' \(did you mean 'pde'\?\)"
    ):
        solution.residual(ROWS, "pdf")


def test_no_reference_no_error():
    problem = two_outputs()
    solution = pinn.Solution(problem, pinn.MLP([2, 8, 2], seed=0))
    with pytest.raises(ValueError, match="'pair' has no reference solution"):
        solution.error([[0.5, 0.5]])


def test_a_reference_of_unknown_arguments_is_an_error_when_the_problem_is_made():
    with pytest.raises(ValueError, match="unknown argument of the solution 'y'"):
        pinn.Problem(
            pinn.Interval("x", 0, 1),
            ("u",),
            {"pde": lambda u_x: u_x},
            solution=lambda y: y,
        )


# --- as an object -------------------------------------------------------------------------------


def test_fields_are_offered_and_it_says_what_it_is(solution):
    assert {"u", "u_x", "u_t", "residual", "error"} <= set(dir(solution))
    assert repr(solution) == "Solution('burgers': (x, t) -> (u))"


def test_it_can_be_copied(solution):
    copied = copy.copy(solution)
    np.testing.assert_array_equal(copied.u_x(ROWS), solution.u_x(ROWS))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.loads(pickle.dumps(solution)).nothing  # noqa: B018
