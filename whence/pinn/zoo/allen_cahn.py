"""Allen–Cahn: u_t = 0.001 u_xx − 5(u³ − u) on [−1, 1], u(x, 0) = x² cos πx, u(±1, t) = −1."""

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


def equation(u: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − 0.001 u_xx + 5(u³ − u)."""
    return u_t - 0.001 * u_xx + 5 * (u**3 - u)


def start(x: Tensor) -> Tensor:
    """Return the initial value x² cos πx."""
    return x**2 * torch.cos(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return x² cos πx + (1 − x²) t u."""
    return start(x) + (1 - x**2) * t * u


def problem(constraints: Literal["hard", "soft"]) -> Problem:
    """Return the problem with hard or soft constraints."""
    hard = constraints == "hard"
    return Problem(
        name="allen_cahn",
        domain=Interval("x", -1, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz if hard else None,
        conditions=() if hard else (Initial(u=start), Dirichlet(u=-1.0, on="x")),
        architecture=lambda seed: MLP([2, 64, 64, 64, 1], seed=seed),
        solution=references.allen_cahn,
    )
