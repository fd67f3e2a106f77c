import oracles
import pytest
import torch

from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.objective import Objective, Term

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


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("name", oracles.CASES)
def test_gauss_newton_against_brute_force(name, chunk):
    case = oracles.CASES[name]()
    expected = oracles.gauss_newton(case)
    operator = GaussNewtonMatrix(case.objective, chunk=chunk)
    v = random(operator.size)
    oracles.close(operator.dense(), expected, 1e-12)
    oracles.close(operator.matvec(v), expected @ v.numpy(), 1e-12)
    root = operator.root().dense()
    oracles.close(root.T @ root, expected, 1e-12)
    assert operator.semidefinite


@pytest.mark.parametrize("name", SMALL)
def test_hessian_against_reverse_over_reverse(name):
    case = SMALL[name]()
    expected = oracles.loss_hessian(case)
    operator = Hessian(case.objective)
    v = random(operator.size)
    oracles.close(operator.dense(), expected, 1e-12)
    oracles.close(operator.matvec(v), expected @ v.numpy(), 1e-12)
    assert operator.root() is None
    assert not operator.semidefinite


def test_hessian_of_more_columns_than_fit_at_once(monkeypatch):
    case = SMALL["hard"]()
    expected = Hessian(case.objective).dense()
    monkeypatch.setattr("whence.curvature.operators.HESSIAN_COLUMNS", 5)
    oracles.close(Hessian(case.objective).dense(), expected, 1e-13)


def test_they_agree_where_residuals_vanish():
    case = SMALL["soft"]()
    terms = []
    for term in case.objective.terms.values():
        at = term.residual(case.objective.parameters.tensors(), term.points).detach()
        index = torch.arange(len(at), dtype=torch.float64).unsqueeze(1)

        def shifted(tensors, z, term=term, at=at):
            return term.residual(tensors, z[:, :2]) - at[z[:, 2].long()]

        terms.append(
            Term(term.name, shifted, torch.cat([term.points, index], 1), term.weight)
        )
    objective = Objective(
        case.objective.network, terms, coordinates=("x", "t", "index")
    )
    assert objective.loss() < 1e-28
    oracles.close(
        Hessian(objective).dense(), GaussNewtonMatrix(objective).dense(), 1e-12
    )
    oracles.close(
        GaussNewtonMatrix(objective).dense(), oracles.gauss_newton(case), 1e-12
    )


def test_scaling_of_weights_and_of_copies_of_points():
    """The curvature is linear in the weights, and a mean: copies of every point change nothing."""
    case = oracles.burgers_soft(n=4, widths=(2, 4, 1))
    one = GaussNewtonMatrix(case.objective).dense()
    weights = {n: 3 * t.weight for n, t in case.objective.terms.items()}
    oracles.close(
        GaussNewtonMatrix(case.objective.with_weights(weights)).dense(), 3 * one, 1e-12
    )
    twice = {n: t.points.repeat(2, 1) for n, t in case.objective.terms.items()}
    oracles.close(
        GaussNewtonMatrix(case.objective.with_points(twice)).dense(), one, 1e-12
    )
    oracles.close(
        Hessian(case.objective.with_points(twice)).dense(),
        Hessian(case.objective).dense(),
        1e-12,
    )
