"""The flow around a cylinder in a channel, in any units: equations, reference, forces, features."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence.attribution.quantities.functional import Field, Functional
from whence.pinn.geometry.base import Domain
from whence.pinn.geometry.domain import Rectangle
from whence.pinn.geometry.graded import Spacing, graded
from whence.pinn.geometry.shapes import Disk
from whence.pinn.networks.mlp import MLP
from whence.pinn.networks.radial_features import RadialFeatures
from whence.pinn.optimizers.varpro import VarPro
from whence.pinn.pde.conditions import Condition, Dirichlet
from whence.pinn.pde.problem import Problem
from whence.pinn.training.recipe import Recipe
from whence.pinn.zoo._reference_points import Array, as_floats
from whence.pinn.zoo._triangles import TriangleFields

# In diameters of the cylinder.
LENGTH = 22.0
WIDTH = 4.1
CENTER = 2.0
"""Of the cylinder, along either coordinate."""
RADIUS = 0.5
CREST = 1.5
"""Highest speed of the inflow, in units of its mean."""

WALLS = ("y", "cylinder")
CONDITIONS = (
    "noslip_u", "noslip_v", "inflow_u", "inflow_v", "outflow_u", "outflow_v"
)  # fmt: skip
CIRCLE_POINTS = 400
"""Points of the integral along the cylinder."""
FILE = Path(__file__).parent / "data" / "navier_stokes.npz"

FEATURES = 1200
"""Features of the recipe."""
PINNED = 2500
"""Points of each equation that are dense where features are, and stay."""
OVERLAP = 2.5
"""Width of a feature, in units of the distance to the next."""
BEYOND = 0.5
"""How far features go beyond the channel's walls, in diameters."""
INTO = 0.12
"""How far they go into the cylinder."""
EDGE = {"x": 60, "y": 200, "cylinder": 200}
"""Points of the equations on each edge, by the coordinate that is fixed there."""

# How far apart they are: least near the cylinder, growing with the distance from it.
NEAREST = 0.03
GROWTH = 0.15
FARTHEST = 0.4

CONTINUITY_WEIGHT = 100.0
CONDITION_WEIGHT = 1000.0


