"""Burgers: u_t + u u_x = (0.01/π) u_xx on [−1, 1], u(x, 0) = −sin πx, u(±1, t) = 0."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from whence.pinn.conditions import Dirichlet, Initial
from whence.pinn.domain import Interval
from whence.pinn.networks import MLP
from whence.pinn.problem import Problem
from whence.pinn.zoo import references


def equation(u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t + u u_x − (0.01/π) u_xx."""
    return u_t + u * u_x - 0.01 / math.pi * u_xx


def start(x: Tensor) -> Tensor:
    """Return the initial value −sin πx."""
    return -torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return −sin πx + (1 − x²) t u."""
    return start(x) + (1 - x**2) * t * u


def problem(constraints: Literal["hard", "soft"]) -> Problem:
    """Return the problem with hard or soft constraints."""
    hard = constraints == "hard"
    return Problem(
        name="burgers",
        domain=Interval("x", -1, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz if hard else None,
        conditions=() if hard else (Initial(u=start), Dirichlet(u=0.0, on="x")),
        architecture=lambda seed: MLP([2, 32, 32, 32, 1], seed=seed),
        solution=references.burgers,
    )
