"""Recorded trainings of small models of several kinds, for what replays and predictions cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

import whence as wh

TEST = 30
SMOOTH = 1e-3
"""Adam's ε: with 1e-8 first steps go by the signs of gradients, and what a training comes to is a
rugged function of its samples' weights."""


@dataclass(frozen=True)
class Training:
    """A model, its data, and how it is trained."""

    name: str
    make: Callable[[], nn.Module]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    rate: float
    epochs: int
    batch_size: int = 50

    def run(
        self, seed: int = 0, optimizer: str = "Adam", eps: float = SMOOTH
    ) -> wh.TrainingRun:
        """Train from a start that the seed gives, in the order that it gives."""
        torch.manual_seed(seed)
        model = self.make().to(self.train[0].dtype)
        options = {"eps": eps} if optimizer == "Adam" else {}
        kind = getattr(torch.optim, optimizer)
        made = kind(model.parameters(), lr=self.rate, **options)
        return wh.train(
            model,
            self.train,
            nn.CrossEntropyLoss(),
            made,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
            progress=False,
        )


class Rows(nn.Module):
    """A transformer that reads an image of 8 × 8 row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, 32)
        self.positions = nn.Parameter(0.1 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 10) of images (n, 64)."""
        rows = self.embedding(x.reshape(-1, 8, 8)) + self.positions
        return self.head(self.layers(rows).mean(1))


def perceptron() -> nn.Module:
    """Return 64, 32, 32, 10 with tanh, 3466 parameters."""
    layers = [nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def convolutions() -> nn.Module:
    """Return two convolutions with batch normalization and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def tabular() -> nn.Module:
    """Return 30, 16, 2 with ReLU."""
    return nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))


def digits(n: int, dtype: torch.dtype) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return n training and some test images of scikit-learn's digits."""
    data = load_digits()
    x = torch.as_tensor(data.data / 16, dtype=dtype)
    return _split(x, torch.as_tensor(data.target), n)


def _split(x: Tensor, y: Tensor, n: int) -> tuple[tuple[Tensor, Tensor], ...]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:n], order[n : n + TEST]
    return (x[train], y[train]), (x[test], y[test])


def trainings(n: int = 600, dtype: torch.dtype = torch.float32) -> list[Training]:
    """Return the trainings of classifiers, by model."""
    train, test = digits(n, dtype)
    data = load_breast_cancer()
    x = torch.as_tensor((data.data - data.data.mean(0)) / data.data.std(0), dtype=dtype)
    table = _split(x, torch.as_tensor(data.target), min(n, 400))
    return [
        Training("digits MLP", perceptron, train, test, 3e-3, 15),
        Training("small CNN", convolutions, train, test, 1e-3, 6),
        Training("small transformer", Rows, train, test, 1e-3, 12),
        Training("tabular", tabular, *table, 3e-3, 15),
    ]
