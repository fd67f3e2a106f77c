"""Points with weights that belong to them: of a quadrature rule, or of importance sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.arrays import ArrayLike, to_tensor


@dataclass(frozen=True, eq=False)
class WeightedPoints:
    """Training points of a term with a weight for each, in place of points alone.

    The term's loss is ``(1/N) Σ_i b_i ‖r(z_i)‖²``: with weights ``b_i = N w_i`` of a quadrature
    rule it is the integral ``Σ_i w_i ‖r(z_i)‖²``. Weightings multiply them.

    Parameters
    ----------
    points:
        Points (N, d): a tensor, array, list or data frame.
    weights:
        b_i ≥ 0, (N,).

    Raises
    ------
    ValueError
        If the weights are not as many as the points, negative, or not finite.

    Examples
    --------
    >>> from whence import pinn
    >>> simpson = pinn.WeightedPoints([[0.0], [0.5], [1.0]], [0.5, 2.0, 0.5])
    >>> float(simpson.weights.mean())
    1.0
    """

    points: ArrayLike
    weights: ArrayLike

    def __post_init__(self) -> None:
        if isinstance(self.points, WeightedPoints):
            raise TypeError("points have weights already: give them once")
        weights = to_tensor("the weights of points", self.weights)
        if isinstance(weights, Tensor):
            weights = weights.detach().double()

        rows = to_tensor("the points with weights", self.points)
        if not isinstance(rows, Tensor):
            raise TypeError(
                f"the points with weights must be rows of numbers, got {_checks.describe(rows)}"
            )
        _checks.weights("the weights of points", weights, len(rows))
        # As a tensor, whatever it was given as.
        object.__setattr__(self, "weights", weights)

    @property
    def tensor(self) -> Tensor:
        """The weights as a tensor (N,), float64."""
        return torch.as_tensor(self.weights)


def points_by_term(points: Mapping[str, Tensor | WeightedPoints]) -> dict[str, Tensor]:
    """Return the points of each term without the weights that some have."""
    plain = {}

    for name, entry in points.items():
        # Their weights are asked for by themselves.
        rows = entry.points if isinstance(entry, WeightedPoints) else entry
        plain[name] = torch.as_tensor(rows)
    return plain


def weights_by_term(points: Mapping[str, Tensor | WeightedPoints]) -> dict[str, Tensor]:
    """Return the weights (N,) of the terms whose points have such."""
    weights = {}
    for name, entry in points.items():
        if isinstance(entry, WeightedPoints):
            weights[name] = entry.tensor
    return weights
