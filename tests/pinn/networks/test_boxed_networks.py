"""SIREN, modified MLP, PirateNet, separable networks and trainable slopes by their formulas."""

import math

import pytest
import torch

from whence import pinn

BOUNDS = [[-1.0, 0.0], [3.0, 0.5]]


def inputs(n=7):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 2, generator=generator, dtype=torch.float64)


def scaled(x):
    low, high = torch.tensor(BOUNDS, dtype=torch.float64)
    return 2 * (x - low) / (high - low) - 1


def close(values, expected):
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-13)


def test_siren_is_sines_of_omega_times_layers():
    network = pinn.SIREN([2, 6, 5, 3], omega=7.0, bounds=BOUNDS, seed=1)
    h = scaled(inputs())
    for k, linear in enumerate(network.linears):
        y = h @ linear.weight.T + linear.bias
        h = torch.sin(7.0 * y) if k < 2 else y
    close(network(inputs()), h)
    assert network.omega == 7.0


def test_siren_begins_with_arguments_of_equal_spread_in_all_layers():
    network = pinn.SIREN([1, 400, 400, 400, 1], omega=30.0, seed=0)
    limits = [1.0, *[math.sqrt(6 / 400) / 30] * 3]
    for linear, limit in zip(network.linears, limits, strict=True):
        assert linear.weight.abs().max() <= limit
        assert linear.weight.abs().max() > 0.9 * limit
        assert linear.bias.abs().max() <= 1 / math.sqrt(linear.in_features)

    # Beside the biases' part, 30²/(3·400), the arguments of inner layers have variance 1.
    x = torch.linspace(-1, 1, 2000, dtype=torch.float64)[:, None]
    h = torch.sin(30 * network.linears[0](x))
    for linear in network.linears[1:3]:
        argument = 30 * (h @ linear.weight.T).detach()
        assert float(argument.std()) == pytest.approx(1.0, rel=0.15)
        h = torch.sin(30 * linear(h))


def test_modified_mlp_mixes_two_encodings():
    network = pinn.ModifiedMLP([2, 5, 5, 3], "sin", bounds=BOUNDS, seed=1)
    x = h = scaled(inputs())
    u = torch.sin(network.gates.first(x))
    v = torch.sin(network.gates.second(x))
    for linear in network.linears:
        z = torch.sin(linear(h))
        h = (1 - z) * u + z * v
    close(network(inputs()), network.last(h))


def test_pirate_net_begins_as_a_linear_map_of_its_embedding():
    network = pinn.PirateNet([2, 8, 8, 8, 2], bounds=BOUNDS, seed=1)
    angles = scaled(inputs()) @ network.frequencies.T
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    close(network(inputs()), network.last(embedding))


def test_pirate_net_is_gated_residual_blocks():
    network = pinn.PirateNet([2, 6, 6, 1], seed=1)
    for k, block in enumerate(network.blocks):
        torch.nn.init.constant_(block.share.weight, 0.3 + 0.2 * k)
    h = network.embedding(inputs())
    u = torch.tanh(network.gates.first(h))
    v = torch.tanh(network.gates.second(h))
    for k, block in enumerate(network.blocks):
        alpha = 0.3 + 0.2 * k
        f = torch.tanh(block.first(h))
        g = torch.tanh(block.second((1 - f) * u + f * v))
        full = torch.tanh(block.third((1 - g) * u + g * v))
        h = alpha * full + (1 - alpha) * h
    close(network(inputs()), network.last(h))


def test_pirate_net_is_fitted_to_values_by_least_squares():
    network = pinn.PirateNet([2, 20, 20, 2], seed=1)
    points = inputs(60)
    values = torch.stack([points[:, 0] * points[:, 1], points.sum(dim=1)], dim=1)
    network.fit(points, values)
    ones = torch.ones(60, 1, dtype=torch.float64)
    rows = torch.cat([network.embedding(points), ones], dim=1)
    best = torch.linalg.lstsq(rows, values).solution
    torch.testing.assert_close(
        network(points), rows @ best, rtol=0, atol=1e-5 * float(values.abs().max())
    )
    left = (network(points) - values).detach().norm()
    assert float(left / values.norm()) < 1e-3


def test_separable_is_a_sum_of_products_also_on_grids():
    network = pinn.Separable([2, 5, 3], rank=4, bounds=BOUNDS, seed=1)
    x = scaled(inputs())
    by_term = [f(x[:, k : k + 1]).view(-1, 3, 4) for k, f in enumerate(network.factors)]
    close(network(inputs()), (by_term[0] * by_term[1]).sum(-1))

    sides = [torch.linspace(-1, 3, 5).double(), torch.linspace(0, 0.5, 4).double()]
    points = torch.cartesian_prod(*sides)
    close(network.grid(sides).reshape(20, 3), network(points))
    with pytest.raises(ValueError, match="needs 2 sides, got 1"):
        network.grid(sides[:1])


@pytest.mark.parametrize(("adaptive", "count"), [("layer", 1), ("neuron", 5)])
def test_trainable_slopes(adaptive, count):
    network = pinn.MLP([2, 5, 5, 1], adaptive=adaptive, slope_factor=10.0, seed=1)
    # n a is 1 at first: the same network as without.
    close(network(inputs()), pinn.MLP([2, 5, 5, 1], seed=1)(inputs()))
    slopes = []
    for k, slope in enumerate(network.slopes):
        assert slope.weight.shape == (count, 1)
        assert float(slope.weight[0]) == pytest.approx(0.1)
        with torch.no_grad():
            slope.weight += 0.01 * torch.arange(1.0, count + 1)[:, None] * (k + 1)
        slopes.append(slope.weight.detach()[:, 0])

    h = inputs()
    for linear, slope in zip(network.linears[:-1], slopes, strict=True):
        h = torch.tanh(10 * slope * linear(h))
    close(network(inputs()), network.linears[-1](h))
    assert "adaptive" in repr(network)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pinn.SIREN([2, 4, 1], omega=0.0), "omega must be a positive number"),
        (lambda: pinn.ModifiedMLP([2, 4, 5, 1]), r"one width.*got \[2, 4, 5, 1\]"),
        (lambda: pinn.ModifiedMLP([2, 1]), "hidden layers of one width"),
        (lambda: pinn.PirateNet([2, 5, 1]), "5 is odd, take 6"),
        (lambda: pinn.PirateNet([2, 4, 1], scale=-1.0), "scale must be a positive"),
        (lambda: pinn.Separable([2, 4, 1], rank=0), "rank must be a positive integer"),
        (lambda: pinn.MLP([2, 4, 1], adaptive="layers"), "did you mean 'layer'"),
        (lambda: pinn.SIREN([2, 4, 1], dtype=torch.int64), "floating-point"),
        (
            lambda: pinn.SIREN([2, 4, 1])(torch.zeros(3, 1).double()),
            r"shape \(n, 2\), got \(3, 1\)",
        ),
    ],
)
def test_mistakes_of_networks_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_single_precision_draws_the_same_network():
    for kind in (pinn.SIREN, pinn.ModifiedMLP, pinn.PirateNet, pinn.Separable):
        double = kind([2, 8, 8, 1], seed=5)
        single = kind([2, 8, 8, 1], seed=5, dtype=torch.float32)
        found = single(inputs().float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), double(inputs()), rtol=0, atol=1e-4)
        assert "float32" in repr(single)
