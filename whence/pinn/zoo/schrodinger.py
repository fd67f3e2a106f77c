"""Schrödinger: i h_t + ½ h_xx + |h|² h = 0 on [−5, 5], h = u + i v, h(x, 0) = 2/cosh x."""

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

END = math.pi / 2


def equation(
    u: Tensor, v: Tensor, u_t: Tensor, v_t: Tensor, u_xx: Tensor, v_xx: Tensor
) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of h_t − i (½ h_xx + |h|² h)."""
    intensity = u**2 + v**2
    return u_t + 0.5 * v_xx + intensity * v, v_t - 0.5 * u_xx - intensity * u


def start(x: Tensor) -> Tensor:
    """Return the initial value 2/cosh x, of the real part."""
    return 2 / torch.cosh(x)


def ansatz(x: Tensor, t: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2/cosh x + t u and t v."""
    return start(x) + t * u, t * v


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, its initial values by an ansatz or conditions; periodic by conditions."""
    conditions: list[Condition] = [
        Periodic("u", along="x"),
        Periodic("v", along="x"),
        Periodic("u_x", along="x"),
        Periodic("v_x", along="x"),
    ]
    transform = None
    if constraints == "hard":
        transform = ansatz
    else:
        conditions += [Initial(u=start), Initial(v=0.0)]

    return Problem(
        name="schrodinger",
        domain=Interval("x", -5, 5) * Interval("t", 0, END),
        outputs=("u", "v"),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP(
            [2, 60, 60, 60, 2], bounds=[[-5.0, 0.0], [5.0, END]], seed=seed
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=1000, limit=1500, renewed=100, max_seconds=290.0
    )


@functools.cache
def _solved() -> Solved:
    def linear(k: Array) -> Complex:
        return np.asarray(-0.5j * k**2)

    def nonlinear(c: Complex, k: Array) -> Complex:
        h = np.fft.ifft(c)
        return np.asarray(np.fft.fft(1j * np.abs(h) ** 2 * h))

    evolution = Evolution(-5, 5, 256, END, 4000, linear, nonlinear)
    return evolution.solved(lambda x: 2 / np.cosh(x))


def solution(x: Array, t: Array) -> tuple[Array, Array]:
    """Return real and imaginary part by a Fourier method in 256 modes.

    Source of the problem: Raissi, Perdikaris & Karniadakis, J. Comput. Phys. 378, 2019.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times.

    Returns
    -------
    tuple of two ndarrays of shape (n,)

    Examples
    --------
    >>> u, v = solution(np.array([0.0]), np.array([0.0]))
    >>> round(float(u[0]), 9), round(float(v[0]), 9)
    (2.0, 0.0)
    """
    x, t = checked_points(x, t)
    h = _solved().at(x, t)
    return h.real, h.imag
