"""What training leaves: a network, how it came about, and what to ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from whence import _checks
from whence.objective import Objective
from whence.pinn.estimates import Estimates, suspects
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.solution import Solution
from whence.pinn.training.history import History
from whence.pinn.training.replayed import NotRecorded, Trained, steps_of
from whence.replay.steps import Steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FIGURES = ("solution", "convergence", "points", "spectra")
ELSEWHERE = NotRecorded("it was not made by pinn.train")
FigureName = Literal["solution", "convergence", "points", "spectra"]


@dataclass
class Result:
    """A trained network and how it came about.

    Parameters
    ----------
    problem:
        What was solved.
    network:
        The network that was kept. Its outputs are raw, without the problem's ansatz: ask
        ``result.solution`` for values.
    objective:
        The network with the points it was kept with: pass it to :class:`whence.Influence`.
    history:
        A row for each logged iteration: ``history["loss"]``, ``history[-1]``,
        ``history.to_frame()``.
    summary:
        What ``summary.json`` holds.
    path:
        The run folder, if there is one.
    spectra:
        The arrays of ``spectra.npz`` where they were asked for.
    points:
        Every point trained on with the iterations at which it came and went: the arrays of
        ``points.npz``.
    trained:
        What each step was made with, or why it is not known: of slabs of time read from a folder,
        of a run whose points and weights changed too often to keep them, and of one that an older
        version began.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=100, schedule=pinn.GaussNewton(20), progress=False)
    >>> result.solution([[0.5, 0.0]]).round(3), result.solution.u_x([[0.0, 0.0]]).round(1)
    (array([[1.]]), array([3.1]))
    """

    problem: Problem
    network: nn.Module
    objective: Objective
    history: History
    summary: dict[str, Any]
    path: Path | None
    spectra: dict[str, np.ndarray] | None = None
    points: dict[str, np.ndarray] | None = None
    trained: Trained | NotRecorded = ELSEWHERE

    def steps(self) -> Steps:
        """Return the steps of the training, for :class:`whence.Replay`.

        Raises
        ------
        ValueError
            If they are not known, or an optimizer's steps cannot be differentiated.
        """
        if isinstance(self.trained, NotRecorded):
            name = "this run" if self.path is None else f"the run {self.path}"
            raise ValueError(
                f"the steps of {name} are not known: {self.trained.reason}"
            )
        return steps_of(self.trained, self.objective)

    @property
    def solution(self) -> Solution:
        """The solution: ``solution(points)``, ``solution(points, "u", "u_x")``."""
        return Solution(self.problem, self.network)

    @property
    def unknowns(self) -> Estimates:
        """The unknown numbers by name, with standard errors and confidence intervals."""
        return Estimates(self.objective, self.problem.data)

    def suspects(self, term: str | None = None) -> DataFrame:
        """Return the measurements as a table, those that fit the least to the others first.

        See :func:`whence.pinn.estimates.suspects`.
        """
        return suspects(self.objective, self.problem.data, term)

    def plot(self, figure: FigureName = "solution") -> Figure:
        """Draw the solution, or how it was trained, and return the figure.

        Parameters
        ----------
        figure:
            ``"solution"``: the solution and its error, ``"convergence"``: losses and errors over
            training, or of each slab of a march, ``"points"``: where points were in each round,
            ``"spectra"``: eigenvalues of the tangent kernel where they were recorded.

        Raises
        ------
        ValueError
            For an unknown figure, or one of what was not recorded.
        """
        from whence import plots  # matplotlib is slow to import

        _checks.one_of("figure", figure, FIGURES)
        # One figure each; plots know no runs, only what they draw.
        if figure == "solution":
            return plots.solution(self.problem, self.network)
        if figure == "convergence":
            if "march" in self.summary:
                # Its own history is that of the joining alone, which changes nothing.
                record = self.summary["march"]
                return plots.march(record["trainings"], record["time"])
            return plots.convergence(list(self.history))
        if figure == "points":
            if self.points is None:
                raise ValueError("this result has no record of its points")
            return plots.rounds(self.problem, self.points)
        if self.spectra is None:
            raise ValueError(
                "no spectra were recorded: train with observers=[pinn.Spectra()]"
            )

        return plots.spectra(self.spectra)
