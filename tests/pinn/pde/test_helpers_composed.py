"""Helpers of helpers: operators above second order against closed forms and nested autograd."""

import numpy as np
import pytest
import torch
from test_helpers import PLANE, PLANE_TIME, SPACE, Exact, close, residual

import whence as wh
from whence import pinn
from whence.pinn.helpers import (
    Field,
    Vector,
    advect,
    curl,
    div,
    dt,
    field_equation,
    grad,
    laplacian,
    vector,
)


def waves(x, y):
    """Eigenfunctions of the Laplacian, to the eigenvalues −(a² + b²): 5, 13 and 2."""
    return (
        torch.sin(2 * x) * torch.cos(y),
        torch.cos(2 * x) * torch.sin(3 * y),
        torch.sin(x) * torch.sin(y),
    )


def test_biharmonic_and_its_relatives_of_eigenfunctions():
    @field_equation
    def equation(p, u, v):
        w = vector(u, v)
        return (
            laplacian(laplacian(p)),
            laplacian(laplacian(laplacian(p))),
            *laplacian(laplacian(w)),
            div(grad(laplacian(p))),
            laplacian(div(w)),
            *grad(div(w)),
        )

    values, points = residual(PLANE, ("p", "u", "v"), equation, Exact(waves))
    x, y = points.T
    p, u, v = waves(x, y)
    u_x = -2 * torch.sin(2 * x) * torch.sin(3 * y)
    v_y = torch.sin(x) * torch.cos(y)
    u_xy = -6 * torch.sin(2 * x) * torch.cos(3 * y)
    v_xy = torch.cos(x) * torch.cos(y)
    close(
        values,
        25 * p, -125 * p, 169 * u, 4 * v, 25 * p, -13 * u_x - 2 * v_y,
        -4 * u + v_xy, u_xy - v,
    )  # fmt: skip


def test_a_sum_with_numbers_is_differentiated_term_by_term():
    """Swift–Hohenberg's (1 + ∇²)², a Helmholtz operator twice, and constants that vanish."""

    @field_equation
    def equation(p, u, v):
        once = p + laplacian(p)
        shifted = 2 * (p / 4 - u) + 3
        half = np.float64(0.5) * vector(u, v)
        return (
            once + laplacian(once),
            *grad(7 - shifted),
            div(half - (vector(1.0, 2.0) * 3)),
            laplacian(-(p - np.float32(2))),
        )

    values, points = residual(PLANE, ("p", "u", "v"), equation, Exact(waves))
    x, y = points.T
    p, _, _ = waves(x, y)
    p_x = 2 * torch.cos(2 * x) * torch.cos(y)
    p_y = -torch.sin(2 * x) * torch.sin(y)
    u_x = -2 * torch.sin(2 * x) * torch.sin(3 * y)
    u_y = 3 * torch.cos(2 * x) * torch.cos(3 * y)
    v_y = torch.sin(x) * torch.cos(y)
    close(
        values,
        16 * p, -p_x / 2 + 2 * u_x, -p_y / 2 + 2 * u_y, (u_x + v_y) / 2, 5 * p,
    )  # fmt: skip


