"""What every quantity is, and what quantities at points share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from whence import _checks
from whence.attribution.labels import target_arrays
from whence.evaluator import unit_cotangents
from whence.jacobian import Rows, linearized_blocks, row_blocks
from whence.linearization import Linearization
from whence.objective import Objective, PointsLike
from whence.points import Points, Pointwise, blocks
from whence.samples import samples_of

Gradients = tuple[Linearization, Tensor]
"""A linearization and the cotangent whose rows are gradients."""


@runtime_checkable
class Quantity(Protocol):
    """What an attribution explains: T scalars that depend on θ.

    One with a classmethod ``of_objective(objective, points)`` can be named on the command line:
    ``whence influence RUN --of NAME``.
    """

    def label(self) -> str:
        """Return a short name for captions."""

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,)."""

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients with respect to θ in blocks, (block, P), T rows in all."""

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the coordinates of the targets by name, each of length T."""


@runtime_checkable
class Linearized(Protocol):
    """A quantity that exposes the linearizations whose rows are its targets' gradients."""

    def linearized(self, objective: Objective) -> Iterator[Gradients]:
        """Yield linearizations and cotangents; nothing if the gradients are not such rows."""


@runtime_checkable
class Multiplied(Protocol):
    """A quantity that multiplies its targets' gradients with vectors without making them."""

    def products(self, objective: Objective, vectors: Tensor) -> Iterator[Tensor]:
        """Yield ``∇fᵀV`` in blocks of targets, (block, K), for a few vectors (P, K)."""


@runtime_checkable
class Aggregated(Protocol):
    """A quantity that knows the gradient of its targets' sum without those of the targets."""

    def sum_gradient(self, objective: Objective) -> Tensor:
        """Return ``∇ Σ_t f_t``, (P,)."""


@dataclass(frozen=True, eq=False)
class AtPoints(ABC):
    """A pointwise function at given points; one with ``function`` and ``label`` is complete."""

    points: PointsLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", read_once(self.points, targets=False))

    @abstractmethod
    def label(self) -> str:
        """Return a short name for captions."""

    @abstractmethod
    def function(self, objective: Objective) -> Pointwise:
        """Return the pointwise function whose values are the targets, point by point."""

    def columns(self, objective: Objective) -> Sequence[str]:
        """Return the names of the function's columns."""
        return (self.label(),)

    def prepared(self, objective: Objective) -> Points:
        """Return the points, checked, as the objective needs them."""
        return objective.prepare("the points of a quantity", self.points)

    def values(self, objective: Objective) -> Tensor:
        """Return the targets' values, (T,), point by point."""
        function = self.function(objective)
        tensors = objective.parameters.tensors()
        parts = []
        for block in blocks(self.prepared(objective)):
            parts.append(function(tensors, block.points).detach())
        values = torch.cat(parts).reshape(-1)  # (n, m) to (T,) with T = n·m
        check_finite(f"the quantity {self.label()!r}", values)
        return values

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the targets' gradients with respect to θ in blocks, each (block, P)."""
        function = self.function(objective)
        points = self.prepared(objective)
        for block in row_blocks(function, objective.parameters, points):
            check_finite(f"the gradient of {self.label()!r}", block)
            yield block.reshape(-1, objective.parameters.size)  # (n, m, P) to (n·m, P)

    def products(self, objective: Objective, vectors: Tensor) -> Iterator[Tensor]:
        """Yield ``∇fᵀV`` in blocks of targets, (block, K), for a few vectors (P, K)."""
        function = self.function(objective)
        points = self.prepared(objective)
        for _, linear in linearized_blocks(function, objective.parameters, points):
            cotangents = list(unit_cotangents(linear.value))
            products = Rows(linear, cotangents).matmat(vectors)
            check_finite(f"the gradient of {self.label()!r}", products)
            yield products

    def linearized(self, objective: Objective) -> Iterator[Gradients]:
        """Yield linearizations and cotangents; nothing if a point has several targets."""
        function = self.function(objective)
        points = self.prepared(objective)
        for _, linear in linearized_blocks(function, objective.parameters, points):
            # One cotangent gives one row for each point, too few for its m targets.
            if linear.value.shape[1] > 1:
                return
            yield linear, torch.ones_like(linear.value)

    def sum_gradient(self, objective: Objective) -> Tensor:
        """Return ``∇ Σ_t f_t``, (P,): products with ones, and no row."""
        function = self.function(objective)
        points = self.prepared(objective)
        total = torch.zeros_like(objective.parameters.vector())
        for _, linear in linearized_blocks(function, objective.parameters, points):
            # Jᵀ1 = Σ ∇f over points and components
            total += linear.rmatvec(torch.ones_like(linear.value))
        return total

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the target points' coordinates and the component explained."""
        points = self.prepared(objective)
        columns = self.columns(objective)
        return {
            **target_arrays(objective, points, len(columns)),
            "quantity": np.tile(np.asarray(columns, dtype=str), len(points)),
        }


def check_finite(what: str, values: Tensor) -> None:
    """Raise ``ValueError`` if some of the values by target (T, …) are not finite."""
    is_bad = ~torch.isfinite(values).flatten(1 if values.ndim > 1 else 0)
    if values.ndim > 1:
        is_bad = is_bad.any(dim=1)
    if bool(is_bad.any()):
        raise ValueError(
            f"{what} must be finite: of {len(values)} targets {int(is_bad.sum())} are not, the "
            f"first is target {int(is_bad.nonzero()[0])}"
        )


def read_once(points: PointsLike, *, targets: bool) -> PointsLike:
    """Return arrays as tensors, and data that would be read at each use as samples."""
    if isinstance(points, (Dataset, DataLoader)) or _are_several(points):
        return samples_of(
            "the points of a quantity", points, None, None, targets=targets
        )
    return points


def _are_several(points: object) -> bool:
    """Whether these are several inputs, rather than rows of numbers."""
    if not isinstance(points, (tuple, list)):
        return False
    return not any(isinstance(entry, (int, float, tuple, list)) for entry in points)


def aggregate_gradient(quantity: Quantity, objective: Objective) -> Tensor:
    """Return the gradient of the sum of a quantity's targets, (P,), without keeping the rows."""
    if isinstance(quantity, Aggregated):
        return quantity.sum_gradient(objective)

    total = torch.zeros_like(objective.parameters.vector())
    for block in quantity.gradients(objective):
        total += block.sum(0)
    return total


def check_quantity(quantity: object) -> None:
    """Raise ``TypeError`` unless this is a quantity."""
    if not isinstance(quantity, Quantity):
        raise TypeError(
            "what to explain must be a quantity, such as wh.Output(points) or wh.Loss(), got "
            f"{_checks.describe(quantity)}"
        )
