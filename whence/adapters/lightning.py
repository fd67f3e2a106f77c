"""A callback of Lightning that records what TracIn and influence functions need of a training.

While ``trainer.fit`` runs, :class:`RecordTraining` writes into a folder

- ``step-000120.safetensors`` and so on: states of the model;
- ``order-000003.safetensors`` and so on: which samples each batch of an epoch had;
- ``record.json``: of each state its step, epoch, and the learning rate of each group of parameters
  in the step before it.

Numbers alone are written, each file whole or not at all. When the training is over, the callback
makes the objective and TracIn of it; :func:`read_record` does in another process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from whence import _checks
from whence._files import (
    checked_path,
    make_folder,
    parsed_json,
    replacing,
    strict_json,
    write_atomically,
)
from whence.adapters.optimizers import penalty_of_optimizer
from whence.attribution.checkpoints import read_state
from whence.attribution.gradients import TracIn
from whence.compat.shared import in_order
from whence.objective import LossLike, Objective
from whence.parameters import Select
from whence.samples import Data

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "this adapter needs lightning: pip install whence[adapters]"
    ) from error

RECORD = "record.json"
FORMAT = 1
"""Of the record's file."""


@dataclass(frozen=True)
class State:
    """A state of the model on disk.

    Parameters
    ----------
    file:
        Its name in the folder.
    step, epoch:
        Steps of the optimizer before it, and the epoch that it was in.
    rates:
        Learning rate of each group of parameters in the last of these steps.
    """

    file: str
    step: int
    epoch: int
    rates: tuple[float, ...]


