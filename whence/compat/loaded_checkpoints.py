"""Checkpoints that a function of the user's loads into the model, as captum has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from whence import _checks
from whence.attribution.checkpoints import read_state
from whence.attribution.gradients import GradientProducts
from whence.attribution.labels import Attributes
from whence.attribution.tiles import Stage
from whence.objective import Objective

LoadFunction = Callable[[nn.Module, str], float | None]
"""Puts a checkpoint into the model, and returns its learning rate."""
STATES = ("model_state_dict", "state_dict", "model")
"""Names under which a checkpoint with other things holds the state of the model."""


def load_state(model: nn.Module, path: str) -> float:
    """Load a file into a model and return its ``learning_rate``, 1 where it names none.

    The file is one of safetensors, or one that ``torch.save`` made of a ``state_dict``, alone or in
    a dictionary with other things. It is read with ``weights_only=True``, so that it runs no code.
    Names that begin with ``module.`` lose that, as those of parallel training have it.

    Raises
    ------
    ValueError
        If there is no state of a model in it.
    """
    if Path(path).suffix == ".safetensors":
        content: Mapping[str, object] = read_state(path)
    else:
        content = torch.load(path, weights_only=True)
    rate = content.get("learning_rate", 1.0)

    state: object = content
    for name in STATES:
        if isinstance(content.get(name), Mapping):
            state = content[name]
            break
    assert isinstance(state, Mapping)
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and name != "learning_rate":
            tensors[name.removeprefix("module.")] = tensor
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors of a model: save model.state_dict(), or give "
            "checkpoints_load_func"
        )
    model.load_state_dict(tensors)
    return float(rate)  # type: ignore[arg-type]


def checkpoint_list(checkpoints: str | Iterable[str]) -> list[str]:
    """Return checkpoints in their order: the files of a folder, paths, or any objects.

    Paths are sorted by their names, in which numbers count as numbers.

    Raises
    ------
    ValueError
        If there are none.

    Examples
    --------
    >>> from whence.compat.loaded_checkpoints import checkpoint_list
    >>> checkpoint_list(["epoch-10.pt", "epoch-9.pt"])
    ['epoch-9.pt', 'epoch-10.pt']
    """
    if isinstance(checkpoints, (str, Path)):
        members = [str(path) for path in Path(checkpoints).glob("*")]
    else:
        members = list(checkpoints)
    if not members:
        raise ValueError(
            f"there are no checkpoints in {_checks.describe(checkpoints)}: give a folder with "
            "files, or a list"
        )
    if all(isinstance(member, str) for member in members):
        members.sort(key=by_number)
    return members


def by_number(path: str) -> list[tuple[bool, int, str]]:
    """Return what sorts names such that the numbers in them count as numbers."""
    # A number comes before a word, so that no two parts are compared that cannot be.
    parts = re.split(r"(\d+)", path)
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


@contextmanager
def visiting_loaded(
    model: nn.Module, checkpoint: str, load: LoadFunction
) -> Iterator[None]:
    """Let a model have what a function loads into it for a while."""
    live = model.state_dict()
    before = {name: tensor.detach().clone() for name, tensor in live.items()}
    learning_rate(model, checkpoint, load)
    try:
        yield
    finally:
        model.load_state_dict(before)


def learning_rate(model: nn.Module, checkpoint: str, load: LoadFunction) -> float:
    """Load a checkpoint and return its learning rate.

    Raises
    ------
    ValueError
        If the function returns no number.
    """
    rate = load(model, checkpoint)
    if rate is None:
        raise ValueError(
            "checkpoints_load_func must return the learning rate of the checkpoint, 1.0 if there "
            f"is none to tell, got None for {_checks.describe(checkpoint)}"
        )
    return float(rate)


class LoadedTracIn(GradientProducts):
    """TracIn whose checkpoints are loaded by a function, one at a time, when they are needed.

    Parameters
    ----------
    objective:
        What was trained.
    checkpoints:
        What the function takes.
    load:
        The function. Each checkpoint is loaded once here, for its learning rate.
    """

    name = "tracin"

    def __init__(
        self, objective: Objective, checkpoints: Sequence[str], load: LoadFunction
    ) -> None:
        super().__init__(objective)
        model = objective.network
        self._checkpoint_stages = []
        before = {n: t.detach().clone() for n, t in model.state_dict().items()}
        for checkpoint in checkpoints:
            rate = learning_rate(model, checkpoint, load)
            at = partial(visiting_loaded, model, checkpoint, load)
            self._checkpoint_stages.append(Stage(rate, at))
        model.load_state_dict(before)

    def stages(self) -> Sequence[Stage]:
        """Return the checkpoints with their learning rates."""
        return self._checkpoint_stages

    def description(self) -> Attributes:
        """Return the number of checkpoints."""
        return {"checkpoints": len(self._checkpoint_stages)}
