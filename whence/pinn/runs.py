"""A run is a folder: configuration, history, points, checkpoint, summary; every write is atomic.

A file that is damaged or was changed is refused by name, and none can run code.

``config.json``            what is needed to repeat the run, versions included
``history.csv``            one row per logged iteration, named columns
``points.npz``             every point ever trained on, when it entered and when it left
``spectra.npz``            the tangent kernel's eigenvalues by term, where they were asked for
``checkpoint.safetensors`` parameters, optimiser state and points; its header holds the rest
``state.json``             a readable copy of that header
``summary.json``           the outcome
"""

from __future__ import annotations

import csv
import dataclasses
import io
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
    NotWritten,
    PathLike,
    digest,
    is_temporary,
    make_folder,
    parsed_json,
    read_arrays,
    strict_json,
    sweep,
    write_atomically,
)
from whence._lock import LOCK, Lock, locked
from whence.pinn.spectra import check_spectra

FORMAT = 2
CONFIG, HISTORY, POINTS, SPECTRA = (
    "config.json",
    "history.csv",
    "points.npz",
    "spectra.npz",
)
CHECKPOINT, STATE, SUMMARY = "checkpoint.safetensors", "state.json", "summary.json"


FILES = (CONFIG, HISTORY, POINTS, SPECTRA, CHECKPOINT, STATE, SUMMARY)
COLUMNS = ("iteration", "seconds", "stage", "points", "loss", "validation_loss")
"""Columns of every history; beside them it has loss_TERM and, given a reference, relative_l2."""


def _is_kept(path: Path) -> bool:
    """Tell a file from what a start that was killed leaves."""
    return path.name != LOCK and not is_temporary(path)


def _json(value: Mapping[str, Any]) -> bytes:
    return (strict_json(value) + "\n").encode()


def _check_format(path: Path, found: Any) -> None:
    if found != FORMAT:
        age = (
            "a newer"
            if isinstance(found, int) and found > FORMAT
            else "an older or unknown"
        )
        raise ValueError(
            f"{path} is of run format {found!r}, that of {age} version of whence; this one reads "
            f"format {FORMAT}: use that version, or train anew"
        )


def described(value: Any) -> Any:
    """Return options as plain JSON values: a dataclass with its kind, a callable by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: described(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return {
            "kind": "tensor",
            "shape": list(value.shape),
            "sum": float(value.double().sum()),
        }
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (torch.dtype, torch.device, os.PathLike, nn.Module)):
        return str(value)
    return getattr(value, "__qualname__", type(value).__name__)


@dataclasses.dataclass
class Checkpoint:
    """What a run needs to go on: tensors by name and plain numbers."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix/``, without it."""
        start = prefix + "/"
        return {
            n[len(start) :]: t for n, t in self.tensors.items() if n.startswith(start)
        }


