"""Networks of a single run for ensembles: its states, or drawn around them (SWAG)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.checkpoints import Checkpoint, check_checkpoints, read_state
from whence.attribution.method import Method
from whence.model_checks import BATCH_NORMALIZATIONS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.points import evaluated_at_once
from whence.supervised import in_their_modes


@dataclass(frozen=True, eq=False)
class WeightGaussian:
    """The Gaussian of a network's parameters over states of a training (SWAG).

    Its mean is the states' mean θ̄ (stochastic weight averaging), its covariance half the diagonal
    of variances and half that of the low rank of the deviations (Maddox et al. 2019, arXiv
    1902.02476, section 3.3; deviations here are from the mean of all states).

    Parameters
    ----------
    mean:
        θ̄, (P,).
    deviations:
        ``θ_k − θ̄`` of each state, (K, P).

    Examples
    --------
    >>> import torch
    >>> from whence.attribution.swag import WeightGaussian
    >>> gaussian = WeightGaussian.of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    >>> gaussian.mean, gaussian.draw(seed=0, spread=0.0)
    (tensor([2., 0.]), tensor([2., 0.]))
    """

    mean: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, states: Tensor) -> WeightGaussian:
        """Return the Gaussian of K states of the parameters, (K, P)."""
        mean = states.mean(dim=0)
        return cls(mean, states - mean)

    def draw(self, seed: int, spread: float = 1.0) -> Tensor:
        """Return parameters drawn at random, (P,); ``spread`` multiplies the covariance."""
        n_states, size = self.deviations.shape
        generator = np.random.default_rng(seed)
        like = self.mean
        of_each = torch.as_tensor(generator.standard_normal(size)).to(like)
        of_state = torch.as_tensor(generator.standard_normal(n_states)).to(like)

        # θ̄ + √spread (σ ∘ z/√2 + Dᵀz′/√(2(K − 1)))
        deviation = self.deviations.square().mean(dim=0).sqrt()
        diagonal = deviation * of_each / 2**0.5
        low_rank = of_state @ self.deviations / (2 * max(1, n_states - 1)) ** 0.5
        return like + spread**0.5 * (diagonal + low_rank)


def swag_members(
    make: Callable[[nn.Module], Method],
    model: nn.Module,
    checkpoints: Sequence[Checkpoint],
    count: int,
    spread: float,
    seed: int,
) -> list[Method]:
    """Return methods of networks that are drawn around the states of one training.

    Parameters
    ----------
    make, model, checkpoints, spread, seed:
        As for :meth:`whence.Ensemble.swag`.
    count:
        How many.
    """
    _checks.count("count", count)
    _checks.positive("spread", spread, zero=True)
    _checks.seed("seed", seed)
    check_checkpoints(checkpoints, model)
    if len(checkpoints) < 2:
        raise ValueError(
            "a Gaussian is that of two or more checkpoints, such as "
            "run.checkpoints(range(400, 501, 10)), got 1"
        )

    parameters = Parameters(model)
    states = [parameters.flatten(read_state(state)) for state in checkpoints]
    gaussian = WeightGaussian.of(torch.stack(states).to(parameters.device))

    members = []
    for k in range(count):
        network = copy.deepcopy(model)
        drawn = gaussian.draw(order_seed(seed, k), spread)
        Parameters(network).assign(drawn)
        method = method_of(make, network)
        renew_statistics(method.objective)
        members.append(method)
    return members


def checkpoint_members(
    make: Callable[[nn.Module], Method],
    model: nn.Module,
    checkpoints: Sequence[Checkpoint],
) -> list[Method]:
    """Return methods of copies of a model, one in each of some states of its training."""
    check_checkpoints(checkpoints, model)
    members = []
    for checkpoint in checkpoints:
        network = copy.deepcopy(model)
        network.load_state_dict(dict(read_state(checkpoint)))
        members.append(method_of(make, network))
    return members


def method_of(make: Callable[[nn.Module], Method], network: nn.Module) -> Method:
    """Return the method that a function makes of a network.

    Raises
    ------
    TypeError
        If it makes none, or one of another network.
    """
    method = make(network)
    is_of_network = False
    if isinstance(method, Method):
        # It may be of a part of the network.
        its_own = {id(parameter) for parameter in network.parameters()}
        others = {id(parameter) for parameter in method.objective.network.parameters()}
        is_of_network = not its_own.isdisjoint(others)
    if not is_of_network:
        raise TypeError(
            "make must return a method of the model that it is given, such as lambda model: "
            f"wh.Influence(model, data, loss), got {_checks.describe(method)}"
        )
    return method


def order_seed(seed: int, k: int) -> int:
    """Return the seed of draw k."""
    return int(np.random.SeedSequence([seed, k]).generate_state(1)[0])


def renew_statistics(objective: Objective) -> None:
    """Let batch normalizations have the running statistics of all training samples.

    Those of any other network, such as the mean of several, do not fit (as of stochastic weight
    averaging: Izmailov et al. 2018, section 3.2). Batches count as many samples as go through the
    network at once.
    """
    layers = []
    for module in objective.network.modules():
        tracks = getattr(module, "running_mean", None) is not None
        if isinstance(module, BATCH_NORMALIZATIONS) and tracks:
            layers.append(module)
    if not layers:
        return

    with _averaging(layers), torch.no_grad(), in_their_modes():
        for term in objective.data_terms.values():
            tensors = objective.parameters.tensors()
            for part in term.points.split(evaluated_at_once(term.points)):
                term.residual(tensors, part)


@contextmanager
def _averaging(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers start their statistics again, as means over all batches that they see."""
    before = [(layer.training, getattr(layer, "momentum", None)) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.momentum = None  # type: ignore[assignment]
        layer.training = True
    try:
        yield
    finally:
        for layer, (mode, momentum) in zip(layers, before, strict=True):
            layer.training = mode
            layer.momentum = momentum  # type: ignore[assignment]
