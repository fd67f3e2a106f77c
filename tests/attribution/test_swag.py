"""Networks drawn around the states of a training, against the moments they must have."""

import oracles
import pytest
import torch
from torch import nn

import whence as wh
from whence.attribution.swag import WeightGaussian


def data(n=20):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3


def trained(model, epochs=8):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    loss = nn.CrossEntropyLoss()
    return wh.train(model, data(), loss, optimizer, epochs=epochs, batch_size=5)


def test_draws_have_the_mean_and_the_covariance_of_swag():
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(4, 3, generator=generator, dtype=torch.float64) + 2.0
    gaussian = WeightGaussian.of(states)
    draws = torch.stack([gaussian.draw(seed, spread=2.0) for seed in range(20_000)])
    centered = states - states.mean(0)
    low_rank = centered.T @ centered / 3
    diagonal = centered.square().mean(0).diag()
    expected = 2.0 * (0.5 * diagonal + 0.5 * low_rank)
    assert torch.allclose(draws.mean(0), states.mean(0), atol=0.05)
    assert torch.allclose(torch.cov(draws.T), expected, atol=0.1)
    assert torch.equal(gaussian.draw(7), gaussian.draw(7))


def test_without_spread_it_is_the_method_at_the_mean_of_the_states():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    run = trained(model)
    states = run.checkpoints([20, 26, 32])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def make(network):
        return wh.Influence(network, data(), nn.CrossEntropyLoss(), damping=1e-2)

    ensemble = wh.Ensemble.swag(make, model, states, count=2, spread=0.0)
    mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in before}
    model.load_state_dict(mean)
    expected = make(model).attribute(wh.Loss(data(4))).values
    model.load_state_dict(before)
    oracles.close(ensemble.attribute(wh.Loss(data(4))).values, expected, 1e-10)

    # Members differ, and the model stays as it is.
    drawn = wh.Ensemble.swag(make, model, states, count=2, seed=3)
    first, second = (member.attribute(wh.Loss()).values for member in drawn.members)
    assert abs(first - second).max() > 1e-6
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_members_are_states_of_a_training_with_their_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    run = trained(model)
    states = run.checkpoints([8, 32])
    task = (data(), nn.CrossEntropyLoss())
    ensemble = wh.Ensemble.of_checkpoints(
        lambda network: wh.GradDot(network, *task), model, states
    )
    # As the sum over checkpoints of products of gradients, with rates of a half.
    tracin = wh.TracIn(model, states, 0.5, data=task[0], loss=task[1])
    quantity = wh.Loss(data(4))
    oracles.close(
        ensemble.attribute(quantity).values, tracin.attribute(quantity).values, 1e-12
    )


def test_batch_normalization_gets_the_statistics_of_the_drawn_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    run = trained(model)
    states = run.checkpoints([24, 32])

    def make(network):
        return wh.GradDot(network, data(), nn.CrossEntropyLoss())

    (member,) = wh.Ensemble.swag(make, model, states, count=1).members
    linear, normalization, _ = member.objective.network
    inputs = linear(data()[0])
    oracles.close(normalization.running_mean, inputs.mean(0).detach(), 1e-10)
    oracles.close(normalization.running_var, inputs.var(0).detach(), 1e-10)
    assert normalization.momentum == 0.1
    assert not torch.allclose(normalization.running_mean, model[1].running_mean)


def test_what_does_not_fit_is_named():
    model = nn.Linear(3, 3).double()
    run = trained(model)
    states = run.checkpoints([24, 32])

    def make(network):
        return wh.GradDot(network, data(), nn.CrossEntropyLoss())

    with pytest.raises(ValueError, match="two or more checkpoints"):
        wh.Ensemble.swag(make, model, states[:1])
    with pytest.raises(TypeError, match="must return a method"):
        wh.Ensemble.swag(lambda network: network, model, states)
    with pytest.raises(TypeError, match="of the model that it is given"):
        wh.Ensemble.of_checkpoints(lambda network: make(model), model, states)
    with pytest.raises(ValueError, match="single state_dict"):
        wh.Ensemble.of_checkpoints(make, model, states[0])
    with pytest.raises(ValueError, match="spread"):
        wh.Ensemble.swag(make, model, states, spread=-1.0)
    with pytest.raises(ValueError, match="the network of"):
        wh.Ensemble.swag(make, nn.Linear(3, 4), states)
