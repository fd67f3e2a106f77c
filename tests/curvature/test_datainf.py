import numpy as np
import oracles
import pytest
import torch
from matrices import random
from scipy import linalg

from whence.curvature.datainf import DataInf
from whence.curvature.failures import SingularSystem
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.curvature.solvers import Damping


@pytest.mark.parametrize("name", oracles.CASES)
def test_it_is_the_mean_of_inverses_layer_by_layer(name):
    case = oracles.CASES[name]()
    rows = oracles.jacobian(case, scaled=True)
    damping = 1e-3 * linalg.eigvalsh(rows.T @ rows)[-1]
    right = random(rows.shape[1], 3)
    expected = np.zeros(right.shape)
    names, start = {}, 0
    for parameter, tensor in case.objective.network.named_parameters():
        layer = parameter.split(".")[0]
        names.setdefault(layer, []).extend(range(start, start + tensor.numel()))
        start += tensor.numel()
    for columns in names.values():
        part = rows[:, columns]
        inverses = [
            linalg.inv(len(rows) * np.outer(row, row) + damping * np.eye(len(row)))
            for row in part
        ]
        expected[columns] = np.mean(inverses, axis=0) @ right.numpy()[columns]
    state = DataInf().factor(GaussNewtonMatrix(case.objective), Damping(1e-3))
    oracles.close(state.solve(right).value, expected, 1e-10)


def test_chunks_do_not_matter():
    objective = oracles.burgers_soft().objective
    right = random(objective.parameters.size, 2)
    one, other = (
        DataInf()
        .factor(GaussNewtonMatrix(objective, chunk=c), Damping(1e-3))
        .solve(right)
        .value
        for c in (None, 2)
    )
    oracles.close(one, other, 1e-12)


def test_what_cannot_be_factored():
    objective = oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective
    with pytest.raises(ValueError, match="gauss_newton"):
        DataInf().factor(Hessian(objective), Damping(1e-3))
    with pytest.raises(SingularSystem, match="above zero"):
        DataInf().factor(GaussNewtonMatrix(objective), Damping(0.0))
    with torch.no_grad():
        objective.network[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        DataInf().factor(GaussNewtonMatrix(objective), Damping(1e-3))
