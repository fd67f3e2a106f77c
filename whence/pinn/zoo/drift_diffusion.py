"""Drift–diffusion: u_t = u_xx − 20 u_x on [0, 2π], u(x, 0) = sin(2x + π/4), periodic in x."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Initial, Periodic
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, checked_points
from whence.pinn.zoo._variants import poorly_trained, with_equation


def equation(u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − u_xx + 20 u_x."""
    return u_t - u_xx + 20 * u_x


def start(x: Tensor) -> Tensor:
    """Return the initial value sin(2x + π/4)."""
    return torch.sin(2 * x + math.pi / 4)


def edge(t: Tensor) -> Tensor:
    """Return the value at both ends, sin(π/4 − 40t) e^(−4t)."""
    return torch.sin(math.pi / 4 - 40 * t) * torch.exp(-4 * t)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return the exact initial value plus the ends' departure from theirs, plus t x(2π − x) u.

    Blending boundary departures linearly in x gives, as both ends carry the same value, the
    departure itself.
    """
    return start(x) + (edge(t) - math.sin(math.pi / 4)) + t * x * (2 * math.pi - x) * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    # A second-order equation needs the slope periodic too, or its solution is not unique.
    conditions: tuple[Condition, ...] = (
        Initial(u=start),
        Periodic("u", along="x"),
        Periodic("u_x", along="x"),
    )
    transform = None
    if constraints == "hard":
        # The ansatz has the exact values at the ends, which are more than periodic.
        transform = ansatz
        conditions = ()

    return Problem(
        name="drift_diffusion",
        domain=Interval("x", 0, 2 * math.pi) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 64, 64, 64, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return features_recipe(problem(constraints), features=1500, scale=18.0, points=5000)


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=500, limit=1000, renewed=200, max_seconds=480.0
    )


def wrong_drift(u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − u_xx − 20 u_x."""
    return u_t - u_xx - 20 * u_x


VARIANTS = {
    "bad": poorly_trained("drift_diffusion"),
    "broken": with_equation(
        "wrong sign: the drift of 20 goes to the left", wrong_drift
    ),
}


def solution(x: Array, t: Array) -> Array:
    """Return one drifting, decaying Fourier mode, sin(2 (x − 20t) + π/4) exp(−4t).

    It solves u_t = u_xx − 20 u_x on x ∈ [0, 2π] with u(x, 0) = sin(2x + π/4), and is π-periodic
    in x. Source: separation of variables; a mode of wave number k drifts at speed 20 and decays
    at rate k², here k = 2.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times (t ≥ 0).

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([np.pi / 8]), np.array([0.0])).tolist()
    [1.0]
    """
    x, t = checked_points(x, t)
    return np.sin(2 * (x - 20 * t) + np.pi / 4) * np.exp(-4 * t)
