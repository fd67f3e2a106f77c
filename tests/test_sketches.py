"""Sketches against the dense matrices that they stand for."""

import pytest
import scipy.fft
import torch

import whence as wh
from whence import pinn
from whence.jacobian import Jacobian
from whence.levenberg_marquardt import system_of
from whence.sketches import Sketch

R, P = 30, 12


def drawn(rows, columns, seed=(0, 0), shape=(R, P)):
    return Sketch(rows, columns, seed).draw(shape, torch.zeros(P, dtype=torch.float64))


def dense_rows(sketch, n_rows=R):
    """S (m, R), as S I."""
    identity = torch.eye(n_rows, dtype=torch.float64)
    return sketch.rows.summed([(identity, identity[:, 0])])[0]


def dense_columns(sketch, n_columns=P):
    """Ω (P, k), as I Ω."""
    return sketch.columns.compress(torch.eye(n_columns, dtype=torch.float64))


def small(n=60):
    problem = pinn.zoo.load("diffusion")
    return problem.objective(pinn.MLP([2, 6, 1], seed=0), problem.sample(n, seed=0))


def test_the_count_sketch_keeps_squares_in_the_mean():
    mean = torch.zeros(R, R, dtype=torch.float64)
    n = 2000
    for seed in range(n):
        S = dense_rows(drawn(10, None, (seed, 0)))
        assert torch.equal(S.abs().sum(dim=0), torch.ones(R, dtype=torch.float64))
        mean += S.T @ S / n
    # An entry off the diagonal is ±1 with probability 1/m: its mean has a deviation of 0.007.
    error = mean - torch.eye(R, dtype=torch.float64)
    assert float(error.diagonal().abs().max()) < 1e-12
    assert float(error.abs().max()) < 6 * (1 / 10 / n) ** 0.5


def test_columns_are_a_cosine_transform_and_orthonormal():
    sketch = drawn(None, 5)
    omega = dense_columns(sketch)
    identity = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(omega.T @ omega, identity, rtol=0, atol=1e-14)
    # DCᵀ, the columns kept of the transform C.
    C = torch.as_tensor(
        scipy.fft.dct(torch.eye(P).double().numpy(), axis=0, norm="ortho")
    )
    expected = (sketch.columns.signs.unsqueeze(1) * C.T)[:, sketch.columns.kept]
    torch.testing.assert_close(omega, expected, rtol=0, atol=1e-14)
    y = torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(sketch.lift(y), omega @ y, rtol=0, atol=1e-14)
    v = torch.rand(P, dtype=torch.float64)
    torch.testing.assert_close(sketch.project(v), omega.T @ v, rtol=0, atol=1e-14)


def test_the_mean_of_projections_is_a_share_of_the_identity():
    mean = torch.zeros(P, P, dtype=torch.float64)
    for seed in range(2000):
        omega = dense_columns(drawn(None, 6, (seed, 1)))
        mean += omega @ omega.T / 2000
    expected = 0.5 * torch.eye(P, dtype=torch.float64)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.05)


def test_blocks_of_rows_sum_to_the_same():
    sketch = drawn(7, 4)
    J = torch.rand(R, P, dtype=torch.float64)
    rho = torch.rand(R, dtype=torch.float64)
    [(whole, right)] = sketch.compressed([(J, rho)])
    blocks = zip(J.split(11), rho.split(11), strict=True)
    [(parts, right_of_parts)] = sketch.compressed(blocks)
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(right_of_parts, right, rtol=1e-13, atol=1e-13)
    expected = dense_rows(sketch) @ J @ dense_columns(sketch)
    torch.testing.assert_close(whole, expected, rtol=1e-12, atol=1e-12)


def test_every_step_draws_anew_and_the_same_again():
    first, again, other = drawn(7, 4), drawn(7, 4), drawn(7, 4, (0, 1))
    assert torch.equal(first.rows.buckets, again.rows.buckets)
    assert torch.equal(first.columns.kept, again.columns.kept)
    assert not torch.equal(first.rows.buckets, other.rows.buckets)


@pytest.mark.parametrize(("rows", "columns"), [(40, None), (None, 15), (40, 15)])
def test_a_step_solves_the_sketched_problem(rows, columns):
    """argmin ‖S(JΩy + ρ)‖² + μ‖Ωy − m‖² by the dense matrices, and its promise."""
    objective = small()
    J, rho = Jacobian(objective, scaled=True).system()
    sketch = Sketch(rows, columns, (3, 5))
    random = sketch.draw(tuple(J.shape), J[0])
    S = torch.eye(len(J), dtype=torch.float64)
    omega = torch.eye(J.shape[1], dtype=torch.float64)
    if rows:
        S = dense_rows(random, len(J))
    if columns:
        omega = dense_columns(random, J.shape[1])
    A = S @ J @ omega
    ahead = 0.1 * torch.rand(J.shape[1], dtype=torch.float64)
    shifted = A.T @ A + 0.3 * torch.eye(A.shape[1], dtype=torch.float64)

    system = system_of(objective, sketch=sketch)
    for towards in (None, ahead):
        right = -A.T @ S @ rho
        if towards is not None:
            right = right + 0.3 * omega.T @ towards
        y = torch.linalg.solve(shifted, right)
        step = system.solve(0.3, towards)
        torch.testing.assert_close(step.delta, omega @ y, rtol=1e-9, atol=1e-11)
        z = S @ rho
        promised = 0.5 * float(z @ z - (z + A @ y) @ (z + A @ y))
        assert step.promised == pytest.approx(promised, rel=1e-8, abs=1e-12)

    second = torch.rand(len(J), dtype=torch.float64)
    bend = -0.5 * omega @ torch.linalg.solve(shifted, omega.T @ J.T @ second)
    torch.testing.assert_close(system.bend(0.3, second), bend, rtol=1e-8, atol=1e-10)


def test_a_sketch_of_all_rows_and_columns_is_none():
    objective = small()
    n_rows, n_columns = wh.Jacobian(objective).shape
    sketch = Sketch(n_rows, n_columns, (0, 0))
    whole = system_of(objective, "triangular").solve(1e-3)
    step = system_of(objective, sketch=sketch).solve(1e-3)
    torch.testing.assert_close(step.delta, whole.delta, rtol=1e-12, atol=1e-14)
    assert step.promised == pytest.approx(whole.promised, rel=1e-12)
