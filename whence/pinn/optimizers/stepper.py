"""What an optimizer of a schedule is: options, and a stepper that holds its state.

An optimizer is a frozen dataclass of options with a number of ``iterations``;
``start(parameters)`` returns its stepper. A stepper reads the objective at every step, so new
points count from the next one. One that cannot go on, as the loss or its gradient is not finite,
takes its steps back and says which term and which points are the cause.

A new optimizer is one module in this folder (or of another package, by the entry point
``whence.optimizers``) with a class under ``@OPTIMIZERS.named("name")``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from whence.finiteness import where_not_finite
from whence.objective import Objective
from whence.parameters import Parameters


@dataclass
class Progress:
    """What a stepper did.

    Parameters
    ----------
    iterations:
        Steps taken; may be fewer than asked for.
    loss:
        The loss after them, None where it was not evaluated.
    messages:
        Lines to show the user.
    finished:
        Whether no further step helps, so that the stage ends.
    failure:
        Where the loss is not finite, if that is why; the parameters are then those from before
        these steps.
    """

    iterations: int
    loss: float | None
    messages: list[str] = field(default_factory=list)
    finished: bool = False
    failure: str | None = None


@dataclass
class OptimizerState:
    """All that a stepper needs to go on as if it had never stopped.

    Later steps must not change its tensors in place. Tensors are numbers, or of shape (P,) or
    (P, P); ``numbers`` holds what JSON can.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> OptimizerState:
        """Return the same state on another device."""
        tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return OptimizerState(tensors, self.numbers)


class Stepper(Protocol):
    """An optimizer at work on some parameters."""

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take up to ``iterations`` steps on the objective, changing the network in place."""

    def state(self) -> OptimizerState:
        """Return the state to save."""

    def restore(self, state: OptimizerState) -> None:
        """Take up a saved state; one of another network is a ``ValueError``."""


@runtime_checkable
class Optimizer(Protocol):
    """One stage of a schedule."""

    chunk: ClassVar[int]
    """Iterations between two looks at the clock and the keyboard."""
    log_every: ClassVar[int]
    """Iterations between two rows of the history."""
    by_gradient: ClassVar[bool]
    """Whether a step costs about one evaluation of the loss and its gradient."""

    @property
    def iterations(self) -> int:
        """Steps of this stage."""

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""


def check_schedule(schedule: object) -> tuple[Optimizer, ...]:
    """Return a schedule as a tuple of optimizers; one optimizer is a schedule of one stage.

    Raises
    ------
    TypeError
        If something in it is no optimizer of a schedule.
    ValueError
        If it is empty.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.pinn.optimizers import check_schedule
    >>> check_schedule(pinn.LBFGS(5))
    (LBFGS(iterations=5, history=100, lr=1.0),)
    """
    example = "[pinn.Adam(1000), pinn.GaussNewton(200)]"
    is_list = isinstance(schedule, Sequence) and not isinstance(schedule, str)
    stages: Sequence[object] = schedule if is_list else (schedule,)  # type: ignore[assignment]
    if not stages:
        raise ValueError(
            f"schedule must name at least one optimizer, such as {example}"
        )

    optimizers = []
    for stage in stages:
        # A class has the attributes of its objects, so that it looks like an optimizer.
        if not isinstance(stage, Optimizer) or isinstance(stage, type):
            raise TypeError(
                f"schedule must be optimizers of whence.pinn, such as {example}, got "
                f"{mistake(stage)}"
            )

        optimizers.append(stage)

    return tuple(optimizers)


AN_OPERATOR = "that is a curvature operator, the optimizer is pinn.GaussNewton"


def mistake(stage: object) -> str:
    """Return what was taken for an optimizer, and what to do about the usual mistakes."""
    if isinstance(stage, type):
        name = stage.__name__
        if hasattr(stage, "matvec"):
            return f"the class {name}: {AN_OPERATOR}"
        return f"the class {name}: call it, as in {name}(1000)"

    kind = type(stage)
    if kind.__module__ == "builtins":
        return repr(stage)

    described = f"a {kind.__module__.partition('.')[0]} {kind.__name__}"
    if isinstance(stage, torch.optim.Optimizer):
        return (
            f"{described}: optimizers of torch hold parameters already; use "
            f"pinn.{kind.__name__}(iterations)"
        )
    if hasattr(stage, "matvec"):
        return f"{described}: {AN_OPERATOR}"

    return described


def is_finite(loss: float, gradient: Tensor) -> bool:
    """Whether the loss and its gradient are finite."""
    return math.isfinite(loss) and bool(torch.isfinite(gradient).all())


def describe_failure(objective: Objective, loss: float, theta: Tensor) -> str:
    """Say that the loss or its gradient at θ is not finite, and at which points of which term."""
    but = ", but its gradient is not finite" if math.isfinite(loss) else ""
    return f"the loss is {loss}{but}: {where_not_finite(objective, theta)}"


def check_state(state: OptimizerState, size: int, square: Collection[str] = ()) -> None:
    """Raise ``ValueError`` unless every tensor is one number or one per parameter.

    Those named ``square`` are matrices with a row and a column for each parameter.
    """
    for name, tensor in state.tensors.items():
        # A tensor of no axes is a count, such as Adam's number of steps.
        if not tensor.ndim:
            continue

        expected = (size, size) if name in square else (size,)
        if tensor.shape != expected:
            raise ValueError(
                f"the optimizer's {name!r} has shape {tuple(tensor.shape)}, not {expected}"
            )
