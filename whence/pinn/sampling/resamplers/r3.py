"""Retain, resample, release."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import RESAMPLERS
from whence.objective import Objective
from whence.pinn.sampling.resamplers.base import (
    check_unweighted,
    new_rows,
    renewable_terms,
    units_of,
)
from whence.pinn.sampling.scores.base import spawn
from whence.pinn.sampling.scores.residual import ResidualScore


@RESAMPLERS.named("r3")
@dataclass(frozen=True)
class R3:
    """Retain, resample, release: points of little residual make room for uniform ones.

    Every ``every`` iterations the points of a term whose residual norm ‖r‖ is above the mean are
    kept, and as many uniform ones are drawn as are let go, so that their number stays (Daw et al.
    2023, arXiv 2207.02338, algorithm 1).

    Parameters
    ----------
    every:
        Iterations between two rounds.
    terms:
        Which terms; by default the first whose points were drawn, an equation's, and equations at
        the same points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> pinn.R3().update_points(objective, round=1, seed=0)["pde"].shape
    torch.Size([50, 2])
    """

    every: int = 100
    terms: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _checks.count("every", self.every)
        _checks.names("terms", self.terms)

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""
        check_unweighted(objective, self._terms(objective))
        for name in self._terms(objective):
            objective.draw(name, 1, seed=0)

    def _terms(self, objective: Objective) -> tuple[str, ...]:
        if self.terms:
            return renewable_terms(objective, self.terms)
        return units_of(objective, renewable_terms(objective, None))[0]

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor]:
        """Return the renewed points of each term, those that stay first."""
        renewed: dict[str, Tensor] = {}
        for k, unit in enumerate(units_of(objective, self._terms(objective))):
            unit_seed = spawn(seed, 1000 * round + k)
            points = self._renew_unit(objective, unit, unit_seed)
            renewed |= dict.fromkeys(unit, points)
        return renewed

    def _renew_unit(
        self, objective: Objective, unit: tuple[str, ...], seed: int
    ) -> Tensor:
        """Return the points that a unit of terms shares: those kept, then fresh ones, (n, d)."""
        name = unit[0]
        points = objective.locations(name)
        # ‖r(z_i)‖ of each term, (terms, n); over all of them it is the root of the sum of squares.
        norms = ResidualScore().score(objective, dict.fromkeys(unit, points))
        norms = norms.view(len(unit), -1).norm(dim=0)
        is_kept = norms > norms.mean()
        n_pinned = max(objective.term(member).pinned for member in unit)
        is_kept[:n_pinned] = True
        kept = points[is_kept]
        released = points[~is_kept]

        # As many as there are points: some may repeat what is kept.
        drawn = objective.draw(name, len(points), seed)
        rows = new_rows(drawn, kept)[: len(released)]
        fresh = drawn[rows.to(drawn.device)]

        # Of a term that holds at few points there may not be enough others.
        missing = len(released) - len(fresh)
        rows = new_rows(released, torch.cat([kept, fresh]))[:missing]
        again = released[rows.to(released.device)]  # drawn from those let go
        return torch.cat([kept, again, fresh])
