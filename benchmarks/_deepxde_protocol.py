"""DeepXDE by the published settings (arXiv 2506.16443), its steps and errors on the clock.

Hammersley start with 1000 points (diffusion 30), rounds of 1000 Adam (1e-3) and 1000 L-BFGS steps,
then of 10,000 uniform candidates the 10 (diffusion 1) of largest |residual| are added, as DeepXDE's
users do. Same network, initial parameters, hard constraints and test grid as whence, float64.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _deepxde
from whence import pinn

GRID = 10_000
"""Points at which the error is measured."""
WARM_UP = 50
"""Steps of each optimizer before anything is timed."""
ADAM = "Adam"
L_BFGS = "L-BFGS"


@dataclass(frozen=True)
class Protocol:
    """The published settings."""

    points: int = 1000
    added: int = 10
    candidates: int = 10_000
    steps: int = 1000
    """Steps of each optimizer in a round."""
    rounds: int = 100
    lr: float = 1e-3
    check_every: int = 100
    """Steps between two looks at the error."""


PROTOCOLS = {"diffusion": Protocol(points=30, added=1)}


def protocol_of(name: str) -> Protocol:
    """Return the published settings of a problem."""
    return PROTOCOLS.get(name, Protocol())


@dataclass
class Steps:
    """Steps of one optimizer and their seconds."""

    count: int = 0
    seconds: float = 0.0

    @property
    def each(self) -> float:
        """Seconds of one step."""
        return self.seconds / self.count


@dataclass
class PublishedRun:
    """What a run came to: whether the error was reached, the least error, steps by optimizer."""

    reached: bool = False
    error: float = math.inf
    steps: dict[str, Steps] = field(
        default_factory=lambda: {ADAM: Steps(), L_BFGS: Steps()}
    )

    @property
    def seconds(self) -> float:
        """Seconds of all steps."""
        return math.fsum(steps.seconds for steps in self.steps.values())

    @property
    def is_whole(self) -> bool:
        """Whether steps of both optimizers were made."""
        return all(steps.count for steps in self.steps.values())

    @property
    def iterations(self) -> int:
        """Steps of both optimizers."""
        return sum(steps.count for steps in self.steps.values())

    def projected(self, protocol: Protocol) -> float:
        """Return the seconds of all published steps, if each takes as long as those made."""
        n_each = protocol.rounds * protocol.steps
        return math.fsum(n_each * steps.each for steps in self.steps.values())


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
    """Measures the error every so many steps, off the clock, and ends training when it is small."""

    def __init__(self, problem: pinn.Problem, target: float, every: int) -> None:
        super().__init__()
        self._grid = problem.domain.sample(GRID, "grid")
        self._truth = problem.reference(self._grid)
        self._target = target
        self._every = every
        self._seen = 0
        self.clock = Clock()
        self.least = math.inf

    @property
    def reached(self) -> bool:
        """Whether the error was as small as asked for."""
        return self.least <= self._target

    def on_epoch_end(self) -> None:
        """Look at the error if it is time to."""
        iteration = self.model.train_state.iteration
        if iteration - self._seen < self._every:
            return

        with self.clock.paused():
            self._seen = iteration
            self.least = min(self.least, self._error())
        if self.reached:
            self.model.stop_training = True

    def _error(self) -> float:
        with torch.no_grad():
            values: Tensor = self.model.net(self._grid)
        norm = torch.linalg.vector_norm
        return float(norm(values - self._truth) / norm(self._truth))


def published_run(
    name: str, target: float, seed: int, limit: float, protocol: Protocol
) -> PublishedRun:
    """Train until the error or the limit of seconds is reached, one round in any case."""
    problem = pinn.zoo.load(name)
    warm_up = replace(protocol, steps=WARM_UP, check_every=WARM_UP)
    _train(problem, 0.0, seed, 0.0, warm_up)
    return _train(problem, target, seed, limit, protocol)


def _train(
    problem: pinn.Problem, target: float, seed: int, limit: float, protocol: Protocol
) -> PublishedRun:
    """Make rounds until the error is reached or the time is over."""
    _deepxde.dde.config.set_random_seed(seed)
    (points,) = problem.sample(protocol.points, seed).values()
    model = _deepxde.model(problem, problem.network(seed), points)
    run = PublishedRun()
    watch = Watch(problem, target, protocol.check_every)

    while not watch.reached:
        _round(model, watch, protocol, run)
        if run.seconds >= limit:
            break
        _refine(model, protocol)

    run.reached = watch.reached
    run.error = watch.least
    return run


def _round(model: Any, watch: Watch, protocol: Protocol, run: PublishedRun) -> None:
    """Take the Adam and L-BFGS steps of one round, those of L-BFGS unless Adam is there."""
    quiet = {"display_every": protocol.steps, "verbose": 0, "callbacks": [watch]}
    model.compile("adam", lr=protocol.lr, verbose=0)
    with _timed(model, watch, run.steps[ADAM]):
        model.train(iterations=protocol.steps, **quiet)
    if watch.reached:
        return

    optimizers = _deepxde.dde.optimizers
    optimizers.set_LBFGS_options(maxiter=protocol.steps)
    options = optimizers.LBFGS_options
    # In parts, between which the callback is called; torch goes on where it was.
    options["iter_per_step"] = protocol.check_every
    options["fun_per_step"] = options["maxfun"] * protocol.check_every // protocol.steps
    model.compile("L-BFGS", verbose=0)
    with _timed(model, watch, run.steps[L_BFGS]):
        model.train(**quiet)


@contextmanager
def _timed(model: Any, watch: Watch, steps: Steps) -> Iterator[None]:
    """Add the steps made in here and their seconds, looks at the error left out."""
    count = model.train_state.iteration or 0
    watch.clock = Clock()
    yield
    steps.seconds += watch.clock.seconds
    steps.count += model.train_state.iteration - count


def _refine(model: Any, protocol: Protocol) -> None:
    """Add the candidates of largest residual; it is not on the clock."""
    candidates = model.data.geom.random_points(protocol.candidates)
    residual = np.abs(model.predict(candidates, operator=model.data.pde))[:, 0]
    largest = np.argsort(residual)[-protocol.added :]
    model.data.add_anchors(candidates[largest])
