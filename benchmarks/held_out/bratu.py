"""Bratu with a source: Δu + eᵘ = f on [0, 1]², u = 0 on the boundary, u = sin 2πx sin πy."""

import math

import numpy as np
import torch

from whence import pinn


def exact(x, y):
    """Return sin 2πx sin πy."""
    return torch.sin(2 * math.pi * x) * torch.sin(math.pi * y)


def equation(x, y, u, u_xx, u_yy):
    """Return Δu + eᵘ − f."""
    force = -5 * math.pi**2 * exact(x, y) + torch.exp(exact(x, y))
    return u_xx + u_yy + torch.exp(u) - force


def solution(x, y):
    """Return the solution at places (n,)."""
    return np.sin(2 * np.pi * x) * np.sin(np.pi * y)


problem = pinn.Problem(
    name="bratu",
    domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(pinn.Dirichlet(u=0.0, on=("x", "y")),),
    solution=solution,
)
