"""What the steps of a run on disk were made with, where its folder says all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from whence._files import Json, JsonObject
from whence.catalogue import OPTIMIZERS
from whence.objective import Objective
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.training.replayed import Trained

FIRST = "first"
"""θ before the first step, as a checkpoint names it; those of older versions lack it."""
CHANGING = ("resample", "weighting")
"""Options by which points and weights change in training, of which a folder keeps the last."""
INFINITE = {"inf": float("inf"), "-inf": float("-inf")}


def trained_on_disk(
    config: JsonObject,
    summary: JsonObject,
    tensors: Mapping[str, Tensor],
    objective: Objective,
) -> Trained | None:
    """Return what a run's steps were made with, None where its folder does not say it.

    Parameters
    ----------
    config, summary:
        Of the run; the summary is empty of a run that has not ended.
    tensors:
        Of its checkpoint.
    objective:
        At the points and weights of the network that was kept.
    """
    changes = any(config.get(option) is not None for option in CHANGING)
    first = tensors.get(FIRST)
    if first is None or changes or "kept_iteration" not in summary:
        return None
    stages = [stage_of(options) for options in config["schedule"]]
    if "march" in summary or None in stages:
        return None
    schedule = [stage for stage in stages if stage is not None]
    like = objective.parameters.vector()
    kept = summary["kept_iteration"]
    return Trained(schedule, first.to(like), [(0, objective)], kept)


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
