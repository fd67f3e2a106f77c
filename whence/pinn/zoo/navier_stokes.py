"""Navier–Stokes: steady flow around a cylinder in a channel at Re = 20 (DFG benchmark 2D-1)."""

from __future__ import annotations

from typing import Literal

from whence.attribution.quantities.functional import Functional
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe, growing_recipe
from whence.pinn.zoo._cylinder_flow import CylinderFlow
from whence.pinn.zoo._cylinder_variants import indicators_of, variants_of
from whence.pinn.zoo._reference_points import Array

REYNOLDS = 20.0
"""By the diameter and the mean speed of the inflow."""
FLOW = CylinderFlow("navier_stokes", diameter=1.0, speed=1.0, viscosity=1 / REYNOLDS)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, whose conditions are soft in either form, a term for each component."""
    return FLOW.problem()


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it."""
    return FLOW.recipe()


def own_network_recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return a way to train the network of its own that serves other problems."""
    return growing_recipe(
        FLOW.problem(), first=300, limit=800, renewed=50, max_seconds=1200.0
    )


VARIANTS = variants_of(FLOW)
INDICATORS = indicators_of(FLOW)


def drag() -> Functional:
    """Return the drag coefficient ``2 F_x``, F the force on the cylinder, all scales being one.

    ``F = ∮ (−p n + ∂(u, v)/∂n / Re) ds`` with n from the cylinder into the flow.

    Examples
    --------
    >>> from whence.pinn.zoo import navier_stokes
    >>> navier_stokes.drag().label()
    'drag'
    """
    return FLOW.drag()


def lift() -> Functional:
    """Return the lift coefficient ``2 F_y``; see :func:`drag`."""
    return FLOW.lift()


def pressure_drop() -> Functional:
    """Return the difference of the pressures at the front and at the back of the cylinder."""
    return FLOW.pressure_drop()


FUNCTIONALS = {"drag": drag(), "lift": lift(), "pressure_drop": pressure_drop()}
"""By the names that ``whence influence RUN --of`` takes."""


def solution(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return u, v and p at places (n,), by finite elements.

    They reproduce the drag of the benchmark, 5.5795 (Nabh 1998), to 2e-6, its lift, 0.01062, to
    3e-4 and its difference of pressures, 2.938, to 4e-4; u, v and p are known to about 1e-4, 4e-4
    and 2e-3 of their norms.
    """
    return FLOW.solution(x, y)
