"""Recording trainings: one's own loop gives the same run, and what cannot be replayed says so."""

import random

import pytest
import torch
from torch import nn

import whence as wh


class Noisy(nn.Module):
    """Adds noise that does not come from torch."""

    def forward(self, x):
        return x + random.random() * 1e-2


class Counting(nn.Module):
    """Has a buffer that training moves in its own way."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x - self.mean


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, generator=generator), torch.arange(n) % 2


def model(*parts):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), *parts, nn.Linear(4, 2))


def train(network, **options):
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return wh.train(
        network,
        data(),
        nn.CrossEntropyLoss(),
        optimizer,
        epochs=2,
        batch_size=5,
        **options,
    )


def test_the_same_seed_gives_the_same_bits():
    first = train(model(nn.Dropout(0.5)))
    second = train(model(nn.Dropout(0.5)))
    other = train(model(nn.Dropout(0.5)), seed=1)
    for name, value in first.record.end.items():
        assert torch.equal(value, second.record.end[name])
    assert not torch.equal(
        first.record.end["model.0.weight"], other.record.end["model.0.weight"]
    )
    again = first.retrained(torch.ones(12))
    assert torch.equal(again[0].weight, first.model[0].weight)


def test_training_leaves_modes_and_random_numbers_as_they_were():
    network = model(nn.Dropout(0.5)).eval()
    state = torch.random.get_rng_state()
    train(network)
    assert not any(module.training for module in network.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_loop_of_ones_own_is_the_same_training():
    by_train = train(model())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    recorder = wh.TrainingRecorder(network, optimizer, data(), nn.CrossEntropyLoss())
    for step in by_train.record.steps:
        recorder.step(step.places)
    run = recorder.run()
    assert torch.equal(network[0].weight, by_train.model[0].weight)
    a = wh.Replay(run).attribute(wh.Loss())
    b = wh.Replay(by_train).attribute(wh.Loss())
    assert (a.values == b.values).all()


def test_what_is_recorded_begins_with_the_first_step():
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    recorder = wh.TrainingRecorder(network, optimizer, data(), nn.CrossEntropyLoss())
    with torch.no_grad():
        network[0].weight.zero_()
    recorder.step([0, 1, 2])
    assert not recorder.run().record.start["model.0.weight"].any()
    # An optimizer that has taken steps before goes on from its state.
    later = wh.TrainingRecorder(network, optimizer, data(), nn.CrossEntropyLoss())
    later.step([3, 4])
    run = later.run()
    assert float(run.record.start["optimizer.0.weight/step"]) == 1
    assert wh.Replay(run).attribute(wh.Loss()).shape == (12, 12)


@pytest.mark.parametrize(
    ("places", "error", "message"),
    [
        (data()[0], TypeError, "order of"),
        ([0.5], TypeError, "places of its samples"),
        (torch.ones(12, dtype=torch.bool), TypeError, "places of its samples"),
        ([], TypeError, "places of its samples"),
        ([3, 12], ValueError, "from 0 to 11"),
        ([-1], ValueError, "from 0 to 11"),
    ],
)
def test_places(places, error, message):
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    recorder = wh.TrainingRecorder(network, optimizer, data(), nn.CrossEntropyLoss())
    with pytest.raises(error, match=message):
        recorder.step(places)


def test_bad_calls():
    network = model()
    loss = nn.CrossEntropyLoss()
    other = torch.optim.SGD(model().parameters(), 0.1)
    with pytest.raises(ValueError, match="not the model's"):
        wh.TrainingRecorder(network, other, data(), loss)
    with pytest.raises(TypeError, match=r"one of torch\.optim"):
        wh.TrainingRecorder(network, "adam", data(), loss)
    unknown = torch.optim.Rprop(network.parameters())
    with pytest.raises(ValueError, match=r"Rprop.*Adam, AdamW"):
        wh.TrainingRecorder(network, unknown, data(), loss)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    recorder = wh.TrainingRecorder(network, optimizer, data(), loss)
    with pytest.raises(ValueError, match="nothing was recorded"):
        recorder.run()
    recorder.step([0])
    network.eval()
    with pytest.raises(ValueError, match=r"model\.train\(\)"):
        recorder.step([1])
    for run in (network, recorder, None):
        with pytest.raises(TypeError, match=r"wh\.train"):
            wh.Replay(run)


def test_a_loss_that_is_not_finite():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 1e30)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        wh.train(network, data(), wh.CrossEntropy(), optimizer, epochs=5)


def test_points_that_were_not_trained_on():
    replay = wh.Replay(train(model()))
    with pytest.raises(ValueError, match=r"wh\.TrainingPoints"):
        replay.attribute(wh.Loss(), data(3))
    with pytest.raises(ValueError, match="does not predict a change"):
        replay.attribute(wh.Loss(), effect="perturb")


def test_numbers_from_elsewhere_are_named():
    network = nn.Sequential(nn.Linear(2, 4), nn.Sequential(Quiet()), nn.Linear(4, 2))
    run = train(network)
    with pytest.raises(ValueError, match=r"'1\.0', a Quiet.*random numbers"):
        wh.Replay(run).attribute(wh.Loss())


class Quiet(Noisy):
    """Adds the noise in training alone."""

    def forward(self, x):
        return super().forward(x) if self.training else x


def test_a_buffer_of_ones_own_is_named():
    run = train(model(Counting()))
    with pytest.raises(ValueError, match=r"'1\.mean'"):
        wh.Replay(run).attribute(wh.Loss())


def test_data_that_changed():
    x, y = data()
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    run = wh.train(network, (x, y), nn.CrossEntropyLoss(), optimizer, epochs=2)
    x.add_(1.0)
    with pytest.raises(ValueError, match="another network"):
        wh.Replay(run).attribute(wh.Loss())
