"""dattri's attributors on a classifier, called as its documentation does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    from dattri.algorithm.influence_function import (
        IFAttributorCG,
        IFAttributorEKFAC,
    )
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

Data = tuple[Tensor, Tensor]
State = Mapping[str, Tensor]


def loaders(train: Data, test: Data) -> tuple[Any, Any]:
    """Return loaders of whole data, in order."""
    return (
        DataLoader(TensorDataset(*train), len(train[0])),
        DataLoader(TensorDataset(*test), len(test[0])),
    )


def task_of(model: nn.Module, states: Sequence[State]) -> AttributionTask:
    """Return the task of explaining losses."""

    def loss(parameters: Any, data: Data) -> Tensor:
        x, y = data
        output = torch.func.functional_call(model, parameters, (x,))
        return F.cross_entropy(output, y)

    def loss_of_one(parameters: Any, data: Data) -> Tensor:
        x, y = data
        # Its products of gradients call with one sample, its curvature with a batch.
        batched = (x.unsqueeze(0), y.unsqueeze(0)) if not y.ndim else (x, y)
        return loss(parameters, batched)

    return AttributionTask(loss_of_one, model, [dict(state) for state in states])


def ekfac(
    model: nn.Module, state: State, train: Data, test: Data, damping: float
) -> Tensor:
    """Return its EK-FAC, of linear layers, (test, train)."""
    # It hooks layers, and what it hooks and never sees called, as attention does, is an error.
    names = None
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        # By the very class: attention's own projection is of one that follows it.
        names = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    method = IFAttributorEKFAC(task_of(model, [state]), names, damping=damping)
    return _attributed(method, train, test)


def conjugate_gradients(
    model: nn.Module, state: State, train: Data, test: Data, damping: float
) -> Tensor:
    """Return its conjugate gradients with the exact Hessian, (test, train)."""
    method = IFAttributorCG(
        task_of(model, [state]), regularization=damping, max_iter=30
    )
    return _attributed(method, train, test)


def trak(model: nn.Module, states: Sequence[State], train: Data, test: Data) -> Tensor:
    """Return TRAK over some states with its default projection of 512, (test, train)."""

    def probability(parameters: Any, data: Data) -> Tensor:
        x, y = data
        output = torch.func.functional_call(model, parameters, (x.unsqueeze(0),))
        return torch.exp(-F.cross_entropy(output, y.unsqueeze(0)))

    def margin(parameters: Any, data: Data) -> Tensor:
        p = probability(parameters, data)
        return torch.log(p / (1 - p))

    task = AttributionTask(margin, model, [dict(state) for state in states])
    method = TRAKAttributor(task, probability, regularization=1e-6)
    train_loader, test_loader = loaders(train, test)
    method.cache(train_loader)
    # A sample that raises the margin lowers the loss, which removing it raises.
    return method.attribute(test_loader).T.detach()


def tracin(
    model: nn.Module, states: Sequence[State], train: Data, test: Data
) -> Tensor:
    """Return TracIn over some states, unprojected, (test, train)."""
    weights = torch.ones(len(states))
    method = TracInAttributor(task_of(model, states), weights, normalized_grad=False)
    method.projector_kwargs = None
    train_loader, test_loader = loaders(train, test)
    return method.attribute(train_loader, test_loader).T.detach()


def _attributed(method: Any, train: Data, test: Data) -> Tensor:
    train_loader, test_loader = loaders(train, test)
    method.cache(train_loader)
    return method.attribute(train_loader, test_loader).T.detach()
