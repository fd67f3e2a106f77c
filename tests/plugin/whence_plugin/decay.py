"""Decay: u_t = −u on [0, 1], u(0) = 1."""

import numpy as np

from whence import pinn


def equation(u, u_t):
    """Return u_t + u."""
    return u_t + u


def problem(constraints="hard"):
    """Return the problem with hard or soft constraints."""
    hard = constraints == "hard"
    return pinn.Problem(
        name="decay",
        domain=pinn.Interval("x", 0, 1) * pinn.Interval("t", 0, 1),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=(lambda t, u: 1 + t * u) if hard else None,
        conditions=() if hard else (pinn.Initial(u=1.0),),
        solution=lambda t: np.exp(-t),
    )


def network(seed):
    """Return a small network."""
    return pinn.MLP([2, 8, 1], seed=seed)
