"""A front that invades: u_t = u_xx + 30 u (1 − u) on [−1, 1], Ablowitz and Zeppetella's wave."""

import math

import numpy as np
import torch

from whence import pinn

GROWTH = 30.0
SPEED = 5 * math.sqrt(GROWTH / 6)
"""Of the one wave that is known in closed form."""


def wave(x, t, exp):
    """Return (1 + exp(√(r/6) (x − ct)))⁻²."""
    return (1 + exp(math.sqrt(GROWTH / 6) * (x + 0.8 - SPEED * t))) ** -2


def equation(u, u_t, u_xx):
    """Return u_t − u_xx − r u (1 − u)."""
    return u_t - u_xx - GROWTH * u * (1 - u)


def solution(x, t):
    """Return the solution at places and times (n,)."""
    return wave(x, t, np.exp)


problem = pinn.Problem(
    name="fisher",
    domain=pinn.Interval("x", -1, 1) * pinn.Interval("t", 0, 0.1),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(
        pinn.Initial(u=lambda x: wave(x, 0.0, torch.exp)),
        pinn.Dirichlet(u=lambda x, t: wave(x, t, torch.exp), on="x"),
    ),
    solution=solution,
)
