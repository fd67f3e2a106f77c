"""Diffusion: u_t = u_xx − e^(−t)(1−π²) sin πx on [−1, 1], u(x, 0) = sin πx, u(±1, t) = 0."""

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


def equation(x: Tensor, t: Tensor, u_t: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_t − u_xx + e^(−t)(1−π²) sin πx."""
    return u_t - u_xx + torch.exp(-t) * (1 - math.pi**2) * torch.sin(math.pi * x)


def start(x: Tensor) -> Tensor:
    """Return the initial value sin πx."""
    return torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return sin πx + (1 − x²) t u."""
    return start(x) + (1 - x**2) * t * u


def problem(constraints: Literal["hard", "soft"]) -> Problem:
    """Return the problem with hard or soft constraints."""
    hard = constraints == "hard"
    return Problem(
        name="diffusion",
        domain=Interval("x", -1, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz if hard else None,
        conditions=() if hard else (Initial(u=start), Dirichlet(u=0.0, on="x")),
        architecture=lambda seed: MLP([2, 32, 32, 32, 1], seed=seed),
        solution=references.diffusion,
    )