@dataclass(frozen=True)
class CylinderFlow:
    """The DFG benchmark 2D-1 at Re = 20, in units in which its numbers are these.

    Parameters
    ----------
    name:
        Of the problem.
    diameter:
        Of the cylinder.
    speed:
        Mean speed of the inflow.
    viscosity:
        Kinematic, the density being one.
    """

    name: str
    diameter: float
    speed: float
    viscosity: float

    # --- the problem ---

    def domain(self) -> Domain:
        """Return the channel without the cylinder."""
        d = self.diameter
        channel = Rectangle(("x", "y"), (0, 0), (LENGTH * d, WIDTH * d))
        center = (CENTER * d, CENTER * d)
        return channel - Disk(("x", "y"), center, RADIUS * d, name="cylinder")

    def continuity(self, u_x: Tensor, v_y: Tensor) -> Tensor:
        """Return u_x + v_y."""
        return u_x + v_y

    def momentum_x(
        self,
        u: Tensor,
        v: Tensor,
        u_x: Tensor,
        u_y: Tensor,
        p_x: Tensor,
        u_xx: Tensor,
        u_yy: Tensor,
    ) -> Tensor:
        """Return u u_x + v u_y + p_x − ν Δu."""
        return u * u_x + v * u_y + p_x - self.viscosity * (u_xx + u_yy)

    def momentum_y(
        self,
        u: Tensor,
        v: Tensor,
        v_x: Tensor,
        v_y: Tensor,
        p_y: Tensor,
        v_xx: Tensor,
        v_yy: Tensor,
    ) -> Tensor:
        """Return u v_x + v v_y + p_y − ν Δv."""
        return u * v_x + v * v_y + p_y - self.viscosity * (v_xx + v_yy)

    def inflow(self, y: Tensor) -> Tensor:
        """Return the speed of the inflow, a parabola."""
        width = WIDTH * self.diameter
        return 4 * CREST * self.speed * y * (width - y) / width**2

    def outflow_u(self, u_x: Tensor, p: Tensor) -> Tensor:
        """Return ν u_x − p, which vanishes where nothing pulls at the outflow."""
        return self.viscosity * u_x - p

    def outflow_v(self, v_x: Tensor) -> Tensor:
        """Return ν v_x."""
        return self.viscosity * v_x

    def problem(self) -> Problem:
        """Return the problem, a term for each component of equations and conditions."""
        domain = self.domain()
        bounds = domain.bounds.tolist()
        return Problem(
            name=self.name,
            domain=domain,
            outputs=("u", "v", "p"),
            equations={
                "continuity": self.continuity,
                "momentum_x": self.momentum_x,
                "momentum_y": self.momentum_y,
            },
            conditions=(
                Dirichlet(u=0.0, on=WALLS, name="noslip_u"),
                Dirichlet(v=0.0, on=WALLS, name="noslip_v"),
                Dirichlet(u=self.inflow, on="x_min", name="inflow_u"),
                Dirichlet(v=0.0, on="x_min", name="inflow_v"),
                Condition("outflow_u", on="x_max", residual=self.outflow_u),
                Condition("outflow_v", on="x_max", residual=self.outflow_v),
            ),
            architecture=lambda seed: MLP(
                [2, 64, 64, 64, 3], bounds=bounds, scale_to=(0, 1), seed=seed
            ),
            solution=self.solution,
        )

    def solution(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return u, v and p at places (n,), by finite elements."""
        x, y = as_floats(x, y)
        places = np.stack([x, y], axis=1) / self.diameter
        u, v, p = _reference().at(places).T
        return self.speed * u, self.speed * v, self.speed**2 * p

    # --- what engineers ask for ---

    def drag(self) -> Functional:
        """Return the drag coefficient ``2 F_x/(U² D)``, F the force on the cylinder."""
        return Functional(lambda field: self._coefficient(field, 0), name="drag")

    def lift(self) -> Functional:
        """Return the lift coefficient ``2 F_y/(U² D)``."""
        return Functional(lambda field: self._coefficient(field, 1), name="lift")

    def pressure_drop(self) -> Functional:
        """Return the difference of the pressures at the front and at the back of the cylinder."""
        d = self.diameter
        front = [(CENTER - RADIUS) * d, CENTER * d]
        back = [(CENTER + RADIUS) * d, CENTER * d]
        ends = torch.tensor([front, back], dtype=torch.float64)

        def difference(field: Field) -> Tensor:
            at_front, at_back = field("p", ends)
            return at_front - at_back

        return Functional(difference, name="pressure drop")

    def _coefficient(self, field: Field, direction: int) -> Tensor:
        """Return ``2 F/(U² D)`` along a direction, ``F = ∮ (−p n + ν ∂(u, v)/∂n) ds``.

        n is from the cylinder into the flow. The midpoint rule on a circle is exact to rounding
        for what is smooth.
        """
        normal = circle(CIRCLE_POINTS)
        radius = RADIUS * self.diameter
        places = CENTER * self.diameter + radius * normal

        speed = "uv"[direction]
        slope_x = field(f"{speed}_x", places)
        slope_y = field(f"{speed}_y", places)
        along_normal = slope_x * normal[:, 0] + slope_y * normal[:, 1]
        pressure = field("p", places)
        traction = self.viscosity * along_normal - pressure * normal[:, direction]
        force = 2 * math.pi * radius * traction.mean()
        return 2 * force / (self.speed**2 * self.diameter)

    # --- how it is trained ---

    def spacing(self, points: Tensor) -> Tensor:
        """Return how far features and points are apart at points (n, 2), in diameters."""
        from_center = points / self.diameter - CENTER
        distance = from_center.norm(dim=1) - RADIUS
        grown = NEAREST + GROWTH * distance.clamp_min(0)
        return grown.clamp_max(FARTHEST)

    def even(self, points: Tensor) -> Tensor:
        """Return a spacing that is the same everywhere."""
        return torch.ones(len(points), dtype=torch.float64)

    def features(
        self, seed: int, n: int = FEATURES, spacing: Spacing | None = None
    ) -> RadialFeatures:
        """Return Gaussians that are dense around the cylinder, each as wide as the next are far."""
        d = self.diameter
        beyond = BEYOND * d
        highest = (LENGTH * d + beyond, WIDTH * d + beyond)
        room = Rectangle(("x", "y"), (-beyond, -beyond), highest)
        hole = Disk(("x", "y"), (CENTER * d, CENTER * d), (RADIUS - INTO) * d)
        centers, distances = graded(room - hole, n, spacing or self.spacing, seed)

        bounds = self.domain().bounds.tolist()
        gaussians = RadialFeatures([2, n, 3], bounds=bounds, seed=seed)
        gaussians.set_at(centers, OVERLAP * distances)
        return gaussians

    def recipe(self) -> Recipe:
        """Return the best known way to train it: features and points graded alike."""
        points = dict.fromkeys(("continuity", "momentum_x", "momentum_y"), 500)
        points |= dict.fromkeys(("noslip_u", "noslip_v"), 300)
        points |= dict.fromkeys(("inflow_u", "inflow_v", "outflow_u", "outflow_v"), 80)

        edges = self.edges()
        round_cylinder = edges["cylinder"]
        everywhere = torch.cat([inner_points(self), *edges.values()])
        stay = dict.fromkeys(("continuity", "momentum_x", "momentum_y"), everywhere)
        stay |= dict.fromkeys(("noslip_u", "noslip_v"), round_cylinder)

        return Recipe(
            points=points,
            schedule=(VarPro(15),),
            resample=None,
            max_seconds=None,
            network=self.features,
            weights=self.weights(),
            pinned=stay,
        )

    def even_recipe(self, features: int, points: int) -> Recipe:
        """Return a recipe of evenly spread features and points, which does badly."""
        counts = dict.fromkeys(("continuity", "momentum_x", "momentum_y"), points)
        for name in CONDITIONS:
            counts[name] = points // 4
        return Recipe(
            points=counts,
            schedule=(VarPro(15),),
            resample=None,
            max_seconds=None,
            network=functools.partial(self.features, n=features, spacing=self.even),
            weights=self.weights(),
        )

    def weights(self) -> dict[str, float]:
        """Return the weights of the recipe, which are those of residuals without units."""
        # u_x in units of U/D, u u_x in units of U²/D, p in units of U².
        carried = self.speed**2 / self.diameter
        weights = {
            "continuity": CONTINUITY_WEIGHT * (self.diameter / self.speed) ** 2,
            "momentum_x": carried**-2,
            "momentum_y": carried**-2,
        }
        for name in ("noslip_u", "noslip_v", "inflow_u", "inflow_v"):
            weights[name] = CONDITION_WEIGHT / self.speed**2
        for name in ("outflow_u", "outflow_v"):
            weights[name] = CONDITION_WEIGHT / self.speed**4
        return weights

    def edges(self) -> dict[str, Tensor]:
        """Return points on the walls and around the cylinder, none of them twice."""
        d = self.diameter
        along_x = LENGTH * d * midpoints(EDGE["y"])
        along_y = WIDTH * d * midpoints(EDGE["x"])
        low_x = torch.zeros_like(along_y)
        low_y = torch.zeros_like(along_x)
        sides = [
            torch.stack([along_x, low_y], dim=1),
            torch.stack([along_x, low_y + WIDTH * d], dim=1),
            torch.stack([low_x, along_y], dim=1),
            torch.stack([low_x + LENGTH * d, along_y], dim=1),
        ]
        around = CENTER * d + RADIUS * d * circle(EDGE["cylinder"])
        return {"walls": torch.cat(sides), "cylinder": around}


def midpoints(n: int) -> Tensor:
    """Return the middles of n equal parts of [0, 1]."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def circle(n: int) -> Tensor:
    """Return n points around the unit circle, (n, 2)."""
    angle = 2 * math.pi * midpoints(n)
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)


@functools.cache
def inner_points(flow: CylinderFlow) -> Tensor:
    """Return the points of the equations inside the channel; to space them takes a second."""
    points, _ = graded(flow.domain(), PINNED, flow.spacing)
    return points


@functools.cache
def _reference() -> TriangleFields:
    """Return finite elements of second order: benchmarks/references/navier_stokes.py makes them."""
    with np.load(FILE, allow_pickle=False) as data:
        places = data["places"].astype(np.float64)
        values = data["values"].astype(np.float64)
        triangles = data["triangles"].astype(np.int64)
    return TriangleFields(places, triangles, values)
