"""Wave: u_tt = 4 u_xx on [0, 1], u(x, 0) = sin πx + ½ sin 4πx, u_t(x, 0) = 0, u = 0 at the ends."""

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


def equation(u_tt: Tensor, u_xx: Tensor) -> Tensor:
    """Return u_tt − 4 u_xx."""
    return u_tt - 4 * u_xx


def start(x: Tensor) -> Tensor:
    """Return the initial value sin πx + ½ sin 4πx."""
    return torch.sin(math.pi * x) + 0.5 * torch.sin(4 * math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return 20 u x(1 − x) t² + sin πx + ½ sin 4πx."""
    return 20 * u * x * (1 - x) * t**2 + start(x)


def problem(constraints: Literal["hard", "soft"]) -> Problem:
    """Return the problem with hard or soft constraints."""
    hard = constraints == "hard"
    return Problem(
        name="wave",
        domain=Interval("x", 0, 1) * Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz if hard else None,
        conditions=()
        if hard
        else (Initial(u=start), Initial(u_t=0.0), Dirichlet(u=0.0, on="x")),
        architecture=lambda seed: MLP([2, 100, 100, 100, 100, 100, 1], seed=seed),
        solution=references.wave,
    )
