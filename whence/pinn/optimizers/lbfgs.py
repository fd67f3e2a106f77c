"""L-BFGS with a strong Wolfe line search, through ``torch.optim.LBFGS``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.fingerprint import fingerprint_of
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    check_state,
    describe_failure,
    is_finite,
)


@OPTIMIZERS.named("lbfgs")
@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a strong Wolfe line search (Nocedal & Wright, ch. 7), ``torch.optim.LBFGS``.

    A line search that ends where the loss is not finite is taken back and the memory restarted,
    as is that of one which stalls; both are said. Two stalls with nothing gained between end the
    stage, and a loss that is then still not finite is a failure.

    Parameters
    ----------
    iterations:
        Steps of this stage.
    history:
        Pairs kept.
    lr:
        First trial step.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.LBFGS(1000).history
    100
    """

    iterations: int
    history: int = 100
    lr: float = 1.0

    chunk: ClassVar[int] = 20
    log_every: ClassVar[int] = 100
    by_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _checks.count("iterations", self.iterations)
        _checks.count("history", self.history)
        _checks.positive("lr", self.lr)

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return LBFGSStepper(self, parameters)


class _NotFiniteAtStart(Exception):
    """No step can start where the loss or its gradient is not finite."""


class LBFGSStepper:
    """L-BFGS at work: torch's optimizer on one flat parameter θ, kept over changes of points."""

    # How torch.optim.LBFGS calls what its state holds.
    _LISTS = ("old_dirs", "old_stps", "ro")
    _TENSORS = ("d", "prev_flat_grad")
    _COUNTS = ("func_evals", "n_iter")
    _SCALARS = ("t", "prev_loss", "H_diag")

    def __init__(self, options: LBFGS, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        self._theta = torch.nn.Parameter(parameters.vector())
        self._fingerprint: str | None = None
        self._stalled = False
        self._restart()

    def _restart(self) -> None:
        """Forget all pairs."""
        self._optimizer = torch.optim.LBFGS(
            [self._theta],
            lr=self._options.lr,
            history_size=self._options.history,
            tolerance_grad=0.0,
            tolerance_change=0.0,  # the stepper judges progress itself
            line_search_fn="strong_wolfe",
        )

    def _follow(self, objective: Objective) -> None:
        """Keep the memory over a change of points: measure the next pair on the new ones."""
        memory = self._optimizer.state[self._theta]
        fingerprint = fingerprint_of(objective)
        changed = self._fingerprint not in (None, fingerprint)

        # The pair (s, y) of the next step has y = ∇L(θ + s) − ∇L(θ), both on the new points.
        if changed and memory.get("prev_flat_grad") is not None:
            loss, gradient = objective.loss_and_gradient()
            memory["prev_loss"] = loss
            memory["prev_flat_grad"] = gradient

        self._fingerprint = fingerprint

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps; those that end at a loss that is not finite are taken back."""
        before = self._parameters.vector()
        self._theta.data.copy_(before)
        self._follow(objective)

        memory = self._optimizer.state[self._theta]
        steps_before = memory.get("n_iter", 0)

        try:
            start, first_bad = self._step(objective, iterations)
        except _NotFiniteAtStart as error:
            self._parameters.assign(before)
            return Progress(0, math.nan, finished=True, failure=str(error))

        done = memory["n_iter"] - steps_before  # torch may end early
        after = self._theta.detach().clone()
        # Torch's parameter is not the network's: the last step is written back.
        self._parameters.assign(after)
        loss = float(objective.loss())

        if not is_finite(loss, after):
            bad = after if first_bad is None else first_bad
            failure = describe_failure(objective, loss, bad)
            self._parameters.assign(before)
            return self._take_back(Progress(done, start), failure)

        # Not ">=", which a NaN would pass.
        if not loss < start:
            self._restart()
            message = f"L-BFGS stalled at a loss of {loss:.3e}: memory restarted"
            return self._judge(Progress(done, loss, [message]), gained=False)

        return self._judge(Progress(done, loss), gained=True)

    def _step(
        self, objective: Objective, iterations: int
    ) -> tuple[float, Tensor | None]:
        """Let torch take steps; return the first loss and the first bad parameters it tried."""
        group = self._optimizer.param_groups[0]
        group["max_iter"] = iterations
        group["max_eval"] = 25 * iterations  # what torch's line search takes at most
        evaluated = False
        bad: Tensor | None = None

        def closure() -> Tensor:
            nonlocal evaluated, bad
            theta = self._theta.detach()
            self._parameters.assign(theta)
            loss, gradient = objective.loss_and_gradient()

            if bad is None and not is_finite(loss, gradient):
                if not evaluated:
                    raise _NotFiniteAtStart(describe_failure(objective, loss, theta))
                bad = theta.clone()

            self._theta.grad = gradient
            evaluated = True
            return torch.tensor(loss, dtype=torch.float64)

        start = float(self._optimizer.step(closure))
        return start, bad

    def _take_back(self, progress: Progress, failure: str) -> Progress:
        """Restart the memory the first time; say that it is a failure the second."""
        if self._stalled:
            progress.finished = True
            progress.failure = failure
            return progress

        self._restart()
        progress.messages.append(f"L-BFGS went too far, memory restarted: {failure}")
        return self._judge(progress, gained=False)

    def _judge(self, progress: Progress, *, gained: bool) -> Progress:
        """End the stage at the second stall with nothing gained between."""
        if not gained and self._stalled:
            progress.finished = True
            progress.messages.append(
                "L-BFGS cannot lower the loss any further: its stage ends"
            )
        self._stalled = not gained
        return progress

    def state(self) -> OptimizerState:
        """Return the pairs, the last direction and gradient, and the counts."""
        memory = self._optimizer.state[self._theta]

        tensors = {}
        for name in self._TENSORS:
            if memory.get(name) is not None:
                tensors[name] = memory[name].clone()
        for name in self._LISTS:
            # torch adds to and drops from these lists, but leaves what is in them alone.
            for k, tensor in enumerate(memory.get(name) or ()):
                tensors[f"{name}/{k}"] = tensor

        numbers: dict[str, Any] = {}
        for name in self._COUNTS:
            if name in memory:
                numbers[name] = memory[name]
        for name in self._SCALARS:
            # torch keeps some of these as numbers at first and as tensors of one entry later.
            if memory.get(name) is not None:
                numbers[name] = float(memory[name])

        numbers["stalled"] = self._stalled
        numbers["seen"] = self._fingerprint
        return OptimizerState(tensors, numbers)

    def restore(self, state: OptimizerState) -> None:
        """Take up what :meth:`state` returned."""
        check_state(state, self._parameters.size)
        numbers = dict(state.numbers)
        self._stalled = bool(numbers.pop("stalled"))
        self._fingerprint = numbers.pop("seen", None)

        memory = self._optimizer.state[self._theta]
        memory |= numbers
        for name in self._TENSORS:
            if name in state.tensors:
                memory[name] = state.tensors[name].clone()
        if "n_iter" in numbers:
            # After a first step alone torch's lists are there, but empty.
            for name in self._LISTS:
                count = sum(key.startswith(f"{name}/") for key in state.tensors)
                memory[name] = [state.tensors[f"{name}/{k}"] for k in range(count)]
