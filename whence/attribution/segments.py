"""Segments of a training: stretches of steps within which it is taken as stationary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.checkpoints import Checkpoint, check_checkpoints
from whence.curvature.unrolling import Form, Steps
from whence.objective import Objective
from whence.replay.model_steps import OPTIMIZER
from whence.replay.preconditioners import (
    Preconditioner,
    is_decoupled,
    preconditioner_of,
)
from whence.replay.record import RecordedStep
from whence.replay.steps import State
from whence.replay.training_run import TrainingRun


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of a training: states along it, its steps and their learning rate.

    Parameters
    ----------
    checkpoints:
        States of the network within the segment, over which gradients and curvature are averaged:
        each a ``state_dict()`` or a file in safetensors' format.
    learning_rate:
        η, the mean over the steps; of optimizers that scale gradients that of each parameter, (P,).
        Momentum μ counts as a rate of ``η/(1 − μ)``.
    steps:
        K, how many.
    weight_decay:
        c of the penalty ``(c/2)‖θ‖²`` that the steps are made with, or that of each parameter,
        (P,); by default that of the objective.

    Raises
    ------
    ValueError
        If a rate or the number of steps is not positive, or a penalty is negative.

    Examples
    --------
    >>> import torch, whence as wh
    >>> state = torch.nn.Linear(2, 1).state_dict()
    >>> wh.Segment([state], learning_rate=0.1, steps=100).steps
    100
    """

    checkpoints: Sequence[Checkpoint]
    learning_rate: float | Tensor
    steps: int
    weight_decay: float | Tensor | None = None

    def __post_init__(self) -> None:
        _checks.count("steps", self.steps)
        if not isinstance(self.learning_rate, Tensor):
            _checks.positive("learning_rate", self.learning_rate)
        elif not bool((self.learning_rate > 0).all()):
            raise ValueError("every learning rate of a segment must be positive")
        decay = self.weight_decay
        if decay is not None and not isinstance(decay, Tensor):
            _checks.positive("weight_decay", decay, zero=True)

    def all_steps(self, objective: Objective, form: Form) -> Steps:
        """Return what all steps of the segment do together.

        Raises
        ------
        ValueError
            If rates or penalties are not one for each parameter of the objective.
        """
        decay = self.weight_decay
        if decay is None:
            decay = objective.weight_decay
        rate = of_each(objective, "learning_rate", self.learning_rate)
        time = rate * self.steps
        shrinkage = time * of_each(objective, "weight_decay", decay)
        return Steps(self.steps, time, shrinkage, form)


def of_each(objective: Objective, what: str, value: float | Tensor) -> Tensor:
    """Return a number of each parameter, (P,), from as many or from one for all."""
    like = objective.parameters.vector()
    if not isinstance(value, Tensor):
        return torch.full_like(like, value)
    _checks.weights(f"{what} of a segment", value, len(like))
    return value.to(like)


def check_segments(segments: Sequence[Segment], network: nn.Module) -> None:
    """Raise unless these are one or more segments of this network's training.

    Raises
    ------
    TypeError
        If one is no segment.
    ValueError
        If there are none, or a checkpoint is not of this network.
    """
    is_sequence = isinstance(segments, Sequence) and not isinstance(segments, str)
    if not is_sequence or not segments:
        raise ValueError(
            "segments must be one or more wh.Segment(checkpoints, learning_rate, steps), the first "
            "of the training first; of a recorded training use wh.Unrolled.from_run(run), got "
            f"{_checks.describe(segments)}"
        )
    for segment in segments:
        if not isinstance(segment, Segment):
            raise TypeError(
                "a segment must be a wh.Segment(checkpoints, learning_rate, steps), got "
                f"{_checks.describe(segment)}"
            )
        check_checkpoints(segment.checkpoints, network)


