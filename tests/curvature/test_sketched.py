import tracemalloc

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

DOUBLE = torch.empty(0, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["sparse", "gaussian"])
@pytest.mark.parametrize("name", oracles.CASES)
def test_it_is_ridge_regression_on_projected_rows(name, kind):
    case = oracles.CASES[name]()
    rows = oracles.jacobian(case, scaled=True)
    damping = 1e-3 * linalg.eigvalsh(rows.T @ rows)[-1]
    right = random(rows.shape[1], 3)

    solver = Sketched(20, kind=kind, seed=2)
    sketch = solver.draw(rows.shape[1], case.theta).dense().numpy()
    projected = rows @ sketch
    inner = projected.T @ projected + damping * np.eye(20)
    expected = sketch @ linalg.solve(inner, sketch.T @ right.numpy())

    for chunk in (None, 2):
        operator = GaussNewtonMatrix(case.objective, chunk=chunk)
        state = solver.factor(operator, Damping(1e-3))
        oracles.close(state.solve(right).value, expected, 1e-10)


@pytest.mark.parametrize(
    "solver",
    [Sketched(64), Sketched(64, nonzeros=1), Sketched(64, kind="gaussian")],
    ids=repr,
)
def test_inner_products_are_kept_in_the_mean(solver):
    """E[S Sᵀ] = I, so that projected gradients have the products of the gradients."""
    size = 2 * BLOCK + 7
    sketch = solver.draw(size, DOUBLE).dense()
    assert sketch.shape == (size, 64)
    assert torch.equal(sketch, solver.draw(size, DOUBLE).dense())

    product = sketch @ sketch.T
    diagonal = product.diagonal()
    assert float(diagonal.mean()) == pytest.approx(1, abs=0.05)

    off_diagonal = product - torch.diag(diagonal)
    assert abs(float(off_diagonal.mean())) < 1e-3
    assert float(off_diagonal.square().mean()) == pytest.approx(1 / 64, rel=0.1)


def test_the_sparse_rows_have_their_entries_in_different_places():
    sketch = Sketched(16, nonzeros=5).draw(300, DOUBLE).dense()
    entries = (sketch != 0).sum(dim=1)
    assert bool((entries == 5).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension"),
        ({"kind": "sparce"}, "did you mean 'sparse'"),
        ({"nonzeros": 0}, "nonzeros"),
        ({"dimension": 3, "nonzeros": 4}, "above the dimension"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Sketched(**options)


def test_what_cannot_be_factored():
    objective = oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective
    operator = GaussNewtonMatrix(objective)
    with pytest.raises(ValueError, match="gauss_newton"):
        Sketched(5).factor(Hessian(objective), Damping(1e-3))
    with pytest.raises(ValueError, match="above the number of parameters"):
        Sketched(18).factor(operator, Damping(1e-3))
    with pytest.raises(MemoryError, match="lower its dimension"):
        Sketched(5, memory_budget=10).factor(operator, Damping(1e-3))

    # Three points, so that the projected curvature has rank three of fifteen.
    few = oracles.burgers_hard(n=3, widths=(2, 8, 1)).objective
    with pytest.raises(SingularSystem, match="singular"):
        Sketched(15).factor(GaussNewtonMatrix(few), Damping(0.0))


def test_to_draw_a_sparse_sketch_takes_no_more_than_a_block_besides():
    """Places and signs take half a megabyte, a random number for each entry of S 160 times that."""
    tracemalloc.start()
    drawn = Sketched(512, nonzeros=2).draw(40 * 1024, torch.zeros(1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (drawn.size, drawn.columns) == (40 * 1024, 512)
    assert peak < 4e6
