"""Factors from elsewhere: exact where they are, and found out where they are not."""

import numpy as np
import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature.failures import SingularSystem

DOUBLE = torch.float64
DAMPING = wh.Damping(0.05, relative=False)


def case(model=None, n=30):
    torch.manual_seed(0)
    x = torch.randn(n, 3, dtype=DOUBLE)
    y = torch.randn(n, 2, dtype=DOUBLE)
    model = model or nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return wh.Objective.supervised(model.double(), (x, y), wh.Squared())


def dense(objective):
    return wh.GaussNewtonMatrix(objective).dense()


def influences(objective, solver, damping=DAMPING):
    return wh.Influence(objective, solver=solver, damping=damping).attribute(wh.Loss())


def exact(objective, damping=DAMPING):
    return influences(objective, wh.Exact(), damping)


# --- eigenpairs --------------------------------------------------------------------------------


def test_all_eigenpairs_are_the_exact_answer():
    objective = case()
    values, vectors = torch.linalg.eigh(dense(objective))
    found = influences(objective, wh.GivenFactors(eigenpairs=(vectors, values)))
    oracles.close(found, exact(objective).values, 1e-9)
    assert found.attrs["solver"] == "given_factors"
    assert found.attrs["solver_residual"] < 1e-9
    assert found.attrs["trace_share"] == pytest.approx(1.0)


@pytest.mark.parametrize("complement", [True, False])
def test_the_largest_eigenpairs_are_those_of_arnoldi(complement):
    objective = case()
    values, vectors = torch.linalg.eigh(dense(objective))
    pairs = vectors[:, -5:], values[-5:]
    solver = wh.GivenFactors(eigenpairs=pairs, complement=complement)
    found = influences(objective, solver)
    arnoldi = influences(objective, wh.Arnoldi(5, complement=complement))
    oracles.close(found, arnoldi.values, 1e-8)


def test_eigenpairs_serve_another_damping():
    objective = case()
    values, vectors = torch.linalg.eigh(dense(objective))
    solver = wh.GivenFactors(eigenpairs=(vectors, values))
    influence = wh.Influence(objective, solver=solver, damping=DAMPING)
    influence.state()
    other = influence.with_damping(wh.Damping(0.5, relative=False))
    found = other.attribute(wh.Loss())
    expected = exact(objective, wh.Damping(0.5, relative=False))
    oracles.close(found, expected.values, 1e-9)


# --- Kronecker factors -------------------------------------------------------------------------


def test_factors_of_a_linear_layer_with_a_bias_are_exact():
    """Of ℓ = ‖Wx + b − y‖² the curvature is I ⊗ 2 E[(x, 1)(x, 1)ᵀ]."""
    objective = case(nn.Linear(3, 2))
    x = objective.term("data").points.inputs[0]
    extended = torch.cat([x, torch.ones(len(x), 1, dtype=DOUBLE)], dim=1)
    factors = 2 * extended.T @ extended / len(x), torch.eye(2, dtype=DOUBLE)
    solver = wh.GivenFactors(kronecker={"": factors})
    found = influences(objective, solver)
    oracles.close(found, exact(objective).values, 1e-9)
    assert found.attrs["solver_residual"] < 1e-9

    influence = wh.Influence(objective, solver=solver, damping=DAMPING)
    influence.state()
    other = wh.Damping(0.5, relative=False)
    again = influence.with_damping(other).attribute(wh.Loss())
    oracles.close(again, exact(objective, other).values, 1e-9)


def test_factors_of_several_layers_are_their_dense_inverse():
    objective = case()
    factors = {}
    blocks = []
    generator = torch.Generator().manual_seed(1)
    for name, inner, outer in (("0", 4, 4), ("2", 5, 2)):
        roots = [
            torch.randn(size, size, generator=generator, dtype=DOUBLE)
            for size in (inner, outer)
        ]
        inputs, outputs = (root @ root.T for root in roots)
        factors[name] = inputs, outputs
        # Row by row of (out, in + 1): weights and bias of each output together.
        places = torch.arange(inner * outer).reshape(outer, inner)
        order = torch.cat([places[:, :-1].reshape(-1), places[:, -1]])
        block = torch.kron(outputs, inputs)
        blocks.append(block[order][:, order])

    matrix = torch.block_diag(*blocks) + 0.05 * torch.eye(
        len(dense(objective)), dtype=DOUBLE
    )
    right = torch.randn(len(matrix), 3, generator=generator, dtype=DOUBLE)
    state = wh.GivenFactors(kronecker=factors).factor(
        wh.GaussNewtonMatrix(objective), DAMPING
    )
    solution = state.solve(right)
    oracles.close(solution.value, np.linalg.solve(matrix, right), 1e-9)

    # They are not this network's factors, and the residual of its system says so.
    system = dense(objective) + 0.05 * torch.eye(len(matrix), dtype=DOUBLE)
    column = right[:, :1]
    solution = state.solve(column)
    error = (column - system @ solution.value).norm() / column.norm()
    assert solution.residual == pytest.approx(float(error), rel=1e-6)
    assert solution.residual > 0.1


