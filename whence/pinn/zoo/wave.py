"""Wave: u_tt = 4 u_xx on [0, 1], u(x, 0) = sin πx + ½ sin 4πx, u_t(x, 0) = 0, u = 0 at the ends."""

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
from whence.pinn.zoo._variants import poorly_trained, with_conditions


def equation(u_tt: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_tt − 4 u_xx."""
    return u_tt - 4 * u_xx


def start(x: Tensor) -> Tensor:
    """Return the initial value sin πx + ½ sin 4πx."""
    return torch.sin(math.pi * x) + 0.5 * torch.sin(4 * math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return 20 u x(1 − x) t² + sin πx + ½ sin 4πx."""
    return 20 * u * x * (1 - x) * t**2 + start(x)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (
        Initial(u=start),
        Initial(u_t=0.0),
        Dirichlet(u=0.0, on="x"),
    )
    transform = None
    if constraints == "hard":
        # The ansatz meets all three: t² vanishes at t = 0 with its slope, x(1 − x) at the ends.
        transform = ansatz
        conditions = ()

    return Problem(
        name="wave",
        domain=Interval("x", 0, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 100, 100, 100, 100, 100, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return features_recipe(problem(constraints), features=600, scale=16.0, points=3000)


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=1000, limit=1000, renewed=200, max_seconds=560.0
    )


def swapped_ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return 20 u x(1 − x) t² + t (sin πx + ½ sin 4πx)."""
    return 20 * u * x * (1 - x) * t**2 + t * start(x)


VARIANTS = {
    "bad": poorly_trained("wave"),
    "broken": with_conditions(
        "swapped conditions: at t = 0 it is 0 and moves at sin πx + ½ sin 4πx, not the reverse",
        (Initial(u=0.0), Initial(u_t=start), Dirichlet(u=0.0, on="x")),
        swapped_ansatz,
    ),
}


def solution(x: Array, t: Array) -> Array:
    """Return the standing wave sin(πx) cos(2πt) + ½ sin(4πx) cos(8πt).

    It solves u_tt = 4 u_xx on x ∈ [0, 1], with u(x, 0) = sin(πx) + ½ sin(4πx), u_t(x, 0) = 0 and
    u(0, t) = u(1, t) = 0. Source: Wu et al. (2023), see :func:`diffusion`.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([0.5, 0.5]), np.array([0.0, 0.5])).tolist()
    [1.0, -1.0]
    """
    x, t = checked_points(x, t)
    # A mode sin kπx oscillates at the frequency 2kπ, as the speed is 2.
    slow = sin_pi(x) * np.cos(2 * np.pi * t)
    return slow + 0.5 * sin_pi(4 * x) * np.cos(8 * np.pi * t)
