"""Korteweg–de Vries: u_t + u u_x + 0.0025 u_xxx = 0 on [−1, 1], u(x, 0) = cos πx, periodic."""

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

DISPERSION = 0.0025
END = 0.25


def equation(u: Tensor, u_t: Tensor, u_x: Tensor, u_xxx: Tensor) -> Tensor:
    """Return u_t + u u_x + 0.0025 u_xxx."""
    return u_t + u * u_x + DISPERSION * u_xxx


def start(x: Tensor) -> Tensor:
    """Return the initial value cos πx."""
    return torch.cos(math.pi * x)


def ansatz(x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """Return cos πx + t u."""
    return start(x) + t * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, its initial value by an ansatz or a condition; periodic by conditions."""
    flow = PeriodicFlow(
        name="korteweg_de_vries",
        half=1,
        end=END,
        equation=equation,
        start=start,
        ansatz=ansatz,
        matched=("u", "u_x", "u_xx"),
        widths=(40, 40, 40),
        solution=solution,
    )
    return flow.problem(constraints)


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    slabs = Slabs(t=0.05, tolerance=1e-13)
    return features_recipe(
        problem(constraints), features=800, scale=20.0, points=6000, activation="tanh", slabs=slabs
    )  # fmt: skip


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=600, limit=1000, renewed=50, max_seconds=220.0
    )


@functools.cache
def _solved() -> Solved:
    def linear(k: Array) -> Complex:
        # −ε ∂_xxx of exp(ikx) is iεk³.
        return np.asarray(1j * DISPERSION * k**3)

    evolution = Evolution(-1, 1, 256, END, 4000, linear, self_advection)
    return evolution.solved(lambda x: np.cos(np.pi * x))


def solution(x: Array, t: Array) -> Array:
    """Return the solution by a Fourier method in 256 modes.

    Source of the problem: Zabusky & Kruskal, Phys. Rev. Lett. 15, 1965, up to the time when the
    wave begins to break into solitons.

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
