"""Lid-driven cavity: steady flow in [0, 1]² at Re = 100, the lid y = 1 moves by 16 x²(1 − x)²."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev
from torch import Tensor

from whence.pinn.geometry.domain import Rectangle
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats

VISCOSITY = 0.01
DEGREE = 36
"""Degree of the polynomials of the reference solution, along each coordinate."""
NEWTON_STEPS = 12
SCALE = 0.1
"""Size of the stream function, by which residuals and the network are multiplied."""


def equation(
    psi_x: Tensor,
    psi_y: Tensor,
    psi_xxx: Tensor,
    psi_xxy: Tensor,
    psi_xyy: Tensor,
    psi_yyy: Tensor,
    psi_xxxx: Tensor,
    psi_xxyy: Tensor,
    psi_yyyy: Tensor,
) -> Tensor:
    """Return u ω_x + v ω_y − ν Δω of the vorticity ω = −Δψ, with u = ψ_y and v = −ψ_x."""
    vorticity_x = -(psi_xxx + psi_xyy)
    vorticity_y = -(psi_xxy + psi_yyy)
    carried = psi_y * vorticity_x - psi_x * vorticity_y

    # Δω = −ΔΔψ
    diffused = -(psi_xxxx + 2 * psi_xxyy + psi_yyyy)
    return carried - VISCOSITY * diffused


def lid(x: Tensor) -> Tensor:
    """Return the lid's speed 16 x²(1 − x)²."""
    return 16 * x**2 * (1 - x) ** 2


def ansatz(x: Tensor, y: Tensor, psi: Tensor) -> Tensor:
    """Return lid(x) (y³ − y²) + 16 (x y (1 − x) (1 − y))² ψ, with the speeds of all walls."""
    walls = x * (1 - x) * y * (1 - y)
    return lid(x) * (y**3 - y**2) + 16 * walls**2 * psi


def at_wall(psi: Tensor, psi_x: Tensor, psi_y: Tensor) -> tuple[Tensor, ...]:
    """Return ψ and its slopes, which vanish at a wall at rest."""
    return psi, psi_x, psi_y


