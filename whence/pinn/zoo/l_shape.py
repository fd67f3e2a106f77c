"""L-shape: −Δu = 1 on [−1, 1]² without its lower right quarter, u = 0 on the boundary."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.pinn.geometry.domain import Polygon
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.unknowns import Unknown
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats

CORNERS = ((0, 0), (0, -1), (-1, -1), (-1, 1), (1, 1), (1, 0))
"""Corners, the re-entrant one first, at the origin."""
OPENING = 3 * math.pi / 2
"""Angle between the two sides that meet there: θ from 0 to 3π/2."""
MODES = 100
"""Harmonic functions r^(2k/3) sin(2kθ/3) of the reference solution."""
TINY = 1e-30
"""What is added to r², so that logarithms are finite at the corner itself."""

# With θ from the side y = 0, −Δu = 1 has the solution
#     u = −r²/4 + r² cos 2θ/4 − r² (log r sin 2θ + θ cos 2θ)/(3π),
# zero on both sides: at θ = 3π/2, cos 2θ = −1, it is −r²/2 + r²/2. The rest is harmonic and zero on
# both sides, a sum of r^(2k/3) sin(2kθ/3) (Grisvard, Elliptic Problems in Nonsmooth Domains, 1985).


def polar(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return r² and the angle θ from the side y = 0, x > 0, between 0 and 3π/2."""
    middle = OPENING / 2
    along = x * math.cos(middle) + y * math.sin(middle)
    across = y * math.cos(middle) - x * math.sin(middle)
    square = x**2 + y**2 + TINY
    # From the bisector the angle is twice atan(across/(r + along)), smooth all over the domain.
    half = torch.atan(across / (torch.sqrt(square) + along))
    return square, 2 * half + middle


def particular(square: Tensor, angle: Tensor) -> Tensor:
    """Return the solution of −Δu = 1 that vanishes on both sides of the corner, r² = square."""
    double = torch.cos(2 * angle)
    # r² log r = r² log(r²)/2
    logarithm = 0.5 * torch.log(square) * torch.sin(2 * angle) + angle * double
    return square * (-0.25 + 0.25 * double - logarithm / (3 * math.pi))


def singular(square: Tensor, angle: Tensor) -> Tensor:
    """Return r^(2/3) sin(2θ/3), what makes the gradient infinite at the corner."""
    return square ** (1 / 3) * torch.sin(2 * angle / 3)


def equation(u_xx: Tensor, u_yy: Tensor) -> Tensor:
    """Return Δu + 1."""
    return u_xx + u_yy + 1.0


def ansatz(x: Tensor, y: Tensor, u: Tensor, intensity: Tensor) -> Tensor:
    """Return u + particular + intensity · singular, so that the network is smooth at the corner."""
    square, angle = polar(x, y)
    return u + particular(square, angle) + intensity * singular(square, angle)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, with the singular parts in an ansatz, or the network alone.

    The boundary values are a condition in both.
    """
    hard = constraints == "hard"
    return Problem(
        name="l_shape",
        domain=Polygon(("x", "y"), CORNERS),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=ansatz if hard else None,
        conditions=[Dirichlet(u=0.0, on="polygon")],
        architecture=lambda seed: MLP([2, 40, 40, 1], seed=seed),
        solution=solution,
        unknowns={"intensity": Unknown(0.0)} if hard else {},
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=600, limit=1000, renewed=50, max_seconds=150.0
    )


@functools.cache
def _coefficients() -> Array:
    """Return the coefficients of the harmonic functions, by least squares on the outer sides."""
    side = np.cos(
        np.pi * (np.arange(400) + 0.5) / 400
    )  # dense at the corners, in (−1, 1)
    half = (side - 1) / 2  # in (−1, 0)
    one = np.ones_like(side)
    # The sides that do not meet the re-entrant corner.
    x = np.concatenate([half, -one, side, one])
    y = np.concatenate([-one, side, one, -half])
    square, angle = _polar(x, y)
    # The maximum principle bounds the error inside by that on the boundary.
    found = np.linalg.lstsq(_harmonics(square, angle), -_particular(square, angle))
    return np.asarray(found[0], dtype=np.float64)


def _polar(x: Array, y: Array) -> tuple[Array, Array]:
    square, angle = polar(torch.from_numpy(x), torch.from_numpy(y))
    return square.numpy(), angle.numpy()


def _particular(square: Array, angle: Array) -> Array:
    return particular(torch.from_numpy(square), torch.from_numpy(angle)).numpy()


def _harmonics(square: Array, angle: Array) -> Array:
    """Return (r/√2)^(2k/3) sin(2kθ/3) for each mode k, (n, modes)."""
    k = np.arange(1, MODES + 1)
    powers = (square[:, None] / 2) ** (k / 3)
    return np.asarray(powers * np.sin(2 * k * angle[:, None] / 3))


def solution(x: Array, y: Array) -> Array:
    """Return the solution as the particular one and harmonic functions fitted on the boundary.

    By the method of particular solutions (Fox, Henrici & Moler, SIAM J. Numer. Anal. 4, 1967).

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> float(solution(np.array([-0.5]), np.array([0.5])).round(4)[0])
    0.1311
    """
    x, y = as_floats(x, y)
    square, angle = _polar(x, y)
    return _particular(square, angle) + _harmonics(square, angle) @ _coefficients()
