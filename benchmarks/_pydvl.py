"""pyDVL's influence functions on a network whose loss is the residual of a PDE."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import whence as wh

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    from pydvl.influence.torch import CgInfluence, NystroemSketchInfluence
    from pydvl.influence.torch.influence_function_model import (
        TorchInfluenceFunctionModel,
    )


class Residual(nn.Module):
    """Points (n, d) to residuals (n, m), by whence's own derivatives, which torch.func can take."""

    def __init__(self, objective: wh.Objective) -> None:
        super().__init__()
        self.network = objective.network
        (self._term,) = objective.terms.values()

    def forward(self, points: Tensor) -> Tensor:
        """Return the residuals."""
        return self._term.residual(dict(self.network.named_parameters()), points)


def squared_error(output: Tensor, label: Tensor) -> Tensor:
    """Return the mean of (output − label)²."""
    return (output - label).pow(2).sum(dim=1).mean()


def conjugate_gradients(objective: wh.Objective, damping: float) -> CgInfluence:
    """Return pyDVL's conjugate gradients with its default tolerance."""
    return CgInfluence(
        Residual(objective), squared_error, regularization=damping, progress=False
    )


def nystrom(
    objective: wh.Objective, damping: float, rank: int
) -> NystroemSketchInfluence:
    """Return pyDVL's Nyström sketch."""
    return NystroemSketchInfluence(
        Residual(objective), squared_error, regularization=damping, rank=rank
    )


def influence(
    function: TorchInfluenceFunctionModel, training: Tensor, test: Tensor, batch: int
) -> Tensor:
    """Return the influence of every training point on the loss of every test point."""
    zeros = torch.zeros_like(training[:, :1])
    fitted = function.fit(DataLoader(TensorDataset(training, zeros), batch))
    with torch.no_grad():
        return fitted.influences(test, zeros[: len(test)], training, zeros).detach()
