"""Navier–Stokes: steady flow around a cylinder in a channel at Re = 20 (DFG benchmark 2D-1)."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whence.attribution.quantities.functional import Field, Functional
from whence.pinn.geometry.domain import Rectangle
from whence.pinn.geometry.shapes import Disk
from whence.pinn.networks.mlp import MLP
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._reference_points import Array, as_floats
from whence.pinn.zoo._triangles import TriangleFields

LENGTH = 22.0
"""Of the channel, in diameters of the cylinder."""
WIDTH = 4.1
CENTER = (2.0, 2.0)
RADIUS = 0.5
REYNOLDS = 20.0
"""By the diameter and the mean speed of the inflow."""
SPEED = 1.5
"""Highest speed of the inflow, in units of its mean."""
WALLS = ("y", "cylinder")
CIRCLE_POINTS = 400
"""Points of the integral along the cylinder."""
FILE = Path(__file__).parent / "data" / "navier_stokes.npz"


def continuity(u_x: Tensor, v_y: Tensor) -> Tensor:
    """Return u_x + v_y."""
    return u_x + v_y


def momentum_x(
    u: Tensor, v: Tensor, u_x: Tensor, u_y: Tensor, p_x: Tensor, u_xx: Tensor, u_yy: Tensor
) -> Tensor:  # fmt: skip
    """Return u u_x + v u_y + p_x − Δu/Re."""
    return u * u_x + v * u_y + p_x - (u_xx + u_yy) / REYNOLDS


def momentum_y(
    u: Tensor, v: Tensor, v_x: Tensor, v_y: Tensor, p_y: Tensor, v_xx: Tensor, v_yy: Tensor
) -> Tensor:  # fmt: skip
    """Return u v_x + v v_y + p_y − Δv/Re."""
    return u * v_x + v * v_y + p_y - (v_xx + v_yy) / REYNOLDS


def inflow(y: Tensor) -> Tensor:
    """Return the speed of the inflow, a parabola."""
    return 4 * SPEED * y * (WIDTH - y) / WIDTH**2


def outflow_u(u_x: Tensor, p: Tensor) -> Tensor:
    """Return u_x/Re − p, which vanishes where nothing pulls at the outflow."""
    return u_x / REYNOLDS - p


def outflow_v(v_x: Tensor) -> Tensor:
    """Return v_x/Re."""
    return v_x / REYNOLDS


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, whose conditions are soft in either form, a term for each component."""
    domain = Rectangle(("x", "y"), (0, 0), (LENGTH, WIDTH)) - Disk(
        ("x", "y"), CENTER, RADIUS, name="cylinder"
    )
    return Problem(
        name="navier_stokes",
        domain=domain,
        outputs=("u", "v", "p"),
        equations={
            "continuity": continuity,
            "momentum_x": momentum_x,
            "momentum_y": momentum_y,
        },
        conditions=(
            Dirichlet(u=0.0, on=WALLS, name="noslip_u"),
            Dirichlet(v=0.0, on=WALLS, name="noslip_v"),
            Dirichlet(u=inflow, on="x_min", name="inflow_u"),
            Dirichlet(v=0.0, on="x_min", name="inflow_v"),
            Condition("outflow_u", on="x_max", residual=outflow_u),
            Condition("outflow_v", on="x_max", residual=outflow_v),
        ),
        architecture=lambda seed: MLP(
            [2, 64, 64, 64, 3],
            bounds=[[0.0, 0.0], [LENGTH, WIDTH]],
            scale_to=(0, 1),
            seed=seed,
        ),
        solution=solution,
    )


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return a way to train it that serves other problems; here its error is not measured yet."""
    return growing_recipe(
        problem(constraints), first=300, limit=800, renewed=50, max_seconds=1200.0
    )


# --- what engineers ask for ----------------------------------------------------------------------


def drag() -> Functional:
    """Return the drag coefficient ``2 F_x``, F the force on the cylinder, all scales being one.

    ``F = ∮ (−p n + ∂(u, v)/∂n / Re) ds`` with n from the cylinder into the flow; the midpoint rule
    on a circle is exact to rounding for what is smooth.

    Examples
    --------
    >>> from whence.pinn.zoo import navier_stokes
    >>> navier_stokes.drag().label()
    'drag'
    """
    return Functional(lambda field: 2 * _force(field, 0), name="drag")


def lift() -> Functional:
    """Return the lift coefficient ``2 F_y``; see :func:`drag`."""
    return Functional(lambda field: 2 * _force(field, 1), name="lift")


def pressure_drop() -> Functional:
    """Return the difference of the pressures at the front and at the back of the cylinder."""
    x, y = CENTER
    ends = torch.tensor([[x - RADIUS, y], [x + RADIUS, y]], dtype=torch.float64)

    def difference(field: Field) -> Tensor:
        front, back = field("p", ends)
        return front - back

    return Functional(difference, name="pressure drop")


def _force(field: Field, direction: int) -> Tensor:
    """Return one component of the force on the cylinder."""
    turns = (torch.arange(CIRCLE_POINTS, dtype=torch.float64) + 0.5) / CIRCLE_POINTS
    angle = 2 * math.pi * turns
    normal = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    places = torch.tensor(CENTER, dtype=torch.float64) + RADIUS * normal

    speed = "uv"[direction]
    slope_x = field(f"{speed}_x", places)
    slope_y = field(f"{speed}_y", places)
    along_normal = slope_x * normal[:, 0] + slope_y * normal[:, 1]
    pressure = field("p", places)
    traction = along_normal / REYNOLDS - pressure * normal[:, direction]
    return 2 * math.pi * RADIUS * traction.mean()


# --- the reference -------------------------------------------------------------------------------


@functools.cache
def _reference() -> TriangleFields:
    """Return finite elements of second order: benchmarks/references/navier_stokes.py makes them."""
    with np.load(FILE, allow_pickle=False) as data:
        places = data["places"].astype(np.float64)
        values = data["values"].astype(np.float64)
        triangles = data["triangles"].astype(np.int64)
    return TriangleFields(places, triangles, values)


def solution(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return u, v and p at places (n,), by finite elements.

    They reproduce the drag of the benchmark, 5.5795 (Nabh 1998), to 2e-6, its lift, 0.01062, to
    3e-4 and its difference of pressures, 2.938, to 4e-4; u, v and p are known to about 1e-4, 4e-4
    and 2e-3 of their norms.
    """
    x, y = as_floats(x, y)
    u, v, p = _reference().at(np.stack([x, y], axis=1)).T
    return u, v, p