def test_identities_of_vector_calculus_in_space():
    """∇·(∇×w) = 0, ∇×∇p = 0 and ∇×(∇×w) = ∇(∇·w) − ∇²w, for any functions."""

    @field_equation
    def equation(p, u, v, w):
        a = vector(u, v, w)
        twice = curl(curl(a)) - grad(div(a)) + laplacian(a)
        return (div(curl(a)), *curl(grad(p)), *twice, *laplacian(curl(a)))

    @field_equation
    def swapped(p, u, v, w):
        a = vector(u, v, w)
        return tuple(curl(laplacian(a)))

    network = pinn.MLP([3, 9, 4], seed=0)
    outputs = ("p", "u", "v", "w")
    values, points = residual(SPACE, outputs, equation, network)
    assert values[:, :7].abs().max() < 1e-12
    expected, _ = residual(SPACE, outputs, swapped, network, points)
    torch.testing.assert_close(values[:, 7:], expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 1e-3


def test_vorticity_of_a_stream_function_over_time():
    """Stokes flow: ∂ₜω = ν∇²ω with ω = ∇×(∇×ψ) = −∇²ψ decays as its eigenvalue says."""
    nu = 0.3

    @field_equation
    def equation(psi):
        omega = curl(curl(psi))
        return (
            dt(omega) - nu * laplacian(omega),
            dt(laplacian(psi)) + 2 * nu * laplacian(psi),
            advect((1.0, 2.0), omega),
            laplacian(advect((1.0, 2.0), psi)),
            dt(dt(psi)),
        )

    network = Exact(
        lambda x, y, t: (torch.sin(x) * torch.sin(y) * torch.exp(-2 * nu * t),)
    )
    values, points = residual(PLANE_TIME, ("psi",), equation, network)
    x, y, t = points.T
    decay = torch.exp(-2 * nu * t)
    slope = (torch.cos(x) * torch.sin(y) + 2 * torch.sin(x) * torch.cos(y)) * decay
    psi = torch.sin(x) * torch.sin(y) * decay
    zero = torch.zeros_like(x)
    close(values, zero, zero, 2 * slope, -2 * slope, 4 * nu**2 * psi)


def nested(function, points, along):
    """One derivative after another by autograd, of one output at each point."""
    points = points.clone().requires_grad_()
    values = function(points)[:, 0]
    for k in along:
        (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        values = slopes[:, k]
    return values


@pytest.mark.parametrize("derivatives", ["jets", "autograd"])
def test_a_biharmonic_equation_has_the_rows_of_nested_autograd(derivatives):
    @field_equation
    def equation(u):
        return laplacian(laplacian(u)) - 2 * laplacian(u) + u**2

    network = pinn.MLP([2, 7, 7, 1], seed=4).double()
    points = PLANE.sample(6, seed=1)
    problem = pinn.Problem(PLANE, ("u",), {"pde": equation}, derivatives=derivatives)
    assert problem.fields_of("pde") == (
        "u",
        "u_xxxx",
        "u_xxyy",
        "u_yyyy",
        "u_xx",
        "u_yy",
    )
    rows = wh.Jacobian(problem.objective(network, {"pde": points})).dense()

    def expected(u):
        parts = {a: nested(network, points, a) for a in [(), (0, 0), (1, 1)]}
        fourth = nested(network, points, (0, 0, 0, 0)) + nested(
            network, points, (1, 1, 1, 1)
        )
        mixed = nested(network, points, (0, 0, 1, 1))
        second = parts[0, 0] + parts[1, 1]
        return fourth + 2 * mixed - 2 * second + parts[()] ** 2

    parameters = list(network.parameters())
    for row, value in zip(rows, expected(network), strict=True):
        gradient = torch.autograd.grad(value, parameters, retain_graph=True)
        flat = torch.cat([part.reshape(-1) for part in gradient])
        torch.testing.assert_close(row.reshape(-1), flat, rtol=1e-9, atol=1e-10)


def test_a_clamped_plate_is_solved():
    """∇⁴w = f with w = ∂w/∂n = 0 at the edges, for w = g(x) g(y) with g = s² (1 − s)²."""

    def bump(s):
        return (s * (1 - s)) ** 2

    @field_equation
    def plate(w, x, y):
        # The second derivative of g is 2 − 12 s + 12 s², the fourth is 24.
        bent = (2 - 12 * x + 12 * x**2) * (2 - 12 * y + 12 * y**2)
        return laplacian(laplacian(w)) - 24 * (bump(x) + bump(y)) - 2 * bent

    problem = pinn.Problem(
        PLANE,
        ("w",),
        {"pde": plate},
        ansatz=lambda x, y, w: bump(x) * bump(y) * w,
    )
    result = pinn.train(
        problem,
        pinn.MLP([2, 12, 1], seed=0),
        points=60,
        schedule=pinn.GaussNewton(30),
        validation=100,
        progress=False,
    )
    places = [[0.5, 0.5], [0.3, 0.6]]
    expected = [1 / 256, (0.21 * 0.24) ** 2]
    actual = result.solution(places).ravel()
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


# --- what stays as tensors are ------------------------------------------------------------------


def test_what_helpers_give_is_used_as_a_tensor():
    @field_equation
    def equation(u, v):
        heat = laplacian(u)
        stacked = torch.stack([heat, laplacian(v)]).sum(dim=0)
        clipped = torch.where(heat > 0, heat, v)
        return (
            heat.abs() + abs(heat), heat.clamp(min=0.0), stacked, torch.maximum(heat, v),
            heat * u, heat**2, 2.0**heat, clipped, heat,
        )  # fmt: skip

    def by_hand(v, u, u_xx, u_yy, v_xx, v_yy):
        heat = u_xx + u_yy
        return (
            2 * heat.abs(), heat.clamp(min=0.0), heat + v_xx + v_yy,
            torch.maximum(heat, v), heat * u, heat**2, 2.0**heat,
            torch.where(heat > 0, heat, v), heat,
        )  # fmt: skip

    network = pinn.MLP([2, 8, 2], seed=0)
    values, points = residual(PLANE, ("u", "v"), equation, network)
    expected, _ = residual(PLANE, ("u", "v"), by_hand, network, points)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_sums_say_what_they_are_of():
    seen = []

    @field_equation
    def equation(u, v):
        seen.append((repr(laplacian(u) - 2 * v + 1), repr(grad(div(vector(u, v))))))
        assert isinstance(laplacian(u), Field)
        assert isinstance(curl(curl(u)), Field)
        assert isinstance(np.float64(2) * grad(u), Vector)
        return laplacian(u)

    pinn.Problem(PLANE, ("u", "v"), {"pde": equation})
    assert seen[0] == (
        "Field('u_xx + u_yy + -2.0*v + 1.0')",
        "Vector(Field('u_xx + v_xy'), Field('u_xy + v_yy'))",
    )


WRONG = {
    "a product": lambda u, v: laplacian(u * laplacian(v)),
    "a function": lambda u, v: grad(torch.sin(div(vector(u, v)))),
    "a square": lambda u, v: laplacian(laplacian(u) ** 2),
    "advection by fields": lambda u, v: div(advect(vector(u, v), vector(u, v))),
    "a scalar product": lambda u, v: grad(vector(u, v).dot(vector(u, v))),
    "a coefficient of the point": lambda u, v, x: div(x * grad(u)),
    "a coefficient in a tensor": lambda u, v: laplacian(torch.ones(()) * u),
    "a number": lambda u, v: div(vector(u, 1.0)),
    "a quotient": lambda u, v: laplacian(1 / u),
    "infinity": lambda u, v: laplacian(u / 0),
}


@pytest.mark.parametrize("equation", WRONG.values(), ids=WRONG)
def test_what_has_no_derivatives_is_an_error(equation):
    message = "needs a field.*products and functions of fields have no derivatives here"
    with pytest.raises(TypeError, match=message):
        pinn.Problem(PLANE, ("u", "v"), {"pde": field_equation(equation)})
