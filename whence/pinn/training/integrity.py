"""Whether the files of a run are whole and fit each other, without training or loading it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from whence._files import PathLike, digest, is_temporary
from whence._netcdf import read_dataset
from whence.pinn.sampling.scores.saved import SavedScore
from whence.pinn.training.history import History
from whence.pinn.training.point_record import PointRecord
from whence.pinn.training.run_folder import (
    CHANGES,
    CHECKPOINT,
    CONFIG,
    HISTORY,
    POINTS,
    PROBLEM,
    SPECTRA,
    STATE,
    SUMMARY,
    Checkpoint,
    RunFolder,
)
from whence.pinn.training.state import RunState
from whence.pinn.training.stepped_on import SteppedOn

CHANGED = "changes"
"""By which a checkpoint names the digest of the points and weights that were stepped on."""


@dataclass(frozen=True)
class FileState:
    """What is known of one file of a run.

    Parameters
    ----------
    name:
        Its name in the folder.
    problem:
        What is wrong with it; None if it is whole.
    """

    name: str
    problem: str | None = None


def check_run(path: PathLike) -> list[FileState]:
    """Return the state of every file of a run: its digest, and whether it fits the others.

    Raises
    ------
    FileNotFoundError
        If there is no run.

    Examples
    --------
    >>> import tempfile
    >>> from whence import pinn
    >>> folder = tempfile.mkdtemp() + "/run"
    >>> _ = pinn.train(pinn.zoo.load("diffusion"), points=20, schedule=pinn.GaussNewton(2),
    ...                out=folder, progress=False, validation=10)
    >>> [state.name for state in pinn.check_run(folder) if state.problem]
    []
    """
    folder = RunFolder(path)
    if not (folder.path / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder.path} holds no whence run: {CONFIG} is missing"
        )
    return list(_states(folder))


def _states(folder: RunFolder) -> Iterator[FileState]:
    yield _checked(CONFIG, folder.config)
    if folder.problem_file() is not None:
        yield _checked(PROBLEM, lambda: _check_problem(folder))

    checkpoint: Checkpoint | None = None
    if folder.is_started():
        state = _checked(CHECKPOINT, folder.checkpoint)
        yield state
        if state.problem is None:
            checkpoint = folder.checkpoint()
    yield _checked(HISTORY, lambda: _check_history(folder, checkpoint))
    yield _checked(POINTS, lambda: _check_points(folder, checkpoint))
    if checkpoint is not None and checkpoint.numbers.get(CHANGED) is not None:
        started = checkpoint
        yield _checked(CHANGES, lambda: recorded_changes(folder, started))

    optional: dict[str, Callable[[], object]] = {
        SPECTRA: folder.spectra,
        STATE: lambda: folder.json(STATE),
        SUMMARY: folder.summary,
    }
    for name, read in optional.items():
        if (folder.path / name).is_file():
            yield _checked(name, read)
    yield from _results(folder.path)


def _results(path: Path) -> Iterator[FileState]:
    """Yield the states of attributions, scores and leftovers."""
    for file in sorted(path.iterdir()):
        if is_temporary(file):
            yield FileState(
                file.name,
                "left by a killed writer; the next one in this folder removes it",
            )
        elif file.suffix == ".nc":
            yield _checked(file.name, functools.partial(read_dataset, file))
        elif file.suffix == ".npz" and file.name not in (POINTS, SPECTRA):
            yield _checked(file.name, functools.partial(SavedScore.load, file))


def _checked(name: str, read: Callable[[], object]) -> FileState:
    """Return whether a file can be read."""
    try:
        read()
    except (ValueError, OSError, KeyError) as error:
        return FileState(name, str(error))
    return FileState(name)


def _check_problem(folder: RunFolder) -> None:
    """Raise ``ValueError`` unless the problem's file is the one that the run was made with."""
    file = folder.problem_file()
    assert file is not None
    if digest(file.read_text()) != folder.config().get("problem_file"):
        raise ValueError(f"{file} was changed since the run was made")


def _check_history(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Raise ``ValueError`` if the history is damaged."""
    history = folder.history()
    if checkpoint is not None:
        check_history(folder, history, checkpoint)


def _check_points(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Raise ``ValueError`` if the points are damaged, or missing beside a checkpoint."""
    if checkpoint is None and not (folder.path / POINTS).is_file():
        return

    record = PointRecord(folder.points())
    if checkpoint is not None:
        state = RunState.from_checkpoint(checkpoint)
        check_points(folder, record, state, state.present.points)


# --- files against the checkpoint ----------------------------------------------------------------


def check_history(folder: RunFolder, history: History, checkpoint: Checkpoint) -> None:
    """Raise ``ValueError`` unless the history reaches as far as the checkpoint, unchanged."""
    # The file may have rows from after the checkpoint, written before a kill.
    n_rows = checkpoint.numbers["history_rows"]
    expected = checkpoint.numbers["history"]
    if len(history) < n_rows or history.digest(n_rows) != expected:
        raise ValueError(
            f"{folder.path / HISTORY} is damaged: it does not fit {CHECKPOINT}"
        )


def check_points(
    folder: RunFolder,
    record: PointRecord,
    state: RunState,
    points: Mapping[str, Tensor],
) -> None:
    """Raise ``ValueError`` unless the record had these points when the checkpoint was made."""
    recorded = record.rewind(state.place.iteration).present()
    in_training = PointRecord()
    in_training.update(points, 0)
    if recorded != in_training.present():
        raise ValueError(
            f"{folder.path / POINTS} is damaged: it does not fit {CHECKPOINT}"
        )


def recorded_changes(folder: RunFolder, checkpoint: Checkpoint) -> SteppedOn:
    """Return the points and weights that a run with changes has stepped on up to its checkpoint.

    Raises
    ------
    FileNotFoundError
        If they are missing.
    ValueError
        If they are damaged, or do not fit the checkpoint.
    """
    path = folder.path / CHANGES
    changes = folder.changes()
    try:
        stepped_on = SteppedOn.from_checkpoint(changes)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None

    # The file may have more, written before a kill: that is to be stepped on again.
    stepped_on = stepped_on.before(checkpoint.numbers["place"]["iteration"])
    is_same = stepped_on.to_checkpoint().digest() == checkpoint.numbers[CHANGED]
    # Where they have become too many they are none, whenever that was.
    if stepped_on.missing is None and not is_same:
        raise ValueError(f"{path} is damaged: it does not fit {CHECKPOINT}")
    return stepped_on
