"""A hill that a wind moves and diffusion flattens: u_t + u_x + ½ u_y = 0.02 Δu on [−1, 1]²."""

import numpy as np
import torch

from whence import pinn

DIFFUSION = 0.02
WIND = (1.0, 0.5)
START = (-0.4, -0.2)
WIDTH = 0.04
"""Of the hill at the start, ``exp(−r²/WIDTH)``."""


def hill(x, y, t, exp):
    """Return the hill at a time: its width grows by 4Dt, its mass stays."""
    width = WIDTH + 4 * DIFFUSION * t
    square = (x - START[0] - WIND[0] * t) ** 2 + (y - START[1] - WIND[1] * t) ** 2
    return WIDTH / width * exp(-square / width)


def exact(x, y, t):
    """Return the solution as a tensor."""
    return hill(x, y, t, torch.exp)


def equation(u_t, u_x, u_y, u_xx, u_yy):
    """Return u_t + u_x + ½ u_y − 0.02 Δu."""
    return u_t + WIND[0] * u_x + WIND[1] * u_y - DIFFUSION * (u_xx + u_yy)


def solution(x, y, t):
    """Return the solution at places and times (n,)."""
    return hill(x, y, t, np.exp)


problem = pinn.Problem(
    name="moving_hill",
    domain=pinn.Rectangle(("x", "y"), (-1, -1), (1, 1)) * pinn.Interval("t", 0, 1),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(
        pinn.Initial(u=lambda x, y: hill(x, y, 0.0, torch.exp)),
        pinn.Dirichlet(u=exact, on=("x", "y")),
    ),
    solution=solution,
)
