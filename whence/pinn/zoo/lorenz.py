"""Lorenz: x′ = 10 (y − x), y′ = x (15 − z) − y, z′ = x y − 8/3 z on [0, 3] from (−8, 7, 27)."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe
from whence.pinn.zoo._reference_points import Array

SIGMA, RHO, BETA = 10.0, 15.0, 8.0 / 3.0
START = (-8.0, 7.0, 27.0)
END = 3.0
SCALE = 20.0
"""Size of the solution, by which the network's outputs are multiplied."""


def equation(
    x: Tensor, y: Tensor, z: Tensor, x_t: Tensor, y_t: Tensor, z_t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x′ − σ(y − x), y′ − x(ρ − z) + y and z′ − xy + βz, over the solution's size."""
    return (
        (x_t - SIGMA * (y - x)) / SCALE,
        (y_t - x * (RHO - z) + y) / SCALE,
        (z_t - x * y + BETA * z) / SCALE,
    )


def ansatz(t: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Return the initial values and t times the network, scaled."""
    pairs = zip(START, (x, y, z), strict=True)
    return tuple(first + SCALE * t * network for first, network in pairs)


def at_start(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Return what the values at the start are off, over the solution's size."""
    pairs = zip((x, y, z), START, strict=True)
    return tuple((value - first) / SCALE for value, first in pairs)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the system with initial values by an ansatz or by a condition."""
    transform: Any = ansatz
    conditions: list[Condition] = []
    if constraints == "soft":
        transform = None
        conditions = [Condition("start", on="t_min", residual=at_start)]

    return Problem(
        name="lorenz",
        domain=Interval("t", 0, END),
        outputs=("x", "y", "z"),
        equations={"ode": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP(
            [1, 32, 32, 3], bounds=[[0.0], [END]], seed=seed, scale_to=(-6.0, 6.0)
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    counts = {name: 200 if name == "ode" else 1 for name in problem(constraints).terms}
    return Recipe(counts, (GaussNewton(2000),), None, max_seconds=120.0)


@functools.cache
def _trajectory() -> Any:
    """Return the solution as a function of time, to about 1e-11."""
    from scipy.integrate import solve_ivp  # slow to import

    def slope(t: float, state: Array) -> list[float]:
        x, y, z = state
        return [SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z]

    return solve_ivp(
        slope, (0, END), START, "DOP853", dense_output=True, rtol=1e-12, atol=1e-12
    ).sol


def solution(t: Array) -> tuple[Array, Array, Array]:
    """Return the solution by a Runge–Kutta method of order eight (Hairer, Nørsett & Wanner).

    Parameters
    ----------
    t : ndarray of shape (n,)
        Times from 0 to 3.

    Returns
    -------
    tuple of three ndarrays of shape (n,)

    Examples
    --------
    >>> [float(value[0]) for value in solution(np.array([0.0]))]
    [-8.0, 7.0, 27.0]
    """
    x, y, z = _trajectory()(np.asarray(t, dtype=float))
    return x, y, z
