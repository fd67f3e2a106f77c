"""Inverse heat: u_t = k u_xx on [0, 1], u(x, 0) = sin πx, u = 0 at the ends, k from 90 sensors."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet, Initial
from whence.pinn.pde.data import Data
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.unknowns import Unknown
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, checked_points, sin_pi

CONDUCTIVITY = 0.3
"""The k that the measurements were made with."""
SIGMA = 5e-5
"""Standard deviation of the measurements."""
BAD_SENSOR = 41
"""The measurement that is wrong."""
BAD = 4e-4
"""What it is off by, eight standard deviations."""


def equation(u_t: Tensor, u_xx: Tensor, k: Tensor) -> Tensor:
    """Return u_t − k u_xx."""
    return u_t - k * u_xx


def start(x: Tensor) -> Tensor:
    """Return the initial value sin πx."""
    return torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return sin πx + x (1 − x) t u."""
    return start(x) + x * (1 - x) * t * u


def sensors() -> Data:
    """Return measurements at nine places and ten times, one of them wrong."""
    places, times = np.meshgrid(np.arange(1, 10) / 10, np.arange(1, 11) / 20)
    x, t = places.ravel(), times.ravel()
    values = solution(x, t) + SIGMA * np.random.default_rng(0).normal(size=len(x))
    values[BAD_SENSOR] += BAD
    return Data("sensors", np.stack([x, t], axis=1), u=values, sigma=SIGMA)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (Initial(u=start), Dirichlet(u=0.0, on="x"))
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = ()

    return Problem(
        name="inverse_heat",
        domain=Interval("x", 0, 1) * Interval("t", 0, 0.5),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=[*conditions, sensors()],
        architecture=lambda seed: MLP([2, 24, 24, 1], seed=seed),
        solution=solution,
        unknowns={"k": Unknown(1.0, positive=True)},
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=300, limit=500, renewed=50, max_seconds=60.0
    )


def solution(x: Array, t: Array) -> Array:
    """Return exp(−π² k t) sin πx with k = 0.3.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([0.5, 1.0]), np.array([0.0, 0.3])).tolist()
    [1.0, 0.0]
    """
    x, t = checked_points(x, t)
    return sin_pi(x) * np.exp(-(np.pi**2) * CONDUCTIVITY * t)
