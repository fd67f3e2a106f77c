"""What the zoo's periodic evolution equations ``u_t + u u_x + … = 0`` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Initial, Periodic
from whence.pinn.pde.problem import Problem
from whence.pinn.zoo._periodic_spectral import Array, Complex


@dataclass(frozen=True, eq=False)
class PeriodicFlow:
    """An evolution equation on [−h, h], periodic in x, from a given start.

    Parameters
    ----------
    name:
        The problem's name.
    half:
        h, half the period.
    end:
        Last time.
    equation:
        The residual by argument names.
    start:
        The initial value.
    ansatz:
        What meets it exactly.
    matched:
        The derivatives that are the same at both ends: one fewer than the order in x.
    widths:
        Hidden layers of the network.
    solution:
        The reference solution.
    """

    name: str
    half: float
    end: float
    equation: Callable[..., Tensor]
    start: Callable[[Tensor], Tensor]
    ansatz: Callable[..., Tensor]
    matched: Sequence[str]
    widths: Sequence[int]
    solution: Callable[[Array, Array], Array]

    def network(self, seed: int) -> MLP:
        """Return the network, which takes coordinates to [−1, 1]."""
        low = [-self.half, 0.0]
        high = [self.half, self.end]
        layers = [2, *self.widths, 1]
        return MLP(layers, bounds=[low, high], seed=seed)

    def problem(self, constraints: Literal["hard", "soft"]) -> Problem:
        """Return the problem, its initial value by an ansatz or a condition."""
        conditions: list[Condition] = []
        for name in self.matched:
            conditions.append(Periodic(name, along="x"))

        transform = None
        if constraints == "hard":
            transform = self.ansatz
        else:
            conditions.append(Initial(u=self.start))

        space = Interval("x", -self.half, self.half)
        time = Interval("t", 0, self.end)
        return Problem(
            name=self.name,
            domain=space * time,
            outputs=("u",),
            equations={"pde": self.equation},
            ansatz=transform,
            conditions=conditions,
            architecture=self.network,
            solution=self.solution,
        )


def self_advection(c: Complex, k: Array) -> Complex:
    """Return the Fourier coefficients of −u u_x = −(u²/2)_x from those of u."""
    u = np.fft.ifft(c).real
    square = np.fft.fft(u**2)
    return np.asarray(-0.5j * k * square)
