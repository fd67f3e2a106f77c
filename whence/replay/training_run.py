"""A recorded training of a model, which can be made again, and derived."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from whence import _checks
from whence._files import PathLike
from whence.objective import LossLike, Objective
from whence.replay import run_file
from whence.replay.model_steps import MODEL, ModelSteps, put_state
from whence.replay.record import Record
from whence.replay.steps import State
from whence.replay.trained import Trained
from whence.samples import Data


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training that can be made again, as :func:`whence.train` and recorders return it.

    A step's loss is ``(1/B) Σ_i w_i ℓ(f(x_i), y_i)`` over its batch of B samples, with weights
    ``w = 1`` in the training that was.

    Parameters
    ----------
    model:
        The trained model.
    objective:
        The model with all training samples and the loss, for attributions of any kind.
    record:
        What its steps were made with.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(2, 1)
    >>> x, y = torch.rand(20, 2), torch.rand(20, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=2, batch_size=5)
    >>> len(run), run.record.steps[0].places.shape
    (8, torch.Size([5]))
    """

    model: nn.Module
    objective: Objective
    record: Record

    def __len__(self) -> int:
        return len(self.record.steps)

    def save(self, path: PathLike) -> Path:
        """Write the training into a file, from which :meth:`load` makes it again; return its path.

        It has what the steps were made with, the states before the first and after the last of
        them, and a digest of the data: neither the data nor the model's code, nor any code.

        Parameters
        ----------
        path:
            A file that ends in ``.safetensors``; one that is there is kept.

        Raises
        ------
        FileExistsError
            If there is such a file.
        ValueError
            If the path ends otherwise, or an option of the optimizer is a tensor.
        whence._files.NotWritten
            If the file cannot be written.
        """
        return run_file.write_run(path, self.record, self.model)

    @classmethod
    def load(
        cls, path: PathLike, model: nn.Module, data: Data, loss: LossLike | None
    ) -> TrainingRun:
        """Return a training from a file of :meth:`save`.

        Parameters
        ----------
        path:
            The file.
        model:
            Of the same making, with any parameters; it stays as it is, the run has a copy.
        data, loss:
            What it was trained on and for.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or model, data or loss are not those of the training.

        Examples
        --------
        >>> import tempfile, torch, whence as wh
        >>> model = torch.nn.Linear(2, 1)
        >>> data = torch.rand(20, 2), torch.rand(20, 1)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> run = wh.train(model, data, wh.Squared(), optimizer, epochs=2, batch_size=5)
        >>> path = run.save(tempfile.mkdtemp() + "/training.safetensors")
        >>> again = wh.TrainingRun.load(path, torch.nn.Linear(2, 1), data, wh.Squared())
        >>> effects = wh.Replay(again).attribute(wh.Loss())
        >>> bool((effects == wh.Replay(run).attribute(wh.Loss())).all())
        True
        """
        file = run_file.read_run(path)
        copied = copy.deepcopy(model)
        run_file.begin(file, copied)
        optimizer = run_file.optimizer_of(file, copied)
        names = [name for group in file.header["groups"] for name in group]
        trained = Trained.of(copied, data, loss, names)
        record = run_file.record_of(
            file,
            trained.function,
            optimizer,
            trained.data,
            trained.loss,
            trained.objective.outputs,
        )
        put_state(record.end, copied, optimizer)
        run_file.set_modes(file, copied, "modes_after")
        return cls(copied, trained.objective, record)

    def steps(self) -> ModelSteps:
        """Return the steps, to be taken forwards and backwards."""
        return ModelSteps(self.record)

    def retrained(self, weights: Tensor) -> nn.Module:
        """Return the model of the same training with other weights w of the samples, (N,).

        Everything else is as it was: the start, the batches and their sizes B, random numbers and
        learning rates. With weights of zero this is what removing samples really does, which
        :class:`whence.Replay` predicts.

        Raises
        ------
        ValueError
            If there is not a finite weight of zero or more for each sample.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> x, y = torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=100, batch_size=2)
        >>> run.retrained(torch.tensor([1.0, 0.0])).weight.detach().round(decimals=4)
        tensor([[1.]])
        """
        _checks.weights("the samples' weights", weights, len(self.record.data))
        # Copies of model and optimizer take the steps; the trained model stays as it is.
        steps = ModelSteps(self.record, weights)
        steps.advance(self.record.start, 0, len(self))
        model = copy.deepcopy(steps.model)
        model.train(self.model.training)
        return model

    def states(self, after: Sequence[int]) -> Iterator[State]:
        """Yield the states of model and optimizer after so many steps, in ascending order.

        The training is taken again up to the last of them.

        Raises
        ------
        ValueError
            If a number of steps is not one of the training's, or comes out of order.
        """
        for steps_before, count in zip([0, *after], after, strict=False):
            if not steps_before <= count <= len(self):
                raise ValueError(
                    f"states are asked for in the order of their steps, from 0 to {len(self)}, got "
                    f"{_checks.describe(list(after))}"
                )

        steps = self.steps()
        state = steps.start()
        first = 0
        bar = tqdm(after, "states", unit="state", delay=2, leave=False)
        for last in bar:
            # States of the training are not changed by later steps, but made new.
            if last > first:
                state = steps.advance(state, first, last)
            yield state
            first = last

    def checkpoint(self, state: State) -> dict[str, Tensor]:
        """Return the model's ``state_dict()`` in a state of the training."""
        names = {}
        for name, parameter in self.model.named_parameters():
            names[id(parameter)] = name
        tensors = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            # A tied weight is in the state under the first of its names.
            first_name = MODEL + names.get(id(tensor), name)
            kept = state.get(first_name, tensor)  # what is frozen stays as it is
            tensors[name] = kept.detach().clone()
        return tensors

    def checkpoints(self, after: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return the model's ``state_dict()`` after so many steps, for each of them.

        For methods that take checkpoints, as :class:`whence.TracIn` does; the training is taken
        again up to the last of them.

        Examples
        --------
        >>> import torch, whence as wh
        >>> model = torch.nn.Linear(2, 1)
        >>> x, y = torch.rand(20, 2), torch.rand(20, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> run = wh.train(model, (x, y), wh.Squared(), optimizer, epochs=2, batch_size=5)
        >>> _, last = run.checkpoints([4, 8])
        >>> bool(torch.equal(last["weight"], model.weight))
        True
        """
        return [self.checkpoint(state) for state in self.states(after)]
