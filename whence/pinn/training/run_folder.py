"""A run is a folder: configuration, history, points, checkpoint, summary; every write is atomic.

A file that is damaged or was changed is refused by name. No file can run code but
``problem.py``, the user's own problem, which is run when the run is opened.

``config.json``            what is needed to repeat the run, versions included
``problem.py``             the file that defines the problem, where it is the user's own
``history.csv``            one row per logged iteration, named columns
``points.npz``             every point ever trained on, when it entered and when it left
``spectra.npz``            the tangent kernel's eigenvalues by term, where they were asked for
``changes.safetensors``    points and weights by the iteration from which on they were stepped on,
                           where resampling or a weighting changes them
``checkpoint.safetensors`` parameters, optimizer state and points; its header holds the rest
``state.json``             a readable copy of that header
``summary.json``           the outcome
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from whence._files import (
    Json,
    JsonObject,
    NotWritten,
    PathLike,
    checked_path,
    digest,
    is_temporary,
    make_folder,
    packed_arrays,
    parsed_json,
    read_arrays,
    strict_json,
    sweep,
    write_atomically,
)
from whence._lock import LOCK, Lock, locked
from whence.arrays import DataFrameLike
from whence.pinn.training.array_checks import (
    check_point_arrays,
    check_spectra,
    renamed_times,
)
from whence.pinn.training.history import History, from_csv, to_csv
from whence.pinn.training.point_record import PointRecord

FORMAT = 4
READABLE_FORMATS = (2, 3, 4)
CONFIG = "config.json"
SLABS = "slabs"
"""Folder of the runs of single slabs."""
FIRST_SLAB = "000"
"""Name of the run in it that was made first."""
PROBLEM = "problem.py"
HISTORY = "history.csv"
POINTS = "points.npz"
SPECTRA = "spectra.npz"
CHANGES = "changes.safetensors"
CHECKPOINT = "checkpoint.safetensors"
STATE = "state.json"
SUMMARY = "summary.json"
FILES = (
    CONFIG, PROBLEM, HISTORY, POINTS, SPECTRA, CHANGES, CHECKPOINT, STATE, SUMMARY
)  # fmt: skip

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass
class Checkpoint:
    """What a run needs to go on, or says of its steps: tensors by name and plain numbers."""

    tensors: dict[str, Tensor]
    numbers: JsonObject

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix/``, without it."""
        return group(self.tensors, prefix)

    def digest(self) -> str:
        """Return a digest of all that it holds."""
        return _checkpoint_digest(strict_json(self.numbers), self.tensors)

    def on_disk(self) -> Checkpoint:
        """Return the same with tensors as a file can have them."""
        # Clones: safetensors refuses tensors that share memory.
        tensors = {}
        for name, tensor in self.tensors.items():
            tensors[name] = tensor.detach().cpu().contiguous().clone()
        return Checkpoint(tensors, self.numbers)


UNREADABLE = (safetensors.SafetensorError, KeyError, TypeError, ValueError)
"""What reading a file that is damaged, or something else, may raise."""


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return what the header of a file of safetensors says, and copies of its tensors by name."""
    for is_last in (False, True):
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                # Copies: what safetensors returns is mapped to the file, which is to be replaced.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return dict(file.metadata()), tensors
        except UNREADABLE:
            # Ctrl-C while torch makes a tensor comes out as another error. A file that is damaged
            # is so when it is read again.
            if is_last:
                raise
    raise AssertionError("the last try returns or raises")


def group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix/``, without it."""
    start = f"{prefix}/"
    members = {}
    for name, tensor in tensors.items():
        if name.startswith(start):
            members[name.removeprefix(start)] = tensor
    return members


