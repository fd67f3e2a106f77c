"""A stage that changes nothing: the run of networks that were trained already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.stepper import OptimizerState, Progress, Stepper


@dataclass(frozen=True)
class Joining:
    """A schedule for the run that joins slabs: it has a history and a checkpoint like any other.

    Examples
    --------
    >>> from whence.pinn.training.joining import Joining
    >>> Joining().iterations
    1
    """

    iterations: int = 1
    chunk: ClassVar[int] = 1
    log_every: ClassVar[int] = 1
    by_gradient: ClassVar[bool] = False

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper that takes no step."""
        return JoiningStepper()


class JoiningStepper:
    """Takes no step."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Leave the network as it is."""
        return Progress(iterations, float(objective.loss()), finished=True)

    def state(self) -> OptimizerState:
        """Return nothing."""
        return OptimizerState()

    def restore(self, state: OptimizerState) -> None:
        """Take up nothing."""
