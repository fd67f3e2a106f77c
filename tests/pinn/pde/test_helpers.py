"""Vector calculus in equations against closed forms and equations written by hand."""

import math

import pytest
import torch

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

PLANE = pinn.Rectangle(("x", "y"), (0, 0), (1, 1))
PLANE_TIME = PLANE * pinn.Interval("t", 0, 1)
SPACE = PLANE * pinn.Interval("z", 0, 1)


class Exact(torch.nn.Module):
    """A network that is a closed form: columns of the points to columns of the outputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.one = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, points):
        columns = self.function(*(points[..., k] for k in range(points.shape[-1])))
        return torch.stack([column * self.one for column in columns], dim=-1)


def residual(domain, outputs, equation, network, points=None, **options):
    """Return the residual of one equation at some points of the domain, (n, m)."""
    problem = pinn.Problem(domain, outputs, {"pde": equation}, **options)
    if points is None:
        points = domain.sample(20, seed=0)
    return pinn.Solution(problem, network).residual(points), points


def close(actual, *expected):
    torch.testing.assert_close(
        actual, torch.stack(expected, dim=1), rtol=1e-12, atol=1e-12
    )


# --- closed forms -------------------------------------------------------------------------------


def plane_field(x, y):
    """A scalar and a vector: polynomials and sines."""
    return (
        x**3 * y**2 + torch.sin(2 * x) * torch.cos(y),
        x**2 * y,
        torch.sin(x) * y**2,
    )


NAMES = ("p", "u", "v")


def test_gradient_in_the_plane():
    @field_equation
    def equation(p):
        return grad(p)

    values, points = residual(PLANE, NAMES, equation, Exact(plane_field))
    x, y = points.T
    close(
        values,
        3 * x**2 * y**2 + 2 * torch.cos(2 * x) * torch.cos(y),
        2 * x**3 * y - torch.sin(2 * x) * torch.sin(y),
    )


def test_divergence_in_the_plane():
    @field_equation
    def equation(u, v):
        return div(vector(u, v))

    values, points = residual(PLANE, NAMES, equation, Exact(plane_field))
    x, y = points.T
    close(values, 2 * x * y + 2 * torch.sin(x) * y)


def test_laplacian_of_a_field_and_of_a_vector():
    @field_equation
    def equation(p, u, v):
        return (laplacian(p), *laplacian(vector(u, v)))

    values, points = residual(PLANE, NAMES, equation, Exact(plane_field))
    x, y = points.T
    close(
        values,
        6 * x * y**2 + 2 * x**3 - 5 * torch.sin(2 * x) * torch.cos(y),
        2 * y,
        -torch.sin(x) * y**2 + 2 * torch.sin(x),
    )


def test_curl_in_the_plane_of_a_vector_and_of_a_stream_function():
    @field_equation
    def equation(p, u, v):
        return (curl(vector(u, v)), *curl(p))

    values, points = residual(PLANE, NAMES, equation, Exact(plane_field))
    x, y = points.T
    p_x = 3 * x**2 * y**2 + 2 * torch.cos(2 * x) * torch.cos(y)
    p_y = 2 * x**3 * y - torch.sin(2 * x) * torch.sin(y)
    close(values, torch.cos(x) * y**2 - x**2, p_y, -p_x)


def test_advection_of_a_field_and_of_a_vector_by_fields_and_by_numbers():
    @field_equation
    def equation(p, u, v):
        w = vector(u, v)
        return (advect(w, p), *advect(w, w), advect((2.0, -1.0), p))

    values, points = residual(PLANE, NAMES, equation, Exact(plane_field))
    x, y = points.T
    p_x = 3 * x**2 * y**2 + 2 * torch.cos(2 * x) * torch.cos(y)
    p_y = 2 * x**3 * y - torch.sin(2 * x) * torch.sin(y)
    u = x**2 * y
    v = torch.sin(x) * y**2
    close(
        values,
        u * p_x + v * p_y,
        u * 2 * x * y + v * x**2,
        u * torch.cos(x) * y**2 + v * 2 * torch.sin(x) * y,
        2 * p_x - p_y,
    )


def space_field(x, y, z):
    return x * y**2, y * torch.sin(z), z**2 * x


def test_operators_in_space():
    @field_equation
    def equation(u, v, w):
        field = vector(u, v, w)
        return (div(field), *curl(field), *laplacian(field), *grad(u))

    values, points = residual(SPACE, ("u", "v", "w"), equation, Exact(space_field))
    x, y, z = points.T
    zero = torch.zeros_like(x)
    close(
        values,
        y**2 + torch.sin(z) + 2 * z * x,
        zero - y * torch.cos(z),
        zero - z**2,
        zero - 2 * x * y,
        2 * x,
        -y * torch.sin(z),
        2 * x,
        y**2,
        2 * x * y,
        zero,
    )


def test_the_divergence_of_a_curl_and_the_curl_of_a_gradient_vanish():
    @field_equation
    def equation(u, v, w, p):
        (_, u_y, u_z), (v_x, _, v_z), (w_x, w_y, _) = map(grad, (u, v, w))
        parts = (
            w_y.derivative("x").value - v_z.derivative("x").value,
            u_z.derivative("y").value - w_x.derivative("y").value,
            v_x.derivative("z").value - u_y.derivative("z").value,
        )
        return (sum(parts), *curl(grad(p)))

    network = pinn.MLP([3, 8, 4], seed=0)
    values, _ = residual(SPACE, ("u", "v", "w", "p"), equation, network)
    assert values.abs().max() < 1e-12


def test_derivatives_with_respect_to_time_leave_space_alone():
    def function(x, y, t):
        return torch.sin(x) * t**2, x * y * t

    @field_equation
    def equation(u, v):
        w = vector(u, v)
        return (*dt(w), div(w), laplacian(u))

    values, points = residual(PLANE_TIME, ("u", "v"), equation, Exact(function))
    x, y, t = points.T
    close(
        values,
        2 * torch.sin(x) * t,
        x * y,
        torch.cos(x) * t**2 + x * t,
        -torch.sin(x) * t**2,
    )


# --- equations written by hand, with the same network -------------------------------------------


def test_navier_stokes_by_hand():
    nu = 0.01

    @field_equation
    def by_helpers(u, v, p):
        w = vector(u, v)
        return dt(w) + advect(w, w) - nu * laplacian(w) + grad(p)

    def by_hand(u, v, u_t, u_x, u_y, u_xx, u_yy, v_t, v_x, v_y, v_xx, v_yy, p_x, p_y):
        return (
            u_t + u * u_x + v * u_y - nu * (u_xx + u_yy) + p_x,
            v_t + u * v_x + v * v_y - nu * (v_xx + v_yy) + p_y,
        )

    network = pinn.MLP([3, 12, 12, 3], seed=1)
    outputs = ("u", "v", "p")
    values, points = residual(PLANE_TIME, outputs, by_helpers, network)
    expected, _ = residual(PLANE_TIME, outputs, by_hand, network, points)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("derivatives", ["jets", "autograd"])
def test_maxwell_by_hand_in_space(derivatives):
    domain = SPACE * pinn.Interval("t", 0, 1)
    outputs = ("a", "b", "c")

    @field_equation
    def by_helpers(a, b, c):
        potential = vector(a, b, c)
        return (*(laplacian(potential) - 2.0 * potential), *curl(potential))

    def by_hand(
        a, b, c, a_xx, a_yy, a_zz, b_xx, b_yy, b_zz, c_xx, c_yy, c_zz,
        a_y, a_z, b_x, b_z, c_x, c_y,
    ):  # fmt: skip
        return (
            a_xx + a_yy + a_zz - 2 * a,
            b_xx + b_yy + b_zz - 2 * b,
            c_xx + c_yy + c_zz - 2 * c,
            c_y - b_z,
            a_z - c_x,
            b_x - a_y,
        )

    network = pinn.MLP([4, 10, 3], seed=2)
    options = {"derivatives": derivatives}
    values, points = residual(domain, outputs, by_helpers, network, **options)
    expected, _ = residual(domain, outputs, by_hand, network, points, **options)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_gradients_with_respect_to_the_parameters_are_those_by_hand():
    @field_equation
    def by_helpers(u):
        return laplacian(u) + torch.sin(u)

    def by_hand(u, u_xx, u_yy):
        return u_xx + u_yy + torch.sin(u)

    network = pinn.MLP([2, 8, 1], seed=0)
    gradients = []
    for equation in (by_helpers, by_hand):
        problem = pinn.Problem(PLANE, ("u",), {"pde": equation})
        objective = problem.objective(network, {"pde": PLANE.sample(15)})
        gradients.append(objective.loss_and_gradient()[1])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_mixed_derivative_has_one_name_whatever_the_order():
    @field_equation
    def equation(u):
        return dt(grad(u)[0]) - grad(u)[0].derivative("t").value

    problem = pinn.Problem(PLANE_TIME, ("u",), {"pde": equation})
    assert problem.fields_of("pde") == ("u_xt",)


def test_an_equation_may_mix_fields_with_derivatives_and_coordinates():
    @field_equation
    def mixed(u, u_x, x):
        return laplacian(u) + u * u_x - x

    def by_hand(u, u_x, u_xx, u_yy, x):
        return u_xx + u_yy + u * u_x - x

    network = pinn.MLP([2, 8, 1], seed=0)
    values, points = residual(PLANE, ("u",), mixed, network)
    expected, _ = residual(PLANE, ("u",), by_hand, network, points)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


# --- conditions ---------------------------------------------------------------------------------


def test_a_condition_written_as_a_field_equation():
    """A wall without slip or flux: both, by vectors and by hand, are one residual."""

    @field_equation
    def on_the_wall(u, v):
        return (*vector(u, v), div(vector(u, v)))

    def by_hand(u, v, u_x, v_y):
        return u, v, u_x + v_y

    network = pinn.MLP([2, 8, 2], seed=3)
    values = []
    for wall in (on_the_wall, by_hand):
        problem = pinn.Problem(
            PLANE,
            ("u", "v"),
            {"pde": lambda u_x, v_y: u_x + v_y},
            conditions=[pinn.Condition("wall", on="x_min", residual=wall)],
        )
        points = problem.draw("wall", 10, seed=0)
        values.append(pinn.Solution(problem, network).residual(points, "wall"))
    assert values[0].shape == (10, 3)
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


def test_a_condition_may_take_a_normal_derivative_beside_fields():
    @field_equation
    def outflow(u, p, u_n):
        return 0.1 * u_n - p

    network = pinn.MLP([2, 8, 2], seed=3)
    values = []
    for residual_of in (outflow, lambda p, u_n: 0.1 * u_n - p):
        problem = pinn.Problem(
            PLANE,
            ("u", "p"),
            {"pde": lambda u_x: u_x},
            conditions=[pinn.Condition("out", on="y_max", residual=residual_of)],
        )
        points = problem.draw("out", 10, seed=0)
        values.append(pinn.Solution(problem, network).residual(points, "out"))
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


# --- arithmetic ---------------------------------------------------------------------------------


def test_arithmetic_of_vectors_and_fields():
    @field_equation
    def equation(u, v):
        w = vector(u, v)
        mixed = (2 * w - w / 2 + (-w)) + vector(u * v, u - v)
        return (*mixed, w.dot(w), *(u * w), -u + 1 - v, u**2 / v, 2 / v)

    network = Exact(lambda x, y: (x + 1, y + 2))
    values, points = residual(PLANE, ("u", "v"), equation, network)
    u = points[:, 0] + 1
    v = points[:, 1] + 2
    close(
        values,
        0.5 * u + u * v,
        0.5 * v + u - v,
        u**2 + v**2,
        u * u,
        u * v,
        1 - u - v,
        u**2 / v,
        2 / v,
    )


def test_what_fields_and_vectors_look_like():
    seen = []

    @field_equation
    def equation(u):
        seen.append((repr(u), repr(grad(u)), len(grad(u)), repr(grad(u)[1])))
        assert isinstance(u, Field)
        assert isinstance(grad(u), Vector)
        return laplacian(u)

    pinn.Problem(PLANE, ("u",), {"pde": equation})
    expected = ("Field('u')", "Vector(Field('u_x'), Field('u_y'))", 2, "Field('u_y')")
    assert seen[0] == expected


# --- errors -------------------------------------------------------------------------------------


def fails(equation, outputs=("u", "v"), domain=PLANE):
    pinn.Problem(domain, outputs, {"pde": field_equation(equation)})


WRONG = {
    "div of a scalar": (
        lambda u: div(u),
        TypeError,
        r"div needs a vector, such as vector\(u, v\)",
    ),
    "div of one component": (
        lambda u: div(vector(u)),
        ValueError,
        r"div needs a component for each coordinate of space \(x, y\), got 1",
    ),
    "div of three components": (
        lambda u, v: div(vector(u, v, u)),
        ValueError,
        r"for each coordinate of space \(x, y\), got 3",
    ),
    "div of nothing": (lambda u: div(vector()) + u, ValueError, "at least one"),
    "div of products": (
        lambda u, v: div(vector(u * v, v)),
        TypeError,
        "div needs a field.*products and functions of fields have no",
    ),
    "laplacian of a product": (
        lambda u, v: laplacian(u * v),
        TypeError,
        "laplacian needs a field.*products and functions of fields have no",
    ),
    "laplacian of a vector of products": (
        lambda u, v: laplacian(vector(u * v, v)),
        TypeError,
        "laplacian needs a field",
    ),
    "grad of a function": (
        lambda u: grad(torch.sin(u)),
        TypeError,
        "grad needs a field.*Tensor of shape",
    ),
    "grad of a vector": (
        lambda u, v: grad(vector(u, v)),
        TypeError,
        r"grad needs a field.*Vector\(Field\('u'\), Field\('v'\)\)",
    ),
    "advection of a product": (
        lambda u, v: advect((1.0, 1.0), u * v),
        TypeError,
        "advect needs a field",
    ),
    "advection by too few": (
        lambda u: advect((1.0,), u),
        ValueError,
        "vectors of 1 and 2 components",
    ),
    "sum of vectors": (
        lambda u, v: vector(u, v) + vector(u),
        ValueError,
        "vectors of 2 and 1 components do not fit",
    ),
    "dot": (
        lambda u, v: vector(u, v).dot(vector(u)),
        ValueError,
        "vectors of 2 and 1 components do not fit",
    ),
    "dt without a time": (
        lambda u: dt(u),
        ValueError,
        "dt needs a coordinate of time: name one 't', or pass time= to Problem",
    ),
    "curl of one component": (
        lambda u: curl(vector(u)),
        ValueError,
        "curl needs a component for each coordinate",
    ),
    "an unknown argument": (lambda u, w_x: laplacian(u) + w_x, ValueError, "w_x"),
}


@pytest.mark.parametrize(("equation", "error", "message"), WRONG.values(), ids=WRONG)
def test_errors_when_the_problem_is_made(equation, error, message):
    with pytest.raises(error, match=message):
        fails(equation)


def test_the_curl_of_a_field_is_of_the_plane():
    with pytest.raises(ValueError, match="curl of a field needs 2 coordinates"):
        fails(lambda u: curl(u), domain=SPACE)


def test_curl_on_a_line():
    line = pinn.Interval("x", 0, 1)
    with pytest.raises(ValueError, match="curl needs 2 or 3 coordinates of space"):
        fails(lambda u: curl(vector(u)), ("u",), line)


def test_dt_of_a_problem_with_a_time_of_another_name():
    domain = pinn.Interval("x", 0, 1) * pinn.Interval("s", 0, 1)
    equation = field_equation(lambda u: dt(u) - laplacian(u))
    problem = pinn.Problem(domain, ("u",), {"pde": equation}, time="s")
    assert problem.fields_of("pde") == ("u_s", "u_xx")


def test_arguments_that_cannot_be_read():
    with pytest.raises(ValueError, match="name each argument"):
        field_equation(lambda *fields: fields[0])


def test_a_stream_function_has_no_divergence():
    @field_equation
    def flow(psi):
        u, v = grad(psi)[1], grad(psi)[0]
        return u.derivative("x").value - v.derivative("y").value

    network = Exact(lambda x, y: (torch.sin(math.pi * x) * y**3,))
    values, _ = residual(PLANE, ("psi",), flow, network)
    assert values.abs().max() < 1e-12
