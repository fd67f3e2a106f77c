"""Where a run stands, as data: all that it needs to go on, in memory as on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from whence import _checks
from whence.objective import Objective
from whence.pinn.optimizers.stepper import OptimizerState
from whence.pinn.training.run_folder import Checkpoint, group


@dataclass
class Place:
    """How far a run has come."""

    iteration: int = 0
    stage: int = 0
    stage_iteration: int = 0
    round: int = 0
    seconds: float = 0.0
    best_validation: float | None = None
    best_iteration: int = 0
    done: bool = False
    failure: str | None = None
    """Where the loss was not finite, once it was: the run then goes no further."""
    ends: tuple[int, ...] = ()
    """The iterations at which the stages before this one ended; older checkpoints lack them."""

    def __post_init__(self) -> None:
        # Of a checkpoint it is a list, which copies of a place would share.
        self.ends = tuple(self.ends)


@dataclass(frozen=True)
class Snapshot:
    """A network's parameters and buffers with the points and weights of one moment.

    Parameters
    ----------
    theta:
        The parameters, (P,).
    buffers:
        The network's buffers by name.
    points:
        Training points by term.
    weights:
        Weights by term: a tensor of one number, or of one for each point (N,).
    base_weights:
        Weights that belong to the points (N,), of the terms that have such.
    """

    theta: Tensor
    buffers: Mapping[str, Tensor]
    points: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    base_weights: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: Objective) -> Snapshot:
        """Return the present state of an objective; later steps do not change it."""
        # Parameters and buffers are changed in place, points never are.
        buffers = {}
        for name, buffer in objective.network.named_buffers():
            buffers[name] = buffer.clone()
        theta = objective.parameters.vector()
        return cls(
            theta,
            buffers,
            changing_points(objective),
            weights_of(objective),
            base_weights_of(objective),
        )

    def restored(self, objective: Objective) -> Objective:
        """Put parameters and buffers into the network; return the objective with these points."""
        # A run may go on with another dtype or device than it was saved from.
        like = objective.parameters.vector()
        objective.parameters.assign(self.theta.to(like))
        for name, buffer in objective.network.named_buffers():
            buffer.copy_(self.buffers[name])

        points = {name: rows.to(like) for name, rows in self.points.items()}
        weights = {name: w.to(like.device) for name, w in self.weights.items()}
        elsewhere = objective.with_points(points)
        return elsewhere.with_base_weights(self.base_weights).with_weights(weights)


def changing_points(objective: Objective) -> dict[str, Tensor]:
    """Return the points by term, but for those that are part of their term."""
    points = {}
    for name, term in objective.terms.items():
        if term.source != "fixed":
            points[name] = term.locations
    return points


def weights_of(objective: Objective) -> dict[str, Tensor]:
    """Return the weights by term: a tensor of one number, or of one for each point (N,)."""
    weights = {}
    for name, term in objective.terms.items():
        if term.point_weights is None:
            weights[name] = torch.tensor(term.weight, dtype=torch.float64)
        else:
            weights[name] = term.weight * term.point_weights

    return weights


def base_weights_of(objective: Objective) -> dict[str, Tensor]:
    """Return the weights (N,) that belong to the points, by term that has such."""
    weights = {}
    for name, term in objective.terms.items():
        if term.base_weights is not None:
            weights[name] = term.base_weights
    return weights


@dataclass(frozen=True)
class RunState:
    """All that training needs to go on from between two rounds of its loop.

    Parameters
    ----------
    place:
        How far it has come.
    present:
        The network and points in training.
    best:
        Those of least validation loss so far.
    optimizer:
        The stepper's state, None between two stages.
    weighting:
        Numbers and tensors of the weighting's state.
    random:
        Random states by kind of device.
    history_rows:
        How many rows the history has.
    """

    place: Place
    present: Snapshot
    best: Snapshot
    optimizer: OptimizerState | None
    weighting: Mapping[str, Any] = field(default_factory=dict)
    random: Mapping[str, Tensor] = field(default_factory=dict)
    history_rows: int = 0

    def to_checkpoint(self) -> Checkpoint:
        """Return the state as named tensors and plain numbers."""
        optimizer = self.optimizer or OptimizerState()
        weighting_tensors = {}
        weighting_numbers = {}

        for name, value in self.weighting.items():
            if isinstance(value, Tensor):
                weighting_tensors[name] = value
            else:
                weighting_numbers[name] = value

        tensors = {"last": self.present.theta, "best": self.best.theta}
        groups: dict[str, Mapping[str, Tensor]] = {
            "buffers": self.present.buffers,
            "points": self.present.points,
            "weights": self.present.weights,
            "base_weights": self.present.base_weights,
            "best_buffers": self.best.buffers,
            "best_points": self.best.points,
            "best_weights": self.best.weights,
            "best_base_weights": self.best.base_weights,
            "weighting": weighting_tensors,
            "optimizer": optimizer.tensors,
            "random": self.random,
        }
        tensors |= joined_groups(groups)

        numbers = {
            "place": asdict(self.place),
            "optimizer": optimizer.numbers,
            "weighting": weighting_numbers,
            "history_rows": self.history_rows,
            "in_stage": self.optimizer is not None,
        }
        return Checkpoint(tensors, numbers)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> RunState:
        """Return the state that :meth:`to_checkpoint` wrote; what is missing is a ``KeyError``."""
        tensors = checkpoint.tensors
        numbers = checkpoint.numbers
        # Between two stages there is none.
        optimizer = None
        if numbers["in_stage"]:
            optimizer = OptimizerState(
                group(tensors, "optimizer"), numbers["optimizer"]
            )
        return cls(
            place=Place(**numbers["place"]),
            present=Snapshot(
                tensors["last"],
                group(tensors, "buffers"),
                group(tensors, "points"),
                group(tensors, "weights"),
                group(tensors, "base_weights"),
            ),
            best=Snapshot(
                tensors["best"],
                group(tensors, "best_buffers"),
                group(tensors, "best_points"),
                group(tensors, "best_weights"),
                group(tensors, "best_base_weights"),
            ),
            optimizer=optimizer,
            weighting={**numbers["weighting"], **group(tensors, "weighting")},
            random=group(tensors, "random"),
            history_rows=numbers["history_rows"],
        )


def joined_groups(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of several groups under ``group/name``; see :func:`group`."""
    tensors = {}
    for prefix, members in groups.items():
        for name, tensor in members.items():
            tensors[f"{prefix}/{name}"] = tensor
    return tensors


