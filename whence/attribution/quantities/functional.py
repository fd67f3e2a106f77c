"""Any scalar functional of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import QUANTITIES
from whence.objective import Objective, PointsLike
from whence.samples import Samples

Field = Callable[[str, PointsLike], Tensor]
"""``field(name, points (n, d)) -> (n,)`` for outputs and derivatives by name."""


@QUANTITIES.named("functional")
@dataclass(frozen=True, eq=False)
class Functional:
    """Any scalar functional of the network: an integral, a flux, a value at a sensor.

    Parameters
    ----------
    of:
        Function of one argument ``field``, itself a function ``field(name, points (n, d)) ->
        (n,)`` for outputs and derivatives by name. It returns a scalar tensor.
    name:
        Its name in results.

    Examples
    --------
    The mean of u over some points:

    >>> import torch, whence as wh
    >>> points = torch.rand(100, 2, dtype=torch.float64)
    >>> mean = wh.Functional(lambda field: field("u", points).mean(), name="mean of u")
    """

    of: Callable[[Field], Tensor]
    name: str = "functional"

    def __post_init__(self) -> None:
        if not callable(self.of):
            raise TypeError(
                "a Functional takes a function of one argument, such as "
                f"lambda field: field('u', points).mean(), got {_checks.describe(self.of)}"
            )

    def label(self) -> str:
        """Return the functional's name."""
        return self.name

    def _evaluate(self, objective: Objective, tensors: Mapping[str, Tensor]) -> Tensor:
        def field(name: str, points: PointsLike) -> Tensor:
            # A tensor is taken as it is, as the functional may differentiate with respect to it.
            if objective.has_samples or not isinstance(points, (Tensor, Samples)):
                points = objective.prepare("the points of a functional", points)
            assert isinstance(points, (Tensor, Samples))
            if isinstance(points, Tensor):
                self._check_points(objective, points)
            return objective.fields((name,))(tensors, points)[:, 0]

        try:
            value = self.of(field)
        except Exception as error:
            reason = str(error).splitlines() or [""]
            raise ValueError(
                f"the function of {self.name!r}, called with field(name, points), fails: "
                f"{type(error).__name__}: {reason[0]}"
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(
                f"{self.name!r} must return a scalar tensor, got {_checks.shape_of(value)}"
            )
        if value.is_complex():
            raise ValueError(f"{self.name!r} must be a real number, got {value.dtype}")
        if not bool(torch.isfinite(value)):
            raise ValueError(f"{self.name!r} is {value.item()}: it must be finite")
        return value.reshape(())

    def _check_points(self, objective: Objective, points: Tensor) -> None:
        """Raise ``ValueError`` unless points are (n, d) in the dtype of the parameters."""
        d = len(objective.coordinates)
        like = objective.parameters
        if points.ndim != 2 or points.shape[1] != d or points.dtype != like.dtype:
            raise ValueError(
                f"the points of {self.name!r} must be of shape (n, {d}) and {like.dtype}, got "
                f"{tuple(points.shape)} and {points.dtype}"
            )

    def values(self, objective: Objective) -> Tensor:
        """Return the functional's value, shape (1,)."""
        value = self._evaluate(objective, objective.parameters.tensors())
        return value.detach().unsqueeze(0)

    def gradients(self, objective: Objective) -> Iterator[Tensor]:
        """Yield the functional's gradient, shape (1, P)."""
        parameters = objective.parameters
        # A copy of θ as one leaf: the backward pass gives the gradient as one vector (P,).
        theta = parameters.vector().requires_grad_()
        # A caller may be under no_grad, which would record no graph.
        with torch.enable_grad():
            value = self._evaluate(objective, parameters.substituted(theta))
        if not value.requires_grad:
            raise ValueError(
                f"{self.name!r} does not depend on the network: use field(name, points), and "
                "neither .detach() nor torch.no_grad()"
            )
        (gradient,) = torch.autograd.grad(value, theta)
        yield gradient.unsqueeze(0)

    def targets(self, objective: Objective) -> dict[str, np.ndarray]:
        """Return the functional's name."""
        return {"quantity": np.asarray([self.name])}
