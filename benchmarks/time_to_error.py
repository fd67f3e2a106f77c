"""Seconds until the best error that was published is reached, beside DeepXDE.

``python -m benchmarks.time_to_error``: whence with its recipe, and DeepXDE with the published
settings (arXiv 2506.16443) of Adam + L-BFGS and residual-based refinement: Hammersley start with
1000 points (diffusion 30), rounds of 1000 Adam (1e-3) and 1000 L-BFGS steps, then of 10,000 uniform
candidates the 10 (diffusion 1) of largest |residual| are added. Same network, initial parameters,
hard constraints, first Hammersley sequence and test grid, float64, one run each.

DeepXDE runs until it is there or for ``--limit`` times as long as whence took, at least
``--seconds``; if it is not there by then, the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _deepxde, _measure
from benchmarks._measure import Row
from whence import pinn
from whence.pinn.zoo import recipe

TARGETS = {"diffusion": 2.9e-5, "burgers": 6.5e-4, "allen_cahn": 2.5e-3}
TIMES_FASTER = 20
GRID = 10_000


@dataclass(frozen=True)
class Protocol:
    """The published settings."""

    points: int = 1000
    added: int = 10
    candidates: int = 10_000
    iterations: int = 1000
    lr: float = 1e-3
    check_every: int = 100
    """Iterations between two looks at the error."""


PROTOCOLS = {"diffusion": Protocol(points=30, added=1)}


@dataclass(frozen=True)
class Outcome:
    """Seconds until the error was reached, or in all if it was not, and the least error seen."""

    seconds: float
    reached: bool
    error: float
    iterations: int

    def __str__(self) -> str:
        if self.reached:
            return f"{self.seconds:.3g} s ({self.iterations} iterations)"
        return f"not in {self.seconds:.3g} s ({self.error:.1e}, {self.iterations} iterations)"


def whence(name: str, target: float, seed: int) -> Outcome:
    """Train by the recipe until the target or the recipe's own time limit is reached.

    Seconds are those of the history, in which measuring the error counts.
    """
    given = recipe(name)
    result = pinn.train(
        pinn.zoo.load(name),
        points=given.points,
        schedule=given.schedule,
        resample=given.resample,
        seed=seed,
        max_seconds=given.max_seconds,
        observers=[pinn.Stop(lambda row: row["relative_l2"] <= target)],
        progress=False,
    )
    return _outcome(result.history, target)


def _outcome(history: list[dict[str, Any]], target: float) -> Outcome:
    least = min(row["relative_l2"] for row in history)
    row = next((row for row in history if row["relative_l2"] <= target), None)
    seen = history[-1] if row is None else row
    return Outcome(seen["seconds"], row is not None, least, seen["iteration"])


class Clock:
    """Seconds since it was made, pauses left out."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds up to now."""
        return time.perf_counter() - self._begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens in here."""
        begun = time.perf_counter()
        yield
        self._begun += time.perf_counter() - begun


class Watch(_deepxde.dde.callbacks.Callback):
    """Measures the error every so many iterations, off the clock, and ends training."""

    def __init__(
        self, problem: pinn.Problem, target: float, limit: float, every: int
    ) -> None:
        super().__init__()
        grid = problem.domain.sample(GRID, "grid")
        self._grid, self._truth = grid, problem.reference(grid)
        self._target, self._limit, self._every = target, limit, every
        self._seen = 0
        self._clock = Clock()
        self.least = math.inf

    @property
    def outcome(self) -> Outcome:
        """How far the run is."""
        return Outcome(
            self._clock.seconds, self.least <= self._target, self.least, self._seen
        )

    @property
    def done(self) -> bool:
        """Whether the run is at its end."""
        return self.least <= self._target or self._clock.seconds >= self._limit

    def on_epoch_end(self) -> None:
        """Look at the error if it is time to."""
        iteration = self.model.train_state.iteration
        if iteration - self._seen < self._every:
            return
        with self._clock.paused():
            self._seen = iteration
            self.least = min(self.least, self._error())
        self.model.stop_training = self.done

    def _error(self) -> float:
        with torch.no_grad():
            values: Tensor = self.model.net(self._grid)
        norm = torch.linalg.vector_norm
        return float(norm(values - self._truth) / norm(self._truth))


def deepxde(name: str, target: float, seed: int, limit: float) -> Outcome:
    """Train by the published settings until the target or the limit is reached."""
    dde, problem, protocol = (
        _deepxde.dde,
        pinn.zoo.load(name),
        PROTOCOLS.get(name, Protocol()),
    )
    dde.config.set_random_seed(seed)
    (points,) = problem.sample(protocol.points, seed).values()
    model = _deepxde.model(problem, problem.network(seed), points)
    watch = Watch(problem, target, limit, protocol.check_every)
    while not watch.done:
        _round(model, watch, protocol)
        if not watch.done:
            _refine(model, protocol)
    return watch.outcome


def _round(model: Any, watch: Watch, protocol: Protocol) -> None:
    """Take the Adam and L-BFGS steps of one round."""
    dde = _deepxde.dde
    quiet = {"display_every": protocol.iterations, "verbose": 0, "callbacks": [watch]}
    model.compile("adam", lr=protocol.lr, verbose=0)
    model.train(iterations=protocol.iterations, **quiet)
    if watch.done:
        return
    dde.optimizers.set_LBFGS_options(maxiter=protocol.iterations)
    options = dde.optimizers.LBFGS_options
    # In parts, between which the callback is called; torch goes on where it was.
    parts = protocol.iterations // protocol.check_every
    options["iter_per_step"] = protocol.check_every
    options["fun_per_step"] = options["maxfun"] // parts
    model.compile("L-BFGS", verbose=0)
    model.train(**quiet)


def _refine(model: Any, protocol: Protocol) -> None:
    """Add the candidates of largest residual."""
    candidates = model.data.geom.random_points(protocol.candidates)
    residual = np.abs(model.predict(candidates, operator=model.data.pde))[:, 0]
    model.data.add_anchors(candidates[np.argsort(residual)[-protocol.added :]])


def race(name: str, given: argparse.Namespace) -> Row:
    """Return how much sooner whence is there."""
    target = TARGETS[name]
    _measure.say(f"{name}: whence")
    ours = whence(name, target, given.seed)
    _measure.say(f"  {ours}\n{name}: DeepXDE")
    what = f"{name} to {target:.1e}: sooner than DeepXDE"
    if not ours.reached:
        return Row(what, None, "x", f"whence {ours}", least=TIMES_FASTER)
    theirs = deepxde(
        name, target, given.seed, max(given.limit * ours.seconds, given.seconds)
    )
    _measure.say(f"  {theirs}")
    ratio = theirs.seconds / ours.seconds
    detail = f"whence {ours}, DeepXDE {theirs}"
    return Row(what, ratio, "x", detail, least=TIMES_FASTER, beyond=not theirs.reached)


def main() -> None:
    """Measure and print."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--problems", nargs="+", choices=TARGETS)
    parser.add_argument(
        "--limit", type=float, default=21.0, help="times whence's seconds (21)"
    )
    parser.add_argument(
        "--seconds", type=float, help="least limit (120; 10 with --quick)"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    problems = given.problems or (["diffusion"] if given.quick else list(TARGETS))
    given.seconds = given.seconds or (10.0 if given.quick else 120.0)
    if given.quick:
        given.limit = 1.0
    _measure.run(given, lambda: [race(name, given) for name in problems])


if __name__ == "__main__":
    main()
