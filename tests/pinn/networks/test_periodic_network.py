"""Networks of waves: exactly periodic with all derivatives, whatever is within."""

import math

import pytest
import torch

from whence import pinn
from whence.catalogue import NETWORKS

BOUNDS = [[-1.0, 0.0], [2.0, 0.5]]


def test_inputs_are_waves_and_the_others():
    network = pinn.PeriodicNetwork([2, 5, 1], {0: 3.0}, modes=2, bounds=BOUNDS, seed=0)
    x = torch.tensor([[0.4, 0.2], [-0.3, 0.1]], dtype=torch.float64)
    angle = 2 * math.pi * (x[:, :1] + 1) / 3
    features = torch.cat(
        [angle.cos(), (2 * angle).cos(), angle.sin(), (2 * angle).sin(), x[:, 1:]],
        dim=1,
    )
    torch.testing.assert_close(network(x), network.network(features))
    # What is within scales the other input, and leaves waves as they are.
    expected = torch.tensor([[-1, -1, -1, -1, 0], [1, 1, 1, 1, 0.5]])
    assert torch.equal(network.network.bounds, expected.double())
    assert network.periods == {0: 3.0}


@pytest.mark.parametrize("kind", [name for name in NETWORKS if name != "piecewise"])
def test_values_and_derivatives_are_periodic(kind):
    network = pinn.PeriodicNetwork([2, 6, 1], {0: 3.0}, modes=2, kind=kind, seed=2)
    if kind.endswith("features"):
        torch.nn.init.normal_(network.network.last.weight)
    domain = pinn.Interval("x", -1, 2) * pinn.Interval("t", 0, 1)
    problem = pinn.Problem(
        domain=domain, outputs=("u",), equations={"pde": lambda u: u}
    )
    left = torch.tensor([[-1.0, 0.3], [-1.0, 0.9]], dtype=torch.float64)
    right = left + torch.tensor([3.0, 0.0])
    names = ("u", "u_x", "u_t", "u_xx", "u_xt", "u_xxx")
    first = problem.evaluate(network, left, names)
    second = problem.evaluate(network, right, names)
    size = first.abs().clamp_min(1.0)
    assert float(((first - second) / size).abs().max()) < 1e-11
    assert bool((first[:, 1:].abs() > 1e-6).any())


def test_ends_of_a_period_are_one_place_to_the_last_bit():
    bounds = [[0.1, 0.0], [0.4, 1.0]]  # of a width that is no binary fraction
    network = pinn.PeriodicNetwork([2, 6, 1], {0: 0.3}, bounds=bounds, seed=0)
    left = torch.tensor([[0.1, 0.2], [0.1, 0.7]], dtype=torch.float64)
    right = torch.tensor([[0.4, 0.2], [0.4, 0.7]], dtype=torch.float64)
    assert torch.equal(network(left), network(right))

    # There too the derivative is that of its neighbours, by jets and by nested autograd.
    domain = pinn.Interval("x", 0.1, 0.4) * pinn.Interval("t", 0, 1)
    names = ("u_x", "u_xx", "u_t")
    values = {}
    for how in ("jets", "autograd"):
        problem = pinn.Problem(
            domain=domain,
            outputs=("u",),
            equations={"pde": lambda u: u},
            derivatives=how,
        )
        values[how] = problem.evaluate(network, left, names)
        near = problem.evaluate(network, left + torch.tensor([1e-7, 0.0]), names)
        torch.testing.assert_close(values[how], near, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values["jets"], values["autograd"])
    assert float(values["jets"].abs().min()) > 1e-3


def test_periods_by_name_by_default_and_around_a_network():
    names = ("x", "y")
    by_name = pinn.PeriodicNetwork([2, 4, 1], {"y": 2.0}, coordinates=names, seed=0)
    assert by_name.periods == {1: 2.0}
    assert pinn.PeriodicNetwork([2, 4, 1], bounds=BOUNDS, seed=0).periods == {0: 3.0}
    assert pinn.PeriodicNetwork([2, 4, 1], seed=0).periods == {0: 2.0}

    both = pinn.PeriodicNetwork.of(pinn.MLP([4, 3, 1], seed=0), 2, {0: 1.0, 1: 2.0})
    x = torch.tensor([[0.1, 0.7]], dtype=torch.float64)
    shifted = x + torch.tensor([[2.0, -4.0]])
    torch.testing.assert_close(both(x), both(shifted), rtol=0, atol=1e-14)
    again = pinn.PeriodicNetwork.from_options(both.options())
    assert repr(again) == repr(both)


def test_periodic_conditions_hold_by_themselves():
    problem = pinn.zoo.load("korteweg_de_vries")
    network = pinn.PeriodicNetwork([2, 8, 1], bounds=problem.domain.bounds, seed=0)
    counts = dict.fromkeys(problem.terms, 4)
    losses = problem.objective(network, problem.sample(counts, seed=0)).losses()
    for name in problem.terms:
        assert (float(losses[name]) < 1e-20) == (name != "pde")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.PeriodicNetwork([2, 4, 1], {2: 1.0}), "periodic input '2'"),
        (
            lambda: pinn.PeriodicNetwork([2, 4, 1], {"z": 1.0}, coordinates=("x", "t")),
            "periodic input 'z'",
        ),
        (
            lambda: pinn.PeriodicNetwork([2, 4, 1], {0: 0.0}),
            "the period of input 0 must be a positive number",
        ),
        (lambda: pinn.PeriodicNetwork([2, 4, 1], {}), "at least one input"),
        (lambda: pinn.PeriodicNetwork([2, 4, 1], modes=0), "modes must be a positive"),
        (
            lambda: pinn.PeriodicNetwork([2, 4, 1], coordinates=("x",)),
            "coordinates must be 2 names",
        ),
        (lambda: pinn.PeriodicNetwork([2, 4, 1], kind="mlpp"), "did you mean 'mlp'"),
    ],
)
def test_mistakes_of_periods_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_that_no_folder_can_hold_is_refused():
    within = torch.nn.Linear(3, 1, dtype=torch.float64)
    network = pinn.PeriodicNetwork.of(within, 2, {0: 1.0})
    with pytest.raises(TypeError, match="Linear, which is not in the catalogue"):
        network.options()