class RunFolder:
    """The files of one run.

    Examples
    --------
    >>> import tempfile
    >>> from whence.pinn.runs import RunFolder
    >>> folder = RunFolder(tempfile.mkdtemp() + "/run")
    >>> folder.create({"problem": "burgers"})
    >>> folder.config()["problem"]
    'burgers'
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._lock: Lock | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Tell whether the folder holds a run."""
        return (self.path / CONFIG).is_file()

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write its configuration; an existing run or file is an error."""
        self.check_free()
        make_folder(self.path)
        content = {"format": FORMAT, **config}
        signed = {**content, "digest": digest(strict_json(content))}
        write_atomically(self.path / CONFIG, _json(signed))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone, and clear away what killed writers left.

        Another process that holds it is a ``BlockingIOError``, a folder that cannot be written to
        an ``OSError``; reading needs no lock.
        """
        with locked(self.path) as lock:
            sweep(self.path, FILES)
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def check_in_place(self) -> None:
        """Raise ``OSError`` if the folder was removed, or made anew, since it was locked."""
        if not self.exists() or (
            self._lock is not None and not self._lock.is_in_place()
        ):
            raise NotWritten(
                f"{self.path} was removed or replaced while this run was training"
            )

    def check_free(self) -> None:
        """Raise ``FileExistsError`` unless a run can be made here without touching anything."""
        if self.exists():
            raise FileExistsError(
                f"{self.path} already holds a run: choose another folder, or resume it with "
                "--resume (resume=True)"
            )
        if self.path.exists() and (
            not self.path.is_dir() or any(map(_is_kept, self.path.iterdir()))
        ):
            raise FileExistsError(
                f"{self.path} exists and is not an empty folder: choose another"
            )

    def started(self) -> bool:
        """Tell whether the run has a checkpoint; one killed in its first seconds has none."""
        return (self.path / CHECKPOINT).is_file()

    def config(self) -> dict[str, Any]:
        """Return the configuration."""
        path, config = self.path / CONFIG, self._read_json(CONFIG)
        _check_format(path, config.get("format"))
        signature = config.pop("digest", None)
        if signature != digest(strict_json(config)):
            raise ValueError(
                f"{path} was changed since the run was made, or is damaged"
            )
        return config

    def summary(self) -> dict[str, Any]:
        """Return the outcome of a finished run."""
        return self._read_json(SUMMARY)

    def _read_json(self, name: str) -> dict[str, Any]:
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

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        write_atomically(self.path / SUMMARY, _json(summary))

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv``, columns in order of first appearance."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / HISTORY, text.getvalue().encode())

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of ``history.csv``; numbers as numbers, empty cells left out."""
        path = self.path / HISTORY
        if not path.is_file():
            return []
        try:
            text = path.read_bytes().decode()
            return _rows(text)
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def write_points(self, record: PointRecord) -> None:
        """Write ``points.npz``."""
        held = io.BytesIO()
        np.savez_compressed(held, **record.arrays())  # type: ignore[arg-type]
        write_atomically(self.path / POINTS, held.getvalue())

    def points(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``points.npz``: TERM, TERM_entered and TERM_left for each term."""
        return self._arrays(POINTS, _check_points)

    def write_spectra(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write ``spectra.npz``."""
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path / SPECTRA, held.getvalue())

    def has_spectra(self) -> bool:
        """Tell whether spectra were recorded."""
        return (self.path / SPECTRA).is_file()

    def spectra(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``spectra.npz``: iteration (k,), and (k, n) for each term."""
        return self._arrays(SPECTRA, check_spectra)

    def _arrays(
        self, name: str, check: Callable[[Mapping[str, np.ndarray]], None]
    ) -> dict[str, np.ndarray]:
        path = self.path / name
        arrays = read_arrays(path)
        try:
            check(arrays)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        return arrays

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, tensors and numbers in one file, then the readable copy."""
        tensors = {
            name: t.detach().cpu().contiguous().clone()
            for name, t in checkpoint.tensors.items()
        }
        state = strict_json({"format": FORMAT, **checkpoint.numbers}, indent=None)
        metadata = {"state": state, "digest": _checkpoint_digest(state, tensors)}
        content = safetensors.torch.save(tensors, metadata=metadata)
        write_atomically(self.path / CHECKPOINT, content)
        write_atomically(self.path / STATE, _json(checkpoint.numbers))

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint; a missing or damaged file is an error that names it."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path} holds no checkpoint yet: {CHECKPOINT} is missing"
            )
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                metadata = file.metadata()
                numbers = dict(parsed_json(metadata["state"]))
                names = list(file.keys())
                # Copies: what safetensors returns is mapped to the file, which is to be replaced.
                tensors = {name: file.get_tensor(name).clone() for name in names}
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or not a whence checkpoint: {error}"
            ) from None
        _check_format(path, numbers.pop("format", None))
        if metadata.get("digest") != _checkpoint_digest(metadata["state"], tensors):
            raise ValueError(
                f"{path} is damaged: what it holds does not fit its digest"
            )
        return Checkpoint(tensors, numbers)


def _checkpoint_digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    parts: list[bytes | str] = [state]
    for name in sorted(tensors):
        tensor = tensors[name]
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}")
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest(*parts)


def _rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a history; what cannot be one is a ``ValueError`` without the file."""
    if not text.endswith("\n"):
        raise ValueError("its last line is cut off")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or ())
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"column {missing[0]!r} is missing")
    rows = []
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has not {len(columns)} cells")
        rows.append({name: _number(cell) for name, cell in row.items() if cell})
        words = [
            n
            for n, value in rows[-1].items()
            if isinstance(value, str) and n != "stage"
        ]
        if words:
            raise ValueError(f"row {number} has no number in column {words[0]!r}")
        if not isinstance(rows[-1].get("iteration"), int):
            raise ValueError(f"row {number} has no iteration")
    return rows


