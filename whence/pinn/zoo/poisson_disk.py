"""Poisson: −Δu = g in the unit disk, g a Gaussian of mass 1 and width 0.02, u = 0 on the rim."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Disk
from whence.pinn.networks.mlp import MLP
from whence.pinn.networks.radial_features import RadialFeatures
from whence.pinn.optimizers.varpro import VarPro
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats
from whence.pinn.zoo._variants import poorly_trained, with_equation

WIDTH = 0.02
"""Width σ of the source."""
FEATURES = 1000
"""Features of the recipe."""
PINNED = 5000
"""Points of the recipe that crowd towards the source and stay."""
CROWDED = 200
"""The same of the recipe for the problem's own network."""
OVERLAP = 3.2
"""Width of a feature, in units of the distance to the next."""
REACH = 1.2
"""How far features go: those beyond the rim serve what is within."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
TINY = 1e-20
"""Least r²/2σ² of which a logarithm is taken."""


def source(x: Tensor, y: Tensor) -> Tensor:
    """Return exp(−r²/2σ²)/(2πσ²), of unit mass in the plane."""
    square = x**2 + y**2
    variance = WIDTH**2
    height = 1 / (2 * math.pi * variance)
    return height * torch.exp(-square / (2 * variance))


def equation(x: Tensor, y: Tensor, u_xx: Tensor, u_yy: Tensor) -> Tensor:
    """Return Δu + exp(−r²/2σ²)/(2πσ²)."""
    return u_xx + u_yy + source(x, y)


def stretched(x: Tensor, y: Tensor, u_xx: Tensor, u_yy: Tensor) -> Tensor:
    """Return u_xx + 2 u_yy + exp(−r²/2σ²)/(2πσ²)."""
    return u_xx + 2 * u_yy + source(x, y)


def ansatz(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Return (1 − x² − y²) u."""
    square = x**2 + y**2
    return (1 - square) * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem with hard or soft constraints."""
    conditions: tuple[Condition, ...] = (Dirichlet(u=0.0, on="rim"),)
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = ()

    return Problem(
        name="poisson_disk",
        domain=Disk(("x", "y"), (0.0, 0.0), 1.0, "rim"),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP([2, 32, 32, 32, 1], seed=seed),
        solution=solution,
    )


def crowded(n: int, reach: float, turn: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return n places (n, 2) that crowd towards the source, and how far they are apart there (n,).

    They are as dense as 1/(r² + σ²), so that their distance is proportional to √(r² + σ²), over
    which the solution changes: it is as smooth as the source within its width, and as log r beyond.
    The first is the center, the last nearly ``reach`` away, and all are turned by an angle.
    """
    # ∫ 2πr/(r² + σ²) dr = π log(1 + r²/σ²) grows by equal steps.
    variance = WIDTH**2
    steps = torch.arange(n, dtype=torch.float64)
    growth = math.log1p(reach**2 / variance)
    shares = steps / n
    grown = torch.expm1(growth * shares)
    square = variance * grown  # r²

    # Each turned on by the golden angle, none hides behind another (Vogel, Math. Biosci. 44, 1979).
    angle = turn + GOLDEN_ANGLE * steps
    radius = square.sqrt()
    cosine = angle.cos()
    sine = angle.sin()
    places = radius.unsqueeze(1) * torch.stack([cosine, sine], dim=1)

    # Of the π growth (r² + σ²) that all would take at this density, each has a square to itself.
    total = math.pi * growth
    area = (square + variance) * total / n
    return places, area.sqrt()


def crowded_features(seed: int) -> RadialFeatures:
    """Return Gaussians that crowd towards the source, each as wide as the next are far."""
    bounds = [[-1.0, -1.0], [1.0, 1.0]]
    gaussians = RadialFeatures([2, FEATURES, 1], bounds=bounds, seed=seed)
    centers, distance = crowded(FEATURES, REACH, turn=float(seed))
    gaussians.set_at(centers, OVERLAP * distance)
    return gaussians


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    points = {"pde": 500}
    weights = None
    if constraints == "soft":
        points["dirichlet_u"] = 300
        weights = {"dirichlet_u": 1e4}

    places, _ = crowded(PINNED, reach=1.0)
    return Recipe(
        points=points,
        schedule=(VarPro(10),),
        resample=None,
        max_seconds=None,
        network=crowded_features,
        weights=weights,
        pinned={"pde": places},
    )


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train the network of its own."""
    growing = growing_recipe(
        problem(constraints), first=500, limit=1500, renewed=100, max_seconds=200.0
    )
    # Few points fall into a source of this width; the center is always one of them.
    places, _ = crowded(CROWDED, reach=1.0)
    return replace(growing, pinned={"pde": places})


VARIANTS = {
    "bad": poorly_trained("poisson_disk"),
    "broken": with_equation(
        "wrong coefficient: u_xx + 2 u_yy in place of u_xx + u_yy", stretched
    ),
}


def solution(x: Array, y: Array) -> Array:
    """Return −log r/2π − E₁(r²/2σ²)/4π, E₁ the exponential integral.

    The mass of the source within r is 1 − exp(−r²/2σ²) = −2πr u′(r), which this solves with
    u(1) = 0 up to E₁(1250), below 1e-300. Source: Gauss' theorem; the problem is that of
    Naujoks et al., PINNfluence, arXiv 2409.08958.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> solution(np.array([0.0, 0.5]), np.array([0.0, 0.0])).round(12).tolist()
    [0.613392261915, 0.110317800076]
    """
    x, y = as_floats(x, y)
    from scipy.special import exp1  # slow to import

    # With s = r²/2σ² both logarithms join: u = −(log 2σ² + log s + E₁(s))/4π, and log s + E₁(s)
    # is −γ + s − … at the center, so that the least s may be anything small.
    unit = 2 * WIDTH**2
    square = x**2 + y**2
    s = np.maximum(square / unit, TINY)
    total = math.log(unit) + np.log(s) + exp1(s)
    return np.asarray(-total / (4 * math.pi))
