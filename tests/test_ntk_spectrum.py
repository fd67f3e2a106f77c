"""Blocks, traces, spectra and rates of the tangent kernel against Jacobians of torch.func."""

import math

import numpy as np
import oracles
import pytest
import torch
from scipy import linalg
from torch.func import jacrev

from whence import ntk, pinn
from whence.jacobian import Jacobian
from whence.objective import Objective
from whence.term import Term

CASES = {"soft": oracles.burgers_soft, "hard": oracles.burgers_hard}


def rows_by_hand(case):
    """The Jacobian of each term's residuals, point by point, as (rows, P)."""
    theta, found = case.theta, {}
    for name, term in case.objective.terms.items():

        def residual(t, z, name=name):
            return case.residuals[name](case.tensors(t), z)

        rows = [jacrev(residual)(theta, z) for z in term.points]
        found[name] = torch.cat(rows).numpy()
    return found


def scaled_by_hand(case):
    terms = case.objective.terms
    return {
        name: rows * math.sqrt(2 * terms[name].weight / len(terms[name].points))
        for name, rows in rows_by_hand(case).items()
    }


@pytest.fixture(name="case", params=CASES)
def _case(request):
    return CASES[request.param]()


def test_blocks(case):
    rows = rows_by_hand(case)
    found = ntk.blocks(case.objective)
    assert set(found) == {(k, j) for k in rows for j in rows}
    for (k, j), block in found.items():
        oracles.close(block, rows[k] @ rows[j].T, 1e-12)


def test_scaled_blocks_carry_weight_and_number_of_points(case):
    objective = case.objective.with_weights({next(iter(case.objective.terms)): 3.0})
    case.objective = objective
    rows = scaled_by_hand(case)
    for (k, j), block in ntk.blocks(objective, scaled=True).items():
        oracles.close(block, rows[k] @ rows[j].T, 1e-12)


def test_traces(case):
    for name, rows in rows_by_hand(case).items():
        assert ntk.traces(case.objective)[name] == pytest.approx(
            (rows**2).sum(), rel=1e-12
        )


def test_traces_of_several_components_and_of_layers_used_twice():
    def momentum(u, v, p, u_x, u_y, u_xx):
        return u * u_x + v * u_y + p - u_xx, u_y - p

    square = pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 1)
    conditions = [pinn.Periodic("u", along="x"), pinn.Periodic("u_x", along="x")]
    made = pinn.Problem(
        square, ("u", "v", "p"), {"momentum": momentum}, conditions=conditions
    )
    points = made.sample({"momentum": 9, "periodic_u": 5, "periodic_u_x": 4}, seed=1)
    objective = made.objective(pinn.MLP([2, 40, 7, 3], seed=0), points)
    blocks = ntk.blocks(objective)
    for name, trace in ntk.traces(objective).items():
        rows = Jacobian(objective.with_terms([objective.term(name)])).dense()
        assert trace == pytest.approx(float(rows.square().sum()), rel=1e-12)
        assert trace == pytest.approx(float(blocks[name, name].trace()), rel=1e-12)


def test_spectrum_is_that_of_the_whole_kernel_and_of_each_block(case):
    rows = scaled_by_hand(case)
    for term, chosen in ((None, np.concatenate(list(rows.values()))), *rows.items()):
        found = ntk.spectrum(case.objective, term)
        expected = linalg.svdvals(chosen) ** 2
        assert len(found) == min(chosen.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-18 * expected[0])


def test_small_eigenvalues_are_not_lost_in_the_rounding_of_large_ones():
    """Of three points on a line, the third nearly the second: λ₃/λ₁ is about 1e-20."""
    network = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    points = torch.diag(torch.tensor([1.0, 1e-5, 1e-10], dtype=torch.float64))

    def residual(tensors, z):
        return torch.func.functional_call(network, dict(tensors), (z,))

    objective = Objective(network, [Term("data", residual, points)])
    found = ntk.spectrum(objective, scaled=False)
    np.testing.assert_allclose(found, [1.0, 1e-10, 1e-20], rtol=1e-12)
    assert ntk.condition_number(objective) == pytest.approx(1e20)
    assert ntk.condition_number(objective, rtol=1e-15) == pytest.approx(1e10)


@pytest.mark.parametrize("term", [None, "initial"])
def test_lanczos_gives_the_largest(term):
    objective = oracles.burgers_soft(n=20).objective
    term = term and next(name for name in objective.terms if term in name)
    every = ntk.spectrum(objective, term)
    np.testing.assert_allclose(ntk.spectrum(objective, term, k=3), every[:3], rtol=1e-9)


def test_as_many_by_lanczos_as_there_are_is_refused():
    objective = oracles.burgers_soft().objective
    n = len(ntk.spectrum(objective))
    with pytest.raises(
        ValueError, match=f"below the number of eigenvalues, {n}, got {n}"
    ):
        ntk.spectrum(objective, k=n)
    with pytest.raises(ValueError, match="positive integer"):
        ntk.spectrum(objective, k=0)
    with pytest.raises(ValueError, match="unknown term 'pdf'"):
        ntk.spectrum(objective, "pdf")


def test_rates_are_those_of_gradient_flow():
    """A small step of gradient descent on one term takes ‖ρ‖² down by 2 ρᵀKρ; the mean of K's
    eigenvalues is the rate of convergence."""
    case = oracles.burgers_soft()
    rows = scaled_by_hand(case)
    found = ntk.convergence_rates(case.objective)
    for name, chosen in rows.items():
        assert found[name] == pytest.approx((chosen**2).sum() / len(chosen), rel=1e-12)
    name = next(iter(rows))
    alone = case.objective.with_terms([case.objective.term(name)])
    rho = Jacobian(alone, scaled=True).residual()
    theta, step = alone.parameters.vector(), 1e-7
    kernel = ntk.blocks(alone, scaled=True)[name, name]
    alone.parameters.assign(theta - step * Jacobian(alone, scaled=True).rmatvec(rho))
    after = Jacobian(alone, scaled=True).residual()
    oracles.close((after - rho) / step, -(kernel @ rho), 1e-5)


def test_weights_multiply_rates():
    objective = oracles.burgers_soft().objective
    name = next(iter(objective.terms))
    heavy = objective.with_weights({name: 5.0})
    once, more = ntk.convergence_rates(objective), ntk.convergence_rates(heavy)
    assert more[name] == pytest.approx(5 * once[name] / objective.term(name).weight)
    assert ntk.traces(heavy) == ntk.traces(objective)


def test_ntk_weights_make_the_traces_of_all_terms_equal():
    objective = oracles.burgers_soft().objective
    weights = pinn.NeuralTangentKernel(alpha=0.0).update(objective)
    weighted = {n: weights[n] * trace for n, trace in ntk.traces(objective).items()}
    assert len({round(value, 9) for value in weighted.values()}) == 1
