import numpy as np
import oracles
import pytest
import torch

from whence.attribution.influence import Influence
from whence.attribution.quantities import Output
from whence.curvature.automatic import Automatic
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping

MANY, FEW = 2**30, 1000


def choice(operator, budget):
    return Automatic(memory_budget=budget).choice(operator, Damping(1e-6))


def test_exact_while_it_fits_then_what_comes_nearest():
    objective = oracles.burgers_soft(n=40).objective
    operator = GaussNewtonMatrix(objective)
    rows, size = operator.root().shape
    held = 8 * rows * size
    assert choice(operator, MANY).name == "exact"
    assert choice(operator, held).name == "conjugate_gradient"
    assert choice(operator, held - 1).name == "nystrom"
    assert choice(Hessian(objective), FEW).name == "conjugate_gradient"


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_what_it_chooses_works_within_its_budget(share):
    case = oracles.burgers_soft(n=40)
    rows, size = GaussNewtonMatrix(case.objective).root().shape
    points = oracles.target_points(case)
    damping = 1e-3
    budget = int(share * 8 * rows * size)
    found = Influence(case.objective, damping=damping, memory_budget=budget).attribute(
        Output(points)
    )
    expected = oracles.influence(case, oracles.value_gradients(case, points), damping)
    assert found.attrs["solver"] == {1.0: "conjugate_gradient", 0.9: "nystrom"}[share]
    correlation = torch.corrcoef(
        torch.as_tensor(np.stack([found.values.ravel(), expected.ravel()]))
    )[0, 1]
    assert float(correlation) > 0.7
    if share == 1.0:
        oracles.close(found, expected, 1e-6)


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_wrong_budget(budget):
    with pytest.raises(ValueError, match="memory_budget"):
        Automatic(memory_budget=budget)
