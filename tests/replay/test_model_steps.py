"""Replays of models' trainings against finite differences of whole trainings."""

from types import SimpleNamespace

import numpy as np
import oracles
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import whence as wh

N = 18
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "nesterov": lambda p: torch.optim.SGD(
        p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "dampened": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.5),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2),
    "amsgrad": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5),
    "centered": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, lr_decay=0.1),
    "maximize": lambda p: torch.optim.Adam(p, 1e-3, maximize=True),
}


def table():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (N,), generator=generator)


def tokens():
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 10, (N, 5), generator=generator)
    return x, torch.randint(0, 3, (N,), generator=generator)


def images():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (N,), generator=generator)


def perceptron():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layers(self.embedding(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        hidden, _ = self.lstm(self.embedding(x))
        return self.head(hidden[:, -1])


def trained(make, data, optimizer, **options):
    torch.manual_seed(0)
    model = make().double()
    return wh.train(
        model,
        data,
        nn.CrossEntropyLoss(),
        optimizer(model.parameters()),
        epochs=3,
        batch_size=6,
        **options,
    )


def really(run, data, place, h=1e-4):
    """Return ``−∂f/∂w`` of the losses of three samples by trainings with other weights."""
    x, y = data

    def losses(weight):
        weights = torch.ones(N, dtype=torch.float64)
        weights[place] = weight
        model = run.retrained(weights).eval()
        with torch.no_grad():
            return F.cross_entropy(model(x[:3]), y[:3], reduction="none")

    return -oracles.derivative(losses, 1.0, h)


def check(run, data, tolerance=1e-6):
    x, y = data
    effects = wh.Replay(run).attribute(wh.Loss((x[:3], y[:3])))
    for place in (0, 7):
        actual = really(run, data, place)
        error = torch.from_numpy(effects.values[:, place]) - actual
        assert float(error.norm() / actual.norm()) < tolerance
    return effects


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name):
    check(trained(perceptron, table(), OPTIMIZERS[name]), table())


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "data"),
    [(convolutions, images), (Transformer, tokens), (Recurrent, tokens)],
    ids=["batch_norm", "transformer", "lstm"],
)
def test_every_kind_of_model(make, data, name):
    run = trained(make, data(), OPTIMIZERS[name])
    check(run, data(), 1e-5 if name == "adam" else 1e-6)


def test_clipping_schedules_and_parts_of_the_model():
    torch.manual_seed(0)
    model = perceptron().double()
    model[0].weight.requires_grad_(False)
    groups = [{"params": [model[0].bias], "lr": 0.3}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [0.5, 0.2], total_steps=9
    )
    run = wh.train(
        model,
        table(),
        nn.CrossEntropyLoss(),
        optimizer,
        epochs=3,
        batch_size=6,
        scheduler=scheduler,
        max_norm=0.3,
    )
    rates = {step.options[0]["lr"] for step in run.record.steps}
    assert len(rates) == 9
    check(run, table())


def test_few_states_and_many_targets_change_nothing():
    run = trained(perceptron, table(), OPTIMIZERS["adam"])
    x, y = table()
    quantity = wh.Loss((x, y))
    whole = wh.Replay(run).attribute(quantity)
    few = wh.Replay(run, kept=2, memory_budget=20_000).attribute(quantity)
    oracles.close(few.values, whole.values, 1e-10)
    some = wh.Replay(run).attribute(quantity, wh.TrainingPoints([5, 2]))
    oracles.close(some.values, whole.values[:, [2, 5]], 1e-10)
    np.testing.assert_array_equal(some["index"], [2, 5])
    own = wh.Replay(run).self_influence()
    oracles.close(own.values, np.diagonal(whole.values), 1e-10)
    own = wh.Replay(run).self_influence(wh.TrainingPoints([5, 2]))
    oracles.close(own.values, np.diagonal(whole.values)[[2, 5]], 1e-10)
    summed = wh.Replay(run).attribute_sum(quantity)
    oracles.close(summed.values, whole.values.sum(0), 1e-10)


def test_answers_are_asked_for_between_replays():
    """Targets come in blocks, each with a replay of its own, at the network of the end."""
    run = trained(perceptron, table(), OPTIMIZERS["adam"])
    x, y = table()
    parts = [wh.Loss((x[k : k + 6], y[k : k + 6])) for k in (0, 6, 12)]
    whole = wh.Replay(run).attribute(wh.Loss((x, y)))
    in_blocks = wh.Replay(run, memory_budget=10_000).attribute(parts)
    oracles.close(in_blocks.values, whole.values, 1e-10)


def test_a_replay_has_no_parts_by_layer():
    replay = wh.Replay(trained(perceptron, table(), OPTIMIZERS["sgd"]))
    with pytest.raises(ValueError, match="no sums over layers"):
        replay.attribute(wh.Loss(), by_layer=True)


def test_at_a_minimum_it_is_the_influence():
    """Full batches of a convex loss, trained to its minimum: −(1/N)∇fᵀH⁻¹∇ℓ with sign turned."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=200, batch_size=12)
    replayed = wh.Replay(run).attribute(wh.Output(x[:4]))
    influence = wh.Influence(run.objective, damping=0.0).attribute(wh.Output(x[:4]))
    oracles.close(replayed.values, influence.values, 1e-8)


def test_leaving_out_is_what_retraining_does():
    run = trained(perceptron, table(), OPTIMIZERS["sgd"])
    x, y = table()
    effects = wh.Replay(run).attribute(wh.Loss((x[:1], y[:1])))
    losses = []
    for place in range(6):
        weights = torch.ones(N)
        weights[place] = 0.0
        model = run.retrained(weights).eval()
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model(x[:1]), y[:1])))
    with torch.no_grad():
        before = float(F.cross_entropy(run.model(x[:1]), y[:1]))
    actual = np.asarray(losses) - before
    assert np.corrcoef(actual, effects.values[0, :6])[0, 1] > 0.99


def test_quality_and_attributes():
    effects = wh.Replay(trained(perceptron, table(), OPTIMIZERS["sgd"])).attribute(
        wh.Loss()
    )
    assert effects.attrs["steps"] == 9
    assert "all 9 steps" in str(effects.quality())
    assert effects.quality().caveats == ()


class NextTokens(nn.Module):
    """A language model of Hugging Face's kind: a batch by name in, an object with logits out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        mask = nn.Transformer.generate_square_subsequent_mask(
            input_ids.shape[1], dtype=hidden.dtype
        )
        hidden = self.layer(hidden, src_mask=mask, is_causal=True)
        return SimpleNamespace(logits=hidden @ self.embedding.weight.T)


def test_a_language_model_with_tied_weights():
    torch.manual_seed(0)
    x, _ = tokens()
    labels = x.clone()
    labels[::3, 3:] = -100
    batch = {"input_ids": x, "labels": labels}
    model = NextTokens().double()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    run = wh.train(model, batch, wh.NextToken(), optimizer, epochs=2, batch_size=6)
    quantity = wh.Loss({"input_ids": x[:2], "labels": labels[:2]})
    effects = wh.Replay(run).attribute(quantity)

    def losses(weight):
        weights = torch.ones(N, dtype=torch.float64)
        weights[4] = weight
        model = run.retrained(weights)
        objective = wh.Objective.supervised(model, batch, wh.NextToken())
        return quantity.values(objective)

    actual = -oracles.derivative(losses, 1.0, 1e-4)
    error = torch.from_numpy(effects.values[:, 4]) - actual
    assert float(error.norm() / actual.norm()) < 1e-6
