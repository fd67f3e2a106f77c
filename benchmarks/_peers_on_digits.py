"""pyDVL and captum on a plain classifier, each called the way its documentation does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Data = tuple[Tensor, Tensor]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy; pyDVL takes a function, not one built in."""
    return F.cross_entropy(output, target)


def selected(model: nn.Module, layers: Sequence[str] | None) -> nn.Module:
    """Return a copy whose parameters outside these layers need no gradient."""
    made = copy.deepcopy(model)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(layers is None or name.split(".")[0] in layers)
    return made


def pydvl(
    name: str,
    model: nn.Module,
    layers: Sequence[str] | None,
    damping: float,
    train: Data,
    test: Data,
) -> Tensor:
    """Return pyDVL's influence of every training image on the loss of every test image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        import pydvl.influence.torch as peers

    kinds: dict[str, Any] = {
        "direct": lambda m: peers.DirectInfluence(
            m, cross_entropy, regularization=damping
        ),
        "CG": lambda m: peers.CgInfluence(m, cross_entropy, regularization=damping),
        "Arnoldi": lambda m: peers.ArnoldiInfluence(
            m, cross_entropy, regularization=damping, rank=50
        ),
        "EK-FAC": lambda m: peers.EkfacInfluence(m, hessian_regularization=damping),
    }
    fitted = kinds[name](selected(model, layers)).fit(
        DataLoader(TensorDataset(*train), len(train[0]))
    )
    return fitted.influences(*test, *train).detach()


def captum_tracin(
    model: nn.Module,
    layers: Sequence[str] | None,
    states: Sequence[Mapping[str, Tensor]],
    train: Data,
    test: Data,
) -> Tensor:
    """Return captum's TracInCP over these states, gradients of a whole batch at once."""
    from captum.influence import TracInCP

    def load(network: nn.Module, index: int) -> float:
        network.load_state_dict(states[index])
        return 1.0

    method = TracInCP(
        copy.deepcopy(model),
        TensorDataset(*train),
        list(range(len(states))),
        load,
        layers=None if layers is None else list(layers),
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=len(train[0]),
        sample_wise_grads_per_batch=True,
    )
    return method.influence(test)


def captum_arnoldi(
    model: nn.Module, layers: Sequence[str] | None, train: Data, test: Data
) -> Tensor:
    """Return captum's Arnoldi influence, rank 50."""
    # captum 0.9 has the class, but exports it no longer.
    from captum.influence._core.arnoldi_influence_function import (
        ArnoldiInfluenceFunction,
    )

    everything = DataLoader(TensorDataset(*train), len(train[0]))
    method = ArnoldiInfluenceFunction(
        copy.deepcopy(model),
        everything,
        "",  # a checkpoint is asked for, but the network is at hand
        checkpoints_load_func=lambda _model, _path: 1.0,
        layers=None if layers is None else list(layers),
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        hessian_dataset=everything,
        batch_size=None,
    )
    return method.influence(DataLoader(TensorDataset(*test), len(test[0])))
