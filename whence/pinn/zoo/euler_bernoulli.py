"""Euler–Bernoulli: u_xxxx = −1 on [0, 1], clamped at x = 0, free at x = 1."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array


def equation(u_xxxx: Tensor) -> Tensor:
    """Return u_xxxx + 1."""
    return u_xxxx + 1.0


def clamped(u: Tensor, u_x: Tensor) -> tuple[Tensor, Tensor]:
    """Return u and u_x, which vanish at a clamped end."""
    return u, u_x


def free(u_xx: Tensor, u_xxx: Tensor) -> tuple[Tensor, Tensor]:
    """Return u_xx and u_xxx, moment and shear force, which vanish at a free end."""
    return u_xx, u_xxx


def ansatz(x: Tensor, u: Tensor) -> Tensor:
    """Return x² u, which is clamped at x = 0."""
    return x**2 * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, clamped by an ansatz or by a condition; the free end is a condition."""
    conditions = [
        Condition("clamped", on="x_min", residual=clamped),
        Condition("free", on="x_max", residual=free),
    ]
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = conditions[1:]

    return Problem(
        name="euler_bernoulli",
        domain=Interval("x", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([1, 20, 20, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=40, limit=100, renewed=10, max_seconds=30.0
    )


def solution(x: Array) -> Array:
    """Return the deflection −x²(x² − 4x + 6)/24 of a cantilever under a unit load.

    Source: Timoshenko, Strength of Materials, 1930, part I, chapter V.

    Parameters
    ----------
    x : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([0.0, 1.0])).tolist()
    [0.0, -0.125]
    """
    x = np.asarray(x, dtype=float)
    return 0.0 - x**2 * (x**2 - 4 * x + 6) / 24
