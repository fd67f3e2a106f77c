"""The triangular factor against dense least squares, in blocks of any size, and what it keeps."""

from __future__ import annotations

import pytest
import torch

import whence as wh
from whence import pinn, triangular
from whence.triangular import Triangle


def rows_of(n: int, p: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, p, generator=generator, dtype=torch.float64)
    right = torch.randn(n, generator=generator, dtype=torch.float64)
    return rows, right


def objective() -> wh.Objective:
    problem = pinn.zoo.load("burgers", "soft")
    points = problem.sample({"pde": 300, "initial_u": 20, "dirichlet_u": 20}, seed=0)
    weights = {"pde": 1.0, "initial_u": 30.0, "dirichlet_u": 4.0}
    return problem.objective(pinn.MLP([2, 7, 6, 1], seed=1), points, weights)


@pytest.mark.parametrize("n", [3, 10, 11, 40])
def test_a_triangle_holds_all_of_a_least_squares_problem(n: int) -> None:
    rows, right = rows_of(n, 10)
    triangle = Triangle.of_rows(rows, right)
    torch.testing.assert_close(triangle.factor.T @ triangle.factor, rows.T @ rows)
    torch.testing.assert_close(triangle.factor.T @ triangle.right, rows.T @ right)
    delta = torch.randn(10, dtype=torch.float64)
    whole = (rows @ delta + right).square().sum()
    left = (triangle.factor @ delta + triangle.right).square().sum()
    assert float(left) + triangle.left**2 == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("joined", [1, 7, 10_000])
def test_blocks_are_joined_to_the_factor_of_all_rows(monkeypatch, joined: int) -> None:
    monkeypatch.setattr(triangular, "MIN_JOINED", joined)
    monkeypatch.setattr(triangular, "ROWS_PER_FACTOR", 0)
    one = objective()
    rows, right = wh.Jacobian(one, scaled=True).system()
    order = torch.arange(rows.shape[1]).flip(0)
    for columns in (None, order):
        triangle = Triangle.of_objective(one, columns)
        wanted = rows if columns is None else rows[:, columns]
        size = float(wanted.square().sum())
        gram = triangle.factor.T @ triangle.factor
        torch.testing.assert_close(gram, wanted.T @ wanted, rtol=0, atol=1e-14 * size)
        gradient = triangle.factor.T @ triangle.right
        torch.testing.assert_close(gradient, wanted.T @ right, rtol=1e-9, atol=1e-12)
        assert triangle.n_rows == len(rows)


@pytest.mark.parametrize("shift", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("moved", [False, True])
def test_a_damped_solution_is_that_of_the_normal_equations(
    shift: float, moved: bool
) -> None:
    rows, right = rows_of(30, 8)
    d = torch.arange(8.0, dtype=torch.float64) if moved else None
    matrix = rows.T @ rows + shift * torch.eye(8, dtype=torch.float64)
    gradient = rows.T @ right
    if d is not None:
        gradient = gradient + shift * d
    wanted = torch.linalg.solve(matrix, -gradient)
    found = Triangle.of_rows(rows, right).damped(shift, d)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_what_the_square_of_j_loses_is_kept() -> None:
    """Columns whose singular values span ten orders: the normal equations lose the last four."""
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(50, 11, generator=generator).double())
    turn, _ = torch.linalg.qr(torch.randn(11, 11, generator=generator).double())
    values = torch.logspace(0, -10, 11, dtype=torch.float64)
    rows = left @ torch.diag(values) @ turn
    solution = torch.ones(11, dtype=torch.float64)
    right = -rows @ solution
    found = Triangle.of_rows(rows, right).least_squares(1e-15)
    assert float((found - solution).abs().max()) < 1e-4
    squared = torch.linalg.lstsq(rows.T @ rows, -rows.T @ right).solution
    assert float((squared - solution).abs().max()) > 1e-2


def test_columns_of_very_different_sizes_count_alike() -> None:
    rows, right = rows_of(40, 5)
    sizes = torch.tensor([1e-12, 1e-6, 1.0, 1e6, 1e12], dtype=torch.float64)
    wanted = torch.linalg.lstsq(rows, -right.unsqueeze(1)).solution[:, 0] / sizes
    found = Triangle.of_rows(rows * sizes, right).least_squares(1e-13)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


def test_a_column_that_no_residual_sees_stays_where_it_is() -> None:
    rows, right = rows_of(20, 4)
    rows[:, 2] = 0
    found = Triangle.of_rows(rows, right).least_squares(1e-13)
    assert abs(float(found[2])) < 1e-9
    assert bool(torch.isfinite(found).all())