def test_factors_of_a_convolution_are_those_of_its_weight():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 2))
    x, y = torch.randn(12, 1, 3, 3, dtype=DOUBLE), torch.arange(12) % 2
    objective = wh.Objective.supervised(
        model.double(), (x, y), wh.CrossEntropy(), parameters="0.*"
    )
    identity = torch.eye(5, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE)
    solver = wh.GivenFactors(kronecker={"0": identity})
    state = solver.factor(wh.GaussNewtonMatrix(objective), DAMPING)
    right = torch.randn(10, 2, dtype=DOUBLE)
    oracles.close(state.solve(right).value, right.numpy() / 1.05, 1e-12)


# --- an inverse --------------------------------------------------------------------------------


def test_an_inverse_is_used_as_it_is():
    objective = case()
    matrix = dense(objective)
    system = matrix + 0.05 * torch.eye(len(matrix), dtype=DOUBLE)

    def inverse(vectors):
        return torch.linalg.solve(system, vectors)

    found = influences(objective, wh.GivenFactors(inverse=inverse))
    oracles.close(found, exact(objective).values, 1e-9)
    assert found.attrs["solver_residual"] < 1e-9

    wrong = influences(objective, wh.GivenFactors(inverse=lambda vectors: vectors))
    assert wrong.attrs["solver_residual"] > 0.1
    assert "not solved" in str(wrong.quality())


# --- errors ------------------------------------------------------------------------------------


def test_one_kind_of_factors_is_needed():
    with pytest.raises(ValueError, match=r"needs one of .* got none"):
        wh.GivenFactors()
    with pytest.raises(ValueError, match="got kronecker and inverse"):
        wh.GivenFactors(kronecker={}, inverse=abs)
    with pytest.raises(TypeError, match="inverse must be a function"):
        wh.GivenFactors(inverse=torch.eye(2))


def test_factors_that_do_not_suit_are_refused():
    objective = case()
    operator = wh.GaussNewtonMatrix(objective)

    def factor(damping=DAMPING, **factors):
        return wh.GivenFactors(**factors).factor(operator, damping)

    size = operator.size
    eye = torch.eye(size, dtype=DOUBLE)
    with pytest.raises(ValueError, match=rf"shapes \({size}, r\) and \(r,\)"):
        factor(eigenpairs=(eye[:3], torch.ones(size)))
    with pytest.raises(ValueError, match="orthonormal"):
        factor(eigenpairs=(2 * eye[:, :3], torch.ones(3)))
    with pytest.raises(ValueError, match="eigenvalues must be finite"):
        factor(eigenpairs=(eye[:, :1], torch.tensor([torch.nan])))
    with pytest.raises(TypeError, match="eigenvectors must be a tensor"):
        factor(eigenpairs=([1.0], torch.ones(1)))
    with pytest.raises(SingularSystem, match="complement=False"):
        factor(wh.Damping(0.0), eigenpairs=(eye[:, :2], torch.ones(2)))

    four, two = torch.eye(4), torch.eye(2)
    with pytest.raises(ValueError, match="no factors for '2'"):
        factor(kronecker={"0": (four, four)})
    with pytest.raises(ValueError, match="factors for '4'"):
        factor(kronecker={"0": (four, four), "2": (four, two), "4": (two, two)})
    with pytest.raises(ValueError, match=r"F of '2' must have shape \(5, 5\)"):
        factor(kronecker={"0": (four, four), "2": (four, two)})
    zero = torch.zeros(5, 5)
    with pytest.raises(SingularSystem, match="zero eigenvalue"):
        factor(wh.Damping(0.0), kronecker={"0": (four, four), "2": (zero, two)})

    state = factor(inverse=lambda vectors: vectors[:2])
    with pytest.raises(ValueError, match="inverse must return a tensor of the shape"):
        state.solve(eye)


def test_layers_without_a_matrix_are_named():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    operator = wh.GaussNewtonMatrix(case(model.eval()))
    factors = {name: (torch.eye(2), torch.eye(2)) for name in ("0", "1", "2")}
    factors["0"] = torch.eye(4), torch.eye(4)
    with pytest.raises(ValueError, match=r"'1\.weight' has shape"):
        wh.GivenFactors(kronecker=factors).factor(operator, DAMPING)
