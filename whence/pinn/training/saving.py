"""A run and its folder: what is saved, what is taken up again, and what to tell of failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from whence._files import JsonObject, NotWritten
from whence.objective import Objective
from whence.pinn.training.history import History
from whence.pinn.training.integrity import CHANGED, check_history, check_points
from whence.pinn.training.observers import Observer
from whence.pinn.training.point_record import PointRecord
from whence.pinn.training.replayed_folder import FIRST, KEPT
from whence.pinn.training.run_folder import (
    CHECKPOINT,
    Checkpoint,
    RunFolder,
)
from whence.pinn.training.state import RunState, Snapshot, check_shapes, kept_tensors
from whence.pinn.training.stepped_on import SteppedOn


class Saver:
    """Writes a run into its folder, if it has one.

    Parameters
    ----------
    folder:
        The run's folder; None saves nothing.
    saved:
        The iteration up to which it holds the run already, None for a new one.
    first:
        θ before the first step, kept for replays; None where it is not known any more.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        saved: int | None = None,
        first: Tensor | None = None,
    ) -> None:
        self.folder = folder
        self._saved = saved
        self._first = first
        self._changes: str | None = None
        """Digest of the changes that this process wrote last."""

    def save(
        self,
        objective: Objective,
        kept: int,
        history: History,
        points: PointRecord,
        stepped_on: SteppedOn | None,
        observers: Sequence[Observer],
        state: RunState,
    ) -> None:
        """Write history, points, records, and a checkpoint.

        The checkpoint holds the state to go on from, and what the run has to show at this moment:
        the objective's network of iteration ``kept``, points and weights. ``stepped_on`` is None
        where neither changes.
        """
        folder = self.folder
        if folder is None:
            return

        checkpoint = state.to_checkpoint()
        # The state goes on from the last network; what a run shows may be the best one.
        checkpoint.tensors |= kept_tensors(objective)
        if self._first is not None:
            checkpoint.tensors[FIRST] = self._first
        # By this read_state finds whether the history on disk fits the checkpoint.
        checkpoint.numbers["history"] = history.digest(state.history_rows)
        checkpoint.numbers[KEPT] = kept

        with self._telling_what_is_saved(state.place.iteration):
            folder.check_in_place()
            folder.write_history(history)
            folder.write_points(points)
            for observer in observers:
                observer.save(folder)
            if stepped_on is not None:
                until_now = stepped_on.before(state.place.iteration)
                checkpoint.numbers[CHANGED] = self._save_changes(folder, until_now)
            # Last: with an older checkpoint the other files hold more than it needs, never less.
            folder.write_checkpoint(checkpoint)

        self._saved = state.place.iteration  # only if nothing failed

    def _save_changes(self, folder: RunFolder, stepped_on: SteppedOn) -> str:
        """Write what was stepped on, unless it is what was written last; return its digest."""
        changes = stepped_on.to_checkpoint()
        digest = changes.digest()
        if digest != self._changes:
            folder.write_changes(changes)
            self._changes = digest
        return digest

    def write_summary(self, summary: JsonObject) -> None:
        """Write the outcome of the run."""
        if self.folder is not None:
            with self._telling_what_is_saved(summary["iterations"]):
                self.folder.write_summary(summary)

    @contextmanager
    def _telling_what_is_saved(self, iteration: int) -> Iterator[None]:
        try:
            yield
        except NotWritten as error:
            raise NotWritten(f"{error}. {self._what_is_saved(iteration)}") from error

    def _what_is_saved(self, iteration: int) -> str:
        assert self.folder is not None
        path = self.folder.path
        try:
            self.folder.check_in_place()
        except NotWritten:
            return "Nothing of the run is left on disk: train again, in a folder that stays"

        if self._saved is None:
            return (
                f"{path} has no checkpoint yet: --resume (resume=True) will start over"
            )

        return (
            f"{path} holds the run up to iteration {self._saved} of {iteration} done: after that, "
            "go on with --resume (resume=True) and the same options"
        )


def read_state(
    folder: RunFolder, checkpoint: Checkpoint, objective: Objective
) -> tuple[RunState, History, PointRecord]:
    """Return where a run on disk stands, its history and its points; load its network.

    Raises
    ------
    ValueError
        If the checkpoint is of another network or run, or a file does not fit it.
    """
    path = folder.path
    history = folder.history()
    points = PointRecord(folder.points())

    try:
        # First, so that a checkpoint of other shapes leaves the network as it is.
        check_shapes(checkpoint, objective)
        objective.network.load_state_dict(checkpoint.group("network"))
        state = RunState.from_checkpoint(checkpoint)
        present = state.present.restored(objective)
        _ = checkpoint.numbers["history"]  # said here where it is missing
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path / CHECKPOINT} is not of this run: {error}") from None

    check_history(folder, history, checkpoint)
    # As the objective has them, in its own number type.
    check_points(folder, points, state, Snapshot.of(present).points)
    return state, history, points