def history_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest of history rows, the same before writing and after reading them."""
    return digest(*(repr(sorted(row.items())) for row in rows))


def _check_points(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` unless these are points with their times, without naming the file."""
    terms = [name for name in arrays if f"{name}_entered" in arrays]
    known = {name + suffix for name in terms for suffix in ("", "_entered", "_left")}
    if set(arrays) != known:
        raise ValueError(
            f"it holds {', '.join(sorted(arrays))}, not points with their times"
        )
    for name in terms:
        points, times = (
            arrays[name],
            [arrays[f"{name}_entered"], arrays[f"{name}_left"]],
        )
        if (
            points.ndim != 2
            or points.dtype != np.float64
            or not np.isfinite(points).all()
        ):
            raise ValueError(f"{name!r} is not an array of finite points")
        if any(t.shape != points.shape[:1] or t.dtype.kind != "i" for t in times):
            raise ValueError(
                f"the points of term {name!r} have not each the times of its own"
            )


def _number(cell: str) -> Any:
    try:
        return int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            return cell


class PointRecord:
    """Every point that was ever trained on, with the iterations at which it came and went.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.runs import PointRecord
    >>> record = PointRecord()
    >>> record.update({"pde": torch.tensor([[0.0], [1.0]])}, iteration=0)
    >>> record.update({"pde": torch.tensor([[1.0], [2.0]])}, iteration=5)
    >>> arrays = record.arrays()
    >>> arrays["pde_entered"].tolist(), arrays["pde_left"].tolist()       # −1: still there
    ([0, 0, 5], [5, -1, -1])
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        self._points: dict[str, list[np.ndarray]] = {}
        self._entered: dict[str, list[int]] = {}
        self._left: dict[str, list[int]] = {}
        self._present: dict[str, dict[bytes, int]] = {}
        for name, rows in (arrays or {}).items():
            if f"{name}_entered" in (arrays or {}):
                assert arrays is not None
                self._points[name] = list(rows)
                self._entered[name] = arrays[f"{name}_entered"].tolist()
                self._left[name] = arrays[f"{name}_left"].tolist()
                self._present[name] = {
                    row.tobytes(): k
                    for k, row in enumerate(rows)
                    if self._left[name][k] < 0
                }

    def update(self, points: Mapping[str, Tensor], iteration: int) -> None:
        """Record the points that train from ``iteration`` on."""
        for name, tensor in points.items():
            rows = tensor.detach().cpu().double().numpy()
            held, entered = (
                self._points.setdefault(name, []),
                self._entered.setdefault(name, []),
            )
            left, present = (
                self._left.setdefault(name, []),
                self._present.setdefault(name, {}),
            )
            now: dict[bytes, int] = {}
            for row in rows:
                key = row.tobytes()
                if key in present:
                    now[key] = present[key]
                elif key not in now:
                    now[key] = len(held)
                    held.append(row)
                    entered.append(iteration)
                    left.append(-1)
            for key, k in present.items():
                if key not in now:
                    left[k] = iteration
            self._present[name] = now

    def present(self) -> dict[str, set[bytes]]:
        """Return the points in training by term, each as the bytes of its float64 coordinates."""
        return {name: set(rows) for name, rows in self._present.items()}

    def rewind(self, iteration: int) -> PointRecord:
        """Return the record as it stood just after ``iteration``."""
        arrays = {}
        for name in self._points:
            keep = np.asarray(self._entered[name]) <= iteration
            left = np.asarray(self._left[name])[keep]
            arrays[name] = np.asarray(self._points[name])[keep]
            arrays[f"{name}_entered"] = np.asarray(self._entered[name])[keep]
            arrays[f"{name}_left"] = np.where(left > iteration, -1, left)
        return PointRecord(arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to save: TERM (n, d), TERM_entered (n,), TERM_left (n,)."""
        arrays: dict[str, np.ndarray] = {}
        for name in self._points:
            arrays[name] = np.asarray(self._points[name])
            arrays[f"{name}_entered"] = np.asarray(self._entered[name])
            arrays[f"{name}_left"] = np.asarray(self._left[name])
        return arrays