@dataclass
class TrainingRecord:
    """What was recorded of a training.

    Parameters
    ----------
    folder:
        Where it is.
    groups:
        Names of the parameters in each group of the optimizer.
    states:
        The states, in order.
    order:
        Files with the order of the data, one an epoch; ``None`` where that is not known: of a
        stream, of a batch sampler of the user's own, or of several processes.
    """

    folder: Path
    groups: list[list[str]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    order: list[str] | None = None

    @property
    def checkpoints(self) -> list[Path]:
        """The files of the states, as :class:`whence.TracIn` takes them."""
        return [self.folder / state.file for state in self.states]

    def batches(self, epoch: int) -> list[Tensor]:
        """Return the places in the data set of the samples of each batch of an epoch.

        Raises
        ------
        ValueError
            If there is no such epoch, or the order is not known.
        """
        if self.order is None:
            raise ValueError(
                "the order of the data is not known: of a stream, of a batch sampler of one's "
                "own, or of several processes"
            )
        if not 0 <= epoch < len(self.order):
            raise ValueError(
                f"epoch must be from 0 to {len(self.order) - 1}, got {epoch}"
            )
        content = read_state(self.folder / self.order[epoch])
        return list(content["places"].split(content["sizes"].tolist()))

    def learning_rates(self, objective: Objective | None = None) -> list[float]:
        """Return the learning rate of each state, of the group that an objective's parameters have.

        Raises
        ------
        ValueError
            If these are of several groups whose rates differ.
        """
        groups = range(len(self.groups))
        if objective is not None:
            names = set(objective.parameters.names)
            groups_of_names = [k for k in groups if names & set(self.groups[k])]
            groups = groups_of_names or groups  # type: ignore[assignment]

        rates = []
        for state in self.states:
            values = {state.rates[k] for k in groups}
            if len(values) > 1:
                raise ValueError(
                    f"at step {state.step} groups of parameters have the learning rates "
                    f"{_checks.describe(sorted(values))}, and TracIn takes one of each state: make "
                    "the objective of the parameters of one group, parameters=[...]"
                )
            rates.append(values.pop())
        return rates

    def tracin(self, objective: Objective) -> TracIn:
        """Return TracIn of an objective over the states, with their learning rates."""
        return TracIn(objective, self.checkpoints, self.learning_rates(objective))

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a file of the folder, whole or not at all."""
        from safetensors.torch import save_file  # slow to import

        with replacing(self.folder / name) as temporary:
            save_file(tensors, temporary)

    def write(self) -> None:
        """Write all but the states, whole or not at all."""
        states = [vars(state) | {"rates": list(state.rates)} for state in self.states]
        content = {
            "format": FORMAT,
            "groups": self.groups,
            "states": states,
            "order": self.order,
        }
        text = strict_json(content)
        write_atomically(self.folder / RECORD, text.encode())


def read_record(folder: str | Path) -> TrainingRecord:
    """Return what :class:`RecordTraining` wrote into a folder.

    Raises
    ------
    FileNotFoundError
        If there is no record, or a state of it is gone.
    ValueError
        If it is of another format.
    """
    path = checked_path("the folder", folder)
    file = path / RECORD
    if not file.is_file():
        raise FileNotFoundError(f"there is no record of a training in {path}")
    content = parsed_json(file.read_bytes())
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{file} is of format {content.get('format')!r}, and this reads {FORMAT}"
        )

    states = []
    for entry in content["states"]:
        rates = tuple(entry["rates"])
        states.append(State(entry["file"], entry["step"], entry["epoch"], rates))
    record = TrainingRecord(path, content["groups"], states, content["order"])
    for checkpoint in record.checkpoints:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"the record in {path} lacks {checkpoint.name}")
    return record


class Watched:
    """A sampler that remembers what it drew.

    Parameters
    ----------
    sampler:
        The sampler of a loader.
    """

    def __init__(self, sampler: Sequence[int]) -> None:
        self.sampler = sampler
        self.passes: list[list[int]] = []

    def __iter__(self) -> Iterator[int]:
        drawn: list[int] = []
        self.passes.append(drawn)
        for place in self.sampler:
            drawn.append(int(place))
            yield place

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> object:
        # Lightning sets epochs on samplers that know them.
        return getattr(self.sampler, name)


class RecordTraining(Callback):  # type: ignore[misc]
    """Records states, learning rates and the order of data, for attribution.

    Parameters
    ----------
    folder:
        A new folder; one with the record of a training that is gone on with is gone on with.
    every_n_epochs:
        Epochs between two states.
    every_n_steps:
        Steps between two states, in place of epochs.
    model:
        Name of the attribute of the LightningModule that is the model (``"net"``); by default the
        LightningModule itself, whose ``forward`` then returns the outputs.

    Raises
    ------
    ValueError
        If a number is not positive.
    FileExistsError
        When the training starts, if the folder has the record of another one.

    Examples
    --------
    ::

        record = RecordTraining("runs/first")
        trainer = lightning.Trainer(max_epochs=10, callbacks=[record])
        trainer.fit(module, loader)
        objective = record.objective(torch.nn.CrossEntropyLoss())
        record.tracin(objective).attribute(wh.Loss(x_test, y_test))
        wh.Influence(objective).attribute(wh.Loss(x_test, y_test))
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        model: str | None = None,
    ) -> None:
        _checks.count("every_n_epochs", every_n_epochs)
        if every_n_steps is not None:
            _checks.count("every_n_steps", every_n_steps)
        self.record = TrainingRecord(checked_path("the folder", folder))
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.model = model

        self._module: nn.Module | None = None
        self._loader: DataLoader[object] | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._watched: Watched | None = None
        self._rates: tuple[float, ...] = ()
        self._batches = 0

    # --- hooks of Lightning ---

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record, or go on with that of the training that is gone on with."""
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"the training has {len(trainer.optimizers)} optimizers, and one is recorded: an "
                "objective is what one of them minimizes"
            )
        self._optimizer = trainer.optimizers[0]
        self._module = self._model_of(pl_module)
        if trainer.is_global_zero:
            self._begin(trainer.global_step)
        names = {parameter: name for name, parameter in self._module.named_parameters()}
        self.record.groups = [
            [names[p] for p in group["params"] if p in names]
            for group in self._optimizer.param_groups
        ]
        self._watch(trainer)

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget how many batches the epoch before had."""
        self._batches = 0

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Remember the learning rates of the step, which a schedule changes after it."""
        assert self._optimizer is not None
        groups = self._optimizer.param_groups
        self._rates = tuple(float(group["lr"]) for group in groups)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, object] | None,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write a state where steps are counted."""
        self._batches = batch_idx + 1
        if self.every_n_steps is None:
            return
        step = trainer.global_step
        is_new = not self.record.states or self.record.states[-1].step != step
        if step and step % self.every_n_steps == 0 and is_new:
            self._write_state(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write which samples the batches had, and a state where epochs are counted."""
        if self._watched is not None and self.record.order is not None:
            name = f"order-{len(self.record.order):06d}.safetensors"
            self.record.write_tensors(name, self._order_of_epoch())
            self.record.order.append(name)
        epoch = trainer.current_epoch + 1
        if self.every_n_steps is None and epoch % self.every_n_epochs == 0:
            self._write_state(trainer)
        elif trainer.is_global_zero:
            self.record.write()

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Give the loader its sampler back, however the training ended."""
        if self._watched is not None and self._loader is not None:
            batches = self._loader.batch_sampler
            assert isinstance(batches, BatchSampler)
            batches.sampler = self._watched.sampler
            self._watched = None

    # --- what it is for ---

    def objective(
        self,
        loss: LossLike,
        data: Data | None = None,
        *,
        parameters: Select = None,
        weight_decay: float | None = None,
    ) -> Objective:
        """Return what the training minimized, at the model's parameters now.

        Parameters
        ----------
        loss:
            What ``training_step`` computes from the model's outputs and targets, as in
            :meth:`whence.Objective.supervised`.
        data:
            The training data; by default those of the loader, in the order of its data set.
        parameters:
            Which parameters θ stands for.
        weight_decay:
            c of the penalty ``(c/2)‖θ‖²``; by default that of the optimizer.

        Raises
        ------
        RuntimeError
            If nothing was trained.
        ValueError
            If the optimizer has no one penalty, or the loader leaves samples out.
        """
        if self._module is None or self._optimizer is None or self._loader is None:
            raise RuntimeError(
                "nothing was trained with this callback: trainer.fit comes first"
            )
        if weight_decay is None:
            weight_decay = penalty_of_optimizer(self._optimizer)
        if data is None:
            data = in_order("the training data", self._loader)
        return Objective.supervised(
            self._module, data, loss, parameters=parameters, weight_decay=weight_decay
        )

    def tracin(self, objective: Objective) -> TracIn:
        """Return TracIn of an objective over the recorded states, with their learning rates."""
        return self.record.tracin(objective)

    # --- parts ---

    def _model_of(self, module: LightningModule) -> nn.Module:
        if self.model is None:
            return module
        model = getattr(module, self.model, None)
        if not isinstance(model, nn.Module):
            names = [name for name, _ in module.named_children()]
            raise ValueError(
                f"the LightningModule has no module {self.model!r}"
                f"{_checks.nearest(self.model, names)}: it has {', '.join(names) or 'none'}"
            )
        return model

    def _begin(self, step: int) -> None:
        folder = self.record.folder
        make_folder(folder)
        if not (folder / RECORD).exists():
            self.record.order = []
            return
        if not step:
            raise FileExistsError(
                f"{folder} has the record of a training: give another folder, or remove it"
            )
        # States after the step that is gone on from are those of a training that is no more.
        former = read_record(folder)
        self.record.states = [state for state in former.states if state.step <= step]
        self.record.order = former.order

    def _watch(self, trainer: Trainer) -> None:
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"the training has a {type(loader).__name__} for its data, and one DataLoader is "
                "recorded"
            )
        self._loader = loader
        batches = loader.batch_sampler
        if trainer.world_size > 1 or type(batches) is not BatchSampler:
            self.record.order = None
            return
        self._watched = Watched(batches.sampler)  # type: ignore[arg-type]
        batches.sampler = self._watched

    def _order_of_epoch(self) -> dict[str, Tensor]:
        """Return the places of the samples that were trained on, and the sizes of the batches."""
        assert self._watched is not None
        assert self._loader is not None
        size = self._loader.batch_size or 1
        # Workers draw ahead of the training: what was not trained on is left out.
        drawn = self._watched.passes[-1] if self._watched.passes else []
        places = torch.tensor(drawn[: self._batches * size], dtype=torch.int64)
        sizes = [len(part) for part in places.split(size)] if drawn else []
        return {"places": places, "sizes": torch.tensor(sizes, dtype=torch.int64)}

    def _write_state(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        assert self._module is not None
        step = trainer.global_step
        name = f"step-{step:06d}.safetensors"
        tensors = {}
        for key, tensor in self._module.state_dict().items():
            # A file of safetensors has no two tensors of one memory, as tied weights are.
            tensors[key] = tensor.detach().cpu().clone().contiguous()
        self.record.write_tensors(name, tensors)
        state = State(name, step, trainer.current_epoch, self._rates)
        self.record.states.append(state)
        self.record.write()
