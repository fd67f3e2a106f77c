import oracles
import pytest
import torch

from whence.curvature.operators import Damped, DenseMatrix, GaussNewtonMatrix, Hessian
from whence.objective import Objective
from whence.space import Space
from whence.term import Term

SMALL = {
    "hard": lambda: oracles.burgers_hard(n=4, widths=(2, 4, 1)),
    "soft": lambda: oracles.burgers_soft(n=4, widths=(2, 4, 1)),
    "flow": lambda: oracles.navier_stokes(n=2, widths=(2, 3, 3)),
    "soft, part": lambda: oracles.burgers_soft(n=4, widths=(2, 4, 3, 1), select="2.*"),
}


def random(n):
    return torch.randn(
        n, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


# --- Gauss–Newton matrix and Hessian -----------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("name", oracles.CASES)
def test_gauss_newton_against_brute_force(name, chunk):
    case = oracles.CASES[name]()
    expected = oracles.gauss_newton(case)
    operator = GaussNewtonMatrix(case.objective, chunk=chunk)
    vector = random(operator.size)
    oracles.close(operator.dense(), expected, 1e-12)
    oracles.close(operator.matvec(vector), expected @ vector.numpy(), 1e-12)

    root = operator.root().dense()
    oracles.close(root.T @ root, expected, 1e-12)
    assert operator.semidefinite


@pytest.mark.parametrize("name", SMALL)
def test_hessian_against_reverse_over_reverse(name):
    case = SMALL[name]()
    expected = oracles.loss_hessian(case)
    operator = Hessian(case.objective)
    vector = random(operator.size)
    oracles.close(operator.dense(), expected, 1e-12)
    oracles.close(operator.matvec(vector), expected @ vector.numpy(), 1e-12)
    assert operator.root() is None
    assert not operator.semidefinite


def test_hessian_of_more_columns_than_fit_at_once(monkeypatch):
    case = SMALL["hard"]()
    expected = Hessian(case.objective).dense()
    monkeypatch.setattr("whence.curvature.operators.HESSIAN_COLUMNS", 5)
    oracles.close(Hessian(case.objective).dense(), expected, 1e-13)


def residuals_taken_off(term, tensors):
    """The term with what its residuals are at these parameters taken off: they vanish there."""
    constants = term.residual(tensors, term.points).detach()
    places = torch.arange(len(constants), dtype=torch.float64).unsqueeze(1)

    def residual(tensors, points):
        z, place = points[:, :2], points[:, 2].long()
        return term.residual(tensors, z) - constants[place]

    points = torch.cat([term.points, places], dim=1)
    return Term(term.name, residual, points, term.weight)


def test_they_agree_where_residuals_vanish():
    case = SMALL["soft"]()
    tensors = case.objective.parameters.tensors()
    terms = [residuals_taken_off(t, tensors) for t in case.objective.terms.values()]
    objective = Objective(
        case.objective.network, terms, space=Space(coordinates=("x", "t", "index"))
    )
    assert objective.loss() < 1e-28

    gauss_newton = GaussNewtonMatrix(objective).dense()
    oracles.close(Hessian(objective).dense(), gauss_newton, 1e-12)
    oracles.close(gauss_newton, oracles.gauss_newton(case), 1e-12)


@pytest.mark.parametrize("curvature", [GaussNewtonMatrix, Hessian])
def test_curvature_is_linear_in_the_weights(curvature):
    objective = oracles.burgers_soft(n=4, widths=(2, 4, 1)).objective
    weights = {name: 3 * term.weight for name, term in objective.terms.items()}
    heavier = objective.with_weights(weights)
    oracles.close(curvature(heavier).dense(), 3 * curvature(objective).dense(), 1e-12)


@pytest.mark.parametrize("curvature", [GaussNewtonMatrix, Hessian])
def test_curvature_is_a_mean_so_copies_of_every_point_change_nothing(curvature):
    objective = oracles.burgers_soft(n=4, widths=(2, 4, 1)).objective
    twice = {name: t.points.repeat(2, 1) for name, t in objective.terms.items()}
    copied = objective.with_points(twice)
    oracles.close(curvature(copied).dense(), curvature(objective).dense(), 1e-12)


# --- operators made of others ------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [GaussNewtonMatrix, Hessian])
def test_damped_adds_the_damping_to_every_product(curvature):
    objective = SMALL["soft"]().objective
    operator = curvature(objective)
    damped = Damped(operator, 0.7)
    expected = operator.dense() + 0.7 * torch.eye(operator.size, dtype=torch.float64)

    vectors = torch.stack([random(operator.size), random(operator.size) ** 2], dim=1)
    oracles.close(damped.dense(), expected, 1e-13)
    oracles.close(damped.matmat(vectors), expected @ vectors, 1e-12)
    oracles.close(damped.matvec(vectors[:, 1]), expected @ vectors[:, 1], 1e-12)
    assert damped.trace() == pytest.approx(operator.trace() + 0.7 * operator.size)


def test_damped_answers_for_its_operator():
    objective = SMALL["hard"]().objective
    operator = GaussNewtonMatrix(objective)
    damped = Damped(operator, 0.7)
    assert (damped.size, damped.objective) == (operator.size, objective)
    assert damped.like().dtype is torch.float64
    assert damped.root() is None  # that of A is not that of A + λI
    assert damped.kernel() is None

    assert damped.semidefinite
    assert not Damped(operator, -0.7).semidefinite
    assert not Damped(Hessian(objective), 0.7).semidefinite


def test_damped_of_some_points_and_from_memory():
    operator = GaussNewtonMatrix(SMALL["hard"]().objective)
    damped = Damped(operator, 0.7)
    eye = torch.eye(operator.size, dtype=torch.float64)

    some = {"pde": torch.tensor([0, 2])}
    part = damped.subset(some)
    oracles.close(part.dense(), operator.subset(some).dense() + 0.7 * eye, 1e-13)

    assert not damped.is_cached
    cached = damped.cached(2**30)
    assert cached.is_cached
    oracles.close(cached.matmat(eye), damped.dense(), 1e-12)


def test_damping_a_matrix_leaves_it_as_it_was():
    matrix = DenseMatrix(GaussNewtonMatrix(SMALL["hard"]().objective))
    before = matrix.dense().clone()
    Damped(matrix, 0.7).dense()
    assert torch.equal(matrix.dense(), before)


@pytest.mark.parametrize("name", SMALL)
def test_operators_from_memory_are_the_same(name):
    operator = GaussNewtonMatrix(SMALL[name]().objective)
    size = operator.size
    rows, _ = operator.root().shape
    assert operator.cached(8 * rows * size - 1) is operator

    vector = random(size)
    for cached in (operator.cached(8 * rows * size), DenseMatrix(operator)):
        assert cached.is_cached
        assert cached.cached(0) is cached
        oracles.close(cached.matvec(vector), operator.matvec(vector), 1e-12)
        oracles.close(cached.dense(), operator.dense(), 1e-12)
        assert cached.trace() == pytest.approx(operator.trace(), rel=1e-12)
        assert cached.root() is operator.root()
        assert cached.semidefinite
