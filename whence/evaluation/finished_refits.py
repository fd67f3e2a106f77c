"""Refits that are finished, kept in a file so that none is made twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence._files import (
    PathLike,
    checked_path,
    digest,
    make_folder,
    packed_arrays,
    read_arrays,
    write_atomically,
)
from whence.objective import Objective
from whence.refits import RefitOptions
from whence.subsets import Chosen

ALL = -1
"""Number of the refit that leaves nothing out."""


class FinishedRefits:
    """Values after refits by their number, in memory and, where a file is named, in it.

    Parameters
    ----------
    path:
        An ``.npz`` file, written after each refit; None for none.
    key:
        What the refits are of: a file of others is an error.

    Raises
    ------
    ValueError
        If the file is damaged, or of other refits.
    """

    def __init__(self, path: PathLike | None, key: str) -> None:
        self._path = None if path is None else _checked(path)
        self._key = key
        self._values: dict[int, np.ndarray] = {}
        if self._path is None or not self._path.is_file():
            return

        arrays = read_arrays(self._path)
        if str(arrays.pop("key", "")) != key:
            raise ValueError(
                f"{self._path} holds refits of another network, quantity or options, or without "
                "other points: name another file, or remove it"
            )
        self._values = {int(name): values for name, values in arrays.items()}

    def get(self, number: int, like: Tensor) -> Tensor | None:
        """Return what a refit gave, None if it is still to be made."""
        if number not in self._values:
            return None
        return torch.as_tensor(self._values[number]).to(like)

    def put(self, number: int, values: Tensor) -> None:
        """Keep what a refit gave."""
        self._values[number] = values.cpu().numpy()
        if self._path is None:
            return

        arrays = {str(name): array for name, array in self._values.items()}
        make_folder(self._path.absolute().parent)
        packed = packed_arrays({"key": np.asarray(self._key), **arrays})
        write_atomically(self._path, packed)


def key_of(
    objective: Objective,
    groups: Sequence[Chosen],
    options: RefitOptions,
    start: Tensor,
) -> str:
    """Return a digest of all that decides what refits give.

    Parameters
    ----------
    objective:
        What is refitted, at the network's parameters.
    groups:
        What each refit leaves out.
    options:
        How it goes.
    start:
        The values that are followed, before any refit, which tell quantities apart.
    """
    parts: list[bytes | str] = [json.dumps(asdict(options), sort_keys=True)]
    tensors = {"parameters": objective.parameters.vector(), "start": start}
    for name, term in objective.terms.items():
        if isinstance(term.points, Tensor):
            tensors[name] = term.points
        tensors[f"{name} losses"] = objective.point_losses()[name]
    for name, tensor in tensors.items():
        parts.append(f"{name} {tuple(tensor.shape)}")
        parts.append(tensor.detach().cpu().numpy().tobytes())
    for group in groups:
        listed = {name: indices.tolist() for name, indices in group.items()}
        parts.append(json.dumps(listed))
    return digest(*parts)


def _checked(path: PathLike) -> Path:
    """Return the path of an archive of arrays."""
    checked = checked_path("the file of finished refits", path)
    if checked.suffix != ".npz":
        raise ValueError(
            f"finished refits are kept in an archive of arrays, which ends in .npz, got {checked}"
        )
    return checked
