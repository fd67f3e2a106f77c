"""The neural tangent kernel's eigenvalues by term, recorded while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from whence import _checks
from whence.ntk import spectrum
from whence.objective import Objective
from whence.pinn.training.array_checks import ITERATION
from whence.pinn.training.observers import Observer, Row
from whence.pinn.training.run_folder import SPECTRA, RunFolder


@dataclass(frozen=True)
class Spectra(Observer):
    """When to record the kernel's spectrum, and at how many points of each term.

    Eigenvalues of each term's scaled kernel, ``(w/n) S J Jᵀ S`` with S the root of the loss's
    curvature, at n points that stay the same: the rates at which the modes of its residual decay
    under gradient flow. They are taken at rows of the history, ``spectra.npz`` of the run holds
    them, and :func:`whence.plots.spectra` draws them.

    Parameters
    ----------
    every:
        Least number of iterations between two records.
    points:
        Number n of points of each term; a term that holds at fewer has all of them.
    seed:
        Seed of the points.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=50, schedule=[pinn.Adam(200)], progress=False,
    ...                     observers=[pinn.Spectra(every=100, points=20)], validation=50)
    >>> result.spectra["iteration"].tolist(), result.spectra["pde"].shape
    ([0, 100, 200], (3, 20))
    """

    every: int = 1000
    points: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("every", self.every)
        _checks.count("points", self.points)
        _checks.count("seed", self.seed, zero=True)

    def start(self, objective: Objective, iterations: int) -> Observer:
        """Return an empty record for an objective, with points of its own."""
        points = {}
        for k, name in enumerate(objective.terms):
            drawn = objective.draw(name, self.points, self.seed + k)
            # A repeated point would add an eigenvalue zero.
            points[name] = drawn.unique(dim=0)
        return SpectraRecord(self.every, points)


class SpectraRecord(Observer):
    """The spectra of a run so far."""

    def __init__(self, every: int, points: Mapping[str, Tensor]) -> None:
        self._every = every
        self._points = points
        self._iterations: list[int] = []
        self._values: list[dict[str, np.ndarray]] = []

    def at_row(self, objective: Objective, row: Row) -> None:
        """Record the spectra at the present parameters and weights, if they are due."""
        iteration = row["iteration"]
        # Only at rows, as observers see these alone: the next one that is due.
        if self._iterations and iteration - self._iterations[-1] < self._every:
            return

        weights = {name: term.mean_weight for name, term in objective.terms.items()}
        at_points = objective.with_points(self._points).with_weights(weights)
        values = {}
        for name in at_points.terms:
            values[name] = spectrum(at_points, name).cpu().numpy()  # (n,)

        self._iterations.append(iteration)
        self._values.append(values)

    def rewind(self, iteration: int) -> None:
        """Forget what was recorded after ``iteration``."""
        n_kept = sum(recorded <= iteration for recorded in self._iterations)
        del self._iterations[n_kept:]
        del self._values[n_kept:]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return ``iteration`` (k,) and by term the eigenvalues (k, n), the largest first."""
        arrays = {ITERATION: np.asarray(self._iterations, dtype=np.int64)}
        for name in self._points:
            arrays[name] = np.stack([values[name] for values in self._values])
        return arrays

    def save(self, folder: RunFolder) -> None:
        """Write ``spectra.npz``."""
        folder.write_arrays(SPECTRA, self.arrays())

    def load(self, folder: RunFolder) -> None:
        """Take up ``spectra.npz``."""
        arrays = folder.spectra()
        names = [name for name in arrays if name != ITERATION]
        self._iterations = [int(iteration) for iteration in arrays[ITERATION]]

        # From arrays (k, n) by term to a record for each iteration.
        self._values = []
        for k in range(len(self._iterations)):
            self._values.append({name: arrays[name][k] for name in names})
