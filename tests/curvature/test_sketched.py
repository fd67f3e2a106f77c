import numpy as np
import oracles
import pytest
import torch
from matrices import random
from scipy import linalg

from whence.curvature.failures import SingularSystem
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.sketched import BLOCK, Sketched
from whence.curvature.solvers import Damping


@pytest.mark.parametrize("kind", ["sparse", "gaussian"])
@pytest.mark.parametrize("name", oracles.CASES)
def test_it_is_ridge_regression_on_projected_rows(name, kind):
    case = oracles.CASES[name]()
    rows = oracles.jacobian(case, scaled=True)
    solver = Sketched(20, kind=kind, seed=2)
    matrix = solver.matrix(rows.shape[1], case.theta).to_dense().numpy()
    projected = rows @ matrix
    damping = 1e-3 * linalg.eigvalsh(rows.T @ rows)[-1]
    right = random(rows.shape[1], 3)
    inner = projected.T @ projected + damping * np.eye(20)
    expected = matrix @ linalg.solve(inner, matrix.T @ right.numpy())
    for chunk in (None, 2):
        state = solver.factor(
            GaussNewtonMatrix(case.objective, chunk=chunk), Damping(1e-3)
        )
        oracles.close(state.solve(right).value, expected, 1e-10)


@pytest.mark.parametrize(
    "solver",
    [Sketched(64), Sketched(64, nonzeros=1), Sketched(64, kind="gaussian")],
    ids=repr,
)
def test_inner_products_are_kept_in_the_mean(solver):
    """E[S Sᵀ] = I, so that projected gradients have the products of the gradients."""
    like = torch.empty(0, dtype=torch.float64)
    matrix = solver.matrix(2 * BLOCK + 7, like).to_dense()
    assert matrix.shape == (2 * BLOCK + 7, 64)
    assert torch.equal(matrix, solver.matrix(2 * BLOCK + 7, like).to_dense())
    product = matrix @ matrix.T
    assert float(product.diagonal().mean()) == pytest.approx(1, abs=0.05)
    away = product - torch.diag(product.diagonal())
    assert abs(float(away.mean())) < 1e-3
    assert float(away.square().mean()) == pytest.approx(1 / 64, rel=0.1)


def test_the_sparse_rows_have_their_entries_in_different_places():
    matrix = (
        Sketched(16, nonzeros=5)
        .matrix(300, torch.empty(0, dtype=torch.float64))
        .to_dense()
    )
    assert bool(((matrix != 0).sum(dim=1) == 5).all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dimension": 0}, "dimension"),
        ({"kind": "sparce"}, "did you mean 'sparse'"),
        ({"nonzeros": 0}, "nonzeros"),
        ({"dimension": 3, "nonzeros": 4}, "above the dimension"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(ValueError, match=said):
        Sketched(**options)


def test_what_cannot_be_factored():
    objective = oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective
    with pytest.raises(ValueError, match="gauss_newton"):
        Sketched(5).factor(Hessian(objective), Damping(1e-3))
    with pytest.raises(ValueError, match="above the number of parameters"):
        Sketched(18).factor(GaussNewtonMatrix(objective), Damping(1e-3))
    with pytest.raises(MemoryError, match="lower its dimension"):
        Sketched(5, memory_budget=10).factor(
            GaussNewtonMatrix(objective), Damping(1e-3)
        )
    with pytest.raises(SingularSystem, match="singular"):
        Sketched(15).factor(
            GaussNewtonMatrix(oracles.burgers_hard(n=3, widths=(2, 8, 1)).objective),
            Damping(0.0),
        )
