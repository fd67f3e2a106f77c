"""A recorded training in one file, which holds numbers and no code.

``start/…``, ``end/…``   the states before the first and after the last step
``frozen/…``             parameters that were not trained
``places``, ``sizes``    the samples of all batches, one batch after the other, and how many of each
``seeds``, ``options``   of each step its random numbers' seed, and the number of its options
``outputs``, ``losses``  what the first batch gave before the first step, by which a model, a loss
                         or data that are not those of the training show

The header has the optimizer's class, its groups and their options, and a digest of it all.
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from whence import _checks
from whence._files import (
    JsonObject,
    PathLike,
    checked_path,
    digest,
    make_folder,
    parsed_json,
    replacing,
    strict_json,
)
from whence.data import READ_AT_ONCE
from whence.losses import Loss
from whence.replay.calls import call, random_numbers
from whence.replay.model_steps import (
    MODEL,
    OPTIMIZER,
    TOLERANCES,
    put_state,
    trained_parameters,
)
from whence.replay.record import Record, RecordedStep
from whence.replay.steps import State
from whence.replay.updates import UPDATES
from whence.samples import Samples
from whence.supervised import ModelFunction

FORMAT = 1
SUFFIX = ".safetensors"
NOT_SAVED = ("params", "param_names")
"""Entries of an optimizer's group that are no options."""


@dataclass(frozen=True, eq=False)
class RunFile:
    """What a file of a training holds: plain numbers and text, and tensors by name."""

    path: Path
    header: JsonObject
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with ``prefix/``, without it."""
        start = f"{prefix}/"
        names = [name for name in self.tensors if name.startswith(start)]
        return {name.removeprefix(start): self.tensors[name] for name in names}


# --- writing ---


def write_run(path: PathLike, record: Record, model: nn.Module) -> Path:
    """Write a training into a file; return its path.

    Raises
    ------
    ValueError
        If the path does not end in ``.safetensors``, or an option of the optimizer is no number.
    FileExistsError
        If there is such a file.
    """
    target = checked_run_path(path)
    if target.exists():
        raise FileExistsError(
            f"{target} is there already: name another file, or remove it"
        )
    header, tensors = contents(record, model)
    text = strict_json(header, indent=None)
    metadata = {"run": text, "digest": digest_of(text, tensors)}
    make_folder(target.absolute().parent)
    with replacing(target) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)
    return target


def checked_run_path(path: PathLike) -> Path:
    """Return the path of a file of a training."""
    checked = checked_path("the training's file", path)
    if checked.suffix != SUFFIX:
        raise ValueError(
            f"a training is kept in a file that ends in {SUFFIX}, which holds numbers and no code, "
            f"got {checked}"
        )
    return checked


def contents(record: Record, model: nn.Module) -> tuple[JsonObject, dict[str, Tensor]]:
    """Return the header and the tensors of a training's file."""
    tensors = {}
    for state_name, state in (("start", record.start), ("end", record.end)):
        for name, tensor in state.items():
            tensors[f"{state_name}/{name}"] = tensor
    before = record.function.model
    for name, tensor in before.named_parameters():
        if MODEL + name not in record.start:
            tensors[f"frozen/{name}"] = tensor.detach()

    options, numbers = numbered_options(record.steps)
    tensors["places"] = torch.cat([step.places for step in record.steps])
    tensors["sizes"] = torch.tensor([len(step.places) for step in record.steps])
    tensors["seeds"] = torch.tensor([step.seed for step in record.steps])
    tensors["options"] = torch.tensor(numbers)
    outputs, losses = first_batch(record)
    tensors |= {"outputs": outputs, "losses": losses}

    names = {id(parameter): name for name, parameter in before.named_parameters()}
    groups = []
    for group in record.optimizer.param_groups:
        groups.append([names[id(parameter)] for parameter in group["params"]])
    header = {
        "format": FORMAT,
        "whence": importlib.metadata.version("whence"),
        "torch": torch.__version__,
        "model": type(before).__name__,
        "modes": [module.training for module in before.modules()],
        "modes_after": [module.training for module in model.modules()],
        "loss": _checks.describe(record.loss),
        "data": digest_of_samples(record.data),
        "optimizer": name_of(type(record.optimizer)),
        "groups": groups,
        "options": options,
        "max_norm": record.max_norm,
    }
    # Copies: safetensors refuses tensors that share memory, or have gaps in it.
    copies = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    return header, copies


