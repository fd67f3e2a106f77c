"""What the steps of a run on disk were made with, where its folder says all of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from whence._files import Json, JsonObject
from whence.catalogue import OPTIMIZERS
from whence.evaluator import Remembering
from whence.objective import Objective
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.training.integrity import CHANGED, recorded_changes
from whence.pinn.training.replayed import NotRecorded, Trained
from whence.pinn.training.run_folder import Checkpoint, RunFolder
from whence.pinn.training.stepped_on import OLDER, SteppedOn

FIRST = "first"
"""θ before the first step, as a checkpoint names it; those of older versions lack it."""
KEPT = "kept_iteration"
"""The iteration of the network that was kept, as a checkpoint and a summary name it."""
CHANGING = ("resample", "weighting")
"""Options by which points and weights change in training."""
INFINITE = {"inf": float("inf"), "-inf": float("-inf")}

MARCHED = (
    "slabs of time were trained one after the other (pinn.Slabs), and their steps are not recorded "
    "together: train all times at once, by pinn.train"
)
NOT_ENDED = "it has not ended: go on with it (resume=True)"


def trained_on_disk(
    folder: RunFolder,
    config: JsonObject,
    summary: JsonObject,
    checkpoint: Checkpoint,
    objective: Objective,
) -> Trained | NotRecorded:
    """Return what a run's steps were made with, or why its folder does not say it.

    Parameters
    ----------
    folder:
        Of the run.
    config, summary, checkpoint:
        What it holds; the summary is of the end that the checkpoint is of, and empty where the run
        was killed.
    objective:
        At the points and weights of the network that was kept.
    """
    first: Tensor | None = checkpoint.tensors.get(FIRST)
    kept = kept_iteration(checkpoint, summary)
    if "march" in summary:
        return NotRecorded(MARCHED)
    if first is None:
        return NotRecorded(OLDER)
    if kept is None:
        return NotRecorded(NOT_ENDED)

    schedule = []
    for options in config["schedule"]:
        stage = stage_of(options)
        if stage is None:
            return NotRecorded(
                f"its stage {options['kind']} cannot be made again from the options in its folder: "
                "replay what pinn.train returned"
            )
        schedule.append(stage)

    stepped_on = stepped_on_disk(folder, config, checkpoint, objective)
    if stepped_on.missing is not None:
        return NotRecorded(stepped_on.missing)
    if config.get("weighting") is not None:
        # As in training: sums over terms are then rounded in the same order.
        objective = objective.with_evaluator(Remembering())
    like = objective.parameters.vector()
    return Trained(
        schedule,
        checkpoint.numbers["place"].get("ends", []),
        first.to(like),
        stepped_on.objectives(objective),
        kept,
    )


def kept_iteration(checkpoint: Checkpoint, summary: JsonObject) -> int | None:
    """Return the iteration of the network that a run kept; None where nothing says it."""
    kept: int | None = checkpoint.numbers.get(KEPT)
    # Checkpoints of older versions leave it to the summary.
    return summary.get(KEPT) if kept is None else kept


def stepped_on_disk(
    folder: RunFolder, config: JsonObject, checkpoint: Checkpoint, objective: Objective
) -> SteppedOn:
    """Return the points and weights that a run has stepped on, or why they are not known."""
    if all(config.get(option) is None for option in CHANGING):
        # They are those that were kept.
        stepped_on = SteppedOn()
        stepped_on.note(0, objective)
        return stepped_on
    if checkpoint.numbers.get(CHANGED) is None:
        return SteppedOn(missing=OLDER)
    try:
        return recorded_changes(folder, checkpoint)
    except (ValueError, FileNotFoundError) as error:
        # All that does not go through training again is whole.
        return SteppedOn(missing=str(error))


def stage_of(options: JsonObject) -> Optimizer | None:
    """Return a stage of a schedule from its options in a configuration.

    None for one that is not made of numbers and text alone, or of an optimizer that is not known.

    Examples
    --------
    >>> from whence.pinn.training.replayed_folder import stage_of
    >>> stage_of({"kind": "Adam", "iterations": 5, "betas": [0.9, 0.99]}).betas
    (0.9, 0.99)
    """
    kinds = {kind.__name__: kind for kind in OPTIMIZERS.values()}
    kind = kinds.get(options["kind"])
    values: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            return None
        if name != "kind":
            values[name] = plain(value)
    if kind is None:
        return None
    stage: Optimizer = kind(**values)
    return stage


def plain(value: Json) -> object:
    """Return an option as it was before it was written: lists were tuples, infinity a number."""
    if isinstance(value, list):
        return tuple(plain(entry) for entry in value)
    if isinstance(value, str):
        return INFINITE.get(value, value)
    return value
