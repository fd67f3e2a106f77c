"""Kuramoto–Sivashinsky: u_t + 5 u u_x + ½ u_xx + 0.005 u_xxxx = 0, u(x, 0) = −sin πx, periodic."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Initial, Periodic
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._periodic_spectral import Complex, Evolution, Solved
from whence.pinn.zoo._reference_points import Array, checked_points

ADVECTION, GROWTH, DAMPING = 5.0, 0.5, 0.005
END = 0.5


def equation(
    u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor, u_xxxx: Tensor
) -> Tensor:
    """Return u_t + 5 u u_x + ½ u_xx + 0.005 u_xxxx."""
    return u_t + ADVECTION * u * u_x + GROWTH * u_xx + DAMPING * u_xxxx


def start(x: Tensor) -> Tensor:
    """Return the initial value −sin πx."""
    return -torch.sin(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return −sin πx + t u."""
    return start(x) + t * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, its initial value by an ansatz or a condition; periodic by conditions."""
    conditions: list[Condition] = [
        Periodic("u", along="x"),
        Periodic("u_x", along="x"),
        Periodic("u_xx", along="x"),
        Periodic("u_xxx", along="x"),
    ]
    transform = None
    if constraints == "hard":
        transform = ansatz
    else:
        conditions.append(Initial(u=start))

    return Problem(
        name="kuramoto_sivashinsky",
        domain=Interval("x", -1, 1) * Interval("t", 0, END),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP(
            [2, 40, 40, 40, 1], bounds=[[-1.0, 0.0], [1.0, END]], seed=seed
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=800, limit=1500, renewed=100, max_seconds=290.0
    )


@functools.cache
def _solved() -> Solved:
    def linear(k: Array) -> Complex:
        # Of exp(ikx): ∂_xx gives −k², ∂_xxxx gives k⁴.
        return np.asarray(GROWTH * k**2 - DAMPING * k**4 + 0j)

    def nonlinear(c: Complex, k: Array) -> Complex:
        u = np.fft.ifft(c).real
        return np.asarray(-0.5j * ADVECTION * k * np.fft.fft(u**2))

    evolution = Evolution(-1, 1, 256, END, 4000, linear, nonlinear)
    return evolution.solved(lambda x: -np.sin(np.pi * x))


def solution(x: Array, t: Array) -> Array:
    """Return the solution by a Fourier method in 256 modes.

    Source of the problem: Wang, Sankaran & Perdikaris, arXiv 2203.07404, section 6.3, up to half
    their time.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> float(solution(np.array([-0.5]), np.array([0.0]))[0].round(9))
    1.0
    """
    x, t = checked_points(x, t)
    return np.asarray(_solved().at(x, t).real)
