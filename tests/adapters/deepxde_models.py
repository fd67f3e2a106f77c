"""Small compiled DeepXDE models, one for each kind of condition, and their own residuals."""

import os

os.environ.setdefault("DDE_BACKEND", "pytorch")

import deepxde as dde
import numpy as np
import torch


def network(inputs, outputs=1, width=8):
    return dde.nn.FNN([inputs, width, width, outputs], "tanh", "Glorot normal")


def compiled(data, net, **options):
    torch.manual_seed(0)
    for parameter in net.parameters():  # biases too
        torch.nn.init.normal_(parameter, std=0.4)
    model = dde.Model(data, net)
    model.compile("adam", lr=1e-3, verbose=0, **options)
    return model


def heat(x, y):
    dy_t = dde.grad.jacobian(y, x, i=0, j=1)
    dy_xx = dde.grad.hessian(y, x, i=0, j=0)
    return dy_t - 0.3 * dy_xx * torch.cos(x[:, 0:1]) + y * dy_t


def strip(n=1.0):
    space = dde.geometry.Interval(-1, 1)
    return dde.geometry.GeometryXTime(space, dde.geometry.TimeDomain(0, n))


def time_dependent(**options):
    """TimePDE with Dirichlet values and an initial condition."""
    place = strip()
    edge = dde.icbc.DirichletBC(place, lambda x: x[:, 1:2], lambda _, on: on)
    start = dde.icbc.IC(place, lambda x: np.sin(x[:, 0:1]), lambda _, on: on)
    data = dde.data.TimePDE(
        place, heat, [edge, start], num_domain=12, num_boundary=6, num_initial=5
    )
    return compiled(data, network(2), **options)


def flow(**options):
    """A system, three outputs, conditions on two of them, a transform of the outputs."""

    def equation(x, y):
        u, v = y[:, 0:1], y[:, 1:2]
        u_x = dde.grad.jacobian(y, x, i=0, j=0)
        v_y = dde.grad.jacobian(y, x, i=1, j=1)
        p_x = dde.grad.jacobian(y, x, i=2, j=0)
        u_yy = dde.grad.hessian(y, x, component=0, i=1, j=1)
        return [u * u_x + v * dde.grad.jacobian(y, x, i=0, j=1) + p_x - u_yy, u_x + v_y]

    place = dde.geometry.Rectangle([0, 0], [1, 2])
    conditions = [
        dde.icbc.DirichletBC(
            place, lambda x: x[:, 0:1] ** 2, lambda _, on: on, component=0
        ),
        dde.icbc.DirichletBC(
            place, lambda x: 0 * x[:, :1], lambda x, on: on and x[0] < 0.1, component=1
        ),
    ]
    data = dde.data.PDE(place, equation, conditions, num_domain=10, num_boundary=9)
    net = network(2, 3)
    net.apply_feature_transform(lambda x: torch.cat([x, torch.sin(x)], dim=1)[:, :2])
    net.apply_output_transform(lambda x, y: y * (1 + x[:, 0:1] * x[:, 1:2]))
    return compiled(data, net, **options)


def slopes(**options):
    """Neumann, Robin, periodic (value and slope) and operator conditions."""

    def equation(x, y):
        return dde.grad.hessian(y, x, i=0, j=0) + dde.grad.hessian(y, x, i=1, j=1) - y

    def at(side, value):
        return lambda x, on: on and np.isclose(x[side], value)

    def tilted(x, y, X):
        return dde.grad.jacobian(y, x, i=0, j=1) * y - x[:, 0:1]

    place = dde.geometry.Rectangle([-1, -1], [1, 1])
    conditions = [
        dde.icbc.NeumannBC(place, lambda x: np.cos(x[:, 0:1]), at(1, 1)),
        dde.icbc.RobinBC(place, lambda X, y: y**2 + 1, at(1, -1)),
        dde.icbc.PeriodicBC(place, 0, at(0, -1)),
        dde.icbc.PeriodicBC(place, 0, at(0, -1), derivative_order=1),
        dde.icbc.OperatorBC(place, tilted, lambda _, on: on),
    ]
    data = dde.data.PDE(place, equation, conditions, num_domain=8, num_boundary=24)
    return compiled(data, network(2), **options)


def inverse():
    """Two unknown numbers, measurements of values and of an operator, an auxiliary function.

    sin x solves it, with 2 and 0.5 for the unknown numbers.
    """
    rate = dde.Variable(1.2)
    source = dde.Variable(0.3)

    def equation(x, y, auxiliary):
        y_x = dde.grad.jacobian(y, x)
        return rate * dde.grad.hessian(y, x) + y_x * source**2 - auxiliary

    def slope(x, y, X):
        return dde.grad.jacobian(y, x) * source

    place = dde.geometry.Interval(0, 1)
    at = np.linspace(0, 1, 7)[:, None]
    conditions = [
        dde.icbc.PointSetBC(at, np.sin(at)),
        dde.icbc.PointSetOperatorBC(at[:4], 0.5 * np.cos(at[:4]), slope),
    ]
    data = dde.data.PDE(
        place, equation, conditions, num_domain=6, num_boundary=2,
        auxiliary_var_function=lambda x: 0.25 * np.cos(x) - 2 * np.sin(x),
    )  # fmt: skip
    return compiled(
        data,
        network(1),
        external_trainable_variables=[rate, source],
        loss_weights=[1, 5, 2],
    )


def columns():
    """A residual of two columns, and measurements of two components."""

    def equation(x, y):
        y_x = dde.grad.jacobian(y, x, i=0, j=0)
        return torch.cat([y_x, y[:, 1:2] * y_x], dim=1)

    place = dde.geometry.Interval(0, 1)
    at = np.linspace(0, 1, 5)[:, None]
    measured = dde.icbc.PointSetBC(at, np.hstack([at, at**2]), component=[0, 1])
    data = dde.data.PDE(place, equation, [measured], num_domain=6)
    return compiled(data, network(1, 2))


def expression():
    """An equation that differentiates a product, ``(k u_x)_x``."""

    def equation(x, y):
        flux = (1 + x[:, 0:1] ** 2) * dde.grad.jacobian(y, x)
        return dde.grad.jacobian(flux, x) + y

    place = dde.geometry.Interval(0, 1)
    edge = dde.icbc.DirichletBC(place, lambda x: x, lambda _, on: on)
    data = dde.data.PDE(place, equation, [edge], num_domain=6, num_boundary=2)
    return compiled(data, network(1))


MODELS = {
    "time_dependent": time_dependent,
    "flow": flow,
    "slopes": slopes,
    "inverse": inverse,
    "columns": columns,
    "expression": expression,
}


def own_residuals(model):
    """Return what DeepXDE hands to its losses, (N_k, m) by term, with their graph."""
    data = model.data
    inputs = torch.as_tensor(data.train_x).requires_grad_()
    model.net.auxiliary_vars = None
    if data.train_aux_vars is not None:
        model.net.auxiliary_vars = torch.as_tensor(data.train_aux_vars)
    dde.grad.clear()
    return data.losses(None, model.net(inputs), lambda _, error: error, inputs, model)
