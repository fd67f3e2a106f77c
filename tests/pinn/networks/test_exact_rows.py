"""Every kind of network against nested autograd: fields, and rows of the residual's Jacobian."""

import pytest
import torch
from torch.func import functional_call

import whence as wh
from whence import pinn
from whence.linearization import LayerLinearization, linearize

BOUNDS = [[-1.0, 0.0], [1.0, 2.0]]

MAKE = {
    "siren": lambda: pinn.SIREN([2, 6, 5, 1], omega=3.0, bounds=BOUNDS, seed=0),
    "adaptive_layer": lambda: pinn.MLP(
        [2, 6, 5, 1], bounds=BOUNDS, adaptive="layer", slope_factor=4.0, seed=0
    ),
    "adaptive_neuron": lambda: pinn.MLP(
        [2, 6, 5, 1], "sin", adaptive="neuron", slope_factor=2.0, seed=0
    ),
    "modified_mlp": lambda: pinn.ModifiedMLP([2, 6, 6, 1], bounds=BOUNDS, seed=0),
    "pirate_net": lambda: pinn.PirateNet([2, 4, 4, 1], bounds=BOUNDS, seed=0),
    "separable": lambda: pinn.Separable([2, 5, 1], rank=3, bounds=BOUNDS, seed=0),
    "periodic": lambda: pinn.PeriodicNetwork(
        [2, 6, 6, 1], {0: 2.0}, modes=2, kind="modified_mlp", bounds=BOUNDS, seed=0
    ),
    "stages": lambda: pinn.Stages([2, 5, 1], [0.1, 0.02], bounds=BOUNDS, seed=0),
}


def stirred(network):
    """Move parameters, as those that begin at zero or one would hide mistakes."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.add_(0.2 * noise)
    return network


def equation(u, u_t, u_x, u_xx, u_xt, u_xxx):
    return u_t + u * u_x + 0.3 * u_xx * u_xt - 0.1 * u_xxx


def by_hand(network, tensors, point):
    """The same residual at one point (d,), its derivatives by nested reverse mode."""

    def u(z):
        return functional_call(network, tensors, (z[None],))[0, 0]

    def derivative(function, column):
        return lambda z: torch.func.grad(function)(z)[column]

    u_x = derivative(u, 0)
    u_xx = derivative(u_x, 0)
    names = [u, derivative(u, 1), u_x, u_xx, derivative(u_x, 1), derivative(u_xx, 0)]
    return equation(*[function(point) for function in names])


def problem():
    domain = pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 2)
    return pinn.Problem(domain=domain, outputs=("u",), equations={"pde": equation})


@pytest.mark.parametrize("name", MAKE)
def test_rows_are_exact_and_by_layers_alone(name):
    network = stirred(MAKE[name]())
    points = torch.tensor([[-0.7, 0.1], [0.2, 1.3], [0.9, 1.9]], dtype=torch.float64)
    objective = problem().objective(network, {"pde": points})
    term = objective.terms["pde"]
    linear = linearize(term.residual, objective.parameters, term.points)
    assert isinstance(linear, LayerLinearization)

    rows = linear.rows(torch.ones_like(linear.value))
    tensors = {name: p.detach() for name, p in network.named_parameters()}
    selected = objective.parameters.names
    for k, point in enumerate(points):

        def residual(chosen, at=point):
            return by_hand(network, tensors | chosen, at)

        chosen = {name: tensors[name] for name in selected}
        gradient, value = torch.func.grad_and_value(residual)(chosen)
        expected = torch.cat([gradient[name].flatten() for name in selected])
        torch.testing.assert_close(linear.value[k, 0], value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(rows[k], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MAKE)
def test_trains_loads_and_is_explained(name, tmp_path):
    def run(folder, **options):
        return pinn.train(
            problem(), MAKE[name](), points=20, schedule=pinn.Adam(6), validation=20,
            progress=False, out=folder, **options,
        )  # fmt: skip

    result = run(tmp_path / "run")
    again = pinn.load_run(tmp_path / "run", problem=problem())
    points = torch.tensor([[0.3, 0.5], [-0.2, 1.5]], dtype=torch.float64)
    assert torch.equal(again.network(points), result.network(points))
    assert repr(again.network) == repr(result.network)
    assert result.history["loss"][-1] < result.history["loss"][0]

    influence = wh.Influence(again.objective, damping=1e-6)
    with pytest.warns(wh.FarFromMinimum):
        table = influence.attribute(wh.Output(points))
    assert table.shape == (2, 20)
    assert bool((abs(table) > 0).any())
