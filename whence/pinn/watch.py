"""What is seen of a run while it trains: measured errors and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from whence.objective import Objective
from whence.pinn.problem import Problem

TEST_POINTS = 10_000


class Watch:
    """Measures validation loss and test error; no training step uses what is measured."""

    def __init__(
        self, problem: Problem, objective: Objective, validation: int, seed: int
    ) -> None:
        self.problem = problem
        self._validation = {
            name: objective.draw(name, validation, _child(seed, 1))
            for name in objective.terms
        }
        self._test: Tensor | None = None
        if problem.solution is not None:
            self._test = problem.domain.sample(TEST_POINTS, "grid")
            self._truth = problem.reference(self._test)

    def validation(self, objective: Objective) -> float:
        """Return the loss at the validation points, with the mean weight of each term."""
        weights = {name: term.mean_weight for name, term in objective.terms.items()}
        with torch.no_grad():
            return float(
                objective.with_points(self._validation).with_weights(weights).loss()
            )

    def relative_l2(self, objective: Objective) -> float | None:
        """Return the relative error at the test points, a uniform grid, if there is a reference."""
        if self._test is None:
            return None
        return self.problem.relative_l2(objective.network, self._test, self._truth)


def _child(seed: int, k: int) -> int:
    return int(np.random.SeedSequence([seed, 7919, k]).generate_state(1)[0])


def say(message: str) -> None:
    """Write a line to the standard error, above the bar if there is one."""
    tqdm.write(message, file=sys.stderr)


class Bar:
    """The progress bar: stage, loss by term, error, number of points."""

    def __init__(self, total: int, iteration: int, enabled: bool) -> None:
        self._bar = tqdm(
            total=total,
            initial=iteration,
            disable=not enabled,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            unit="it",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Bring the bar up to date with the iteration and the latest row of the history."""
        self._bar.set_description(str(row["stage"]), refresh=False)
        terms = {n[5:]: f"{v:.1e}" for n, v in row.items() if n.startswith("loss_")}
        error = {"error": f"{row['relative_l2']:.1e}"} if "relative_l2" in row else {}
        self._bar.set_postfix(
            {**terms, **error, "points": row["points"]}, refresh=False
        )
        self._bar.update(iteration - self._bar.n)
