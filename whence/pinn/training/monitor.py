"""What is measured of a run while it trains: losses, validation loss, error against a reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from whence.objective import Objective
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.unknowns import Model
from whence.points import locations

TEST_POINTS = 10_000
"""Points of the grid on which the error against a reference is taken."""


class Monitor:
    """Measures losses and test error; no training step uses what is measured."""

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        validation: int,
        seed: int,
        held_out: Mapping[str, Tensor],
        test: int = 0,
    ) -> None:
        self.problem = problem
        # A seed of its own, so that validation points are apart from training and test points.
        sequence = np.random.SeedSequence([seed, 7919, 1])
        validation_seed = int(sequence.generate_state(1)[0])
        self._validation = {}
        for name, term in objective.terms.items():
            if name in held_out:
                points = held_out[name]
            elif term.source == "drawn":
                points = objective.draw(name, validation, validation_seed)
            else:
                # What holds at the points given need not hold anywhere else.
                points = locations(term.some_points(validation, validation_seed))
            self._validation[name] = points

        # Apart from the validation points, by which a network may have been chosen.
        self._test_points: dict[str, Tensor] = {}
        if test:
            sequence = np.random.SeedSequence([seed, 7919, 2])
            test_seed = int(sequence.generate_state(1)[0])
            for name, term in objective.terms.items():
                if term.source == "drawn":
                    self._test_points[name] = objective.draw(name, test, test_seed)

        self._test: Tensor | None = None
        if problem.solution is not None:
            # A grid, so that the error approximates a norm of functions.
            self._test = problem.domain.sample(TEST_POINTS, "grid")
            self._truth = problem.reference(self._test)  # once, as it may be costly

    def validation_loss(self, objective: Objective) -> float:
        """Return the loss at the validation points, with the mean weight of each term."""
        return loss_elsewhere(objective, self._validation)

    def relative_l2(self, objective: Objective) -> float | None:
        """Return the relative error at the test points, a uniform grid, if there is a reference."""
        if self._test is None:
            return None
        return self.problem.relative_l2(objective.network, self._test, self._truth)

    def measure(self, objective: Objective) -> dict[str, int | float]:
        """Return the columns of a history row that are measured."""
        with torch.no_grad():
            # One pass: the loss is the weighted mean of what the columns need too.
            point_losses = objective.point_losses()
            row: dict[str, int | float] = {
                "points": objective.n_points,
                "loss": float(objective.total(point_losses)),
            }
            for name, values in point_losses.items():
                row[f"loss_{name}"] = float(values.mean())

        if isinstance(objective.network, Model):
            for name, value in objective.network.values().items():
                row[f"unknown_{name}"] = value

        row["validation_loss"] = self.validation_loss(objective)
        if self._test_points:
            row["test_loss"] = loss_elsewhere(objective, self._test_points)
        error = self.relative_l2(objective)
        if error is not None:
            row["relative_l2"] = error
        return row


def loss_elsewhere(objective: Objective, points: Mapping[str, Tensor]) -> float:
    """Return the loss at other points, with the mean weight of each term.

    A term without other points counts at its own.
    """
    weights = {name: term.mean_weight for name, term in objective.terms.items()}
    elsewhere = objective.with_points(points).with_weights(weights)
    with torch.no_grad():
        return float(elsewhere.loss())
