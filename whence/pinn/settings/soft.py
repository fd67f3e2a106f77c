"""Networks to explain, trained well and trained poorly (arXiv 2409.08958, ICML 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from whence import _checks
from whence.catalogue import SETTINGS
from whence.pinn.optimizers.adam import Adam
from whence.pinn.optimizers.lbfgs import LBFGS
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.problem import Problem
from whence.pinn.settings.base import points_by_term
from whence.pinn.training.pinned import Pinned
from whence.pinn.training.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """A row of the published table: points of each kind, steps of each optimizer."""

    domain: int
    initial: int
    boundary: int
    adam: int
    lbfgs: int
    pinned: Pinned | None = None
    """Points that are trained on whatever the others are."""

    def text(self) -> str:
        """Return the numbers in words."""
        counts = {
            "of the equation": self.domain,
            "of the start": self.initial,
            "of the boundary": self.boundary,
        }
        # A steady problem has no start, and some schedules no L-BFGS.
        points = [f"{count} {place}" for place, count in counts.items() if count]
        after = f", then {self.lbfgs} of L-BFGS" if self.lbfgs else " and no L-BFGS"
        return f"points {', '.join(points)}; {self.adam} steps of Adam{after}"

    def recipe(self, problem: Problem) -> Recipe:
        """Return the recipe of these numbers, which keeps its points."""
        schedule: tuple[Optimizer, ...] = (Adam(self.adam, lr=1e-3),)
        if self.lbfgs:
            schedule += (LBFGS(self.lbfgs),)

        points = points_by_term(problem, self.domain, self.initial, self.boundary)
        return Recipe(
            points=points,
            schedule=schedule,
            resample=None,
            max_seconds=None,
            keep="last",
            pinned=self.pinned,
        )


CENTER = {"pde": ((0.0, 0.0),)}
"""The center of the source on the disk."""

GOOD = {
    "allen_cahn": Row(2500, 500, 500, adam=100_000, lbfgs=25_000),
    "burgers": Row(2500, 500, 500, adam=50_000, lbfgs=12_000),
    "diffusion": Row(1000, 100, 100, adam=15_000, lbfgs=5000),
    "drift_diffusion": Row(1000, 100, 100, adam=15_000, lbfgs=5000),
    "navier_stokes": Row(7500, 0, 2500, adam=100_000, lbfgs=25_000),
    "poisson_disk": Row(2500, 0, 500, adam=50_000, lbfgs=12_000, pinned=CENTER),
    "wave": Row(2500, 500, 500, adam=100_000, lbfgs=25_000),
}
POOR = {
    "allen_cahn": Row(2500, 500, 500, adam=100_000, lbfgs=0),
    "burgers": Row(500, 100, 100, adam=50_000, lbfgs=12_000),
    "diffusion": Row(10, 2, 2, adam=15_000, lbfgs=5000),
    "drift_diffusion": Row(200, 20, 20, adam=15_000, lbfgs=5000),
    "navier_stokes": Row(1500, 0, 500, adam=100_000, lbfgs=25_000),
    "poisson_disk": Row(100, 0, 20, adam=15_000, lbfgs=5000, pinned=CENTER),
    "wave": Row(2500, 500, 500, adam=100_000, lbfgs=0),
}


def recipe_in(rows: Mapping[str, Row], problem: Problem) -> Recipe:
    """Return the recipe of a problem's row; a problem without one is a ``ValueError``."""
    _checks.one_of("problem of this setting", problem.name, rows)
    return rows[problem.name].recipe(problem)


@SETTINGS.named("pinnfluence_good")
class WellTrained:
    """ICML 2026, trained well: soft constraints, fixed points, Adam and then L-BFGS."""

    constraints = "soft"

    def recipe(self, problem: Problem) -> Recipe:
        """Return how the problem is trained."""
        return recipe_in(GOOD, problem)


@SETTINGS.named("pinnfluence_poor")
class PoorlyTrained:
    """ICML 2026, trained poorly: the same with fewer points, or without L-BFGS."""

    constraints = "soft"

    def recipe(self, problem: Problem) -> Recipe:
        """Return how the problem is trained."""
        return recipe_in(POOR, problem)
