"""Handwritten digits through a small network: the data and models of the supervised benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAINING, VALIDATION = 1200, 300
LAST_LAYERS = ("2.*", "4.*")
"""Names of the parameters of the last two of the network's three layers."""


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) and labels (n,) for training, validation and test."""

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor


def digits(dtype: torch.dtype = torch.float32, seed: int = 0) -> Digits:
    """Return the 1797 images of scikit-learn, split at random."""
    data = load_digits()
    x, y = torch.as_tensor(data.data / 16, dtype=dtype), torch.as_tensor(data.target)
    order = torch.as_tensor(np.random.default_rng(seed).permutation(len(x)))
    parts = order.split([TRAINING, VALIDATION, len(x) - TRAINING - VALIDATION])
    return Digits(*(tensor[part] for part in parts for tensor in (x, y)))


def corrupted(
    y: Tensor, share: float = 0.1, seed: int = 0
) -> tuple[Tensor, np.ndarray]:
    """Return labels of which a share is replaced by wrong ones, and which these are."""
    generator = np.random.default_rng(seed)
    bad = np.zeros(len(y), dtype=bool)
    bad[generator.choice(len(y), round(share * len(y)), replace=False)] = True
    shifted = (y + torch.as_tensor(generator.integers(1, 10, len(y)))) % 10
    return torch.where(torch.as_tensor(bad), shifted, y), bad


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return the network: 64, 32, 32, 10 with tanh, 3466 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Linear(64, 32),
            nn.Tanh(),
            nn.Linear(32, 32),
            nn.Tanh(),
            nn.Linear(32, 10),
        )
    return made.to(dtype)


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int = 60,
    weight_decay: float = 1e-3,
    checkpoints: int = 6,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """Train by Adam on ``mean ℓ + (weight_decay/2)·‖θ‖²``; return states along the way."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    states = []
    for epoch in range(epochs):
        for part in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
        schedule.step()
        if (epoch + 1) % max(1, epochs // checkpoints) == 0:
            states.append({name: t.clone() for name, t in model.state_dict().items()})
    return states


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that get their label."""
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).double().mean())
