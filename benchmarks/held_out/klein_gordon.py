"""Klein–Gordon: u_tt − u_xx + u³ = f on [0, 1], t ≤ 1, u = x cos 5πt + (xt)³."""

import math

import numpy as np
import torch

from whence import pinn


def exact(x, t):
    """Return the solution of Wang, Teng & Perdikaris (2021), section 4.2."""
    return x * torch.cos(5 * math.pi * t) + (x * t) ** 3


def equation(x, t, u, u_tt, u_xx):
    """Return u_tt − u_xx + u³ − f."""
    exact_tt = -25 * math.pi**2 * x * torch.cos(5 * math.pi * t) + 6 * x**3 * t
    exact_xx = 6 * x * t**3
    force = exact_tt - exact_xx + exact(x, t) ** 3
    return u_tt - u_xx + u**3 - force


def solution(x, t):
    """Return the solution at places and times (n,)."""
    return x * np.cos(5 * np.pi * t) + (x * t) ** 3


problem = pinn.Problem(
    name="klein_gordon",
    domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(
        pinn.Initial(u=lambda x: x),
        pinn.Initial(u_t=0.0),
        pinn.Dirichlet(u=exact, on="x"),
    ),
    solution=solution,
)