def kept_tensors(objective: Objective) -> dict[str, Tensor]:
    """Return what a run has to show: network, points and weights, as a checkpoint names them."""
    points = changing_points(objective)
    return joined_groups(
        {
            "network": objective.network.state_dict(),
            "kept": points,
            "kept_weights": weights_of(objective),
            "kept_base_weights": base_weights_of(objective),
        }
    )


def check_shapes(checkpoint: Checkpoint, objective: Objective) -> None:
    """Raise ``ValueError`` unless the checkpoint's tensors are of this network and these terms."""
    # What has another shape would be written into the network half way, then fail.
    size = (objective.parameters.size,)
    expected: dict[str, tuple[int, ...]] = {"last": size, "best": size}
    for name, tensor in objective.network.state_dict().items():
        expected[f"network/{name}"] = tuple(tensor.shape)

    for name, shape in expected.items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            raise ValueError(f"its {name!r} is missing, expected shape {shape}")
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"its {name!r} has shape {tuple(tensor.shape)}, expected shape {shape}"
            )

    # Numbers that are not finite would only show in the loss, much later.
    for prefix in ("points", "best_points"):
        points = checkpoint.group(prefix)
        if set(points) != set(changing_points(objective)):
            raise ValueError(f"its {prefix} are of terms {', '.join(points) or 'none'}")
        for name, rows in points.items():
            what = f"its {prefix} of term {name!r}"
            _checks.points(what, rows, len(objective.coordinates))
