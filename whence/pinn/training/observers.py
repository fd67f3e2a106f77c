"""What looks on while a network trains: progress, criteria to stop by, records of one's own.

An observer is options with ``start``, which returns what watches one run. Nothing of the training
depends on it but when it stops: a resumed run makes the same steps whoever looks on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from whence.objective import Objective
from whence.pinn.training.run_folder import RunFolder

Row = dict[str, Any]
"""A row of the history: iteration, seconds, losses and errors by column."""


class Observer:
    """Looks on while a network trains; a subclass writes what it needs of these.

    Examples
    --------
    >>> from whence import pinn
    >>> class Losses(pinn.Observer):
    ...     def __init__(self):
    ...         self.seen = []
    ...     def at_row(self, objective, row):
    ...         self.seen.append(row["loss"])
    >>> losses = Losses()
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=50, schedule=[pinn.GaussNewton(10)],
    ...                     observers=[losses], progress=False)
    >>> losses.seen == result.history["loss"].tolist()
    True
    """

    def start(self, objective: Objective, iterations: int) -> Observer:
        """Return what watches a run of so many iterations, by default the same object."""
        return self

    def at_row(self, objective: Objective, row: Row) -> None:
        """See a row of the history, and the objective at which it was made."""

    def at_step(self, iteration: int, row: Row) -> None:
        """See that training has come to an iteration, and the latest row of the history."""

    def should_stop(self, row: Row) -> bool:
        """Whether training is to stop at this row; what met the criterion is kept."""
        return False

    def rewind(self, iteration: int) -> None:
        """Forget what came after an iteration: training goes on from there."""

    def save(self, folder: RunFolder) -> None:
        """Write what was recorded into a run folder."""

    def load(self, folder: RunFolder) -> None:
        """Take up what :meth:`save` wrote."""

    def end(self) -> None:
        """Let go of what is open: training has ended."""


@dataclass(frozen=True)
class Stop(Observer):
    """Stops, resumably, at the first row of the history for which a criterion is true.

    Parameters
    ----------
    when:
        Function of a row, such as ``lambda row: row["relative_l2"] < 1e-4``.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(
    ...     problem, points=50, schedule=[pinn.GaussNewton(100)], progress=False,
    ...     observers=[pinn.Stop(lambda row: row["iteration"] >= 10)])
    >>> result.summary["iterations"], result.summary["stopped_by"]
    (10, 'stop criterion')
    """

    when: Callable[[Row], bool]

    def __post_init__(self) -> None:
        if not callable(self.when):
            raise TypeError(
                f"Stop takes a function of a row of the history, got {self.when!r}"
            )

    def should_stop(self, row: Row) -> bool:
        """Whether the criterion is true."""
        # A copy: what the criterion does to it must not reach the history.
        try:
            return bool(self.when(dict(row)))
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
            raise ValueError(
                f"the criterion of Stop fails at iteration {row['iteration']} ({reason}): it must "
                f"return True or False for a row with the columns {', '.join(row)}"
            ) from error


class ProgressBar(Observer):
    """The progress bar: stage, loss by term, error, number of points."""

    def start(self, objective: Objective, iterations: int) -> Observer:
        """Show the bar."""
        # On the standard error, so that what is printed can be piped.
        self._bar = tqdm(
            total=iterations,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            unit="it",
        )
        return self

    def at_step(self, iteration: int, row: Row) -> None:
        """Bring the bar up to date."""
        numbers: dict[str, Any] = {}
        for column, value in row.items():
            if column.startswith("loss_"):
                numbers[column.removeprefix("loss_")] = f"{value:.1e}"
        if "relative_l2" in row:
            numbers["error"] = f"{row['relative_l2']:.1e}"
        numbers["points"] = row["points"]

        # Drawn once, by the update.
        self._bar.set_description(str(row["stage"]), refresh=False)
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(iteration - self._bar.n)

    def end(self) -> None:
        """Close the bar."""
        self._bar.close()


def say(message: str) -> None:
    """Write a line to the standard error, above the bar if there is one."""
    tqdm.write(message, file=sys.stderr)
