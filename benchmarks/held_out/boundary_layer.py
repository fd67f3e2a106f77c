"""A steep layer at an outflow: −0.02 Δu + u_x + u_y = f on [0, 1]², u = 0 on the boundary."""

import numpy as np
import torch

from whence import pinn

DIFFUSION = 0.02


def profile(s, library):
    """Return s − (e^((s−1)/ε) − e^(−1/ε))/(1 − e^(−1/ε)): −ε p″ + p′ = 1, zero at both ends."""
    least = np.exp(-1 / DIFFUSION)
    return s - (library.exp((s - 1) / DIFFUSION) - least) / (1 - least)


def exact(x, y, library):
    """Return the product of both profiles."""
    return profile(x, library) * profile(y, library)


def equation(x, y, u_x, u_y, u_xx, u_yy):
    """Return −ε Δu + u_x + u_y − p(x) − p(y)."""
    force = profile(x, torch) + profile(y, torch)
    return -DIFFUSION * (u_xx + u_yy) + u_x + u_y - force


def solution(x, y):
    """Return the solution at places (n,)."""
    return exact(x, y, np)


problem = pinn.Problem(
    name="boundary_layer",
    domain=pinn.Rectangle(("x", "y"), (0, 0), (1, 1)),
    outputs=("u",),
    equations={"pde": equation},
    conditions=(pinn.Dirichlet(u=0.0, on=("x", "y")),),
    solution=solution,
)
