"""Trainable numbers, weights and rounding of DeepXDE models, as their own autograd has them."""

import numpy as np
import pytest
import torch
from dense import assert_same

dde = pytest.importorskip("deepxde")

import deepxde_models as models  # noqa: E402

from whence import pinn  # noqa: E402
from whence.adapters import deepxde as adapter  # noqa: E402
from whence.adapters.deepxde import from_model  # noqa: E402
from whence.jacobian import Jacobian  # noqa: E402

PLACE = dde.geometry.Interval(0, 1)


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    dde.config.set_default_float("float64")
    np.random.seed(0)
    yield
    dde.config.set_default_float("float32")
    torch.set_default_dtype(before)


def slope(x, y):
    return dde.grad.jacobian(y, x)


def at_the_edge(value=lambda x: 0):
    return dde.icbc.DirichletBC(PLACE, value, lambda _, on: on)


def made(equation, *variables, condition=None, transform=None, **options):
    data = dde.data.PDE(
        PLACE, equation, [condition or at_the_edge()], num_domain=5, num_boundary=2
    )
    net = models.network(1, width=4)
    if transform is not None:
        net.apply_output_transform(transform)
    return models.compiled(
        data, net, external_trainable_variables=list(variables), **options
    )


def assert_rows(model):
    """The rows of the first term's Jacobian are gradients of DeepXDE's residuals."""
    objective = from_model(model)
    parameters = [*model.net.parameters(), *model.external_trainable_variables]
    rows = []
    for r in models.own_residuals(model)[0].reshape(-1):
        parts = torch.autograd.grad(
            r, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    term = next(iter(objective.terms.values()))
    jacobian = Jacobian(objective.with_terms([term])).dense()
    expected = torch.stack(rows)
    # Rows carry the square root of the weight of a point.
    scale = float(jacobian.norm() / expected.norm())
    assert_same(jacobian, scale * expected, 1e-10)


ENTRY = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
NUMBER = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "equation",
    [
        lambda x, y: ENTRY[0] * slope(x, y) + y,
        lambda x, y: NUMBER.mean() * slope(x, y) + y,
        lambda x, y: NUMBER * slope(x, y)[:, 0] + y[:, 0],
        lambda x, y: slope(x, y) * torch.stack([NUMBER, NUMBER**2]).sum() + y,
    ],
)
def test_a_number_may_be_taken_otherwise_than_as_a_column(equation):
    """An entry of a column is that of the first point, which has the right value all the same."""
    assert_rows(made(equation, ENTRY, NUMBER))


def test_a_transform_may_take_an_entry_of_a_number():
    model = made(
        lambda x, y: slope(x, y) + y, ENTRY, transform=lambda x, y: x * y * ENTRY[0]
    )
    assert_rows(model)


def test_a_transform_may_differentiate():
    assert_rows(made(slope, transform=lambda x, y: x * y + slope(x, y)))


def test_an_equation_may_write_in_place():
    def equation(x, y):
        residual = slope(x, y)
        residual.add_(y)
        return residual

    assert_rows(made(equation))


@pytest.mark.parametrize("name", ["u", "x", "u_x"])
def test_a_number_may_have_the_name_of_a_field(name):
    variable = dde.Variable(0.7)
    space = {name: variable, "slope": slope}
    exec(f"def equation(p, y): return {name} * slope(p, y) + y", space)
    model = made(space["equation"], variable)
    assert_rows(model)
    assert "variables.variable_0.theta" in from_model(model).parameters.names


def test_boundary_values_of_a_number_are_refused():
    """DeepXDE itself keeps those that it computed first."""
    condition = at_the_edge(lambda x: NUMBER + torch.as_tensor(x))
    with pytest.raises(ValueError, match="give an OperatorBC"):
        from_model(made(slope, NUMBER, condition=condition))


def test_decay_apart_from_the_loss_is_refused():
    model = made(slope)
    net = dde.nn.FNN([1, 4, 1], "tanh", "Glorot normal", regularization=["l2", 0.01])
    model = dde.Model(model.data, net)
    model.compile("adam", lr=1e-3, verbose=0)
    assert from_model(model).weight_decay == 0.01
    model.compile("adamw", lr=1e-3, verbose=0)
    with pytest.raises(ValueError, match="apart from the loss"):
        from_model(model)


def test_term_weights_do_not_grow_from_training_to_training():
    model = made(slope, loss_weights=np.array([2.0, 3.0]))
    callback = adapter.TermWeighting(pinn.NeuralTangentKernel(update_every=100))
    callback.set_model(model)
    callback.on_train_begin()
    first = list(model.loss_weights)
    callback.on_train_begin()
    assert model.loss_weights == pytest.approx(first)


def test_a_weight_changed_in_place_is_seen():
    model = made(slope, loss_weights=[1.0, 1.0])
    adapter.use_optimizer(model, pinn.GaussNewton(3))
    model.opt.step()
    model.loss_weights[1] = 7.0
    model.opt.step()
    assert model.opt._objective.terms["dirichlet"].weight == 7.0


def test_an_operator_at_the_start_has_fresh_points():
    place = models.strip()
    start = dde.icbc.OperatorBC(
        place,
        lambda x, y, _: dde.grad.jacobian(y, x, i=0, j=1),
        lambda x, _: np.isclose(x[1], 0),
    )
    data = dde.data.TimePDE(
        place, models.heat, [start], num_domain=5, num_boundary=4, num_initial=4
    )
    objective = from_model(models.compiled(data, models.network(2, width=4)))
    points = objective.space.draw("operator", 6, 0)
    assert len(points) == 6
    assert (points[:, 1] == 0).all()
