import numpy as np
import oracles
import pytest

from whence.attribution.influence import Influence
from whence.attribution.quantities import Output
from whence.curvature.automatic import Automatic
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping

MANY = 2**30
FEW = 1000


def choice(operator, budget):
    solver = Automatic(memory_budget=budget).choice(operator, Damping(1e-6))
    return solver.name


def row_bytes(objective):
    rows, size = GaussNewtonMatrix(objective).root().shape
    return 8 * rows * size


def test_exact_while_it_fits_then_what_comes_nearest():
    objective = oracles.burgers_soft(n=40).objective
    operator = GaussNewtonMatrix(objective)
    needed = row_bytes(objective)
    assert choice(operator, MANY) == "exact"
    assert choice(operator, needed) == "conjugate_gradient"
    assert choice(operator, needed - 1) == "nystrom"
    assert choice(Hessian(objective), FEW) == "conjugate_gradient"


@pytest.mark.parametrize(
    ("share", "solver"), [(1.0, "conjugate_gradient"), (0.9, "nystrom")]
)
def test_what_it_chooses_works_within_its_budget(share, solver):
    case = oracles.burgers_soft(n=40)
    points = oracles.target_points(case)
    damping = 1e-3
    budget = int(share * row_bytes(case.objective))
    influence = Influence(case.objective, damping=damping, memory_budget=budget)
    attribution = influence.attribute(Output(points))
    assert attribution.attrs["solver"] == solver

    gradients = oracles.value_gradients(case, points)
    expected = oracles.influence(case, gradients, damping)
    correlation = np.corrcoef(attribution.values.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.7
    if share == 1.0:
        oracles.close(attribution, expected, 1e-6)


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_wrong_budget(budget):
    with pytest.raises(ValueError, match="memory_budget"):
        Automatic(memory_budget=budget)
