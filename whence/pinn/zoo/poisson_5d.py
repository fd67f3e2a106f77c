"""Poisson: −Δu = π² Σ cos πx_k on [0, 1]⁵, u = Σ cos πx_k on the boundary and within."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Domain, Interval
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, features_recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats, sin_pi

COORDINATES = ("x1", "x2", "x3", "x4", "x5")


def waves(x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, x5: Tensor) -> Tensor:
    """Return Σ cos πx_k."""
    return torch.stack([torch.cos(math.pi * x) for x in (x1, x2, x3, x4, x5)]).sum(0)


def equation(
    x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor, x5: Tensor,
    u_x1x1: Tensor, u_x2x2: Tensor, u_x3x3: Tensor, u_x4x4: Tensor, u_x5x5: Tensor,
) -> Tensor:  # fmt: skip
    """Return Δu + π² Σ cos πx_k."""
    laplacian = u_x1x1 + u_x2x2 + u_x3x3 + u_x4x4 + u_x5x5
    return laplacian + math.pi**2 * waves(x1, x2, x3, x4, x5)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, whose boundary values are conditions in either form.

    An ansatz that meets them on ten faces would give the solution away.
    """
    domain: Domain = Interval("x1", 0, 1)
    for name in COORDINATES[1:]:
        domain = domain * Interval(name, 0, 1)

    return Problem(
        name="poisson_5d",
        domain=domain,
        outputs=("u",),
        equations={"pde": equation},
        conditions=(Dirichlet(u=waves, on=COORDINATES),),
        architecture=lambda seed: MLP([5, 50, 50, 1], seed=seed),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    # Features drawn once do not find the five directions of the waves, features that train do.
    return features_recipe(
        problem(constraints),
        features=64,
        scale=math.pi,
        points=2000,
        trainable=True,
        condition_points=1000,
        condition_weight=1e3,
    )


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    return growing_recipe(
        problem(constraints), first=1000, limit=1000, renewed=50, max_seconds=200.0
    )


def solution(x1: Array, x2: Array, x3: Array, x4: Array, x5: Array) -> Array:
    """Return Σ cos πx_k.

    Source: Müller & Zeinhofer, Achieving high accuracy with PINNs via energy natural gradient
    descent, ICML 2023, arXiv 2302.13163, section 4.

    Parameters
    ----------
    x1, x2, x3, x4, x5 : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> one, half = np.array([1.0]), np.array([0.5])
    >>> float(solution(half, half, half, half, one)[0])
    -1.0
    """
    columns = as_floats(x1, x2, x3, x4, x5)
    # cos πx = sin π(x + ½), which is exact where it vanishes.
    return np.asarray(sum(sin_pi(x + 0.5) for x in columns))
