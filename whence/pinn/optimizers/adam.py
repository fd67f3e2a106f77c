"""Adam, through ``torch.optim.Adam``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.batches import Batches
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    check_state,
    describe_failure,
    is_finite,
)


@OPTIMIZERS.named("adam")
@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980) on the whole objective, through ``torch.optim.Adam``.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    lr:
        Learning rate.
    betas:
        Decay of the first and second moment.
    batch_size:
        Points of each term in a step, ``None`` for all: each point once in a pass over the term,
        in an order that the seed and the pass determine. A term of no more points takes part whole.
    seed:
        Seed of that order.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.Adam(1000, lr=1e-3).iterations
    1000
    """

    iterations: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    batch_size: int | None = None
    seed: int = 0

    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.positive("lr", self.lr)
        _checks.count("seed", self.seed, zero=True)
        if self.batch_size is not None:
            _checks.count("batch_size", self.batch_size)
        _checks.betas(self.betas)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return AdamStepper(self, parameters)


class AdamStepper:
    """Adam at work: torch's optimizer on one flat parameter θ."""

    def __init__(self, options: Adam, parameters: Parameters) -> None:
        # One flat parameter, as the gradient comes flat.
        self._theta = torch.nn.Parameter(parameters.vector())
        self._optimizer = torch.optim.Adam(
            [self._theta], lr=options.lr, betas=options.betas
        )
        self._parameters = parameters
        self._batches: Batches | None = None
        if options.batch_size is not None:
            self._batches = Batches(options.batch_size, options.seed)

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps; at a loss that is not finite all of them are taken back."""
        before = self._parameters.vector()

        for done in range(iterations):
            # The network may have been changed since: θ is read, not remembered.
            theta = self._parameters.vector()
            self._theta.data.copy_(theta)
            batch = objective
            if self._batches is not None:
                batch = self._batches.next_of(objective)
            loss, gradient = batch.loss_and_gradient()

            if not is_finite(loss, gradient):
                failure = describe_failure(batch, loss, theta)
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)

            self._theta.grad = gradient
            self._optimizer.step()
            self._parameters.assign(self._theta.detach())

        return Progress(iterations, None)

    def state(self) -> OptimizerState:
        """Return both moments and the number of steps."""
        moments = self._optimizer.state.get(
            self._theta, {}
        )  # empty before the first step
        tensors = {name: value.clone() for name, value in moments.items()}
        steps = 0 if self._batches is None else self._batches.steps
        return OptimizerState(tensors, {"batches": steps})

    def restore(self, state: OptimizerState) -> None:
        """Take up both moments and the number of steps."""
        check_state(state, self._parameters.size)
        if self._batches is not None:
            self._batches.steps = state.numbers.get("batches", 0)
        if state.tensors:
            moments = {name: value.clone() for name, value in state.tensors.items()}
            self._optimizer.state[self._theta] = moments
