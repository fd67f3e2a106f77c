"""What was recorded of a model's training: data from which every step can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.losses import Loss
from whence.replay.steps import State
from whence.samples import Samples
from whence.supervised import ModelFunction


@dataclass(frozen=True, eq=False)
class RecordedStep:
    """What one step of a training was made with.

    Parameters
    ----------
    places:
        The samples of its batch, by their places in the data, (B,).
    seed:
        Of torch's random numbers, which dropout draws.
    options:
        The optimizer's options at this step, of each group of parameters.
    """

    places: Tensor
    seed: int
    options: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Record:
    """A training from its first step to its last.

    Parameters
    ----------
    function, optimizer:
        Copies, as they were before the first step, of the model, as a function of samples, and of
        its optimizer.
    data:
        The training samples.
    loss:
        ℓ of a sample.
    outputs:
        Names of the model's outputs.
    steps:
        What each step was made with.
    start, end:
        The states before the first and after the last step.
    max_norm:
        Largest norm of a gradient, above which it is scaled down; None for any.
    """

    function: ModelFunction
    optimizer: torch.optim.Optimizer
    data: Samples
    loss: Loss
    outputs: Sequence[str]
    steps: Sequence[RecordedStep]
    start: State
    end: State
    max_norm: float | None = None
