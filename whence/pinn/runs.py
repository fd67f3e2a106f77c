"""A run is a folder: configuration, history, points, checkpoint, summary; every write is atomic.

``config.json``            what is needed to repeat the run, versions included
``history.csv``            one row per logged iteration, named columns
``points.npz``             every point ever trained on, when it entered and when it left
``checkpoint.safetensors`` parameters, optimiser state and points; its header holds the rest
``state.json``             a readable copy of that header
``summary.json``           the outcome
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from whence._files import PathLike, write_atomically

FORMAT = 1
CONFIG, HISTORY, POINTS = "config.json", "history.csv", "points.npz"
CHECKPOINT, STATE, SUMMARY = "checkpoint.safetensors", "state.json", "summary.json"


def _is_kept(path: Path) -> bool:
    """Tell a file from what a kill within ``write_atomically`` leaves."""
    return not (path.name.startswith(f".{CONFIG}.") and path.name.endswith(".tmp"))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=False) + "\n").encode()


def described(value: Any) -> Any:
    """Return options as plain JSON values: a dataclass with its kind, a callable by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return {"kind": "tensor", "shape": list(value.shape), "sum": float(value.double().sum())}
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
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
        return {n[len(start) :]: t for n, t in self.tensors.items() if n.startswith(start)}


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

    def __fspath__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Tell whether the folder holds a run."""
        return (self.path / CONFIG).is_file()

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write its configuration; an existing run or file is an error."""
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / CONFIG, _json({"format": FORMAT, **config}))

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
            raise FileExistsError(f"{self.path} exists and is not an empty folder: choose another")

    def started(self) -> bool:
        """Tell whether the run has a checkpoint; one killed in its first seconds has none."""
        return (self.path / CHECKPOINT).is_file()

    def config(self) -> dict[str, Any]:
        """Return the configuration."""
        config = self._read_json(CONFIG)
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} is of run format {config.get('format')!r}; this version reads "
                f"format {FORMAT}"
            )
        return config

    def summary(self) -> dict[str, Any]:
        """Return the outcome of a finished run."""
        return self._read_json(SUMMARY)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(f"{self.path} holds no whence run: {name} is missing")
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from None
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
        with open(path, newline="") as file:
            return [
                {name: _number(cell) for name, cell in row.items() if cell}
                for row in csv.DictReader(file)
            ]

    def write_points(self, record: PointRecord) -> None:
        """Write ``points.npz``."""
        held = io.BytesIO()
        np.savez_compressed(held, **record.arrays())  # type: ignore[arg-type]
        write_atomically(self.path / POINTS, held.getvalue())

    def points(self) -> dict[str, np.ndarray]:
        """Return the arrays of ``points.npz``: TERM, TERM_entered and TERM_left for each term."""
        with np.load(self.path / POINTS, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, tensors and numbers in one file, then the readable copy."""
        tensors = {
            name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()
        }
        header = json.dumps({"format": FORMAT, **checkpoint.numbers})
        content = safetensors.torch.save(tensors, metadata={"state": header})
        write_atomically(self.path / CHECKPOINT, content)
        write_atomically(self.path / STATE, _json(checkpoint.numbers))

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint; a missing or damaged file is an error that names it."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            raise FileNotFoundError(f"{self.path} holds no checkpoint yet: {CHECKPOINT} is missing")
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                numbers = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or not a whence checkpoint: {error}") from None
        if numbers.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is of another format; this version reads format {FORMAT}")
        return Checkpoint(tensors, numbers)


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
                    row.tobytes(): k for k, row in enumerate(rows) if self._left[name][k] < 0
                }

    def update(self, points: Mapping[str, Tensor], iteration: int) -> None:
        """Record the points that train from ``iteration`` on."""
        for name, tensor in points.items():
            rows = tensor.detach().cpu().double().numpy()
            held, entered = self._points.setdefault(name, []), self._entered.setdefault(name, [])
            left, present = self._left.setdefault(name, []), self._present.setdefault(name, {})
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
