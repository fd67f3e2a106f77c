"""One named part of a loss: a residual, its points, their weights, and what it compares with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from whence import _checks
from whence.losses import Loss, Squared, WithoutMatrix, WithRank
from whence.points import (
    Block,
    Points,
    Pointwise,
    are_samples,
    blocks,
    locations,
    target_of,
)

Source = Literal["drawn", "given", "fixed", "penalty"]
"""Where a term's points come from; a penalty on parameters has none that count."""


@dataclass(frozen=True)
class Term:
    """One named part of the loss: ``w · mean_i m_i b_i ℓ(r(z_i))`` over its points.

    Parameters
    ----------
    name:
        How results refer to it.
    residual:
        Pointwise function ``(parameters by name, points) -> (n, m)``.
    points:
        The training points of the term, shape (N, d), or samples.
    weight:
        w ≥ 0.
    loss:
        ℓ, by default :class:`Squared`.
    point_weights:
        m_i ≥ 0 of each point, (N,); 1 unless given.
    base_weights:
        b_i ≥ 0 of each point, (N,), which belong to the points and multiply m_i: those of a
        quadrature rule, or one over the density from which they were drawn. 1 unless given.
    carried:
        Names of the last columns of the points, which are no coordinates: a measured value, say.
    source:
        Where the points come from: ``"drawn"`` where the term holds, so that others can take their
        place; ``"given"`` by the user, who must ask for that; or ``"fixed"``, a part of the term,
        as measurements are. ``"penalty"`` is a term of the parameters alone, whose one point is no
        training point: no result has an entry for it, and it stays where points are left out.
    pinned:
        How many points, the first ones, never leave when others are renewed.

    Raises
    ------
    TypeError
        If the residual cannot be called, or the points are no tensor or samples.
    ValueError
        If the points are not (N, d) and finite, or a weight is negative or not finite.

    Examples
    --------
    >>> import torch, whence as wh
    >>> def residual(tensors, z):
    ...     return z * tensors["weight"] - 5.0
    >>> points = torch.tensor([[1.0], [2.0]])
    >>> term = wh.Term("line", residual, points, weight=10.0)
    >>> len(term.points), term.weight
    (2, 10.0)
    """

    name: str
    residual: Pointwise
    points: Points
    weight: float = 1.0
    loss: Loss = field(default_factory=Squared)
    point_weights: Tensor | None = None
    carried: tuple[str, ...] = ()
    source: Source = "drawn"
    pinned: int = 0
    base_weights: Tensor | None = None

    def __post_init__(self) -> None:
        # Zero leaves a term out of the loss, but not out of what is watched.
        _checks.positive(f"the weight of term {self.name!r}", self.weight, zero=True)
        if not callable(self.residual):
            raise TypeError(
                f"the residual of term {self.name!r} must be a function of parameters and points, "
                f"got {_checks.describe(self.residual)}"
            )
        if not are_samples(self.points):
            _checks.points(f"the points of term {self.name!r}", self.points, "d")
        if self.point_weights is not None:
            what = f"the point weights of term {self.name!r}"
            _checks.weights(what, self.point_weights, len(self.points))
        if self.base_weights is not None:
            what = f"the base weights of term {self.name!r}"
            _checks.weights(what, self.base_weights, len(self.points))

    @property
    def locations(self) -> Tensor:
        """The points' coordinates, (N, d), without what they carry; not of samples."""
        rows = locations(self.points)
        return rows[:, : rows.shape[1] - len(self.carried)]

    def part(self, rows: Tensor) -> Term:
        """Return the term with the points of some row numbers alone, its weight w unchanged."""
        point_weights = self.point_weights
        if point_weights is not None:
            point_weights = point_weights[rows]
        base_weights = self.base_weights
        if base_weights is not None:
            base_weights = base_weights[rows]

        return replace(
            self,
            points=self.points[rows],
            point_weights=point_weights,
            base_weights=base_weights,
            pinned=0,  # which of the first points are left is not known here
        )

    def with_points(self, points: Points) -> Term:
        """Return the term at other points, each of weight 1; pinned ones stay so at the head."""
        pinned = 0
        if self.pinned and isinstance(points, Tensor):
            head = locations(self.points)[: self.pinned]
            if torch.equal(points[: self.pinned], head):
                pinned = self.pinned
        return replace(
            self, points=points, point_weights=None, base_weights=None, pinned=pinned
        )

    def some_points(self, n: int, seed: int) -> Points:
        """Return n of the points, chosen by the seed, in order; all if there are no more."""
        if n >= len(self.points):
            return self.points
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.points), generator=generator)
        return self.points[order[:n].sort().values]

    @property
    def scale(self) -> float:
        """w/N, the factor in front of each point's loss where points weigh 1."""
        return self.weight / len(self.points)

    @property
    def total_weights(self) -> Tensor | None:
        """``m_i b_i`` of each point, (N,), None where all are 1."""
        if self.base_weights is None:
            return self.point_weights
        if self.point_weights is None:
            return self.base_weights
        return self.point_weights * self.base_weights

    @property
    def mean_weight(self) -> float:
        """W times the mean weight of the points."""
        weights = self.total_weights
        if weights is None:
            return self.weight  # m_i b_i = 1
        return self.weight * float(weights.mean())

    def scales(self, part: slice) -> float | Tensor:
        """Return ``(w/N)·mb`` of a part of the points: (n,), or a number where all weigh 1."""
        weights = self.total_weights
        if weights is None:
            return self.scale
        return self.scale * weights[part]

    def blocks(self, size: int | None = None) -> Iterator[Block]:
        """Yield the points in blocks, see :func:`whence.points.blocks`."""
        return blocks(self.points, size)

    def value(self, residual: Tensor, points: Points) -> Tensor:
        """Return ℓ at these points from their residuals: (n, m) to (n,)."""
        return self.loss.value(residual, target_of(points))

    def gradient(self, residual: Tensor, points: Points) -> Tensor:
        """Return ∂ℓ/∂r at these points: (n, m) to (n, m)."""
        return self.loss.gradient(residual, target_of(points))

    def curvature_root(self, residual: Tensor, points: Points) -> Tensor:
        """Return S with S Sᵀ = ∂²ℓ/∂r² at these points: (n, m) to (n, m, m)."""
        return self.loss.curvature_root(residual, target_of(points))

    def rank(self, outputs: int) -> int:
        """Return how many columns of S are not zero, of so many outputs of a point."""
        return self.loss.rank(outputs) if isinstance(self.loss, WithRank) else outputs

    def curvature_product(
        self, residual: Tensor, points: Points
    ) -> Callable[[Tensor], Tensor]:
        """Return ``v ↦ Λv`` at these points, (n, m) to (n, m), Λ = ∂²ℓ/∂r²."""
        target = target_of(points)
        if isinstance(self.loss, WithoutMatrix):
            return self.loss.curvature_product(residual, target)

        root = self.curvature_root(residual, points)
        # Λ = S Sᵀ of each point.
        curvature = root @ root.mT
        return lambda vectors: (curvature @ vectors.unsqueeze(2)).squeeze(2)

    def curvature_column(
        self, residual: Tensor, points: Points
    ) -> Callable[[int], Tensor]:
        """Return the columns of S at these points, k to (n, m), without S where the loss can."""
        if isinstance(self.loss, WithoutMatrix):
            return self.loss.curvature_column(residual, target_of(points))

        root = self.curvature_root(residual, points)
        return lambda k: root[:, :, k]

    def whitened_gradient(self, residual: Tensor, points: Points) -> Tensor:
        """Return ρ with S ρ = ∂ℓ/∂r at these points: (n, m) to (n, m)."""
        return self.loss.whitened_gradient(residual, target_of(points))

    def checked_residual(self, tensors: Mapping[str, Tensor], points: Points) -> Tensor:
        """Return the residual (n, m) at some points of the term; another shape is an error."""
        value = self.residual(tensors, points)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the residual of term {self.name!r} must be a tensor, got "
                f"{type(value).__name__}"
            )

        # (n,) and (n, 1) would broadcast to (n, n) further on.
        if value.ndim != 2 or len(value) != len(points):
            raise ValueError(
                f"the residual of term {self.name!r} must have shape ({len(points)}, m), got "
                f"{tuple(value.shape)}"
            )

        return value
