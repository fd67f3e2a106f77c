"""Equations of third and fourth order: no fallback, exact Jacobians, compiled steps."""

import logging
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, jacrev, jvp, vmap

from whence import compilation, pinn
from whence.linearization import LayerLinearization, linearize
from whence.ntk import blocks
from whence.parameters import Parameters
from whence.pinn.helpers import Field, div, field_equation, grad, laplacian
from whence.pinn.pde import fields
from whence.pinn.pde.fields import FieldMap

SQUARE = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
STRIP = pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1)
EQUATIONS = {
    "beam": (pinn.Interval("x", 0, 1), lambda u_xxxx: u_xxxx + 1),
    "vibrating beam": (STRIP, lambda u_tt, u_xxxx: u_tt + u_xxxx),
    "kuramoto_sivashinsky": (
        STRIP,
        lambda u, u_t, u_x, u_xx, u_xxxx: u_t + u * u_x + u_xx + u_xxxx,
    ),
    "korteweg_de_vries": (STRIP, lambda u, u_t, u_x, u_xxx: u_t + 6 * u * u_x + u_xxx),
    "biharmonic": (
        SQUARE,
        lambda u_xxxx, u_xxyy, u_yyyy: u_xxxx + 2 * u_xxyy + u_yyyy - 1,
    ),
    "kawahara": (STRIP, lambda u_t, u_xxx, u_xxxxx: u_t + u_xxx - u_xxxxx),
}


def problem_of(name, ansatz=False):
    domain, equation = EQUATIONS[name]
    problem = pinn.Problem(domain=domain, outputs=("u",), equations={"pde": equation})
    if not ansatz:
        return problem
    if len(domain.coordinates) == 1:
        return replace(problem, ansatz=lambda x, u: x**2 * (1 - x) ** 2 * u)
    y = domain.coordinates[1]
    by_y = {"y": lambda x, y, u: x**2 * (1 - x) ** 2 * torch.sin(y) * u}
    by_t = {"t": lambda x, t, u: torch.sin(3 * x) * torch.exp(-t) + t * x**2 * u}
    return replace(problem, ansatz=(by_y | by_t)[y])


def term_of(problem, network, n=6):
    return problem.objective(network, problem.sample(n, seed=0)).terms["pde"]


def network_of(problem, activation="tanh"):
    inputs = len(problem.domain.coordinates)
    bounds = problem.domain.bounds
    return pinn.MLP([inputs, 7, 6, 1], activation, bounds=bounds, seed=0)


@pytest.mark.parametrize("ansatz", [False, True])
@pytest.mark.parametrize("name", sorted(EQUATIONS))
def test_residuals_are_those_of_nested_autograd_without_falling_back(
    name, ansatz, caplog
):
    fields.log_once.cache_clear()
    problem = problem_of(name, ansatz)
    network = network_of(problem, "gelu" if ansatz else "tanh")
    values = []
    with caplog.at_level(logging.INFO, logger="whence"):
        for derivatives in ("jets", "autograd"):
            term = term_of(replace(problem, derivatives=derivatives), network)
            values.append(term.residual(dict(network.named_parameters()), term.points))
    assert not [r for r in caplog.records if "nested" in r.message]
    ours, theirs = values
    assert (ours - theirs).abs().max() <= 1e-11 * theirs.abs().max()


def rows_by_brute_force(problem, network, points):
    """∂r/∂θ by reverse mode over nested forward mode of the network itself, point by point."""
    tensors = {name: p.detach() for name, p in network.named_parameters()}
    (equation,) = problem.equations.values()
    coordinates = problem.domain.coordinates

    def derivative(tensors, point, along):
        def value(z):
            columns = list(z.unsqueeze(0).unbind(1))
            u = functional_call(network, tensors, (z.unsqueeze(0),))[:, 0]
            if problem.ansatz is not None:
                u = problem.ansatz(*columns, u)
            return u[0]

        for letter in along:
            unit = torch.zeros_like(point)
            unit[coordinates.index(letter)] = 1.0
            value = (lambda f, e: lambda z: jvp(f, (z,), (e,))[1])(value, unit)
        return value(point)

    names = equation.__code__.co_varnames

    def residual(tensors, point):
        parts = (
            derivative(tensors, point, n.removeprefix("u").strip("_")) for n in names
        )
        return equation(*parts)

    parts = vmap(jacrev(residual), in_dims=(None, 0))(tensors, points)
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