def segments_of(
    run: TrainingRun, n_segments: int, n_checkpoints: int
) -> tuple[Segment, ...]:
    """Return a recorded training in segments of about as many steps each.

    Checkpoints are the states in the middle of as many parts of a segment. Gradients of an
    optimizer that scales them count by what it did to them there, on average
    (:mod:`whence.replay.preconditioners`); clipping is not followed.
    """
    bounds = np.linspace(0, len(run), n_segments + 1).round().astype(int)
    places = []
    steps_there = []
    for first, last in itertools.pairwise(bounds):
        middles = (np.arange(n_checkpoints) + 0.5) / n_checkpoints
        # Before the first step an optimizer knows nothing.
        steps = first + np.round((last - first) * middles).astype(int)
        places += [max(1, int(step)) for step in steps]
        # A step of the segment, as schedules may change its options.
        steps_there += [run.record.steps[min(step, last - 1)] for step in steps]

    scale = preconditioner_of(run.record.optimizer)
    checkpoints: list[Checkpoint] = []
    scales = []
    for step, state in zip(steps_there, run.states(places), strict=True):
        checkpoints.append(run.checkpoint(state))
        scales.append(scales_at(run, scale, state, step))

    segments = []
    for k in range(n_segments):
        part = slice(k * n_checkpoints, (k + 1) * n_checkpoints)
        recorded = run.record.steps[bounds[k] : bounds[k + 1]]
        mean_scale = torch.stack(scales[part]).mean(dim=0)
        segments.append(_segment(run, checkpoints[part], mean_scale, recorded))
    return tuple(segments)


def _segment(
    run: TrainingRun,
    checkpoints: Sequence[Checkpoint],
    scale: Tensor,
    steps: Sequence[RecordedStep],
) -> Segment:
    """Return a segment of these steps, in which gradients are scaled as they are on average."""
    groups = group_of_each(run)
    time = torch.zeros_like(scale)
    shrinkage = torch.zeros_like(scale)
    for name, part in run.objective.parameters.slices.items():
        options = [step.options[groups[name]] for step in steps]
        rate = sum(float(of_step["lr"]) for of_step in options)
        penalty = sum(
            float(of_step["lr"]) * of_step["weight_decay"] for of_step in options
        )
        time[part] = rate * scale[part]

        # Decoupled decay is not scaled as gradients are.
        shrinkage[part] = penalty
        if not is_decoupled(options[0]):
            shrinkage[part] *= scale[part]

    if not bool((time > 0).all()):
        raise ValueError(
            f"a segment of {len(steps)} steps has learning rates of zero throughout: use fewer "
            "segments, or leave those parameters out of the optimizer"
        )
    return Segment(checkpoints, time / len(steps), len(steps), shrinkage / time)


def group_of_each(run: TrainingRun) -> dict[str, int]:
    """Return the place of each parameter's group among those of the optimizer."""
    # The record's own copies belong together.
    names = {id(p): name for name, p in run.record.function.model.named_parameters()}
    groups = {}
    for place, group in enumerate(run.record.optimizer.param_groups):
        for parameter in group["params"]:
            groups[names[id(parameter)]] = place
    return groups


def scales_at(
    run: TrainingRun, scale: Preconditioner, state: State, step: RecordedStep
) -> Tensor:
    """Return what a step multiplies gradients with, beside the learning rate, (P,)."""
    groups = group_of_each(run)
    named = dict(run.record.function.model.named_parameters())
    keeps_nothing = isinstance(run.record.optimizer, torch.optim.SGD)
    parts = {}
    for name in run.objective.parameters.names:
        prefix = f"{OPTIMIZER}{name}/"
        remembered = {}
        for key, value in state.items():
            if key.startswith(prefix):
                remembered[key.removeprefix(prefix)] = value

        # What has never had a gradient is passed over, and has none to scale.
        parameter = named[name].detach()
        parts[name] = torch.ones_like(parameter)
        if remembered or keeps_nothing:
            options = step.options[groups[name]]
            parts[name] = scale(parameter, remembered, options)
    return run.objective.parameters.flatten(parts)