def numbered_options(
    steps: Sequence[RecordedStep],
) -> tuple[list[list[JsonObject]], list[int]]:
    """Return the different options of steps, and of each step the number of its own."""
    different: list[list[JsonObject]] = []
    numbers = []
    before: object = None
    for step in steps:
        if step.options is not before:
            different.append([plain_options(group) for group in step.options])
            before = step.options
        numbers.append(len(different) - 1)
    return different, numbers


def plain_options(group: Mapping[str, object]) -> JsonObject:
    """Return a group's options as JSON has them, or raise ``ValueError``."""
    options = {}
    for name, value in group.items():
        if name in NOT_SAVED:
            continue
        entries = value if isinstance(value, (tuple, list)) else (value,)
        if not all(isinstance(e, (bool, int, float, str, type(None))) for e in entries):
            raise ValueError(
                f"the optimizer's option {name!r} is {_checks.describe(value)}, and only numbers "
                "and text can be kept in a file: train with a number"
            )
        options[name] = value
    return options


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of a header and of tensors with their names, types and shapes."""
    parts: list[bytes | str] = [text]
    for name in sorted(tensors):
        parts += [name, *words_and_bytes(tensors[name])]
    return digest(*parts)


def words_and_bytes(tensor: Tensor) -> tuple[str, bytes]:
    """Return the type and shape of a tensor in words, and its numbers."""
    numbers = tensor.detach().cpu().contiguous()
    # By their bytes, as NumPy does not know all of torch's types.
    raw = numbers.reshape(-1).view(torch.uint8).numpy() if numbers.numel() else b""
    return f"{numbers.dtype} {tuple(numbers.shape)}", bytes(raw)


def digest_of_samples(samples: Samples) -> str:
    """Return a digest of all samples, read a part at a time."""
    digests = [str(len(samples))]
    for part in samples.split(READ_AT_ONCE):
        for tensor in part.batch.tensors():
            digests.append(digest(*words_and_bytes(tensor)))
    return digest(*digests)


def first_batch(record: Record) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, m) and losses (B,) of the first batch before the first step."""
    function, optimizer = copy.deepcopy((record.function, record.optimizer))
    put_state(record.start, function.model, optimizer)
    step = record.steps[0]
    batch = record.data[step.places]
    with torch.no_grad(), random_numbers(step.seed, batch.device):
        outputs = call(function, batch)
    return outputs, record.loss.value(outputs, batch.target)


def name_of(kind: type) -> str:
    """Return a class by its module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


# --- reading ---


def read_run(path: PathLike) -> RunFile:
    """Return what a training's file holds.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged, or no file of a training.
    """
    target = checked_run_path(path)
    if not target.is_file():
        raise FileNotFoundError(f"there is no recorded training {target}")
    try:
        with safetensors.safe_open(str(target), framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what safetensors returns is mapped to the file.
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
        text = metadata["run"]
        header = parsed_json(text)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{target} is damaged, or no file of run.save(): {error}"
        ) from None
    if metadata.get("digest") != digest_of(text, tensors):
        raise ValueError(f"{target} is damaged: its numbers are not those written")
    if header["format"] != FORMAT:
        raise ValueError(
            f"{target} has format {header['format']}, of another version of whence "
            f"({header['whence']}); this one reads {FORMAT}"
        )
    return RunFile(target, header, tensors)


def begin(file: RunFile, model: nn.Module) -> None:
    """Put a model into the state and the modes in which the training began.

    Raises
    ------
    ValueError
        If it is another model: a parameter or buffer is missing, more than there were, or of
        another shape or type.
    """
    saved = {}
    for name, tensor in file.part("start").items():
        if name.startswith(MODEL):
            saved[name.removeprefix(MODEL)] = tensor
    saved |= file.part("frozen")

    present = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name in [*saved, *present]:
        then, now = (_form(where.get(name)) for where in (saved, present))
        if then != now:
            raise ValueError(
                f"the training of {file.path} is of another model, a {file.header['model']}: its "
                f"{name!r} was {then}, here it is {now}"
            )
    set_modes(file, model, "modes")
    with torch.no_grad():
        for name, tensor in saved.items():
            present[name].copy_(tensor)


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "not there"
    return f"{tuple(tensor.shape)} of {tensor.dtype}"


def set_modes(file: RunFile, model: nn.Module, when: str) -> None:
    """Put the parts of a model into the modes of ``"modes"`` or ``"modes_after"``."""
    modes = file.header[when]
    modules = list(model.modules())
    if len(modules) != len(modes):
        raise ValueError(
            f"the training of {file.path} is of another model, a {file.header['model']} of "
            f"{len(modes)} parts: here it has {len(modules)}"
        )
    for module, mode in zip(modules, modes, strict=True):
        module.training = mode


def optimizer_of(file: RunFile, model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer of the class and with the groups of the training.

    Raises
    ------
    ValueError
        If its class is none of :data:`whence.replay.updates.UPDATES`.
    """
    kinds = {name_of(kind): kind for kind in UPDATES}
    name = file.header["optimizer"]
    if name not in kinds:
        raise ValueError(
            f"the training of {file.path} was by {name}, whose step is not known as a function: "
            "import it and add it to whence.replay.updates.UPDATES, as when it was trained"
        )
    named = dict(model.named_parameters())
    groups = []
    for names, options in zip(file.header["groups"], first_options(file), strict=True):
        parameters = [named[parameter] for parameter in names]
        groups.append({"params": parameters, **options})
    # Of torch's own and of those that follow it: groups come first, options have defaults.
    make: Any = kinds[name]
    optimizer: torch.optim.Optimizer = make(groups)
    return optimizer