@pytest.mark.parametrize(
    ("name", "ansatz", "activation"),
    [
        ("beam", True, "tanh"),
        ("kuramoto_sivashinsky", False, "sin"),
        ("biharmonic", False, "tanh"),
        ("korteweg_de_vries", True, "silu"),
        ("kawahara", False, torch.sigmoid),
    ],
)
def test_rows_products_norms_and_the_kernel_are_those_of_brute_force(
    name, ansatz, activation
):
    problem = problem_of(name, ansatz)
    network = network_of(problem, activation)
    term = term_of(problem, network)
    expected = rows_by_brute_force(problem, network, term.points)
    linear = linearize(term.residual, Parameters(network), term.points)
    assert isinstance(linear, LayerLinearization)
    u = torch.linspace(0.5, 2, len(expected), dtype=torch.float64).unsqueeze(1)
    weighted = u * expected
    vectors = torch.randn(expected.shape[1], 2).double()
    combination = torch.randn(len(expected), 3).double()
    pairs = [
        (linear.rows(u), weighted),
        (linear.matvec(vectors, u), weighted @ vectors),
        (linear.rmatvec(u), weighted.sum(0)),
        (linear.rmatmat(combination, u), weighted.T @ combination),
        (linear.squared_norms(u), weighted.square().sum(1)),
    ]
    objective = problem.objective(network, {"pde": term.points})
    (kernel,) = blocks(objective).values()
    pairs.append((kernel, expected @ expected.T))
    for ours, theirs in pairs:
        ours = torch.as_tensor(ours).reshape(theirs.shape)
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_a_fourth_order_step_is_compiled():
    problem = problem_of("kuramoto_sivashinsky")
    network = pinn.MLP([2, 5, 1], seed=0)
    objective = problem.objective(network, problem.sample(40, seed=0))
    compiled = objective.with_evaluator(compilation.Compiled(objective))
    (loss, gradient), (ours, ours_gradient) = (
        each.loss_and_gradient() for each in (objective, compiled)
    )
    torch.testing.assert_close(ours, loss, rtol=1e-11, atol=0)
    error = (ours_gradient - gradient).abs().max() / gradient.abs().max()
    assert error < 1e-10


def test_helpers_reach_third_and_fourth_order(caplog):
    """∇(∇·∇u) and Δ of it, by fields that know their derivatives."""
    fields.log_once.cache_clear()

    @field_equation
    def third(u):
        slopes = grad(u)
        by_parts = laplacian(slopes)  # Δ∇u
        return tuple(by_parts)

    @field_equation
    def fourth(u):
        total = 0.0
        for slope in grad(u):
            for second in grad(slope):
                assert isinstance(second, Field)
                total = total + 1.5 * div(grad(second))
        return total

    problem = pinn.Problem(
        domain=SQUARE, outputs=("u",), equations={"third": third, "fourth": fourth}
    )
    network = network_of(problem)
    points = problem.sample({"third": 5, "fourth": 5}, seed=0)
    terms = problem.objective(network, points).terms
    tensors = dict(network.named_parameters())

    def exact(at, *names):
        return FieldMap(network, ("x", "y"), ("u",), None, "autograd")(names)(
            tensors, at
        ).unbind(1)

    with caplog.at_level(logging.INFO, logger="whence"):
        at = terms["third"].points
        found = terms["third"].residual(tensors, at)
        xxx, xyy, xxy, yyy = exact(at, "u_xxx", "u_xyy", "u_xxy", "u_yyy")
        expected = torch.stack([xxx + xyy, xxy + yyy], dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        at = terms["fourth"].points
        found = terms["fourth"].residual(tensors, at)[:, 0]
        names = ("u_xxxx", "u_xxxy", "u_xxyy", "u_xyyy", "u_yyyy")
        a, b, c, d, e = exact(at, *names)
        # (∂x² + 2 ∂x∂y + ∂y²)(∂x² + ∂y²)
        expected = 1.5 * (a + 2 * b + 2 * c + 2 * d + e)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert not [r for r in caplog.records if "nested" in r.message]


def test_too_many_derivatives_fall_back_and_say_so_once(caplog, monkeypatch):
    monkeypatch.setattr("whence.layout.MAX_CHANNELS", 4)
    fields.log_once.cache_clear()
    network = pinn.MLP([1, 4, 1], seed=0)
    points = torch.rand(3, 1, dtype=torch.float64)
    tensors = dict(network.named_parameters())
    with caplog.at_level(logging.INFO, logger="whence"):
        tables = [
            FieldMap(network, ("x",), ("u",), None, way)(("u_xxxxx",))(tensors, points)
            for way in ("jets", "jets", "autograd")
        ]
    assert torch.equal(tables[0], tables[2])
    assert [r.message for r in caplog.records if "nested" in r.message] == [
        "derivatives by nested autograd, exact but slower: jets carry at most 4 derivatives; a "
        "derivative of order 5 by 1 coordinate(s), with all lower ones, needs 6"
    ]