def at_lid(psi: Tensor, psi_x: Tensor, psi_y: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Return the same at the lid, where ψ_y is its speed."""
    return psi, psi_x, psi_y - lid(x)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem for the stream function ψ with hard or soft constraints."""
    conditions = [
        Condition("walls", on=("x", "y_min"), residual=at_wall),
        Condition("lid", on="y_max", residual=at_lid),
    ]
    transform = None
    if constraints == "hard":
        transform = ansatz
        conditions = []

    return Problem(
        name="lid_driven_cavity",
        domain=Rectangle(("x", "y"), (0, 0), (1, 1)),
        outputs=("psi",),
        equations={"vorticity": equation},
        ansatz=transform,
        conditions=conditions,
        architecture=lambda seed: MLP(
            [2, 30, 30, 1],
            bounds=[[0.0, 0.0], [1.0, 1.0]],
            seed=seed,
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return growing_recipe(
        problem(constraints), first=400, limit=800, renewed=50, max_seconds=200.0
    )


# --- the reference: Chebyshev collocation and Newton's method -----------------------------------


def _derivatives(nodes: Array) -> list[Array]:
    """Return the matrices of the derivatives 0 to 4 of (1 − s²)² q(s) for q at nodes in (−1, 1).

    The factor makes value and slope vanish at both ends, as in Trefethen, Spectral Methods in
    MATLAB, 2000, program 38, for polynomials through the inner nodes.
    """
    degree = len(nodes) - 1
    values = chebyshev.chebvander(nodes, degree)
    to_coefficients = np.linalg.inv(values)
    # (1 − s²)² = 1 − 2 s² + s⁴ in Chebyshev's polynomials.
    factor = chebyshev.poly2cheb([1.0, 0.0, -2.0, 0.0, 1.0])

    matrices = []
    for order in range(5):
        columns = []
        for k in range(degree + 1):
            unit = np.zeros(degree + 1)
            unit[k] = 1.0
            product = chebyshev.chebmul(factor, unit)
            derived = chebyshev.chebder(product, order)
            columns.append(chebyshev.chebval(nodes, derived))

        # Values at the nodes → coefficients of q → derivatives at the nodes.
        matrix = np.stack(columns, axis=1) @ to_coefficients
        matrices.append(np.asarray(matrix, dtype=np.float64))

    return matrices


def _affine_derivatives(nodes: Array) -> dict[str, tuple[Array, Array]]:
    """Return A and b with ψ's derivative ``A q + b`` at pairs of nodes, by name.

    ψ = lift + (1 − s²)²(1 − t²)² q, (n², n²) and (n²,) for q at the n² pairs of nodes.
    """
    place = (1 + nodes) / 2
    # x = (1 + s)/2, so that each derivative by x is twice that by s.
    along = []
    for order, derivative in enumerate(_derivatives(nodes)):
        along.append(2.0**order * derivative)

    # The lift 16 x²(1 − x)² (y³ − y²) has the speeds of all walls.
    lift = np.polynomial.Polynomial([0, 0, 16, -32, 16])
    rise = np.polynomial.Polynomial([0, 0, -1, 1])

    orders = {
        "x": (1, 0), "y": (0, 1), "xxx": (3, 0), "xxy": (2, 1), "xyy": (1, 2),
        "yyy": (0, 3), "xxxx": (4, 0), "xxyy": (2, 2), "yyyy": (0, 4),
    }  # fmt: skip
    derivatives = {}
    for name, (order_x, order_y) in orders.items():
        matrix = np.kron(along[order_x], along[order_y])
        # deriv(0) is the polynomial itself.
        lift_x = lift.deriv(order_x)
        rise_y = rise.deriv(order_y)
        offset = np.kron(lift_x(place), rise_y(place))
        derivatives[name] = (np.asarray(matrix), np.asarray(offset))

    return derivatives


@functools.cache
def _coefficients() -> Array:
    """Return the Chebyshev coefficients of q, ψ = lift + (1 − s²)²(1 − t²)² q on [−1, 1]²."""
    turns = (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1)
    nodes = np.asarray(np.cos(np.pi * turns), dtype=np.float64)
    n = len(nodes)

    derivatives = _affine_derivatives(nodes)
    matrices = {name: matrix for name, (matrix, _) in derivatives.items()}
    # ∂_x Δ, ∂_y Δ and Δ Δ.
    curls_x = matrices["xxx"] + matrices["xyy"]
    curls_y = matrices["xxy"] + matrices["yyy"]
    biharmonics = matrices["xxxx"] + 2 * matrices["xxyy"] + matrices["yyyy"]

    q = np.zeros(n * n)
    for _ in range(NEWTON_STEPS):
        value = {}
        for name, (matrix, offset) in derivatives.items():
            value[name] = matrix @ q + offset

        # ψ_x Δψ_y − ψ_y Δψ_x + ν ΔΔψ
        curl_x = value["xxx"] + value["xyy"]
        curl_y = value["xxy"] + value["yyy"]
        biharmonic = value["xxxx"] + 2 * value["xxyy"] + value["yyyy"]
        residual = value["x"] * curl_y - value["y"] * curl_x
        residual += VISCOSITY * biharmonic

        # Each product by the rule of Leibniz.
        jacobian = curl_y[:, None] * matrices["x"]
        jacobian -= curl_x[:, None] * matrices["y"]
        jacobian += value["x"][:, None] * curls_y
        jacobian -= value["y"][:, None] * curls_x
        jacobian += VISCOSITY * biharmonics

        step = np.linalg.solve(jacobian, residual)
        q -= step
        if np.abs(step).max() < 1e-12:
            break

    values = chebyshev.chebvander(nodes, DEGREE)
    to_coefficients = np.linalg.inv(values)
    table = q.reshape(n, n)
    return np.asarray(to_coefficients @ table @ to_coefficients.T)


def solution(x: Array, y: Array) -> Array:
    """Return the stream function by Chebyshev collocation of degree 36 and Newton's method.

    Source of the problem: Shen, J. Comput. Phys. 95, 1991: the lid's speed vanishes with its
    slope in the corners, so that the flow is smooth.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Places.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> float(solution(np.array([0.5]), np.array([1.0])).round(9)[0])
    0.0
    """
    x, y = as_floats(x, y)
    lift = 16 * x**2 * (1 - x) ** 2 * (y**3 - y**2)

    # From [0, 1] to [−1, 1].
    s = 2 * x - 1
    t = 2 * y - 1
    inner = (1 - s**2) ** 2 * (1 - t**2) ** 2
    q = chebyshev.chebval2d(s, t, _coefficients())
    return np.asarray(lift + inner * q)
