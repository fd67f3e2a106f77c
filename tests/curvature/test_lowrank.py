import numpy as np
import oracles
import pytest
import torch
from matrices import Matrix, Root, random, symmetric
from scipy import linalg

from whence.curvature.failures import SingularSystem
from whence.curvature.lowrank import Arnoldi, Nystrom
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping


def largest(matrix):
    return np.abs(linalg.eigvalsh(matrix)).max()


def truncated(matrix, rank, damping, right, complement=True):
    """The truncated eigendecomposition's answer, λ relative to the largest eigenvalue."""
    values, vectors = linalg.eigh(matrix)
    order = np.argsort(-np.abs(values))[:rank]
    values, vectors = values[order], vectors[:, order]
    absolute = damping * np.abs(values).max()
    inside = vectors.T @ right
    answer = vectors @ (inside / (values + absolute)[:, None])
    if complement:
        answer = answer + (right - vectors @ inside) / absolute
    return answer


def nystrom_by_hand(matrix, rank, seed, damping, right):
    """AΩ(ΩᵀAΩ)⁻¹ΩᵀA + λI, inverted densely."""
    size = len(matrix)
    omega = np.random.default_rng(seed).standard_normal((size, rank))
    image = matrix @ omega
    low = image @ linalg.inv(omega.T @ image) @ image.T
    return linalg.solve(low + damping * largest(matrix) * np.eye(size), right)


@pytest.mark.parametrize("complement", [True, False])
@pytest.mark.parametrize("rank", [1, 5, 20])
@pytest.mark.parametrize("name", oracles.CASES)
def test_arnoldi_is_the_truncated_oracle(name, rank, complement):
    case = oracles.CASES[name]()
    matrix = oracles.gauss_newton(case)
    right = oracles.loss_gradients(case)[0].T
    solver = Arnoldi(rank, complement=complement)
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-4))
    solution = state.solve(torch.as_tensor(right.copy()))
    kept = min(rank, np.linalg.matrix_rank(matrix))
    oracles.close(
        solution.value, truncated(matrix, kept, 1e-4, right, complement), 1e-8
    )
    values = np.sort(linalg.eigvalsh(matrix))[::-1]
    assert state.spectrum.trace_share == pytest.approx(
        values[:rank].sum() / values.sum()
    )


def test_arnoldi_takes_the_eigenvalues_of_largest_magnitude_of_a_hessian():
    case = oracles.burgers_soft(n=5, widths=(2, 4, 1))
    matrix = oracles.loss_hessian(case)
    right = random(len(matrix), 3)
    state = Arnoldi(6).factor(Hessian(case.objective), Damping(1e-2))
    oracles.close(
        state.solve(right).value, truncated(matrix, 6, 1e-2, right.numpy()), 1e-7
    )
    kept = sorted(linalg.eigvalsh(matrix), key=abs)[-6:]
    assert state.spectrum.negative_eigenvalues_held == sum(v < 0 for v in kept)


@pytest.mark.parametrize("rank", [1, 5, 9])
def test_nystrom_is_its_definition(rank):
    case = oracles.burgers_hard()
    matrix = oracles.gauss_newton(case)
    right = oracles.loss_gradients(case)[0].T
    state = Nystrom(rank, seed=3).factor(
        GaussNewtonMatrix(case.objective), Damping(1e-4)
    )
    found = state.solve(torch.as_tensor(right.copy())).value
    oracles.close(found, nystrom_by_hand(matrix, rank, 3, 1e-4, right), 1e-6)


@pytest.mark.parametrize("solver", [Arnoldi(rank=12), Nystrom(rank=12)])
def test_full_rank_is_exact(solver):
    matrix = symmetric([10.0**-k for k in range(12)])
    operator = Root(torch.linalg.cholesky(matrix, upper=True))
    right = random(12, 40)
    found = solver.factor(operator, Damping(1e-3)).solve(right)
    expected = linalg.solve(matrix + 1e-3 * np.eye(12), right)
    oracles.close(found.value, expected, 1e-8)
    assert found.residual < 1e-8


@pytest.mark.parametrize("kind", [Arnoldi, Nystrom])
def test_the_rank_grows_until_the_tolerance_is_met(kind):
    matrix = symmetric([0.9**k for k in range(200)])
    operator = Root(torch.linalg.cholesky(matrix, upper=True))
    state = kind(tolerance=1e-6).factor(operator, Damping(1e-3))
    assert state.spectrum.rank == 200
    assert state.spectrum.trace_share >= 1 - 1e-6
    loose = kind(tolerance=0.05).factor(operator, Damping(1e-3)).spectrum
    assert loose.rank == 50
    assert loose.trace_share >= 0.95
    assert (
        kind(rank=60, tolerance=1e-6).factor(operator, Damping(1e-3)).spectrum.rank
        == 60
    )


@pytest.mark.parametrize("kind", [Arnoldi, Nystrom])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": 1.0}, "below 1"),
        ({"memory_budget": -1}, "memory_budget"),
    ],
)
def test_wrong_options(kind, options, said):
    with pytest.raises(ValueError, match=said):
        kind(**options)


@pytest.mark.parametrize("kind", [Arnoldi, Nystrom])
def test_what_cannot_be_factored(kind):
    operator = Root(random(5, 6))
    with pytest.raises(ValueError, match="above the number of parameters, 6"):
        kind(rank=7).factor(operator, Damping(1e-3))
    with pytest.raises(SingularSystem, match="complement=False"):
        kind(rank=2).factor(operator, Damping(0.0))
    with pytest.raises(MemoryError, match="lower the rank"):
        kind(rank=5, memory_budget=100).factor(operator, Damping(1e-3))
    broken = random(5, 6)
    broken[2, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        kind(rank=2).factor(Root(broken), Damping(1e-3))


def test_without_the_complement_zero_damping_is_the_pseudo_inverse():
    rows, right = random(5, 9), random(9, 3, seed=1)
    found = Arnoldi(5, complement=False).factor(Root(rows), Damping(0.0)).solve(right)
    inverse = linalg.pinv((rows.T @ rows).numpy(), rtol=1e-10)
    oracles.close(found.value, inverse @ right.numpy(), 1e-8)


def test_nystrom_refuses_a_hessian():
    with pytest.raises(ValueError, match="Arnoldi"):
        Nystrom(2).factor(Matrix(symmetric([1.0, 2.0, -3.0])), Damping(1e-3))


def test_arnoldi_refuses_what_damping_makes_singular():
    with pytest.raises(SingularSystem, match="singular"):
        Arnoldi(3).factor(
            Matrix(symmetric([4.0, 2.0, -1.0, 0.5])), Damping(1.0, relative=False)
        )