def first_options(file: RunFile) -> list[JsonObject]:
    """Return the options of the first step, of each group."""
    return [with_tuples(group) for group in file.header["options"][0]]


def with_tuples(options: JsonObject) -> JsonObject:
    """Return options with lists, which JSON makes of tuples, as tuples."""
    return {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}


def steps_of_file(file: RunFile) -> Iterator[RecordedStep]:
    """Yield the steps; those with the same options share them."""
    options = []
    for groups in file.header["options"]:
        options.append([with_tuples(group) for group in groups])
    tensors = file.tensors
    batches = tensors["places"].split(tensors["sizes"].tolist())
    seeds, numbers = tensors["seeds"].tolist(), tensors["options"].tolist()
    for places, seed, number in zip(batches, seeds, numbers, strict=True):
        yield RecordedStep(places, seed, options[number])


def state_on(file: RunFile, prefix: str, device: torch.device) -> State:
    """Return a state of the training, on a device but for counts of steps."""
    state = {}
    for name, tensor in file.part(prefix).items():
        is_count = name.startswith(OPTIMIZER) and name.endswith("/step")
        state[name] = tensor if is_count else tensor.to(device)
    return state


def record_of(
    file: RunFile,
    function: ModelFunction,
    optimizer: torch.optim.Optimizer,
    data: Samples,
    loss: Loss,
    outputs: Sequence[str],
) -> Record:
    """Return the record of a training, of a model that :func:`begin` has put at its start.

    Raises
    ------
    ValueError
        If data, model or loss are not those of the training.
    """
    if digest_of_samples(data) != file.header["data"]:
        raise ValueError(
            f"the data are not those that {file.path} was trained on: the same samples are needed, "
            "in the same order and of the same type"
        )
    device = trained_parameters(optimizer)[0].device
    begun = copy.deepcopy((function, optimizer))
    start, end = (state_on(file, prefix, device) for prefix in ("start", "end"))
    steps = tuple(steps_of_file(file))
    max_norm = file.header["max_norm"]
    record = Record(*begun, data, loss, outputs, steps, start, end, max_norm)

    now = dict(zip(("outputs", "losses"), first_batch(record), strict=True))
    for what, values in now.items():
        if not agrees(values.cpu(), file.tensors[what]):
            cause = f"the model gives other outputs than the {file.header['model']}"
            if what == "losses":
                cause = f"the loss gives other values than {file.header['loss']}"
            raise ValueError(
                f"{cause} of the training of {file.path} did for its first batch: give the model, "
                "the loss and the data that it was made with"
            )
    return record


def agrees(values: Tensor, expected: Tensor) -> bool:
    """Whether numbers are the same but for rounding."""
    if values.shape != expected.shape or values.dtype != expected.dtype:
        return False
    allowed = TOLERANCES.get(expected.dtype, max(TOLERANCES.values()))
    difference = (values - expected).double().norm()
    # Written so that a NaN is no agreement.
    return bool(difference <= allowed * expected.double().norm())