def described(value: object) -> Json:
    """Return options as plain JSON values: a dataclass with its kind, a callable by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        options: JsonObject = {"kind": type(value).__name__}
        for entry in dataclasses.fields(value):
            option = getattr(value, entry.name, None)
            is_unset = "later" in entry.metadata and option == entry.default
            if entry.init and not is_unset:
                options[entry.name] = described(option)
        return options
    if isinstance(value, Mapping):
        return {str(key): described(entry) for key, entry in value.items()}
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, DataFrameLike)):
        return _described_array(np.asarray(value))
    if isinstance(value, (list, tuple)):
        return [described(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no inf and no nan
    if isinstance(value, np.generic):
        return described(value.item())
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (torch.dtype, torch.device, os.PathLike, nn.Module)):
        return str(value)

    # A function by its name: another of the same name cannot be told from it.
    return getattr(value, "__qualname__", type(value).__name__)


def _described_array(array: np.ndarray) -> Json:
    """Return an array by its shape and digest, by which others are told from it."""
    numbers = np.ascontiguousarray(array)
    # Rows of objects have no bytes of their own, but all that they say in text.
    content = repr(numbers.tolist()) if numbers.dtype == object else numbers.tobytes()
    return {"kind": "array", "shape": list(array.shape), "digest": digest(content)}


class RunFolder:
    """The files of one run.

    Examples
    --------
    >>> import tempfile
    >>> from whence.pinn.training.run_folder import RunFolder
    >>> folder = RunFolder(tempfile.mkdtemp() + "/run")
    >>> folder.create({"problem": "burgers"})
    >>> folder.config()["problem"]
    'burgers'
    """

    def __init__(self, path: PathLike) -> None:
        self.path = checked_path("the folder of a run", path)
        self._lock: Lock | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    # --- the folder ---

    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / CONFIG).is_file()

    def create(self, config: JsonObject, problem_code: str | None = None) -> None:
        """Make the folder and write its configuration; an existing run or file is an error."""
        self.check_free(problem_code)
        make_folder(self.path)
        if problem_code is not None:
            write_atomically(self.path / PROBLEM, problem_code.encode())
        # Signed, so that options changed by hand are not taken for those of the run.
        content = {"format": FORMAT, **config}
        signed = {**content, "digest": digest(strict_json(content))}
        write_atomically(self.path / CONFIG, _json(signed))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone, and clear away what killed writers left.

        Another process that holds it is a ``BlockingIOError``, a folder that cannot be written to
        an ``OSError``; reading needs no lock.
        """
        # For one writer: two would mix their files.
        with locked(self.path) as lock:
            sweep(self.path, FILES)
            self._lock = lock  # by which the folder is known again
            try:
                yield
            finally:
                self._lock = None

    def check_in_place(self) -> None:
        """Raise ``OSError`` if the folder was removed, or made again, since it was locked."""
        # The same path may be another folder by now, of another run.
        is_replaced = self._lock is not None and not self._lock.is_in_place()
        if not self.exists() or is_replaced:
            raise NotWritten(
                f"{self.path} was removed or replaced while this run was training"
            )

    def check_free(self, problem_code: str | None = None) -> None:
        """Raise ``FileExistsError`` unless a run can be made here without touching anything."""
        if self.exists():
            raise FileExistsError(
                f"{self.path} already holds a run: choose another folder, or resume it with "
                "--resume (resume=True)"
            )
        if not self.path.exists():
            return

        if not self.path.is_dir() or not self._is_fresh(problem_code):
            raise FileExistsError(
                f"{self.path} exists and is not an empty folder: choose another"
            )

    def _is_fresh(self, problem_code: str | None) -> bool:
        """Whether the folder holds no more than a start leaves that was killed or failed."""
        for path in self.path.iterdir():
            if path.name == LOCK or is_temporary(path):
                continue
            # The runs of slabs are there before the run that joins them.
            if path.name == SLABS and path.is_dir():
                continue
            # The problem is written before the configuration; the same again changes nothing.
            is_problem = path.name == PROBLEM and path.is_file()
            if not is_problem or problem_code is None:
                return False
            if path.read_bytes() != problem_code.encode():
                return False

        return True

    def is_started(self) -> bool:
        """Whether the run has a checkpoint; one killed in its first seconds has none."""
        return (self.path / CHECKPOINT).is_file()

    def is_finished(self) -> bool:
        """Whether the run has an outcome; one that was killed has none."""
        return (self.path / SUMMARY).is_file()

    # --- configuration and outcome ---

    def config(self) -> JsonObject:
        """Return the configuration."""
        path = self.path / CONFIG
        config = self._read_json(CONFIG)
        _check_format(path, config.get("format"))
        signature = config.pop("digest", None)
        if signature != digest(strict_json(config)):
            raise ValueError(
                f"{path} was changed since the run was made, or is damaged"
            )

        return config

    def problem_file(self) -> Path | None:
        """Return the user's own file that defines the problem, if there is one."""
        path = self.path / PROBLEM
        return path if path.is_file() else None

    def summary(self) -> JsonObject:
        """Return the outcome of a finished run."""
        return self._read_json(SUMMARY)

    def json(self, name: str) -> JsonObject:
        """Return a file of the folder that holds a JSON object."""
        return self._read_json(name)

    def _read_json(self, name: str) -> JsonObject:
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path} holds no whence run: {name} is missing"
            )

        try:
            content = parsed_json(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged, not valid JSON: {error}") from None

        if not isinstance(content, dict):
            raise ValueError(f"{path} does not hold a JSON object")

        return content

    def write_summary(self, summary: JsonObject) -> None:
        """Write ``summary.json``."""
        write_atomically(self.path / SUMMARY, _json(summary))

    # --- history, points, spectra ---

    def write_history(self, rows: Sequence[JsonObject]) -> None:
        """Write ``history.csv``, columns in order of first appearance."""
        write_atomically(self.path / HISTORY, to_csv(rows).encode())

    def history(self) -> History:
        """Return ``history.csv``; numbers as numbers, empty cells left out."""
        path = self.path / HISTORY
        if not path.is_file():
            return History()
        try:
            return from_csv(path.read_bytes().decode())
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def write_points(self, record: PointRecord) -> None:
        """Write ``points.npz``."""
        self.write_arrays(POINTS, record.arrays())

    def points(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``points.npz``: TERM, TERM:entered and TERM:left for each term."""
        return self._read_arrays(POINTS, check_point_arrays, renamed_times)

    def has_spectra(self) -> bool:
        """Whether spectra were recorded."""
        return (self.path / SPECTRA).is_file()

    def spectra(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``spectra.npz``: iteration (k,), and (k, n) for each term."""
        return self._read_arrays(SPECTRA, check_spectra)

    def write_arrays(self, name: str, arrays: Arrays) -> None:
        """Write arrays into a compressed file."""
        write_atomically(self.path / name, packed_arrays(arrays))

    def _read_arrays(
        self,
        name: str,
        check: Callable[[Arrays], None],
        prepare: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict,
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a file; what does not pass the check is damaged."""
        path = self.path / name
        arrays = prepare(read_arrays(path))

        try:
            check(arrays)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

        return arrays

    # --- the checkpoint ---

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, tensors and numbers in one file, then the readable copy."""
        self._write_tensors(CHECKPOINT, checkpoint.on_disk())
        write_atomically(
            self.path / STATE, _json(checkpoint.numbers)
        )  # for people; nothing reads it

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint; a missing or damaged file is an error that names it."""
        if not self.is_started():
            raise FileNotFoundError(
                f"{self.path} holds no checkpoint yet: {CHECKPOINT} is missing"
            )
        return self._read_tensors(CHECKPOINT)

    def write_changes(self, changes: Checkpoint) -> None:
        """Write ``changes.safetensors``."""
        self._write_tensors(CHANGES, changes.on_disk())

    def changes(self) -> Checkpoint:
        """Return ``changes.safetensors``; a missing or damaged file is an error that names it."""
        path = self.path / CHANGES
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, which holds the points and weights that the steps of the run "
                "were made with"
            )
        return self._read_tensors(CHANGES)

    def _write_tensors(self, name: str, content: Checkpoint) -> None:
        """Write tensors and numbers into one file."""
        state = strict_json({"format": FORMAT, **content.numbers}, indent=None)
        # In the header, so that tensors and numbers are of one moment.
        metadata = {
            "state": state,
            "digest": _checkpoint_digest(state, content.tensors),
        }
        packed = safetensors.torch.save(content.tensors, metadata=metadata)
        write_atomically(self.path / name, packed)

    def _read_tensors(self, name: str) -> Checkpoint:
        """Return what a file of tensors and numbers holds; what does not fit is damaged."""
        path = self.path / name
        what = name.removesuffix(".safetensors")
        try:
            metadata, tensors = read_tensors(path)
            numbers = dict(parsed_json(metadata["state"]))
        except UNREADABLE as error:
            raise ValueError(
                f"{path} is damaged or no {what} of whence: {error}"
            ) from None

        _check_format(path, numbers.pop("format", None))
        if metadata.get("digest") != _checkpoint_digest(metadata["state"], tensors):
            raise ValueError(
                f"{path} is damaged: what it holds does not fit its digest"
            )

        return Checkpoint(tensors, numbers)


def _json(value: JsonObject) -> bytes:
    return (strict_json(value) + "\n").encode()


def _check_format(path: Path, given: Any) -> None:
    if given in READABLE_FORMATS:
        return
    is_newer = isinstance(given, int) and given > FORMAT
    age = "a newer" if is_newer else "an older or unknown"
    raise ValueError(
        f"{path} is of run format {given!r}, that of {age} version of whence; this one reads "
        f"formats {' and '.join(map(str, READABLE_FORMATS))}: use that version, or train again"
    )


def _checkpoint_digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of all that a checkpoint holds, its tensors by name, type and bytes."""
    parts: list[bytes | str] = [state]
    for name in sorted(tensors):
        tensor = tensors[name]
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}")
        numbers = tensor.reshape(-1).view(torch.uint8)
        parts.append(numbers.numpy().tobytes())

    return digest(*parts)
