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
    rows = {}
    for name, term in case.objective.terms.items():

        def residual(theta, z, name=name):
            return case.residuals[name](case.tensors(theta), z)

        at_points = [jacrev(residual)(case.theta, z) for z in term.points]
        rows[name] = torch.cat(at_points).numpy()
    return rows


def scaled_by_hand(case):
    """The same with √(2w/N), the root of weight, 1/N and curvature of the squared loss."""
    scaled = {}
    for name, rows in rows_by_hand(case).items():
        term = case.objective.terms[name]
        scaled[name] = rows * math.sqrt(2 * term.weight / len(term.points))
    return scaled


def only(objective, name):
    return objective.with_terms([objective.term(name)])


@pytest.fixture(name="case", params=CASES)
def _case(request):
    return CASES[request.param]()


# --- blocks and traces -------------------------------------------------------------------------


def test_blocks(case):
    rows = rows_by_hand(case)
    blocks = ntk.blocks(case.objective)
    assert set(blocks) == {(k, j) for k in rows for j in rows}
    for (k, j), block in blocks.items():
        oracles.close(block, rows[k] @ rows[j].T, 1e-12)


def test_scaled_blocks_carry_weight_and_number_of_points(case):
    first = next(iter(case.objective.terms))
    case.objective = case.objective.with_weights({first: 3.0})
    rows = scaled_by_hand(case)
    for (k, j), block in ntk.blocks(case.objective, scaled=True).items():
        oracles.close(block, rows[k] @ rows[j].T, 1e-12)


def test_traces(case):
    traces = ntk.traces(case.objective)
    for name, rows in rows_by_hand(case).items():
        assert traces[name] == pytest.approx((rows**2).sum(), rel=1e-12)


def test_traces_of_several_components_and_of_layers_used_twice():
    def momentum(u, v, p, u_x, u_y, u_xx):
        return u * u_x + v * u_y + p - u_xx, u_y - p

    square = pinn.Interval("x", 0, 1) * pinn.Interval("y", 0, 1)
    conditions = [pinn.Periodic("u", along="x"), pinn.Periodic("u_x", along="x")]
    problem = pinn.Problem(
        square, ("u", "v", "p"), {"momentum": momentum}, conditions=conditions
    )
    counts = {"momentum": 9, "periodic_u": 5, "periodic_u_x": 4}
    points = problem.sample(counts, seed=1)
    objective = problem.objective(pinn.MLP([2, 40, 7, 3], seed=0), points)

    blocks = ntk.blocks(objective)
    for name, trace in ntk.traces(objective).items():
        rows = Jacobian(only(objective, name)).dense()
        assert trace == pytest.approx(float(rows.square().sum()), rel=1e-12)
        assert trace == pytest.approx(float(blocks[name, name].trace()), rel=1e-12)


# --- spectra -----------------------------------------------------------------------------------


def test_spectrum_is_that_of_the_whole_kernel_and_of_each_block(case):
    rows = scaled_by_hand(case)
    whole = np.concatenate(list(rows.values()))
    for term, rows_of_term in ((None, whole), *rows.items()):
        values = ntk.spectrum(case.objective, term)
        expected = linalg.svdvals(rows_of_term) ** 2
        assert len(values) == min(rows_of_term.shape)
        tiny = 1e-18 * expected[0]
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=tiny)


def test_small_eigenvalues_are_not_lost_in_the_rounding_of_large_ones():
    """Of three points on a line, the third nearly the second: λ₃/λ₁ is about 1e-20."""
    network = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    points = torch.diag(torch.tensor([1.0, 1e-5, 1e-10], dtype=torch.float64))

    def residual(tensors, z):
        return torch.func.functional_call(network, dict(tensors), (z,))

    objective = Objective(network, [Term("data", residual, points)])
    values = ntk.spectrum(objective, scaled=False)
    np.testing.assert_allclose(values, [1.0, 1e-10, 1e-20], rtol=1e-12)
    assert ntk.condition_number(objective) == pytest.approx(1e20)
    assert ntk.condition_number(objective, rtol=1e-15) == pytest.approx(1e10)


@pytest.mark.parametrize("term", [None, "initial"])
def test_lanczos_gives_the_largest(term):
    objective = oracles.burgers_soft(n=20).objective
    if term is not None:
        term = next(name for name in objective.terms if term in name)
    every = ntk.spectrum(objective, term)
    largest = ntk.spectrum(objective, term, k=3)
    np.testing.assert_allclose(largest, every[:3], rtol=1e-9)


def test_as_many_by_lanczos_as_there_are_is_refused():
    objective = oracles.burgers_soft().objective
    n = len(ntk.spectrum(objective))
    too_many = f"below the number of eigenvalues, {n}, got {n}"
    with pytest.raises(ValueError, match=too_many):
        ntk.spectrum(objective, k=n)
    with pytest.raises(ValueError, match="positive integer"):
        ntk.spectrum(objective, k=0)
    with pytest.raises(ValueError, match="unknown term 'pdf'"):
        ntk.spectrum(objective, "pdf")


def test_residuals_that_no_parameter_moves_have_no_eigenvalues():
    network = torch.nn.Linear(3, 1, dtype=torch.float64)

    def residual(tensors, z):
        return 0 * torch.func.functional_call(network, dict(tensors), (z,))

    points = torch.rand(6, 3, dtype=torch.float64)
    objective = Objective(network, [Term("data", residual, points)])
    assert ntk.spectrum(objective, k=2).tolist() == [0.0, 0.0]
    assert ntk.condition_number(objective) == 1.0


# --- rates -------------------------------------------------------------------------------------


def test_rates_are_mean_eigenvalues():
    case = oracles.burgers_soft()
    rates = ntk.convergence_rates(case.objective)
    for name, rows in scaled_by_hand(case).items():
        mean = (rows**2).sum() / len(rows)
        assert rates[name] == pytest.approx(mean, rel=1e-12)


def test_rates_are_those_of_gradient_flow():
    """A small step θ − h ∇L takes ρ to ρ − h K ρ: K's eigenvalues are the rates of decay."""
    objective = oracles.burgers_soft().objective
    name = next(iter(objective.terms))
    alone = only(objective, name)
    jacobian = Jacobian(alone, scaled=True)
    before = jacobian.residual()
    kernel = ntk.blocks(alone, scaled=True)[name, name]

    step = 1e-7
    theta = alone.parameters.vector()
    alone.parameters.assign(theta - step * jacobian.rmatvec(before))
    after = Jacobian(alone, scaled=True).residual()
    oracles.close((after - before) / step, -(kernel @ before), 1e-5)


def test_weights_multiply_rates():
    objective = oracles.burgers_soft().objective
    name = next(iter(objective.terms))
    heavy = objective.with_weights({name: 5.0})
    factor = 5 / objective.term(name).weight
    before = ntk.convergence_rates(objective)[name]
    assert ntk.convergence_rates(heavy)[name] == pytest.approx(factor * before)
    assert ntk.traces(heavy) == ntk.traces(objective)


def test_ntk_weights_make_the_traces_of_all_terms_equal():
    objective = oracles.burgers_soft().objective
    weights = pinn.NeuralTangentKernel(alpha=0.0).update(objective)
    traces = ntk.traces(objective)
    weighted = [weights[name] * trace for name, trace in traces.items()]
    assert len({round(value, 9) for value in weighted}) == 1
