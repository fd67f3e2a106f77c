"""Where a problem is posed, and what its names mean there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.names import Name, parse


class Region(Protocol):
    """Where a term holds: a domain, a part of a boundary, or what else points are drawn from."""

    def sample(
        self, n: int, method: str = "hammersley", seed: int | None = None
    ) -> Tensor:
        """Return n points spread evenly over it, float64 of shape (n, d)."""

    def contains(self, points: Tensor, tolerance: float = ...) -> Tensor:
        """Return which points (n, d) lie in it, within a tolerance: (n,)."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where a problem is posed: its domain, its time, and the names that functions may take.

    Parameters
    ----------
    domain:
        Where, with named coordinates.
    outputs:
        Names of outputs and unknown functions, which have derivatives.
    time:
        Name of the time, None where there is none.
    symbols:
        Names of unknown numbers and derived fields, which have none.
    """

    domain: Domain
    outputs: tuple[str, ...]
    time: str | None
    symbols: tuple[str, ...] = ()

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return self.domain.coordinates

    def parse(self, name: str) -> Name:
        """Return what a name stands for; one that means nothing is a ``ValueError``."""
        return parse(name, self.coordinates, self.outputs, self.symbols)

    def tolerance(self, least: float, points: Tensor) -> float:
        """Return how far the rounding of coordinates may move points, at least ``least``."""
        # A few units in the last place of the largest coordinate, which float32 points lose.
        largest = float(abs(self.domain.bounds).max())
        rounding = 4 * torch.finfo(points.dtype).eps * largest
        return max(least, rounding)

    def normal_of(self, name: str) -> str | None:
        """Return the output whose normal derivative this is; None if it is none."""
        if not name.endswith("_n"):
            return None
        output = name.removesuffix("_n")
        return output if output in self.outputs else None

    def slopes(self, output: str) -> list[str]:
        """Return the names of an output's derivatives along each coordinate."""
        return [f"{output}_{coordinate}" for coordinate in self.coordinates]
