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


def root_of(matrix):
    return Root(torch.linalg.cholesky(matrix, upper=True))


def truncated(matrix, rank, damping, right, complement=True):
    """The truncated eigendecomposition's answer, λ relative to the largest eigenvalue."""
    values, vectors = linalg.eigh(matrix)
    order = np.argsort(-np.abs(values))[:rank]
    values = values[order]
    vectors = vectors[:, order]
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
    shifted = low + damping * largest(matrix) * np.eye(size)
    return linalg.solve(shifted, right)


# --- against their definitions -----------------------------------------------------------------


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
    expected = truncated(matrix, kept, 1e-4, right, complement)
    oracles.close(solution.value, expected, 1e-8)

    values = np.sort(linalg.eigvalsh(matrix))[::-1]
    share = values[:rank].sum() / values.sum()
    assert state.spectrum.trace_share == pytest.approx(share)


def test_arnoldi_takes_the_eigenvalues_of_largest_magnitude_of_a_hessian():
    case = oracles.burgers_soft(n=5, widths=(2, 4, 1))
    matrix = oracles.loss_hessian(case)
    right = random(len(matrix), 3)
    state = Arnoldi(6).factor(Hessian(case.objective), Damping(1e-2))
    expected = truncated(matrix, 6, 1e-2, right.numpy())
    oracles.close(state.solve(right).value, expected, 1e-7)

    kept = sorted(linalg.eigvalsh(matrix), key=abs)[-6:]
    negative = sum(value < 0 for value in kept)
    assert state.spectrum.negative_eigenvalues_held == negative


@pytest.mark.parametrize("rank", [1, 5, 9])
def test_nystrom_is_its_definition(rank):
    case = oracles.burgers_hard()
    matrix = oracles.gauss_newton(case)
    right = oracles.loss_gradients(case)[0].T
    solver = Nystrom(rank, seed=3)
    state = solver.factor(GaussNewtonMatrix(case.objective), Damping(1e-4))
    solution = state.solve(torch.as_tensor(right.copy()))

    expected = nystrom_by_hand(matrix, rank, 3, 1e-4, right)
    oracles.close(solution.value, expected, 1e-6)


# --- Nyström of a Hessian ----------------------------------------------------------------------

INDEFINITE = [3.0, 2.0, 1.0, 0.5, 0.1, 0.0, 0.0, -0.05, -0.2, -0.4]


def test_nystrom_of_an_indefinite_matrix_is_that_of_the_shifted_one():
    """The definition: (A + sI)Ω(Ωᵀ(A + sI)Ω)⁻¹Ωᵀ(A + sI) − s within its range, λ outside."""
    matrix = symmetric(INDEFINITE).numpy()
    size, rank, damping = len(matrix), 6, 1.0
    solver = Nystrom(rank, seed=3)
    state = solver.factor(
        Matrix(torch.as_tensor(matrix)), Damping(damping, relative=False)
    )

    # The smallest eigenvalue is −0.4, and the shift a little more than its size.
    assert state.spectrum.smallest_eigenvalue == pytest.approx(-0.4, abs=1e-3)
    shift = 0.4 + 2e-4 * 3.4
    omega = np.random.default_rng(3).standard_normal((size, rank))
    image = (matrix + shift * np.eye(size)) @ omega
    low = image @ linalg.inv(omega.T @ image) @ image.T
    basis, _ = linalg.qr(image, mode="economic")
    approximation = low - shift * basis @ basis.T
    right = random(size, 3)
    expected = linalg.solve(approximation + damping * np.eye(size), right.numpy())
    oracles.close(state.solve(right).value, expected, 1e-3)


@pytest.mark.parametrize("damping", [1.0, 0.3])
def test_nystrom_of_a_hessian_of_full_rank_is_the_dense_answer(damping):
    """Also with a damping that leaves A + λI indefinite."""
    matrix = symmetric(INDEFINITE)
    solver = Nystrom(len(matrix))
    solution = solver.factor(Matrix(matrix), Damping(damping, relative=False)).solve(
        right := random(len(matrix), 4)
    )
    shifted = matrix.numpy() + damping * np.eye(len(matrix))
    oracles.close(solution.value, linalg.solve(shifted, right.numpy()), 1e-8)
    assert solution.residual < 1e-8


