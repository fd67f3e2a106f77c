"""Kuramoto–Sivashinsky: u_t + u u_x + u_xx + u_xxxx = 0 on [−2π, 2π], periodic, until t = 4."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.training.slabs import Slabs
from whence.pinn.zoo._periodic_flow import PeriodicFlow, self_advection
from whence.pinn.zoo._periodic_spectral import Complex, Evolution, Solved
from whence.pinn.zoo._reference_points import Array, checked_points

HALF = 2 * math.pi
END = 4.0


def equation(
    u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor, u_xxxx: Tensor
) -> Tensor:
    """Return u_t + u u_x + u_xx + u_xxxx."""
    return u_t + u * u_x + u_xx + u_xxxx


def start(x: Tensor) -> Tensor:
    """Return the initial value cos(x/2) (1 + sin(x/2))."""
    return torch.cos(x / 2) * (1 + torch.sin(x / 2))


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return the initial value plus t u."""
    return start(x) + t * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, its initial value by an ansatz or a condition; periodic by conditions."""
    flow = PeriodicFlow(
        name="kuramoto_sivashinsky",
        half=HALF,
        end=END,
        equation=equation,
        start=start,
        ansatz=ansatz,
        matched=("u", "u_x", "u_xx", "u_xxx"),
        widths=(30, 30, 30),
        solution=solution,
    )
    return flow.problem(constraints)


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    slabs = Slabs(t=0.5, tolerance=1e-11)
    return features_recipe(
        problem(constraints), features=600, scale=12.0, points=5000, activation="tanh", slabs=slabs
    )  # fmt: skip


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=500, limit=900, renewed=50, max_seconds=280.0
    )


@functools.cache
def _solved() -> Solved:
    def linear(k: Array) -> Complex:
        # Of exp(ikx): ∂_xx gives −k², ∂_xxxx gives k⁴.
        return np.asarray(k**2 - k**4 + 0j)

    evolution = Evolution(-HALF, HALF, 128, END, 4000, linear, self_advection)
    return evolution.solved(lambda x: np.cos(x / 2) * (1 + np.sin(x / 2)))


def solution(x: Array, t: Array) -> Array:
    """Return the solution by a Fourier method in 128 modes.

    Source of the problem: Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005, section 5, on a
    period of 4π in place of 32π, on which the flow is not chaotic.

    Parameters
    ----------
    x, t : ndarray of shape (n,)
        Places and times.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> float(solution(np.array([0.0]), np.array([0.0]))[0].round(9))
    1.0
    """
    x, t = checked_points(x, t)
    return np.asarray(_solved().at(x, t).real)
