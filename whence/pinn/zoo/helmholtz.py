"""Helmholtz: u_xx + u_yy + u = f on [−1, 1]², u = 0 on the boundary, u = sin πx sin 4πy."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from whence.pinn.geometry.domain import Rectangle
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats, sin_pi

WAVES = (1, 4)
"""Half waves of the solution across the square, along x and y."""


def equation(x: Tensor, y: Tensor, u: Tensor, u_xx: Tensor, u_yy: Tensor) -> Tensor:
    """Return Δu + u − f."""
    a, b = WAVES
    # Of sin aπx sin bπy Laplace's operator makes −π²(a² + b²) times itself.
    factor = 1 - math.pi**2 * (a**2 + b**2)
    force = factor * torch.sin(a * math.pi * x) * torch.sin(b * math.pi * y)
    return u_xx + u_yy + u - force


def ansatz(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Return (1 − x²)(1 − y²) u."""
    return (1 - x**2) * (1 - y**2) * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (Dirichlet(u=0.0, on=("x", "y")),)
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = ()

    return Problem(
        name="helmholtz",
        domain=Rectangle(("x", "y"), (-1, -1), (1, 1)),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 40, 40, 40, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return features_recipe(problem(constraints), features=800, scale=12.0, points=4000)


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=1000, limit=1500, renewed=100, max_seconds=200.0
    )


def solution(x: Array, y: Array) -> Array:
    """Return sin πx sin 4πy.

    Source: Wang, Teng & Perdikaris, SIAM J. Sci. Comput. 43, 2021, section 4.1.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> u = solution(np.array([0.5, 1.0]), np.array([0.125, 0.3]))
    >>> (u.round(12) + 0.0).tolist()
    [1.0, 0.0]
    """
    x, y = as_floats(x, y)
    a, b = WAVES
    return sin_pi(a * x) * sin_pi(b * y)
