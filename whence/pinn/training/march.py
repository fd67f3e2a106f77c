"""The march of :class:`whence.pinn.Slabs` through time: which slab is next, and its training."""

from __future__ import annotations

import copy
import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whence._files import JsonObject
from whence.catalogue import NETWORKS
from whence.pinn.geometry.domain import Domain
from whence.pinn.networks import Piecewise, Placement
from whence.pinn.networks.base import Rebuildable
from whence.pinn.networks.features import Features
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.data import Data
from whence.pinn.pde.problem import Problem
from whence.pinn.pde.slab import (
    CONTINUITY,
    between,
    continued_fields,
    joined_problem,
    slab_problem,
)
from whence.pinn.training import rng
from whence.pinn.training.joining import Joining
from whence.pinn.training.known_solution import KnownSolution
from whence.pinn.training.loop import INTERRUPTED, TIME_LIMIT
from whence.pinn.training.observers import say
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import SLABS, RunFolder
from whence.pinn.training.slab_points import arcsine_times, steep_points
from whence.pinn.training.train import train

FITTED = 3
"""Places at which features are fitted to what is known, for each feature."""
CANDIDATES = 10
"""Places among which each feature and each point is drawn."""
CONTINUED_SHARE = 6
"""Points of an equation for each point at which a slab continues the last."""
MIN_CONTINUED = 50
"""Least such points."""
MIN_LENGTH = 0.1
"""Shortest slab that halving makes, in units of the first."""
GROWTH = 1.5
"""Factor by which a slab that was easy is followed by a longer one."""
EASY = 0.1
"""Share of the tolerance below which a slab was easy."""
MAX_GROWTH = 1.5
"""Longest slab, in units of the first."""
RECORDED = ("loss", "validation_loss", "relative_l2", "iterations", "seconds")
"""What is on record of each training of a slab."""
CARRIED = 2.0
"""Loss, in units of that of the worst slab before, up to which a slab is as good as those."""
FAILED = 100.0
"""Loss in units of the tolerance above which a slab has failed."""
GAIN = 0.3
"""Share of its loss that a further pass over a slab must reach for another to follow."""


@dataclass(frozen=True, eq=False)
class MarchOptions:
    """What a march is asked for; :class:`whence.pinn.Slabs` says what each of them is."""

    time: str
    length: float
    passes: int
    tolerance: float | None
    trainings: int | None
    weight: float
    placement: Placement


@dataclass
class _Slab:
    """A slab that was trained: its times, its run, and what it was trained on."""

    low: float
    high: float
    result: Result
    record: JsonObject
    """What the run's summary says of this training."""

    @property
    def loss(self) -> float:
        """The loss at the end of its training."""
        return float(self.result.summary["loss"])


