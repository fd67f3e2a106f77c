"""The loss of terms at given points, or an aggregate of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.arrays import DataFrameLike
from whence.attribution.labels import target_arrays
from whence.attribution.quantities.base import Gradients, read_once
from whence.catalogue import QUANTITIES
from whence.data import is_named_batch
from whence.jacobian import gradient_products, point_gradients
from whence.objective import Objective, PointsLike
from whence.points import Points, blocks
from whence.samples import Samples, samples_of

REDUCTIONS = ("none", "sum", "mean")


@QUANTITIES.named("loss")
@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of named terms at given points, unweighted: ``ℓ_k(z)``.

    Parameters
    ----------
    points:
        Points by term. Of a supervised objective the inputs, a batch by name with labels, or a
        ``Dataset`` or ``DataLoader`` of inputs and targets. ``None`` for the training points of
        every term.
    target:
        The targets of the inputs, where these are given alone.
    reduce:
        ``"none"``: one target per point. ``"sum"``: one target, the sum over all of them.
        ``"mean"``: one target, the sum over terms of each term's mean.

    Examples
    --------
    >>> import torch, whence as wh
    >>> wh.Loss({"pde": torch.zeros(5, 2)}, reduce="sum").label()
    'sum of losses'
    >>> wh.Loss(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)).label()
    'loss'
    """

    points: PointsLike | Mapping[str, PointsLike] | None = None
    target: object = None
    reduce: Literal["none", "sum", "mean"] = "none"

    def __post_init__(self) -> None:
        _checks.one_of("reduction of a loss", self.reduce, REDUCTIONS)
        object.__setattr__(self, "points", self._read())

    def _read(self) -> Mapping[str, PointsLike] | PointsLike | None:
        """Return points by term, or samples with their targets."""
        points = self.points
        if self.target is not None:
            is_container = isinstance(points, (tuple, Mapping))
            if isinstance(points, tuple) and isinstance(points[0], Mapping):
                points = points[0]
            return Samples(points if is_container else (points,), self.target)

        if is_named_batch(points):
            return samples_of("the points of a quantity", points, None, None)
        if points is None or (isinstance(points, Mapping) and points):
            return points
        alone = (Tensor, np.ndarray, Mapping, DataFrameLike)
        if isinstance(points, alone):
            raise TypeError(
                "the points of a Loss are given by term, such as {'pde': points}, with their "
                "targets, as Loss(inputs, targets), or as None for the training points, got "
                f"{_checks.describe(points)}"
            )
        return read_once(points, targets=True)

    @classmethod
    def of_objective(cls, objective: Objective, points: PointsLike | None) -> Loss:
        """Return the mean loss over all training points; of samples, that at each test point."""
        if points is None:
            return cls(reduce="mean")
        if objective.has_samples:
            return cls(points)
        raise ValueError(
            "the loss is a mean over all training points: leave the point out"
        )

    def label(self) -> str:
        """Return ``loss``, or which aggregate of losses it is."""
        return "loss" if self.reduce == "none" else f"{self.reduce} of losses"

    def prepared(self, objective: Objective) -> dict[str, Points]:
        """Return the points by term, checked, as the objective needs them."""
        if self.points is None:
            terms = objective.data_terms.items()
            return {name: term.points for name, term in terms}

        by_term = self.points
        if isinstance(by_term, Samples) or not isinstance(by_term, Mapping):
            by_term = {next(iter(objective.terms)): by_term}
        return {
            name: objective.prepare(f"the points of term {name!r}", points, name)
            for name, points in by_term.items()
        }

    def _factor(self, points: Points) -> float:
        # Without w: a Loss is unweighted, unlike the term's scale w/N.
        return 1 / len(points) if self.reduce == "mean" else 1.0

    def values(self, objective: Objective) -> Tensor:
        """Return ℓ of each point, or the one aggregate."""
        tensors = objective.parameters.tensors()
        parts = []
        for name, points in self.prepared(objective).items():
            term = objective.terms[name]
            factor = self._factor(points)
            for block in blocks(points):
                residual = term.residual(tensors, block.points)
                parts.append(factor * term.value(residual, block.points).detach())

        losses = torch.cat(parts)
        if self.reduce == "none":
            return losses
        return losses.sum().unsqueeze(0)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield ∇ℓ of each point in blocks, or the one aggregate's gradient."""
        if self.reduce != "none":
            yield self.sum_gradient(objective).unsqueeze(0)
            return
        for linear, cotangent in self.linearized(objective):
            yield linear.rows(cotangent)  # ∇ℓ(z) = J(z)ᵀ ∂ℓ/∂r of each point, (n, P)

    def linearized(self, objective: Objective) -> Iterator[Gradients]:
        """Yield linearizations and cotangents of the gradients; none of an aggregate."""
        if self.reduce != "none":
            return
        for name, points in self.prepared(objective).items():
            term = objective.terms[name]
            for _, linear, cotangent in point_gradients(
                term, objective.parameters, points
            ):
                yield linear, cotangent

    def products(self, objective: Objective, vectors: Tensor) -> Iterator[Tensor]:
        """Yield ``∇ℓᵀV`` term by term, (n, K), or that of the one aggregate, (1, K)."""
        if self.reduce != "none":
            yield self.sum_gradient(objective).unsqueeze(0) @ vectors
            return
        for name, points in self.prepared(objective).items():
            term = objective.terms[name]
            yield gradient_products(term, objective.parameters, points, vectors)

    def sum_gradient(self, objective: Objective) -> Tensor:
        """Return the gradient of the sum of the targets, (P,)."""
        total = torch.zeros_like(objective.parameters.vector())
        for name, points in self.prepared(objective).items():
            term = objective.terms[name]
            factor = self._factor(points)
            for _, linear, cotangent in point_gradients(
                term, objective.parameters, points
            ):
                # Σ_i J(z_i)ᵀ ∂ℓ/∂r, over N for a mean
                total += factor * linear.rmatvec(cotangent)
        return total

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the coordinates and terms of the points, or the aggregate's name."""
        if self.reduce != "none":
            return {"quantity": np.asarray([self.label()])}

        tables = []
        labels: list[str] = []
        for name, points in self.prepared(objective).items():
            tables.append(target_arrays(objective, points))
            labels += [f"loss {name}"] * len(points)

        columns = {
            column: np.concatenate([table[column] for table in tables])
            for column in tables[0]
        }
        return {**columns, "quantity": np.asarray(labels)}
