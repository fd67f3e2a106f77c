"""A hill that a whirl carries around: u_t − 2y u_x + 2x u_y = 0.01 Δu on [−1, 1]²."""

import numpy as np
import torch

from whence import pinn

DIFFUSION = 0.01
TURN = 2.0
"""Radians in a unit of time."""
DISTANCE = 0.45
"""Of the hill from the center of the whirl."""
WIDTH = 0.05
"""Of the hill at the start, ``exp(−r²/WIDTH)``."""


def hill(x, y, t, library):
    """Return the hill at a time: a turn changes neither distances nor the Laplacian."""
    width = WIDTH + 4 * DIFFUSION * t
    angle = TURN * t
    at_x = DISTANCE * library.cos(angle)
    at_y = DISTANCE * library.sin(angle)
    square = (x - at_x) ** 2 + (y - at_y) ** 2
    return WIDTH / width * library.exp(-square / width)


def equation(x, y, u_t, u_x, u_y, u_xx, u_yy):
    """Return u_t − 2y u_x + 2x u_y − 0.01 Δu."""
    return u_t - TURN * y * u_x + TURN * x * u_y - DIFFUSION * (u_xx + u_yy)


def solution(x, y, t):
    """Return the solution at places and times (n,)."""
    return hill(x, y, t, np)


problem = pinn.Problem(
    name="rotating_hill",
    domain=pinn.Rectangle(("x", "y"), (-1, -1), (1, 1)) * pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(
        pinn.Initial(u=lambda x, y: hill(x, y, torch.zeros_like(x), torch)),
        pinn.Dirichlet(u=lambda x, y, t: hill(x, y, t, torch), on=("x", "y")),
    ),
    solution=solution,
)
