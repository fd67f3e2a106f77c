"""Small supervised models whose data are images, rows and sequences, for tests of the explorer."""

from contextlib import contextmanager

import torch
from torch import nn

import whence as wh
from whence.explore import SampleSession
from whence.explore.sample_answers import SampleAnswers
from whence.explore.sample_questions import SampleQuestions
from whence.explore.server import Explorer

N_TRAINING, N_TEST = 60, 24
PENALTY = 0.2
"""c of the penalty (c/2)‖θ‖²: with it the wrong labels are not learnt by heart."""


def fitted(model, data, loss):
    """Return a model after some steps towards a minimum of its loss with a penalty."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def closure():
        optimizer.zero_grad()
        penalty = sum(p.square().sum() for p in model.parameters())
        total = loss(model(data[0]), data[1]) + PENALTY / 2 * penalty
        total.backward()
        return total

    optimizer.step(closure)
    return model


def split(x, y):
    return (x[:N_TRAINING], y[:N_TRAINING]), (x[N_TRAINING:], y[N_TRAINING:])


def images(seed=0):
    """Return what reads noisy images of three classes, with wrong labels, and test data."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(N_TRAINING + N_TEST) % 3
    x = torch.randn(
        N_TRAINING + N_TEST, 1, 6, 6, generator=generator, dtype=torch.float64
    )
    for k in range(3):
        x[y == k, 0, 2 * k : 2 * k + 2] += 0.7
    data, test = split(x, y.clone())
    data[1][::10] = (data[1][::10] + 1) % 3
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    loss = nn.CrossEntropyLoss()
    return fitted(model, data, loss), data, loss, test


def rows(kind="value", seed=0):
    """Return what predicts a value, or one of two labels, from four numbers, and test data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N_TRAINING + N_TEST, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(N_TRAINING + N_TEST, generator=generator, dtype=torch.float64)
    y = (x[:, 0] - 0.5 * x[:, 1] + 0.3 * noise)[:, None]
    loss = nn.MSELoss()
    if kind == "pairs":
        y = torch.cat([y, x[:, 2:3]], dim=1)
    if kind == "binary":
        y, loss = (y > 0).double(), nn.BCEWithLogitsLoss()
    data, test = split(x, y)
    torch.manual_seed(seed)
    layers = nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, y.shape[1])
    model = nn.Sequential(*layers).double()
    return fitted(model, data, loss), data, loss, test


class Counts(nn.Module):
    """Classes of sequences, by how often a word is in them."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(dim=1))


def sequences(seed=0):
    """Return what classifies sequences of whole numbers, and test data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 9, (N_TRAINING + N_TEST, 7), generator=generator)
    y = ((x > 4).sum(dim=1) > 3).long()
    data, test = split(x, y)
    torch.manual_seed(seed)
    loss = nn.CrossEntropyLoss()
    return fitted(Counts().double(), data, loss), data, loss, test


MODELS = {
    "images": images,
    "values": rows,
    "binary": lambda: rows("binary"),
    "pairs": lambda: rows("pairs"),
    "sequences": sequences,
}


def influence_of(name, **options):
    """Return an influence of one of these models, and its test data."""
    model, data, loss, test = MODELS[name]()
    options = {"damping": 1e-3, "weight_decay": PENALTY, **options}
    return wh.Influence(model, data, loss, **options), test


def session_of(name, **names):
    influence, test = influence_of(name)
    return SampleSession(influence, test, **names)


@contextmanager
def served_samples(session):
    """Serve a session's page."""
    with Explorer(SampleQuestions(SampleAnswers(session, "small")), port=0) as explorer:
        explorer.start()
        yield explorer
