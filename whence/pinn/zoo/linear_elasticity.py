"""Linear elasticity: plane strain on [0, 1]², displacements (u, v), body force, λ = 1, μ = ½."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Rectangle
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats

LAMBDA = 1.0
MU = 0.5
LOAD = 4.0
"""Q of the solution v = sin πx · Q y⁴/4."""


def equilibrium(
    x: Tensor,
    y: Tensor,
    u_xx: Tensor,
    u_yy: Tensor,
    u_xy: Tensor,
    v_xx: Tensor,
    v_yy: Tensor,
    v_xy: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return (λ + 2μ) u_xx + μ u_yy + (λ + μ) v_xy + f_x, and the same for v."""
    pi = math.pi
    cos_2, sin_2 = torch.cos(2 * pi * x), torch.sin(2 * pi * x)
    cos_x, sin_x = torch.cos(pi * x), torch.sin(pi * x)
    cos_y, sin_y = torch.cos(pi * y), torch.sin(pi * y)

    # What u = cos 2πx sin πy and v = sin πx Q y⁴/4 leave of Navier's equation.
    force_x = LAMBDA * (4 * pi**2 * cos_2 * sin_y - LOAD * y**3 * pi * cos_x)
    force_x = force_x + MU * (9 * pi**2 * cos_2 * sin_y - LOAD * y**3 * pi * cos_x)
    force_y = LAMBDA * (-3 * LOAD * y**2 * sin_x + 2 * pi**2 * cos_y * sin_2)
    force_y = force_y + MU * (
        -6 * LOAD * y**2 * sin_x
        + 2 * pi**2 * cos_y * sin_2
        + pi**2 * LOAD * y**4 / 4 * sin_x
    )

    along_x = (LAMBDA + 2 * MU) * u_xx + MU * u_yy + (LAMBDA + MU) * v_xy
    along_y = (LAMBDA + 2 * MU) * v_yy + MU * v_xx + (LAMBDA + MU) * u_xy
    return along_x + force_x, along_y + force_y


def pulled(u_x: Tensor, v_y: Tensor, x: Tensor) -> Tensor:
    """Return σ_yy − (λ + 2μ) Q sin πx, the traction at the upper side."""
    stress = (LAMBDA + 2 * MU) * v_y + LAMBDA * u_x
    return stress - (LAMBDA + 2 * MU) * LOAD * torch.sin(math.pi * x)


def held(u_x: Tensor, v_y: Tensor) -> Tensor:
    """Return σ_xx, which vanishes at the sides."""
    return (LAMBDA + 2 * MU) * u_x + LAMBDA * v_y


def ansatz(x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return y (1 − y) u and x (1 − x) y v, which are held where the body is."""
    return y * (1 - y) * u, x * (1 - x) * y * v


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with displacements held by an ansatz or by conditions."""
    tractions = [
        Condition("pulled", on="y_max", residual=pulled),
        Condition("held", on="x", residual=held),
    ]
    conditions = tractions
    transform = None
    if constraints == "hard":
        transform = ansatz
    else:
        conditions = [
            *tractions,
            Dirichlet(u=0.0, on="y"),
            Dirichlet(v=0.0, on=("x", "y_min")),
        ]

    return Problem(
        name="linear_elasticity",
        domain=Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("u", "v"),
        equations={"equilibrium": equilibrium},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 40, 40, 2], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=500, limit=800, renewed=50, max_seconds=150.0
    )


def solution(x: Array, y: Array) -> tuple[Array, Array]:
    """Return cos 2πx sin πy and sin πx Q y⁴/4.

    Source: Haghighat et al., Comput. Methods Appl. Mech. Eng. 379, 2021, section 4.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.

    Returns
    -------
    tuple of two ndarrays of shape (n,)

    Examples
    --------
    >>> u, v = solution(np.array([0.0, 0.5]), np.array([0.5, 1.0]))
    >>> u.round(12).tolist(), v.tolist()
    ([1.0, -0.0], [0.0, 1.0])
    """
    x, y = as_floats(x, y)
    u = np.cos(2 * np.pi * x) * np.sin(np.pi * y)
    v = np.sin(np.pi * x) * LOAD * y**4 / 4
    return u, v
