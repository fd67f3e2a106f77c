"""Navier–Stokes: the same flow around a cylinder in metres and seconds, as DFG states it."""

from __future__ import annotations

from typing import Literal

from whence.attribution.quantities.functional import Functional
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe
from whence.pinn.zoo._cylinder_flow import CylinderFlow
from whence.pinn.zoo._cylinder_variants import indicators_of, variants_of
from whence.pinn.zoo._reference_points import Array

FLOW = CylinderFlow(
    "navier_stokes_dimensional", diameter=0.1, speed=0.2, viscosity=1e-3
)


def problem(constraints: Literal["hard", "soft"] = "hard") -> Problem:
    """Return the problem, whose conditions are soft in either form, a term for each component."""
    return FLOW.problem()


def recipe(constraints: Literal["hard", "soft"] = "hard") -> Recipe:
    """Return the best known way to train it, whose weights take the units away."""
    return FLOW.recipe()


VARIANTS = variants_of(FLOW)
INDICATORS = indicators_of(FLOW)


def drag() -> Functional:
    """Return the drag coefficient ``2 F_x/(U² D)``, F the force on the cylinder.

    Examples
    --------
    >>> from whence.pinn.zoo import navier_stokes_dimensional
    >>> navier_stokes_dimensional.drag().label()
    'drag'
    """
    return FLOW.drag()


def lift() -> Functional:
    """Return the lift coefficient ``2 F_y/(U² D)``."""
    return FLOW.lift()


def pressure_drop() -> Functional:
    """Return the difference of the pressures at the front and at the back of the cylinder."""
    return FLOW.pressure_drop()


FUNCTIONALS = {"drag": drag(), "lift": lift(), "pressure_drop": pressure_drop()}
"""By the names that ``whence influence RUN --of`` takes."""


def solution(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return u, v and p at places (n,) by finite elements: 0.1 m, 0.2 m/s and 1e-3 m²/s."""
    return FLOW.solution(x, y)
