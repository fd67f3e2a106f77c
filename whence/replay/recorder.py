"""Recording a training while it runs: by one's own loop, or by :func:`whence.train`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from whence import _checks
from whence.objective import LossLike
from whence.replay.model_steps import state_of, take_step, trained_parameters
from whence.replay.record import Record, RecordedStep
from whence.replay.trained import Trained
from whence.replay.training_run import TrainingRun
from whence.replay.updates import update_of
from whence.samples import Data
from whence.supervised import ModelFunction

BATCH_SIZE = 32


class TrainingRecorder:
    """Takes the steps of a training and keeps what is needed to take them again.

    The loop stays one's own: the order of the data, learning rates, how often what is evaluated.
    Learning rates and other options are read off the optimizer at each step, so schedulers work
    as they do.

    Parameters
    ----------
    model:
        The model, trained in the mode that it is in: call ``model.train()`` before.
    optimizer:
        A ``torch.optim`` optimizer of its parameters.
    data:
        The training samples, as in :meth:`whence.Objective.supervised`.
    loss:
        Their loss, as there; None for the model's own. That of a step is the mean over its batch.
    seed:
        Of random numbers that the model draws, such as those of dropout.
    max_norm:
        Largest norm of a gradient, above which it is scaled down.

    Raises
    ------
    ValueError
        If the optimizer trains no parameter of the model, or its step is not known as a function
        (:data:`whence.replay.updates.UPDATES`).

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 2)
    >>> x, y = torch.rand(12, 2), torch.arange(12) % 2
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    >>> recorder = wh.TrainingRecorder(model, optimizer, (x, y), torch.nn.CrossEntropyLoss())
    >>> for epoch in range(2):
    ...     for places in torch.randperm(12).split(4):
    ...         _ = recorder.step(places)
    ...     scheduler.step()
    >>> run = recorder.run()
    >>> len(run), [step.options[0]["lr"] for step in run.record.steps[2:4]]
    (6, [0.01, 0.005])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Data,
        loss: LossLike | None,
        *,
        seed: int = 0,
        max_norm: float | None = None,
    ) -> None:
        _checks.seed("seed", seed)
        if max_norm is not None:
            _checks.positive("max_norm", max_norm)
        names = check_optimizer(model, optimizer)
        trained = Trained.of(model, data, loss, names)
        self.objective = trained.objective
        self._model = model
        self._optimizer = optimizer
        self._data = trained.data
        self._loss = trained.loss
        self._function = trained.function
        self._seed = seed
        self._max_norm = max_norm
        self._steps: list[RecordedStep] = []
        self._begun: tuple[ModelFunction, torch.optim.Optimizer] | None = None
        self._modes: list[bool] = []

    def step(self, places: Tensor | np.ndarray | Sequence[int]) -> float:
        """Take a step on the samples at these places of the data; return their loss before it.

        Raises
        ------
        TypeError
            If ``places`` are no whole numbers, as those of a batch's inputs would be.
        ValueError
            If there are none, one is out of range, or a part of the model has been put into
            another mode since the first step.
        """
        chosen = check_places(places, len(self._data))
        self._begin()
        step = RecordedStep(chosen, self._step_seed(), self._options())
        loss = take_step(
            self._function,
            self._optimizer,
            self._loss,
            self._data[chosen],
            step,
            self._max_norm,
        )
        self._steps.append(step)
        return loss

    def _begin(self) -> None:
        """Keep model and optimizer as they are before the first step."""
        modes = [module.training for module in self._model.modules()]
        if self._begun is None:
            self._modes = modes
            self._begun = copy.deepcopy((self._function, self._optimizer))
            self._start = state_of(self._model, self._optimizer)
        if modes != self._modes:
            raise ValueError(
                "a part of the model was put into another mode after the first step: call "
                "model.train() after each model.eval(), before the next step"
            )

    def _step_seed(self) -> int:
        sequence = np.random.SeedSequence([self._seed, len(self._steps)])
        return int(sequence.generate_state(1)[0])

    def _options(self) -> Sequence[Mapping[str, Any]]:
        """Return the optimizer's options, the same object for as long as they stay the same."""
        # As they are now, since schedulers change them in place.
        options = []
        for group in self._optimizer.param_groups:
            options.append({k: v for k, v in group.items() if k != "params"})
        # Most steps have those of the step before, which need not be kept twice.
        if self._steps and self._steps[-1].options == options:
            return self._steps[-1].options
        return options

    def run(self) -> TrainingRun:
        """Return the training as it was up to now.

        Raises
        ------
        ValueError
            If no step was taken.
        """
        if self._begun is None:
            raise ValueError(
                "nothing was recorded: take steps by recorder.step(places)"
            )
        function, optimizer = self._begun
        record = Record(
            function,
            optimizer,
            self._data,
            self._loss,
            self.objective.outputs,
            tuple(self._steps),
            self._start,
            state_of(self._model, self._optimizer),
            self._max_norm,
        )
        return TrainingRun(self._model, self.objective, record)


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of the parameters that an optimizer trains, all of them the model's."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "optimizer must be one of torch.optim with the model's parameters, such as "
            f"torch.optim.Adam(model.parameters()), got {_checks.describe(optimizer)}"
        )
    update_of(optimizer)
    # By identity: an optimizer knows no names.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = trained_parameters(optimizer)
    unknown = [parameter for parameter in trained if id(parameter) not in names]
    if unknown or not trained:
        raise ValueError(
            f"the optimizer trains {len(trained)} parameters, of which {len(unknown)} are not the "
            "model's: make it from model.parameters() of this model"
        )
    return {names[id(parameter)] for parameter in trained}


