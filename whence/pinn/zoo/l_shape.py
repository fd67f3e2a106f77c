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
from whence.pinn.optimizers.gauss_newton import GaussNewton
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.unknowns import Unknown
from whence.pinn.training.recipe import Recipe
from whence.pinn.zoo._reference_points import Array, as_floats

CORNERS = ((0, 0), (0, -1), (-1, -1), (-1, 1), (1, 1), (1, 0))
"""Corners, the re-entrant one first, at the origin."""
STARTS = (0.0, 0.5, 0.0, -0.5, 1.0, 0.5)
"""Direction of the side at each corner from which its angle is counted, in units of π."""
OPENINGS = (1.5, 0.5, 0.5, 0.5, 0.5, 0.5)
"""Angle inside each corner, in units of π."""
MODES = 30
"""Harmonic functions of each kind in the reference solution."""
TINY = 1e-30
"""What is added to r², so that logarithms are finite at the corner itself."""

# With θ from a side of a corner of angle ω, −Δu = 1 has there the solution
#     u = −r²/4 + r² cos 2θ/4 + b r² (log r sin 2θ + θ cos 2θ),
# zero at θ = 0, and at θ = ω where −1/2 = b ω, as cos 2ω = −1 for ω = π/2 and 3π/2: b = −1/(2ω).
# The last part is harmonic, and singular at the corner alone: taking it out at every corner leaves
# a smooth function and, at the re-entrant corner, c r^(2/3) sin(2θ/3) with an unknown c (Grisvard,
# Elliptic Problems in Nonsmooth Domains, 1985).


def polar(x: Tensor, y: Tensor, corner: int) -> tuple[Tensor, Tensor]:
    """Return r² and the angle θ inside a corner, from its first side."""
    opening = math.pi * OPENINGS[corner]
    bisector = math.pi * STARTS[corner] + opening / 2
    cosine = math.cos(bisector)
    sine = math.sin(bisector)

    # From the corner, along its bisector and across it.
    at_x, at_y = CORNERS[corner]
    from_x = x - at_x
    from_y = y - at_y
    along = from_x * cosine + from_y * sine
    across = from_y * cosine - from_x * sine
    square = from_x**2 + from_y**2 + TINY

    # From the bisector the angle is twice atan(across/(r + along)), smooth all over the domain.
    radius = torch.sqrt(square)
    half = torch.atan(across / (radius + along))
    angle = 2 * half + opening / 2
    return square, angle


def known(x: Tensor, y: Tensor) -> Tensor:
    """Return the known part: it solves −Δu = 1 and has the logarithms of all corners."""
    # −r²/4 + r² cos 2θ/4
    square, angle = polar(x, y, 0)
    cosine = torch.cos(2 * angle)
    total = 0.25 * square * (cosine - 1)

    for corner, opening in enumerate(OPENINGS):
        square, angle = polar(x, y, corner)
        sine = torch.sin(2 * angle)
        cosine = torch.cos(2 * angle)
        # r² log r = r² log(r²)/2
        logarithm = 0.5 * torch.log(square)
        wave = logarithm * sine + angle * cosine
        # b = −1/(2ω)
        total = total - square * wave / (2 * math.pi * opening)

    return total


def singular(x: Tensor, y: Tensor) -> Tensor:
    """Return r^(2/3) sin(2θ/3), what makes the gradient infinite at the corner."""
    square, angle = polar(x, y, 0)
    # (r²)^(1/3)
    radial = square ** (1 / 3)
    angular = torch.sin(2 * angle / 3)
    return radial * angular


def equation(u_xx: Tensor, u_yy: Tensor) -> Tensor:
    """Return Δu + 1."""
    return u_xx + u_yy + 1.0


def ansatz(x: Tensor, y: Tensor, u: Tensor, intensity: Tensor) -> Tensor:
    """Return u + known + intensity · singular, so that the network is smooth at every corner."""
    infinite = intensity * singular(x, y)
    return u + known(x, y) + infinite


def on_boundary(u: Tensor) -> Tensor:
    """Return 10 u: an error of the boundary values is one of u, one of Δu about a tenth of that."""
    return 10 * u


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, with the singular parts in an ansatz, or the network alone.

    The boundary values are a condition in both.
    """
    transform = None
    unknowns = {}
    if constraints == "hard":
        transform = ansatz
        unknowns = {"intensity": Unknown(0.0)}

    return Problem(
        name="l_shape",
        domain=Polygon(("x", "y"), CORNERS),
        outputs=("u",),
        equations={"pde": equation},
        ansatz=transform,
        conditions=[Condition("boundary", on="polygon", residual=on_boundary)],
        architecture=lambda seed: MLP(
            [2, 30, 30, 1], bounds=[[-1.0, -1.0], [1.0, 1.0]], seed=seed
        ),
        solution=solution,
        unknowns=unknowns,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    points = {"pde": 400, "boundary": 160}
    return Recipe(points, (GaussNewton(3000),), None, max_seconds=120.0)


@functools.cache
def _coefficients() -> Array:
    """Return the coefficients of the harmonic functions, by least squares on the boundary."""
    # Dense towards the corners, along each side from corner to corner.
    turns = (np.arange(200) + 0.5) / 200
    share = (1 - np.cos(np.pi * turns)) / 2

    corners = np.array(CORNERS, dtype=np.float64)
    ends = np.roll(corners, -1, axis=0)
    steps = share[:, None] * (ends - corners)[:, None]
    sides = corners[:, None] + steps
    x, y = sides.reshape(-1, 2).T

    # The maximum principle bounds the error inside by that on the boundary.
    harmonics = _harmonics(x, y)
    coefficients, *_ = np.linalg.lstsq(harmonics, -_known(x, y))
    return np.asarray(coefficients, dtype=np.float64)


def _known(x: Array, y: Array) -> Array:
    values = known(torch.from_numpy(x), torch.from_numpy(y))
    return np.asarray(values.numpy())


def _harmonics(x: Array, y: Array) -> Array:
    """Return r^(2k/3) sin(2kθ/3) and real and imaginary part of (x + iy)^m, (n, functions)."""
    tensors = polar(torch.from_numpy(x), torch.from_numpy(y), 0)
    square, angle = (tensor.numpy() for tensor in tensors)
    # In units of √2, the farthest corner, so that no power is large.
    k = np.arange(1, MODES + 1)
    radial = (square[:, None] / 2) ** (k / 3)
    angular = np.sin(2 * k * angle[:, None] / 3)
    waves = radial * angular

    z = (x + 1j * y) / np.sqrt(2)
    powers = z[:, None] ** np.arange(MODES)
    # The imaginary part of z⁰ is zero.
    imaginary = powers.imag[:, 1:]
    parts = [waves, powers.real, imaginary]
    return np.concatenate(parts, axis=1)


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
    harmonic = _harmonics(x, y) @ _coefficients()
    return np.asarray(_known(x, y) + harmonic)
