"""Wrong flows around a cylinder, on purpose, and the indicators that suit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from whence.diagnosis.indicators.base import Indicator
from whence.diagnosis.indicators.directional import Directional
from whence.diagnosis.indicators.region import Region
from whence.pinn.geometry.shapes import Disk
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.variant import Variant
from whence.pinn.zoo._cylinder_flow import CENTER, RADIUS, CylinderFlow

AROUND = 1.5
"""Radius of what counts as the cylinder's surroundings, in its radii."""
POOR_FEATURES = 500
POOR_POINTS = 600
"""Features and points of the variant that is trained poorly."""
THICKER = 4.0
"""Factor of a viscosity that is wrong."""


def variants_of(flow: CylinderFlow) -> dict[str, Variant]:
    """Return variants of the flow by name: one trained poorly, others of a wrong model."""
    thick = replace(flow, viscosity=THICKER * flow.viscosity)

    def without_u_u_x(
        v: Tensor, u_y: Tensor, p_x: Tensor, u_xx: Tensor, u_yy: Tensor
    ) -> Tensor:
        return v * u_y + p_x - flow.viscosity * (u_xx + u_yy)

    def pulled_up(
        u: Tensor,
        v: Tensor,
        v_x: Tensor,
        v_y: Tensor,
        p_y: Tensor,
        v_xx: Tensor,
        v_yy: Tensor,
    ) -> Tensor:
        return u * v_x + v * v_y - p_y - flow.viscosity * (v_xx + v_yy)

    few = f"{POOR_POINTS} points and {POOR_FEATURES} features, spread evenly"
    return {
        "bad": Variant(
            f"trained poorly: {few}",
            recipe=lambda problem: flow.even_recipe(POOR_FEATURES, POOR_POINTS),
        ),
        "broken": Variant(
            "the momentum along x lacks u u_x",
            lambda problem: _with_equations(problem, momentum_x=without_u_u_x),
        ),
        "wrong_viscosity": Variant(
            f"{THICKER:g} times the viscosity in both equations of momentum",
            lambda problem: _with_equations(
                problem, momentum_x=thick.momentum_x, momentum_y=thick.momentum_y
            ),
        ),
        "wrong_sign": Variant(
            "p_y of the other sign in the momentum along y",
            lambda problem: _with_equations(problem, momentum_y=pulled_up),
        ),
        "missing_wall": Variant(
            "nothing holds at the upper wall",
            lambda problem: _with_conditions(
                problem,
                Dirichlet(u=0.0, on=("y_min", "cylinder"), name="noslip_u"),
                Dirichlet(v=0.0, on=("y_min", "cylinder"), name="noslip_v"),
            ),
        ),
        "swapped_boundary": Variant(
            "the inflow holds at the end of the channel, the outflow at its start",
            lambda problem: _with_conditions(
                problem,
                Dirichlet(u=flow.inflow, on="x_max", name="inflow_u"),
                Dirichlet(v=0.0, on="x_max", name="inflow_v"),
                Condition("outflow_u", on="x_min", residual=flow.outflow_u),
                Condition("outflow_v", on="x_min", residual=flow.outflow_v),
            ),
        ),
    }


def _with_equations(problem: Problem, **changed: Callable[..., Tensor]) -> Problem:
    """Return the problem with other equations in place of those of the same names."""
    equations = dict(problem.equations)
    equations.update(changed)
    return replace(problem, equations=equations)


def _with_conditions(problem: Problem, *changed: Condition) -> Problem:
    """Return the problem with other conditions in place of those of the same names."""
    conditions = {condition.name: condition for condition in problem.conditions}
    for condition in changed:
        conditions[condition.name] = condition
    return replace(problem, conditions=tuple(conditions.values()))


def indicators_of(flow: CylinderFlow) -> dict[str, Indicator]:
    """Return what tells sound flows from others: where they come from, and the obstacle."""
    d = flow.diameter
    surroundings = Disk(("x", "y"), (CENTER * d, CENTER * d), AROUND * RADIUS * d)
    return {
        "upstream": Directional((1.0, 0.0)),
        "cylinder": Region(surroundings, "surroundings of the cylinder"),
    }
