"""Schrödinger: i h_t + ½ h_xx + |h|² h = 0 on [−5, 5], a moving soliton h = u + i v."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, checked_points

SPEED = 1.0
FIRST = -1.0
"""Where the soliton is at the start."""
END = 2.0


def equation(
    u: Tensor, v: Tensor, u_t: Tensor, v_t: Tensor, u_xx: Tensor, v_xx: Tensor
) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of h_t − i (½ h_xx + |h|² h)."""
    intensity = u**2 + v**2
    return u_t + 0.5 * v_xx + intensity * v, v_t - 0.5 * u_xx - intensity * u


def soliton(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of exp(i (c x + (1 − c²) t/2))/cosh(x − x₀ − c t)."""
    envelope = 1 / torch.cosh(x - FIRST - SPEED * t)
    phase = SPEED * x + (1 - SPEED**2) * t / 2
    return envelope * torch.cos(phase), envelope * torch.sin(phase)


def ansatz(x: Tensor, t: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the initial values, moved to what the ends have at each time, plus t (25 − x²) h."""
    at_start = soliton(x, 0 * t)
    low, low_start = soliton(0 * x - 5, t), soliton(0 * x - 5, 0 * t)
    high, high_start = soliton(0 * x + 5, t), soliton(0 * x + 5, 0 * t)
    share = (x + 5) / 10
    inner = t * (1 - (x / 5) ** 2)

    parts = []
    for k, network in enumerate((u, v)):
        # What the ends depart from their first values, blended linearly between them.
        ends = (1 - share) * (low[k] - low_start[k])
        ends = ends + share * (high[k] - high_start[k])
        parts.append(at_start[k] + ends + inner * network)
    return parts[0], parts[1]


def departure(u: Tensor, v: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return what h differs from the soliton."""
    real, imaginary = soliton(x, t)
    return u - real, v - imaginary


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with initial and end values by an ansatz or by conditions."""
    conditions = [
        Condition("start", on="t_min", residual=departure),
        Condition("ends", on="x", residual=departure),
    ]
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = []

    return Problem(
        name="schrodinger",
        domain=Interval("x", -5, 5) * Interval("t", 0, END),
        outputs=("u", "v"),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP(
            [2, 40, 40, 2],
            bounds=[[-5.0, 0.0], [5.0, END]],
            seed=seed,
            scale_to=(-2, 2),
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=500, limit=700, renewed=50, max_seconds=250.0
    )


def solution(x: Array, t: Array) -> tuple[Array, Array]:
    """Return real and imaginary part of the soliton exp(i (c x + (1 − c²) t/2))/cosh(x − x₀ − c t).

    Source: Zakharov & Shabat, Sov. Phys. JETP 34, 1972.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times.

    Returns
    -------
    tuple of two ndarrays of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> u, v = solution(np.array([0.0]), np.array([1.0]))
    >>> u.round(12).tolist(), (v.round(12) + 0.0).tolist()
    ([1.0], [0.0])
    """
    x, t = checked_points(x, t)
    real, imaginary = soliton(torch.from_numpy(x), torch.from_numpy(t))
    return real.numpy(), imaginary.numpy()