@dataclass
class March:
    """One slab after another."""

    slabs: MarchOptions
    problem: Problem
    network: nn.Module | None
    points: int | Mapping[str, int]
    schedule: Optimizer | Sequence[Optimizer]
    weights: Mapping[str, float] | None
    seed: int
    options: dict[str, Any]
    out: Path | None
    resume: bool
    max_seconds: float | None
    progress: bool

    def __post_init__(self) -> None:
        problem = self.problem
        self._column = problem.coordinates.index(self.slabs.time)
        self._begun = clock.perf_counter()
        self._trained = 0
        self._records: list[JsonObject] = []
        self._worst = 0.0
        self._seconds_before = 0.0
        if self.out is not None and not self.resume:
            RunFolder(self.out).check_free()
        # Made once: later slabs are made like it.
        self._like = self.network
        if self._like is None:
            self._like = problem.network(self.seed)

    def run(self) -> Result:
        """Train every slab, then join them."""
        start, end = (float(t) for t in self.problem.domain.bounds[:, self._column])
        done: list[_Slab] = []
        low = start
        length = self.slabs.length
        if self.slabs.tolerance is None:
            # Of equal length, none longer than asked for.
            length = (end - start) / math.ceil((end - start) / length - 1e-9)

        first = length
        whole: _Slab | None = None
        while low < end - 1e-12 * (end - start):
            high = low + length
            # No sliver is left at the end.
            if high > end - 0.2 * length:
                high = end
            slab = self._slab(low, high, done)
            # A half that is not much better than the whole does not pay: the features are at their
            # limit, not the length of the slab.
            if whole is not None and slab.loss > GAIN * whole.loss:
                slab = whole
                high = whole.high
            elif (
                self._is_poor(slab)
                and self._may_refine(low, slab)
                and high - low > 2 * MIN_LENGTH * first
            ):
                whole = slab
                length = (high - low) / 2
                continue
            whole = None

            done.append(slab)
            slab.record["kept"] = True
            self._worst = max(self._worst, slab.loss)
            self._tell(slab)
            low = high
            length = max(length, slab.high - slab.low)
            tolerance = self._tolerance()
            if tolerance is not None and slab.loss < EASY * tolerance:
                length = min(GROWTH * length, MAX_GROWTH * first)

        return self._joined(done)

    def _is_poor(self, slab: _Slab) -> bool:
        tolerance = self._tolerance()
        return tolerance is not None and not slab.loss < tolerance / EASY

    def _tolerance(self) -> float | None:
        """Return the loss up to which a slab is good.

        What the worst slab so far left is carried on: to be better than that gains little.
        """
        tolerance = self.slabs.tolerance
        return None if tolerance is None else max(tolerance, CARRIED * self._worst)

    def _may_refine(self, low: float, slab: _Slab) -> bool:
        """Whether trainings are left for a further pass over a slab, or for halves of it."""
        trainings = self.slabs.trainings
        if trainings is None:
            return True
        start, end = (float(t) for t in self.problem.domain.bounds[:, self._column])
        share = (low - start) / (end - start)
        tolerance = self._tolerance()
        if tolerance is not None and slab.loss > FAILED * tolerance:
            # What it leaves would spoil all that follows: that is worth twice the share.
            trainings *= 2
        # One slab's passes are allowed before any time is covered.
        return self._trained < trainings * share + self.slabs.passes

    def _tell(self, slab: _Slab) -> None:
        if not self.progress:
            return
        seconds = clock.perf_counter() - self._begun
        error = slab.result.summary["relative_l2"]
        of_error = "" if error is None else f", relative L2 error {error:.1e}"
        time = self.slabs.time
        say(
            f"slab {time} = {slab.low:.4g} to {slab.high:.4g}: loss {slab.loss:.1e}{of_error} "
            f"({seconds:.0f} s)"
        )

    # --- one slab ---

    def _slab(self, low: float, high: float, done: Sequence[_Slab]) -> _Slab:
        """Train one slab, in as many passes as help; return the best."""
        best: _Slab | None = None
        places = isinstance(self._like, Features)
        passes = self.slabs.passes if places else 1

        for number in range(passes):
            if best is not None and not self._may_refine(low, best):
                break
            known = best or (done[-1] if done else None)
            slab = self._pass(low, high, done, known, number)
            before = best
            if best is None or slab.loss < best.loss:
                best = slab
            tolerance = self._tolerance()
            if tolerance is not None and slab.loss < tolerance:
                break
            if before is not None and not slab.loss < GAIN * before.loss:
                break

        assert best is not None
        return best

    def _pass(
        self,
        low: float,
        high: float,
        done: Sequence[_Slab],
        known: _Slab | None,
        number: int,
    ) -> _Slab:
        """Train a slab once, from what is known of it or of the one before."""
        generator = self._generator(low, high, number)
        domain = between(self.problem.domain, self.slabs.time, low, high)
        network = self._new_network(domain.bounds)
        solution = self._known(known)
        places = self._candidates(domain, generator)
        gradients = solution.gradients(places, domain)
        if isinstance(network, Features):
            self._place(network, places, gradients, solution, generator)
        elif done:
            network.load_state_dict(_parameters_of(done[-1].result.network, network))

        before = None
        if done:
            before = self._continued(
                done[-1], low, places, gradients, domain, generator
            )
        problem = slab_problem(self.problem, low, high, before)
        points = self._points(problem, places, gradients, low, high, generator)
        weights = dict(self.weights or {})
        weights = {name: w for name, w in weights.items() if name in problem.terms}
        if before is not None:
            weights[CONTINUITY] = self.slabs.weight

        out = None
        if self.out is not None:
            out = self.out / SLABS / f"{self._trained:03d}"
        self._trained += 1
        result = self._trained_slab(problem, network, points, weights, out)
        record = training_record(low, high, result)
        self._records.append(record)
        return _Slab(low, high, result, record)

    def _trained_slab(
        self,
        problem: Problem,
        network: nn.Module,
        points: Mapping[str, Any],
        weights: Mapping[str, float],
        out: Path | None,
    ) -> Result:
        resume = self.resume and out is not None and RunFolder(out).exists()
        is_done = resume and out is not None and RunFolder(out).is_finished()

        left = None
        if self.max_seconds is not None:
            left = self.max_seconds - (clock.perf_counter() - self._begun)
            if left <= 0 and not is_done:
                raise self._out_of_time()
            if is_done:
                left = None

        given = [name for name in problem.equations if name in points]
        options = {
            "hold_out": dict.fromkeys(given, 0.1),
            "keep": "last",
            **self.options,
        }
        result = train(
            problem, network, points=points, schedule=self.schedule, weights=weights,
            seed=self.seed, out=out, resume=resume, max_seconds=left, progress=False, **options,
        )  # fmt: skip
        self._check_finished(result)
        if is_done:
            # It was trained by an earlier call, whose time counts too.
            self._seconds_before += float(result.summary["seconds"])
        return result

    def _check_finished(self, result: Result) -> None:
        """Raise unless the slab was trained to its end: no other can start from it."""
        stopped_by = result.summary["stopped_by"]
        if stopped_by == INTERRUPTED:
            raise KeyboardInterrupt
        if stopped_by == TIME_LIMIT:
            raise self._out_of_time()
        if result.summary["failure"]:
            raise FloatingPointError(
                f"a slab could not be trained: {result.summary['failure']}"
            )

    def _out_of_time(self) -> TimeoutError:
        kept = "without out= nothing is kept"
        if self.out is not None:
            kept = (
                f"go on with resume=True: {self.out / SLABS} has those that are trained"
            )
        return TimeoutError(
            f"the limit of {self.max_seconds:g} s came before the last slab was trained; give more "
            f"(max_seconds), and {kept}"
        )

    def _generator(self, low: float, high: float, number: int) -> torch.Generator:
        """Return what draws for one pass over one slab: the same again where that is repeated."""
        bits = np.array([low, high]).view(np.uint32).tolist()
        sequence = np.random.SeedSequence([self.seed, number, *bits])
        return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))

    def _new_network(self, bounds: np.ndarray) -> nn.Module:
        """Return a network like the one given, for the slab's own bounds where it knows bounds."""
        like = self._like
        assert like is not None
        kind = NETWORKS.name_of(like)
        options: dict[str, Any] = {}
        if kind is not None and isinstance(like, Rebuildable):
            options = dict(like.options())
        if kind is None or options.get("bounds") is None:
            return copy.deepcopy(like)
        options["bounds"] = bounds.tolist()
        # What it draws at first is replaced: the caller's random numbers stay as they were.
        with rng.kept(torch.device("cpu")):
            network: nn.Module = NETWORKS[kind].from_options(options)
        network = network.to(next(like.parameters()).dtype)
        if not isinstance(network, Features):
            network.load_state_dict(_parameters_of(like, network))
        return network

    # --- where the solution is steep ---

    def _known(self, slab: _Slab | None) -> KnownSolution:
        """Return what a slab says, or before the first what the ansatz says of the start."""
        if slab is None:
            start = float(self.problem.domain.bounds[0, self._column])
            return KnownSolution.at_start(self.problem, start, self._column)
        network = slab.result.network
        return KnownSolution(self.problem, network, slab.low, slab.high, self._column)

    def _candidates(self, domain: Domain, generator: torch.Generator) -> Tensor:
        """Return places among which features and points are drawn, (n, d)."""
        n = CANDIDATES * max(self._most_points(), self._features())
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return domain.sample(n, "random", seed)

    def _features(self) -> int:
        like = self._like
        return like.layers[1] if isinstance(like, Features) else 1

    def _most_points(self) -> int:
        counts = self.points
        return max(counts.values()) if isinstance(counts, Mapping) else int(counts)

    def _place(
        self,
        network: Features,
        places: Tensor,
        gradients: Tensor,
        known: KnownSolution,
        generator: torch.Generator,
    ) -> None:
        """Place the features, and let the last layer begin where the solution is known to be."""
        placement = self.slabs.placement
        rows = placement.rows(gradients, network.layers[1], generator)
        network.place(placement, places[rows], gradients[rows], self._column, generator)

        n_fitted = FITTED * network.layers[1]
        fitted = places[placement.rows(gradients, n_fitted, generator)]
        network.fit(fitted, known.raw(fitted))

    # --- points ---

    def _drawn(
        self,
        places: Tensor,
        gradients: Tensor,
        n: int,
        domain: Domain,
        generator: torch.Generator,
    ) -> Tensor:
        """Return n points of the domain that follow steep places, (n, d)."""
        placement = self.slabs.placement
        return steep_points(
            placement, places, gradients, n, domain, self._column, generator
        )

    def _continued(
        self,
        last: _Slab,
        low: float,
        places: Tensor,
        gradients: Tensor,
        domain: Domain,
        generator: torch.Generator,
    ) -> Data:
        """Return what the slab before says at its end, as measurements of this one."""
        names = continued_fields(self.problem)
        n = max(MIN_CONTINUED, self._most_points() // CONTINUED_SHARE)
        at = self._drawn(places, gradients, n, domain, generator)
        at[:, self._column] = low
        values = self.problem.evaluate(last.result.network, at, names)
        columns: dict[str, Any] = {}
        for k, name in enumerate(names):
            columns[name] = values[:, k]
        return Data(CONTINUITY, at, **columns)

    def _points(
        self,
        problem: Problem,
        places: Tensor,
        gradients: Tensor,
        low: float,
        high: float,
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Return points by term: those of equations follow steep places and the slab's ends."""
        counts = self.points
        if not isinstance(counts, Mapping):
            counts = {next(iter(problem.equations)): counts}
        points: dict[str, Any] = {}
        for name, count in counts.items():
            if name not in problem.terms:
                continue  # an initial condition, which later slabs do not have
            if name not in problem.equations:
                points[name] = count
                continue
            at = self._drawn(places, gradients, count, problem.domain, generator)
            at[:, self._column] = arcsine_times(low, high, count, generator)
            points[name] = at
        return points

    # --- all together ---

    def _joined(self, done: Sequence[_Slab]) -> Result:
        """Return the run of all slabs together, none of whose networks is changed."""
        edges = [slab.high for slab in done[:-1]]
        networks = [slab.result.network for slab in done]
        network = Piecewise.of(networks, edges, self._column)
        problem = joined_problem(self.problem, edges)

        points: dict[str, Tensor] = {}
        for k, slab in enumerate(done):
            for name, term in slab.result.objective.terms.items():
                if name == CONTINUITY:
                    points[f"{CONTINUITY}_{k}"] = term.locations
                    continue
                rows = term.locations
                if name in points:
                    rows = torch.cat([points[name], rows])
                points[name] = rows

        weights = dict(self.weights or {})
        for k in range(1, len(done)):
            weights[f"{CONTINUITY}_{k}"] = self.slabs.weight
        options = {"keep": "last", **self.options}
        if self.out is not None and self.resume:
            options["resume"] = RunFolder(self.out).exists()
        result = train(
            problem, network, points=points, schedule=Joining(), weights=weights,
            seed=self.seed, out=self.out, progress=False, **options,
        )  # fmt: skip
        seconds = self._seconds_before + clock.perf_counter() - self._begun
        result.summary["seconds"] = round(seconds, 3)
        result.summary["march"] = {"time": self.slabs.time, "trainings": self._records}
        if self.out is not None:
            # What it took to train all slabs, not to join them.
            RunFolder(self.out).write_summary(result.summary)
        return result


def training_record(low: float, high: float, result: Result) -> JsonObject:
    """Return what one training of a slab came to, as ``summary["march"]`` has it.

    It is not ``kept`` until the march goes on from it.
    """
    record: JsonObject = {"low": low, "high": high, "kept": False}
    for name in RECORDED:
        record[name] = result.summary[name]
    return record


def _parameters_of(network: nn.Module, of: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a network, with the buffers (scaling) of another like it."""
    state = dict(of.state_dict())
    state |= {name: p.detach() for name, p in network.named_parameters()}
    return state