def check_places(places: Tensor | np.ndarray | Sequence[int], n: int) -> Tensor:
    """Return the places of a batch in n samples, (B,)."""
    # A mask has as many entries as the data, not as the batch: it is no list of places.
    chosen = torch.as_tensor(places)
    if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise TypeError(
            "a step is recorded by the places of its samples in the data, such as "
            f"recorder.step([4, 0, 7]), got {_checks.describe(places)}: without them the order of "
            "the data is not known, and nothing can be replayed"
        )
    if not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= n:
        raise ValueError(
            f"places must be one or more from 0 to {n - 1}, got {_checks.describe(places)}"
        )
    return chosen.long().cpu()


def train(
    model: nn.Module,
    data: Data,
    loss: LossLike | None,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int = BATCH_SIZE,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    seed: int = 0,
    max_norm: float | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a model on batches in random order, in training mode, and record how.

    Parameters
    ----------
    model, data, loss:
        As in :meth:`whence.Objective.supervised`.
    optimizer:
        A ``torch.optim`` optimizer of the model's parameters.
    epochs:
        Passes over the data, each in an order of its own.
    batch_size:
        Samples in a step; the last step of a pass takes those that are left.
    scheduler:
        Of the optimizer's learning rate, stepped after every step.
    seed:
        Of the order of the data, and of random numbers that the model draws.
    max_norm:
        Largest norm of a gradient, above which it is scaled down.
    progress:
        Whether a bar is shown after two seconds.

    Returns
    -------
    TrainingRun
        The trained model, left in the mode in which it was, and what its steps were.

    Raises
    ------
    FloatingPointError
        If a loss is not finite.
    ValueError
        As :class:`whence.TrainingRecorder`.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 2)
    >>> x, y = torch.rand(12, 2), torch.arange(12) % 2
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    >>> run = wh.train(model, (x, y), torch.nn.CrossEntropyLoss(), optimizer, epochs=3)
    >>> wh.Replay(run).attribute(wh.Loss()).shape
    (12, 12)
    """
    _checks.count("epochs", epochs)
    _checks.count("batch_size", batch_size)
    recorder = TrainingRecorder(
        model, optimizer, data, loss, seed=seed, max_norm=max_norm
    )
    # Modes go part by part: some may be in evaluation mode for good.
    n = recorder.objective.n_points
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    bar = tqdm(
        range(epochs),
        "training",
        unit="epoch",
        delay=2,
        leave=False,
        disable=not progress,
    )
    try:
        for epoch in bar:
            # An order of its own for each epoch, whatever was drawn before.
            generator = torch.Generator().manual_seed(order_seed(seed, epoch))
            for places in torch.randperm(n, generator=generator).split(batch_size):
                value = recorder.step(places)
                if not np.isfinite(value):
                    raise FloatingPointError(
                        f"the loss of a step in epoch {epoch} is {value}: lower the learning "
                        "rate, or give max_norm="
                    )
                if scheduler is not None:
                    scheduler.step()
    finally:
        for module, mode in modes:
            module.training = mode
    return recorder.run()


def order_seed(seed: int, epoch: int) -> int:
    """Return the seed of the order of the data in an epoch."""
    sequence = np.random.SeedSequence([seed, epoch, 1])
    return int(sequence.generate_state(1)[0])
