"""Diffusion: u_t = u_xx − e^(−t)(1−π²) sin πx on [−1, 1], u(x, 0) = sin πx, u(±1, t) = 0."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet, Initial
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, checked_points, sin_pi
from whence.pinn.zoo._variants import poorly_trained, with_equation


def equation(x: Tensor, t: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − u_xx + e^(−t)(1−π²) sin πx."""
    return u_t - u_xx + torch.exp(-t) * (1 - math.pi**2) * torch.sin(math.pi * x)


def start(x: Tensor) -> Tensor:
    """Return the initial value sin πx."""
    return torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return sin πx + (1 − x²) t u."""
    return start(x) + (1 - x**2) * t * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (Initial(u=start), Dirichlet(u=0.0, on="x"))
    transform = None
    if constraints == "hard":
        # The ansatz meets both conditions: 1 − x² vanishes at the ends, t at the start.
        transform = ansatz
        conditions = ()

    return Problem(
        name="diffusion",
        domain=Interval("x", -1, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 32, 32, 32, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return features_recipe(problem(constraints), features=300, scale=4.0, points=1500)


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=500, limit=2000, renewed=50, max_seconds=240.0
    )


def wrong_force(x: Tensor, t: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − u_xx − e^(−t)(1−π²) sin πx."""
    return u_t - u_xx - torch.exp(-t) * (1 - math.pi**2) * torch.sin(math.pi * x)


VARIANTS = {
    "bad": poorly_trained("diffusion"),
    "broken": with_equation(
        "wrong sign: the force e^(−t)(1−π²) sin πx is added", wrong_force
    ),
}


def solution(x: Array, t: Array) -> Array:
    """Return the solution of the forced diffusion equation, sin(πx) exp(−t).

    It solves u_t = u_xx − exp(−t) (1 − π²) sin(πx) on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = sin(πx) and u(±1, t) = 0. Source: Wu et al., "A comprehensive study of non-adaptive
    and residual-based adaptive sampling for physics-informed neural networks" (2023).

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([0.5, 1.0]), np.array([0.0, 0.3])).tolist()
    [1.0, 0.0]
    """
    x, t = checked_points(x, t)
    return sin_pi(x) * np.exp(-t)  # exactly zero at x = ±1
