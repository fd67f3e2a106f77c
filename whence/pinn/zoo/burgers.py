"""Burgers: u_t + u u_x = (0.01/π) u_xx on [−1, 1], u(x, 0) = −sin πx, u(±1, t) = 0."""

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
from whence.pinn.zoo import _cole_hopf
from whence.pinn.zoo._reference_points import Array, checked_points
from whence.pinn.zoo._variants import poorly_trained, with_equation


def equation(u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t + u u_x − (0.01/π) u_xx."""
    return u_t + u * u_x - 0.01 / math.pi * u_xx


def start(x: Tensor) -> Tensor:
    """Return the initial value −sin πx."""
    return -torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return −sin πx + (1 − x²) t u."""
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
        name="burgers",
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
    slabs = Slabs(t=0.1, tolerance=1e-11)
    return features_recipe(
        problem(constraints), features=1000, scale=20.0, points=8000, activation="tanh", slabs=slabs
    )  # fmt: skip


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=500, limit=2000, renewed=50, max_seconds=420.0
    )


def wrong_viscosity(u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t + u u_x − (0.1/π) u_xx."""
    return u_t + u * u_x - 0.1 / math.pi * u_xx


VARIANTS = {
    "bad": poorly_trained("burgers"),
    "broken": with_equation(
        "wrong viscosity: 0.1/π in place of 0.01/π", wrong_viscosity
    ),
}


def solution(x: Array, t: Array) -> Array:
    r"""Return the solution of viscous Burgers' equation that steepens into a shock at x = 0.

    It solves u_t + u u_x = ν u_xx, ν = 0.01/π, on x ∈ [−1, 1], t ∈ [0, 1], with
    u(x, 0) = −sin(πx) and u(±1, t) = 0. The Cole-Hopf substitution gives, with c = √(4νt) and
    K = 1/(2πν),

    .. math:: u = -\frac{\int \sin(π(x - cz))\, e^{-K\cos(π(x - cz))}\, e^{-z^2} dz}
                        {\int e^{-K\cos(π(x - cz))}\, e^{-z^2} dz},

    and both integrals are Gauss-Hermite sums. Opposite nodes ±z are added by the addition
    theorems, which turns their difference into a hyperbolic sine: u is then exactly odd, exactly
    zero at x = 0 and x = ±1, and accurate relative to itself (to 1e-13) inside the shock,
    where the plain sums cancel. At t = 0 it is −sin(πx). Source: Cole (1951); Hopf (1950);
    Basdevant et al., Computers & Fluids 14 (1986), 23-41.

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
    >>> solution(np.array([-0.5, 0.0, 0.01, 1.0]), np.array([0.0, 0.5, 1.0, 1.0])).round(9).tolist()
    [1.0, 0.0, -0.594256168, 0.0]
    """
    # The substitution needs no bounds, the problem has them.
    x, t = checked_points(x, t, x_bound=1.0, t_bound=1.0)
    return _cole_hopf.evaluate(x, t)
