"""Fields of a solution by name: outputs, derivatives, residuals, errors, formulas of them."""

from __future__ import annotations

import numpy as np
import torch

from whence.explore.expressions import evaluate
from whence.pinn.training.result import Result


class Fields:
    """What can be looked at of a trained network.

    Parameters
    ----------
    result:
        What was trained.

    Examples
    --------
    >>> from whence import pinn
    >>> from whence.explore.fields import Fields
    >>> result = pinn.train(pinn.zoo.load("diffusion"), points=50, schedule=pinn.GaussNewton(10),
    ...                     progress=False)
    >>> fields = Fields(result)
    >>> fields.names()
    ['u', 'u_x', 'u_t', 'pde', 'error(u)']
    >>> fields("u_t - u_xx", [[0.5, 0.25]]).shape
    (1,)
    """

    def __init__(self, result: Result) -> None:
        self._result = result

    def answers(self) -> list[str]:
        """Return what can be explained: outputs, their first derivatives, residuals of terms."""
        problem = self._result.problem
        names = list(problem.outputs)
        for output in problem.outputs:
            names += [f"{output}_{c}" for c in problem.coordinates]
        # A residual of several components is several answers.
        singles = [name for name in problem.equations if self._is_single(name)]
        return [*names, *(name for name in singles if name not in names)]

    def names(self) -> list[str]:
        """Return the answers, and errors where the solution is known."""
        problem = self._result.problem
        if problem.solution is None:
            return self.answers()
        return [*self.answers(), *(f"error({output})" for output in problem.outputs)]

    def __call__(self, name: str, places: np.ndarray) -> np.ndarray:
        """Return a field, or a formula of fields, at places (n, d): (n,)."""
        rows = np.asarray(places, dtype=float)

        def of_name(wanted: str) -> np.ndarray:
            """Return an output, a derivative, a coordinate, or the residual of a term."""
            solution = self._result.solution
            if self.is_residual(wanted):
                values = np.full(len(rows), np.nan)
                inside = self.holds(wanted, rows)
                if inside.any():
                    residual = solution.residual(rows[inside], wanted)
                    values[inside] = np.asarray(residual)[:, 0]
                return values
            return np.asarray(solution(rows, wanted))[:, 0]

        def error(output: str) -> np.ndarray:
            """Return the error of an output."""
            outputs = self._result.problem.outputs
            if self._result.problem.solution is None or output not in outputs:
                raise ValueError(
                    f"the error of {output!r} is not known: no solution to compare with"
                )
            errors = np.asarray(self._result.solution.error(rows))
            return errors[:, outputs.index(output)]

        # Names of terms need be no words that a formula could hold.
        if name in self._result.problem.equations:
            return of_name(name)
        values = evaluate(name, of_name, {"error": error})
        return np.broadcast_to(values, (len(rows),))

    def is_residual(self, name: str) -> bool:
        """Whether a name means the residual of an equation."""
        problem = self._result.problem
        return name in problem.equations and name not in problem.outputs

    def holds(self, name: str, places: np.ndarray) -> np.ndarray:
        """Return where a name means something, (n,): a residual only where its equation holds."""
        if not self.is_residual(name):
            return np.ones(len(places), dtype=bool)
        region = self._result.problem.region(name)
        return np.asarray(region.contains(torch.as_tensor(places)))

    def _is_single(self, term: str) -> bool:
        """Whether a term's residual is one number at each point."""
        objective = self._result.objective
        if term not in objective.terms:
            return False
        some = objective.terms[term].points[:1]
        residual = objective.terms[term].residual(objective.parameters.tensors(), some)
        return residual.shape[1] == 1