def test_nystrom_of_the_hessian_of_a_network():
    case = oracles.burgers_soft(n=5, widths=(2, 4, 1))
    matrix = oracles.loss_hessian(case)
    values = linalg.eigvalsh(matrix)
    assert values[0] < -1e-3 * values[-1]  # there is something to shift
    right = random(len(matrix), 3)
    state = Nystrom(len(matrix)).factor(Hessian(case.objective), Damping(1e-2))
    largest_value = np.abs(values).max()
    assert state.spectrum.largest_eigenvalue == pytest.approx(largest_value, rel=1e-6)
    shifted = matrix + 1e-2 * largest_value * np.eye(len(matrix))
    expected = linalg.solve(shifted, right.numpy())
    oracles.close(state.solve(right).value, expected, 1e-6)

    # Another damping from the same sketch.
    again = state.redamped(2.0 * largest_value)
    shifted = matrix + 2.0 * largest_value * np.eye(len(matrix))
    expected = linalg.solve(shifted, right.numpy())
    oracles.close(again.solve(right).value, expected, 1e-6)
    assert again.spectrum.smallest_eigenvalue == state.spectrum.smallest_eigenvalue


def test_a_sketch_gains_by_its_rank():
    matrix = symmetric([*(0.7**k for k in range(40)), *(-0.01 for _ in range(20))])
    right = random(60, 5)
    expected = linalg.solve(matrix.numpy() + 0.05 * np.eye(60), right.numpy())
    errors = []
    for rank in (10, 30, 60):
        state = Nystrom(rank).factor(Matrix(matrix), Damping(0.05, relative=False))
        value = state.solve(right).value.numpy()
        errors.append(linalg.norm(value - expected) / linalg.norm(expected))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8


@pytest.mark.parametrize("solver", [Arnoldi(rank=12), Nystrom(rank=12)])
def test_full_rank_is_exact(solver):
    matrix = symmetric([10.0**-k for k in range(12)])
    right = random(12, 40)
    solution = solver.factor(root_of(matrix), Damping(1e-3)).solve(right)

    shifted = matrix.numpy() + 1e-3 * np.eye(12)
    expected = linalg.solve(shifted, right.numpy())
    oracles.close(solution.value, expected, 1e-8)
    assert solution.residual < 1e-8


def test_without_the_complement_zero_damping_is_the_pseudo_inverse():
    rows = random(5, 9)
    right = random(9, 3, seed=1)
    solver = Arnoldi(5, complement=False)
    solution = solver.factor(Root(rows), Damping(0.0)).solve(right)

    inverse = linalg.pinv((rows.T @ rows).numpy(), rtol=1e-10)
    oracles.close(solution.value, inverse @ right.numpy(), 1e-8)


# --- rank --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Arnoldi, Nystrom])
def test_the_rank_grows_until_the_tolerance_is_met(kind):
    matrix = symmetric([0.9**k for k in range(200)])
    operator = root_of(matrix)

    def spectrum(**options):
        return kind(**options).factor(operator, Damping(1e-3)).spectrum

    tight = spectrum(tolerance=1e-6)
    assert tight.rank == 200
    assert tight.trace_share >= 1 - 1e-6

    loose = spectrum(tolerance=0.05)
    assert loose.rank == 50
    assert loose.trace_share >= 0.95
    assert spectrum(rank=60, tolerance=1e-6).rank == 60


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Arnoldi, Nystrom])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": 1.0}, "below 1"),
        ({"memory_budget": -1}, "memory_budget"),
    ],
)
def test_wrong_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
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


def test_arnoldi_refuses_what_damping_makes_singular():
    hessian = Matrix(symmetric([4.0, 2.0, -1.0, 0.5]))
    with pytest.raises(SingularSystem, match="singular"):
        Arnoldi(3).factor(hessian, Damping(1.0, relative=False))
