"""Resampling by influence, as published (Naujoks et al. 2025, arXiv 2506.16443)."""

from __future__ import annotations

from whence.catalogue import SETTINGS
from whence.pinn.optimizers.adam import Adam
from whence.pinn.optimizers.lbfgs import LBFGS
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.resample import Resample
from whence.pinn.sampling.scores.influence import InfluenceScore
from whence.pinn.sampling.selections.proportional import Proportional
from whence.pinn.settings.base import points_by_term
from whence.pinn.training.recipe import Recipe

CYCLE = (Adam(1000, lr=1e-3), LBFGS(1000))
CYCLES = 100
CANDIDATES = 10_000
TEST_POINTS = 1000
"""Points at which influence on the loss is taken."""
HELD_BACK = 10_000
"""Points at which losses are reported."""

# Σ_t|·|, as the published code computes it; its text has |Σ_t|.
SCORE = InfluenceScore(n_test=TEST_POINTS, reduce="sum_of_abs")


def first_points(problem: Problem) -> int:
    """Return the number of first points: so few on diffusion, as it is easy."""
    return 30 if problem.name == "diffusion" else 1000


def recipe_of(problem: Problem, resample: Resample) -> Recipe:
    """Return the recipe of 100 cycles, each of which begins with a round of resampling."""
    first = first_points(problem)
    return Recipe(
        points=points_by_term(problem, first, first, first),
        schedule=CYCLE,
        resample=resample,
        max_seconds=None,
        cycles=CYCLES,
        keep="last",
        validation=HELD_BACK,
        test=HELD_BACK,
    )


@SETTINGS.named("paper")
class AddingPoints:
    """arXiv 2506.16443, add: 100 cycles of 1000 Adam and 1000 L-BFGS, 10 points more in each."""

    constraints = "hard"

    def recipe(self, problem: Problem) -> Recipe:
        """Return how the problem is trained: p ∝ s², 10 points a round on 1000 (1 on 30)."""
        added = 1 if problem.name == "diffusion" else 10
        resample = Resample(
            SCORE,
            Proportional(k=2, c=0),
            n=added,
            update="add",
            candidates=CANDIDATES,
            stages=len(CYCLE),
            at_start=True,
        )
        return recipe_of(problem, resample)


@SETTINGS.named("paper_replace")
class ReplacingPoints:
    """arXiv 2506.16443, replace: the same cycles, each on 1000 points drawn by their scores."""

    constraints = "hard"

    def recipe(self, problem: Problem) -> Recipe:
        """Return how the problem is trained: p ∝ s/mean(s) + 1, all points drawn again."""
        resample = Resample(
            SCORE,
            Proportional(k=1, c=1),
            n=None,
            update="replace",
            candidates=CANDIDATES,
            stages=len(CYCLE),
            at_start=True,
        )
        return recipe_of(problem, resample)
