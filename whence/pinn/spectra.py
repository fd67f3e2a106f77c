"""The neural tangent kernel's eigenvalues by term, recorded while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from whence import _checks
from whence.ntk import spectrum
from whence.objective import Objective

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
ITERATION = "iteration"


@dataclass(frozen=True)
class Spectra:
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
    ...                     spectra=pinn.Spectra(every=100, points=20), validation=50)
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


@dataclass
class SpectraRecord:
    """The spectra of a run so far, at points drawn from its objective."""

    options: Spectra
    points: Mapping[str, Tensor]
    iterations: list[int] = field(default_factory=list)
    values: list[dict[str, np.ndarray[Any, np.dtype[Any]]]] = field(
        default_factory=list
    )

    @classmethod
    def of(cls, options: Spectra, objective: Objective) -> SpectraRecord:
        """Return an empty record for an objective."""
        points = {
            name: objective.draw(name, options.points, options.seed + k)
            for k, name in enumerate(objective.terms)
        }
        return cls(options, {n: p.unique(dim=0) for n, p in points.items()})

    def take(self, objective: Objective, iteration: int) -> None:
        """Record the spectra at the present parameters and weights, if they are due."""
        if self.iterations and iteration - self.iterations[-1] < self.options.every:
            return
        weights = {name: term.mean_weight for name, term in objective.terms.items()}
        there = objective.with_points(self.points).with_weights(weights)
        self.iterations.append(iteration)
        self.values.append(
            {name: spectrum(there, name).cpu().numpy() for name in there.terms}
        )

    def rewind(self, iteration: int) -> None:
        """Forget what was recorded after ``iteration``."""
        kept = sum(one <= iteration for one in self.iterations)
        del self.iterations[kept:], self.values[kept:]

    def arrays(self) -> Arrays:
        """Return ``iteration`` (k,) and by term the eigenvalues (k, n), the largest first."""
        found: Arrays = {ITERATION: np.asarray(self.iterations, dtype=np.int64)}
        for name in self.points:
            found[name] = np.stack([one[name] for one in self.values])
        return found

    def restore(self, arrays: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> None:
        """Take up saved arrays."""
        self.iterations = [int(one) for one in arrays[ITERATION]]
        names = [name for name in arrays if name != ITERATION]
        self.values = [
            {name: arrays[name][k] for name in names}
            for k in range(len(self.iterations))
        ]


def check_spectra(arrays: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> None:
    """Raise ``ValueError`` unless these are spectra by iteration."""
    times = arrays.get(ITERATION)
    if times is None or times.ndim != 1 or times.dtype.kind != "i" or not len(times):
        raise ValueError("spectra need the iterations at which they were taken")
    for name, values in arrays.items():
        right = (
            values.ndim == 2 and len(values) == len(times) and values.dtype.kind == "f"
        )
        if name != ITERATION and not (right and np.isfinite(values).all()):
            raise ValueError(
                f"the spectra of term {name!r} are no finite (records, eigenvalues)"
            )
