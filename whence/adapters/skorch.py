"""Objectives of skorch's nets, by what they were trained on; skorch itself is not imported."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from whence.adapters.optimizers import penalty_of_optimizer
from whence.arrays import ArrayLike
from whence.objective import Objective
from whence.samples import Data


class LogProbabilities(nn.Module):
    """A net that returns probabilities, of which skorch takes the logarithm for its loss."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms, as skorch makes them."""
        output: Tensor = self.body(x)
        return torch.log(output + torch.finfo(output.dtype).eps)


def is_skorch(estimator: object) -> bool:
    """Whether this is a net of skorch, which need not be installed to ask."""
    return any(kind.__module__.startswith("skorch") for kind in type(estimator).__mro__)


class Net(Protocol):
    """What is read of a net of skorch."""

    initialized_: bool
    module_: nn.Module
    criterion_: nn.Module
    optimizer_: torch.optim.Optimizer
    train_split: object

    def get_split_datasets(self, X: Data, y: ArrayLike) -> tuple[object, object]:
        """Return the data of training and of validation."""


def objective_of_net(
    net: Net, X: Data, y: ArrayLike, weight_decay: float | None
) -> Objective:
    """Return the objective of a fitted net of skorch.

    Samples that it set aside for validation have weight 0.

    Raises
    ------
    ValueError
        If it is not fitted, its optimizer has no one penalty, or it set samples aside by chance.
    """
    if not getattr(net, "initialized_", False):
        raise ValueError("the net is not fitted: call net.fit(X, y) first")
    if weight_decay is None:
        weight_decay = penalty_of_optimizer(net.optimizer_)

    model = net.module_
    criterion = net.criterion_
    # skorch takes the logarithm of what a classifier with this loss returns.
    if isinstance(criterion, nn.NLLLoss):
        model = LogProbabilities(model)
    targets = np.asarray(y)
    if isinstance(criterion, (nn.BCEWithLogitsLoss, nn.BCELoss)):
        targets = targets.astype(np.float64)
    objective = Objective.supervised(
        model, (X, targets), criterion, weight_decay=weight_decay
    )
    trained = trained_places(net, X, y)
    if trained is None:
        return objective
    # The mean over those that it was trained on, with every sample in its place.
    weights = torch.zeros(objective.n_points, dtype=objective.parameters.dtype)
    weights[trained] = objective.n_points / len(trained)
    return objective.with_weights({"data": weights})


def trained_places(net: Net, X: Data, y: ArrayLike) -> list[int] | None:
    """Return which samples a net was trained on; None for all.

    By default skorch sets a fifth aside for validation.

    Raises
    ------
    ValueError
        If they are drawn again each time.
    """
    if net.train_split is None:
        return None
    splits = []
    for _ in range(2):
        part = net.get_split_datasets(X, y)[0]
        splits.append(list(part.indices) if isinstance(part, Subset) else None)
    if splits[0] != splits[1]:
        raise ValueError(
            "the net's train_split draws other samples each time, so that it is not known which it "
            "was trained on: give it a random_state, or train_split=None"
        )
    return splits[0]
