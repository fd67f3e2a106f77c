"""Allen–Cahn: u_t = 0.001 u_xx − 5(u³ − u) on [−1, 1], u(x, 0) = x² cos πx, u(±1, t) = −1."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet, Initial
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.training.slabs import Slabs
from whence.pinn.zoo._reference_points import Array, checked_points
from whence.pinn.zoo._variants import poorly_trained, with_conditions


def equation(u: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − 0.001 u_xx + 5(u³ − u)."""
    return u_t - 0.001 * u_xx + 5 * (u**3 - u)


def start(x: Tensor) -> Tensor:
    """Return the initial value x² cos πx."""
    return x**2 * torch.cos(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return x² cos πx + (1 − x²) t u."""
    return start(x) + (1 - x**2) * t * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (Initial(u=start), Dirichlet(u=-1.0, on="x"))
    transform = None
    if constraints == "hard":
        # The ansatz meets both conditions: x² cos πx is −1 at the ends, where 1 − x² vanishes.
        transform = ansatz
        conditions = ()

    return Problem(
        name="allen_cahn",
        domain=Interval("x", -1, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 64, 64, 64, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    slabs = Slabs(t=0.1, tolerance=1e-10)
    return features_recipe(
        problem(constraints), features=1000, scale=20.0, points=8000, activation="tanh", slabs=slabs
    )  # fmt: skip


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=500, limit=1000, renewed=50, max_seconds=420.0
    )


def wrong_edge(t: Tensor) -> Tensor:
    """Return −1 + t/2, a value at both ends that leaves −1 as time goes on."""
    return -1 + t / 2


def wrong_ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return x² cos πx + x² t/2 + (1 − x²) t u."""
    return ansatz(x, t, u) + x**2 * t / 2


VARIANTS = {
    "bad": poorly_trained("allen_cahn"),
    "broken": with_conditions(
        "wrong condition value: u(±1, t) = −1 + t/2 in place of −1",
        (Initial(u=start), Dirichlet(u=wrong_edge, on="x")),
        wrong_ansatz,
    ),
}


def solution(x: Array, t: Array) -> Array:
    """Return the solution of the Allen-Cahn equation, accurate to 1e-9 absolutely.

    It solves u_t = 0.001 u_xx − 5 (u³ − u) on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = x² cos(πx) and u(±1, t) = −1. No closed form is known: the first call solves it by a
    spectral method (a fraction of a second), later ones only interpolate. Source of the problem:
    Wu et al. (2023), see :mod:`whence.pinn.zoo.diffusion`; of the method:
    :mod:`whence.pinn.zoo._allen_cahn_spectral`, which also says what holds near t = 0.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places in [−1, 1] and times in [0, 1].

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> solution(np.array([-1.0, 0.5, 0.5]), np.array([0.3, 0.5, 1.0])).round(8).tolist()
    [-1.0, -0.03640254, -0.24750108]
    """
    x, t = checked_points(x, t, x_bound=1.0, t_bound=1.0)
    from whence.pinn.zoo import _allen_cahn_spectral  # scipy is slow to import

    return _allen_cahn_spectral.evaluate(_allen_cahn_spectral.solution(), x, t)
