"""Solvers in single precision, of small networks and of memory that does not hold everything."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import whence as wh
from whence.curvature.exact import held_rows_bytes
from whence.curvature.operators import GaussNewtonMatrix
from whence.curvature.solvers import Solution


def model(width=300):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, 4))


def data(dtype, n=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 20, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(n) % 4


def objective(dtype, width=300):
    return wh.Objective.supervised(
        model(width).to(dtype), data(dtype), nn.CrossEntropyLoss()
    )


def attributed(dtype, damping, effect="remove", width=300, **options):
    influence = wh.Influence(objective(dtype, width), damping=damping, **options)
    x, y = data(dtype)
    return influence.attribute(wh.Loss(0.9 * x[:3], y[:3]), effect=effect)


@pytest.mark.parametrize("damping", [1e-3, 1e-5])
@pytest.mark.parametrize("effect", ["remove", "add"])
def test_dual_form_at_the_training_points(damping, effect):
    """A few targets at all training points, where λ is near the rounding of the kernel."""
    expected = attributed(torch.float64, damping, effect).values
    found = attributed(torch.float32, damping, effect)
    assert found.attrs["solver_form"] == "dual"
    assert found.attrs["solver_residual"] < 1e-4
    assert np.abs(found.values - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("damping", [1e-3, 1e-11])
def test_dual_form_is_exact_in_double_precision(damping):
    options = {"width": 80}  # the primal form decomposes a matrix of all parameters
    primal = wh.Exact("primal")
    expected = attributed(torch.float64, damping, solver=primal, **options).values
    found = attributed(torch.float64, damping, **options)
    assert found.attrs["solver_form"] == "dual"
    found = found.values
    # The primal form itself is exact to the rounding that λ leaves of it.
    tolerance = 1e-9 if damping > 1e-6 else 1e-3
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_products_with_thin_rows_are_those_of_rows():
    kernel = GaussNewtonMatrix(objective(torch.float64)).kernel()
    rows = kernel.dense()
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(rows.shape[1], 3, generator=generator, dtype=torch.float64)
    u = torch.randn(rows.shape[0], 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(kernel.matmat(v), rows @ v)
    torch.testing.assert_close(kernel.rmatmat(u), rows.T @ u)


class Wrong:
    """A solver whose answer is far off."""

    name = "exact"

    def factor(self, operator, damping):
        state = wh.Exact("primal").factor(operator, damping)
        solve = state.solve

        def off(right):
            solution = solve(right)
            return Solution(3 * solution.value, 2.0, False, 0)

        state.solve = off
        return state


def test_a_large_residual_is_warned_of():
    influence = wh.Influence(objective(torch.float64, 3), solver=Wrong())
    with pytest.warns(
        UserWarning, match="relative residual of 2, so the numbers mean little"
    ):
        attribution = influence.attribute(wh.Loss())
    quality = str(attribution.quality())
    assert "or use double precision" in quality
    assert "wh.Exact()" not in quality


@pytest.mark.parametrize("solver", [wh.ConjugateGradient(), wh.LiSSA(iterations=3000)])
def test_iterations_end_where_single_precision_does(solver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", wh.FarFromMinimum)
        found = attributed(torch.float32, 1e-2, solver=solver)
    assert found.attrs["solver_converged"]
    assert found.attrs["solver_message"] == ""
    expected = attributed(torch.float64, 1e-2).values
    assert np.abs(found.values - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["sparse", "gaussian"])
def test_sketches_of_small_networks_lose_nothing(kind):
    small = objective(torch.float64, width=10)
    sketched = wh.Influence(small, damping=1e-3, solver=wh.Sketched(kind=kind))
    exact = wh.Influence(small, damping=1e-3)
    found, expected = (i.attribute(wh.Loss()).values for i in (sketched, exact))
    np.testing.assert_allclose(
        found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max()
    )
    large = wh.Influence(objective(torch.float32), solver=wh.Sketched(kind=kind))
    assert large.state().spectrum.rank == 1024


def test_preconditioners_fit_the_memory():
    """Rank 100 would take 8 · 100 columns of P numbers; here there is room for fewer."""
    operator = GaussNewtonMatrix(objective(torch.float32))
    room = 8 * 20 * operator.size * 4
    for budget, name in ((room, "nystrom"), (4 * operator.size, "none")):
        solver = wh.ConjugateGradient(memory_budget=budget)
        state = solver.factor(operator, wh.Damping(1e-3))
        assert state.spectrum.preconditioner == name


def test_large_dual_systems_count_their_copies():
    rows, size = 240, 11_000_000
    assert held_rows_bytes(rows, size, 4) > 2 * rows * size * 4
