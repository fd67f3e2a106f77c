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


def layer_places(network):
    """Where the parameters of each layer of a sequence are in θ."""
    places = {}
    start = 0
    for name, parameter in network.named_parameters():
        layer = name.split(".")[0]
        end = start + parameter.numel()
        places.setdefault(layer, []).extend(range(start, end))
        start = end
    return list(places.values())


def inverse_of(row, count, damping):
    """(R j jᵀ + λI)⁻¹."""
    matrix = count * np.outer(row, row) + damping * np.eye(len(row))
    return linalg.inv(matrix)


@pytest.mark.parametrize("name", oracles.CASES)
def test_it_is_the_mean_of_inverses_layer_by_layer(name):
    case = oracles.CASES[name]()
    rows = oracles.jacobian(case, scaled=True)
    damping = 1e-3 * linalg.eigvalsh(rows.T @ rows)[-1]
    right = random(rows.shape[1], 3)

    expected = np.zeros(right.shape)
    for columns in layer_places(case.objective.network):
        inverses = [inverse_of(row, len(rows), damping) for row in rows[:, columns]]
        expected[columns] = np.mean(inverses, axis=0) @ right.numpy()[columns]

    state = DataInf().factor(GaussNewtonMatrix(case.objective), Damping(1e-3))
    oracles.close(state.solve(right).value, expected, 1e-10)


def test_chunks_do_not_matter():
    objective = oracles.burgers_soft().objective
    right = random(objective.parameters.size, 2)

    def solved(chunk):
        operator = GaussNewtonMatrix(objective, chunk=chunk)
        return DataInf().factor(operator, Damping(1e-3)).solve(right).value

    oracles.close(solved(None), solved(2), 1e-12)


def test_what_cannot_be_factored():
    objective = oracles.burgers_soft(n=5, widths=(2, 4, 1)).objective
    operator = GaussNewtonMatrix(objective)
    with pytest.raises(ValueError, match="gauss_newton"):
        DataInf().factor(Hessian(objective), Damping(1e-3))
    with pytest.raises(SingularSystem, match="above zero"):
        DataInf().factor(operator, Damping(0.0))

    with torch.no_grad():
        objective.network[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        DataInf().factor(operator, Damping(1e-3))
