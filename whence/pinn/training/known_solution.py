"""What is known of a solution before a slab is trained: where it is steep, and what it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from whence.pinn.geometry.domain import Domain
from whence.pinn.pde.problem import Problem


@dataclass(frozen=True, eq=False)
class KnownSolution:
    """A network's solution between two times, asked at other times as at the nearest of these.

    Parameters
    ----------
    problem:
        What it solves.
    network:
        The network.
    low, high:
        The times.
    time:
        Column of the time among the coordinates.
    """

    problem: Problem
    network: nn.Module
    low: float
    high: float
    time: int

    @classmethod
    def at_start(cls, problem: Problem, start: float, time: int) -> KnownSolution:
        """Return what an ansatz makes of a network of zeros at the start: the initial value."""
        inputs = len(problem.coordinates)
        outputs = len(problem.outputs)
        # Without torch's own initialization, which draws from the global random state.
        zero = skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
        nn.init.zeros_(zero.weight)
        nn.init.zeros_(zero.bias)
        return cls(problem, zero, start, start, time)

    def near(self, places: Tensor) -> Tensor:
        """Return the places (n, d) at the nearest times that are known."""
        nearest = places.clone()
        nearest[:, self.time] = places[:, self.time].clamp(self.low, self.high)
        return nearest

    def raw(self, places: Tensor) -> Tensor:
        """Return the network's own outputs at places, without the ansatz: (n, outputs)."""
        like = next(self.network.parameters())
        with torch.no_grad():
            values: Tensor = self.network(self.near(places).to(like))
        return values.to(places)

    def gradients(self, places: Tensor, domain: Domain) -> Tensor:
        """Return the gradient in space of the output that is the steepest at each place, (n, s).

        In units of the half box over the range of that output, so that 1 is as steep as a line from
        one end to the other. At times that are not known, by the change along time at the nearest
        that is: what moves is followed to where it goes.
        """
        problem = self.problem
        outputs = tuple(problem.outputs)
        n_outputs = len(outputs)
        n_coordinates = len(problem.coordinates)
        columns = [k for k in range(n_coordinates) if k != self.time]
        n_slopes = n_outputs * len(columns)

        # Each output, then its slope along each coordinate of space, and the change of each
        # slope along time.
        names = list(outputs)
        for output in outputs:
            for k in columns:
                names.append(f"{output}_{problem.coordinates[k]}")
        time = problem.coordinates[self.time]
        names += [f"{slope}{time}" for slope in names[n_outputs:]]
        nearest = self.near(places)
        values = problem.evaluate(self.network, nearest, names)
        values = values.to(places)

        of_outputs = values[:, :n_outputs]
        highest = of_outputs.amax(dim=0)
        lowest = of_outputs.amin(dim=0)
        ranges = highest - lowest
        # A constant is steep nowhere.
        one = torch.ones_like(ranges)
        ranges = torch.where(ranges > 0, ranges, one)

        n = len(places)
        _, now, change = values.split([n_outputs, n_slopes, n_slopes], dim=1)
        # ∇u(t) ≈ ∇u(t₁) + (t − t₁) ∂ₜ∇u(t₁), t₁ the nearest time that is known.
        later = places[:, self.time] - nearest[:, self.time]
        slopes = now + later.unsqueeze(1) * change
        slopes = slopes.view(n, n_outputs, len(columns))
        low, high = torch.as_tensor(domain.bounds)
        half = (high - low) / 2
        # ∂u/∂x · half box / range of u, (n, outputs, s).
        relative = slopes * half[columns] / ranges.unsqueeze(1)

        steepness = relative.norm(dim=2)
        steepest = steepness.argmax(dim=1)
        return relative[torch.arange(n), steepest]
