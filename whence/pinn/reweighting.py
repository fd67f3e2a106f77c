"""Weights of terms that change while a network trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from whence.objective import Objective


class Weighting(Protocol):
    """Renews the weights of terms between steps; see :class:`whence.pinn.weighting.Weighting`."""

    @property
    def update_every(self) -> int:
        """Iterations between two updates."""

    @property
    def reads_traces(self) -> bool:
        """Whether traces of the kernel are asked for, which may be worth compiling."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective could not be weighted so."""

    def renew(self, objective: Objective) -> dict[str, float | Tensor]:
        """Return new weights by term: a number, or one for each point (N,).

        Weights that are not finite are a ``FloatingPointError``.
        """

    def at(self, objective: Objective) -> dict[str, float | Tensor]:
        """Return the present weights, at the objective's points."""

    def state_dict(self) -> dict[str, Any]:
        """Return numbers and tensors that the next weights depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""


class Reweighting:
    """A run's own copy of a weighting, and the weights that it multiplies."""

    def __init__(self, weighting: Weighting, objective: Objective) -> None:
        self._weighting = copy.deepcopy(weighting)
        self._base = {name: term.weight for name, term in objective.terms.items()}
        self.every = weighting.update_every

    def due(self, iteration: int) -> bool:
        """Tell whether weights are to be renewed before the step after ``iteration``."""
        return iteration % self.every == 0

    def steps(self, iteration: int) -> int:
        """Return how many steps go by until weights are due again."""
        return self.every - iteration % self.every

    def renewed(self, objective: Objective) -> Objective:
        """Return the objective with new weights."""
        return self._weighted(objective, self._weighting.renew(objective))

    def carried(self, objective: Objective) -> Objective:
        """Return the objective, whose points are new, with the present weights."""
        return self._weighted(objective, self._weighting.at(objective))

    def _weighted(
        self, objective: Objective, weights: Mapping[str, float | Tensor]
    ) -> Objective:
        found = {name: self._base[name] * weight for name, weight in weights.items()}
        return objective.with_weights(found)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state."""
        state = self._weighting.state_dict()
        return {
            name: value for name, value in state.items() if isinstance(value, Tensor)
        }

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the state."""
        state = self._weighting.state_dict()
        return {
            name: value
            for name, value in state.items()
            if not isinstance(value, Tensor)
        }

    def restore(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
    ) -> None:
        """Take up a saved state."""
        self._weighting.load_state_dict({**numbers, **tensors})


def weights_of(objective: Objective) -> dict[str, Tensor]:
    """Return the weights by term: a tensor of one number, or of one for each point (N,)."""
    found = {}
    for name, term in objective.terms.items():
        weight = torch.tensor(term.weight, dtype=torch.float64)
        each = term.point_weights
        found[name] = weight if each is None else term.weight * each
    return found
