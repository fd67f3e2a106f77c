"""What a replay needs of a training: its steps, one by one, forwards and backwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whence.objective import Objective

State = Mapping[str, Tensor]
"""All that the next step depends on, by name: parameters, statistics, the optimizer's numbers."""


@dataclass(frozen=True, eq=False)
class Pulled:
    """The derivative of K answers on the way back through one step.

    Parameters
    ----------
    cotangent:
        Their derivatives by the state before the step, each (K, …).
    by_point:
        By term the places of training points that the step was made with, (n,), and the
        derivatives by their weights, (K, n).
    """

    cotangent: State
    by_point: Mapping[str, tuple[Tensor, Tensor]]


class Steps(Protocol):
    """A training as a sequence of steps ``s_{t+1} = h_t(s_t, w)`` with w the points' weights, 1."""

    n_steps: int

    def start(self) -> State:
        """Return the state before the first step."""

    def end(self) -> State:
        """Return the state after the last step, as the training left it."""

    def advance(self, state: State, first: int, last: int) -> State:
        """Return the state after steps ``first, …, last − 1``; the one given stays as it is."""

    def pull_back(self, step: int, state: State, cotangent: State) -> Pulled:
        """Return ``(∂h_t/∂s)ᵀλ`` and ``(∂h_t/∂w)ᵀλ`` for K columns λ, each (K, …) by name."""

    def objective_at(self, state: State) -> Objective:
        """Return the objective whose parameters are all that answers depend on, as in ``state``."""

    def cotangent_of(self, objective: Objective, gradients: Tensor) -> State:
        """Return gradients (K, P) by that objective's parameters as a state's cotangent."""

    def check_end(self, state: State) -> None:
        """Raise ``ValueError`` unless this is the state that the training ended in."""


@runtime_checkable
class Replayable(Protocol):
    """A training that kept what its steps can be made again from."""

    @property
    def objective(self) -> Objective:
        """What was trained, on all training points."""

    def steps(self) -> Steps:
        """Return its steps."""


def relative_difference(state: State, other: State) -> float:
    """Return ``‖s − s′‖/‖s′‖`` over the numbers of two states that both have."""
    error = 0.0
    size = 0.0
    for name, tensor in other.items():
        # Counts are whole numbers, and the same wherever the steps are.
        if not tensor.is_floating_point() or name not in state:
            continue
        difference = state[name].double() - tensor.double()
        error += float(difference.square().sum())
        size += float(tensor.double().square().sum())
    return (error / size) ** 0.5 if size else error**0.5


def added(first: State, second: State) -> dict[str, Tensor]:
    """Return the sums of two states' tensors; what only one has counts as it is."""
    total = dict(first)
    for name, tensor in second.items():
        total[name] = total[name] + tensor if name in total else tensor
    return total


def columns_of(state: State, part: slice) -> dict[str, Tensor]:
    """Return some of the K columns of a cotangent."""
    return {name: tensor[part] for name, tensor in state.items()}


def joined_columns(parts: list[Pulled]) -> Pulled:
    """Return the columns of several parts as one."""
    if len(parts) == 1:
        return parts[0]

    # Parts differ in their columns alone.
    cotangent = {}
    for name in parts[0].cotangent:
        cotangent[name] = torch.cat([part.cotangent[name] for part in parts])
    by_point = {}
    for term, (places, _) in parts[0].by_point.items():
        values = torch.cat([part.by_point[term][1] for part in parts])
        by_point[term] = (places, values)
    return Pulled(cotangent, by_point)
