"""Weights of terms that change while a network trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from whence.objective import Objective
from whence.pinn.weighting.base import State


@runtime_checkable
class WeightingLike(Protocol):
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

    def state_dict(self) -> State:
        """Return numbers and tensors that the next weights depend on."""

    def load_state_dict(self, state: State) -> None:
        """Take up what ``state_dict`` returned."""


class Reweighting:
    """A run's own copy of a weighting, and the weights that it multiplies."""

    def __init__(self, weighting: WeightingLike, objective: Objective) -> None:
        # A copy, so that the user's object can serve the next run as it is.
        self._weighting = copy.deepcopy(weighting)
        self._base = {name: term.weight for name, term in objective.terms.items()}
        self._every = weighting.update_every

    def is_due(self, iteration: int) -> bool:
        """Whether weights are to be renewed before the step after ``iteration``."""
        return iteration % self._every == 0

    def steps_until_due(self, iteration: int) -> int:
        """Return how many steps go by until weights are due again."""
        return self._every - iteration % self._every

    def renewed(self, objective: Objective) -> Objective:
        """Return the objective with new weights."""
        return self._weighted(objective, self._weighting.renew(objective))

    def carried(self, objective: Objective) -> Objective:
        """Return the objective, whose points are new, with the present weights."""
        return self._weighted(objective, self._weighting.at(objective))

    def _weighted(
        self, objective: Objective, factors: Mapping[str, float | Tensor]
    ) -> Objective:
        """Return the objective with each term's own weight times its factor."""
        weights = {}
        for name, factor in factors.items():
            weights[name] = self._base[name] * factor
        return objective.with_weights(weights)

    def state(self) -> State:
        """Return numbers and tensors of the state."""
        return self._weighting.state_dict()

    def restore(self, state: Mapping[str, object], objective: Objective) -> None:
        """Take up a saved state, its tensors on the objective's device."""
        device = objective.parameters.device
        moved = dict(state)
        for name, value in state.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
        self._weighting.load_state_dict(moved)
