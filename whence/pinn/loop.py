"""The training loop: steps, log rows and resampling in turn, each state a place to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from whence import _checks
from whence._files import NotWritten
from whence._interrupts import Interrupts
from whence.objective import Objective
from whence.pinn import randomness
from whence.pinn.diagnosis import where_not_finite
from whence.pinn.optimizers import Optimizer, OptimizerState, Progress, Stepper
from whence.pinn.reweighting import Reweighting, Weighting, weights_of
from whence.pinn.runs import (
    CHECKPOINT,
    HISTORY,
    POINTS,
    Checkpoint,
    PointRecord,
    RunFolder,
    history_digest,
)
from whence.pinn.spectra import Spectra, SpectraRecord
from whence.pinn.watch import Bar, Watch, say

CHECKPOINT_SECONDS = 20.0
PROMPT_SECONDS = 0.2
"""Longest time of a log row for which Ctrl-C still waits."""
FINISHED, TIME_LIMIT, CRITERION, INTERRUPTED, NOT_FINITE = (
    "schedule finished",
    "time limit",
    "stop criterion",
    "interrupted",
    "loss not finite",
)


class Resampler(Protocol):
    """Renews training points between steps; see :class:`whence.pinn.Resample`."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""

    @property
    def every(self) -> int:
        """Iterations between two rounds."""

    def update_points(
        self, objective: Objective, round: int, seed: int
    ) -> dict[str, Tensor]:
        """Return the renewed points by term; terms left out keep theirs."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do: optimisers in turn, points, weights, what to keep, when to stop."""

    schedule: tuple[Optimizer, ...]
    resample: Resampler | None
    weighting: Weighting | None
    seed: int
    keep: str
    spectra: Spectra | None = None
    stop: Callable[[dict[str, Any]], bool] | None = None


@dataclass
class Place:
    """Where a run stands."""

    iteration: int = 0
    stage: int = 0
    stage_iteration: int = 0
    round: int = 0
    seconds: float = 0.0
    best_validation: float | None = None
    best_iteration: int = 0
    done: bool = False
    failure: str | None = None
    """Where the loss was not finite, once it was: the run then goes no further."""


class Run:
    """One training run: the loop, its clock and its files.

    Between two rounds of the loop the run stands; :meth:`_standing` is then all that it needs to
    go on, in memory after Ctrl-C or a failure as on disk after a kill. A state is saved only if
    its loss is finite.
    """

    def __init__(
        self,
        objective: Objective,
        plan: Plan,
        watch: Watch,
        folder: RunFolder | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.objective = objective
        self.history: list[dict[str, Any]] = []
        self._plan = plan
        self._weights: Reweighting | None = None
        if plan.weighting is not None:
            self._weights = Reweighting(plan.weighting, objective)
        self._spectra: SpectraRecord | None = None
        if plan.spectra is not None:
            self._spectra = SpectraRecord.of(plan.spectra, objective)
        self._watch = watch
        self._folder = folder
        self._place = Place()
        self._best = objective.parameters.vector()
        self._best_points, self._best_weights = self._points(), weights_of(objective)
        self._best_buffers = self._buffers()
        self._met = False
        """Whether the criterion of the plan ended training."""
        self._stepper: Stepper | None = None
        self._record = PointRecord()
        self._begun: float | None = None
        self._saved: int | None = None
        self._failure: str | None = None
        self._finite_at: int | None = None
        self._log_seconds = 0.0
        if checkpoint is not None:
            self._take_up(checkpoint)
            return
        self._record.update(self._points(), 0)
        self._log()
        self._take_spectra()
        if self._failure is not None:
            raise ValueError(f"before any step, {self._failure}")

    def go(
        self, interrupts: Interrupts, max_seconds: float | None, progress: bool
    ) -> str:
        """Train until something ends it, and save; return what did."""
        self._begun = time.perf_counter() - self._place.seconds
        total = sum(stage.iterations for stage in self._plan.schedule)
        with Bar(total, self._place.iteration, progress) as bar:
            why, standing = self._train(interrupts, max_seconds, bar)
            self._met = why == CRITERION
            # The state to go on from was taken first: a row logged only because the run stops
            # here must not change how it goes on.
            if self._needs_row(why):
                self._log()
            self._keep()
            self._save(standing)
            if why in (INTERRUPTED, NOT_FINITE):
                say(self._farewell(why))
        return why

    def _train(
        self, interrupts: Interrupts, max_seconds: float | None, bar: Bar
    ) -> tuple[str, Checkpoint]:
        """Return what ended training and the state to go on from, which is also taken up."""
        good = now = self._standing()
        saved = time.perf_counter()
        why = self._end(None)
        while why is None:
            if not interrupts.completes(lambda: self._advance(bar)):
                self._return_to(now)
                why = INTERRUPTED
            elif self._failure is not None:
                self._return_to(now)
                self._last_good(now, good)
                self._place.failure = self._failure
                return NOT_FINITE, self._standing()
            else:
                good, now = now, self._standing()
                why = self._end(max_seconds)
            due = time.perf_counter() - saved > CHECKPOINT_SECONDS
            if why is None and due and self._is_good():
                self._save(now)
                saved = time.perf_counter()
        return why, self._last_good(now, good)

    def _end(self, max_seconds: float | None) -> str | None:
        """Return what ends training here, if anything does."""
        if self._place.done:
            return FINISHED
        if self._place.failure is not None:
            return NOT_FINITE
        if max_seconds is not None and self._place.seconds >= max_seconds:
            return TIME_LIMIT
        at_row = self.history[-1]["iteration"] == self._place.iteration
        if (
            at_row
            and self._plan.stop is not None
            and self._plan.stop(dict(self.history[-1]))
        ):
            return CRITERION
        return None

    def _last_good(self, now: Checkpoint, good: Checkpoint) -> Checkpoint:
        """Return the present state, or the one before if only that has a finite loss."""
        if self._is_good():
            return now
        self._return_to(good)
        return good

    def _is_good(self) -> bool:
        """Tell whether the loss is finite here."""
        if self._finite_at == self._place.iteration:
            return True
        # Whether this is asked depends on the clock, so it must not move the random state.
        with torch.no_grad(), randomness.kept(self.objective.parameters.device):
            return math.isfinite(float(self.objective.loss()))

    def _needs_row(self, why: str) -> bool:
        if self.history[-1]["iteration"] == self._place.iteration:
            return False
        kept = self._plan.keep == "best" and self._place.best_validation is not None
        return why != INTERRUPTED or not kept or self._log_seconds < PROMPT_SECONDS

    def _farewell(self, why: str) -> str:
        place, out = self._place, self._folder
        if why == NOT_FINITE:
            where = f" in {out.path}" if out is not None else ""
            return (
                f"stopped, as {place.failure}. What is kept{where} is the state at iteration "
                f"{place.iteration}, before that"
            )
        if out is None:
            return f"interrupted at iteration {place.iteration}; without out= nothing is saved"
        return (
            f"interrupted; {out.path} is saved up to iteration {place.iteration}: go on with "
            "--resume (resume=True) and the same options"
        )

    def _tick(self) -> None:
        if self._begun is not None:
            self._place.seconds = time.perf_counter() - self._begun

    def _advance(self, bar: Bar) -> None:
        """Take steps until the next event: resampling, a log row, the end of a stage."""
        place, resample = self._place, self._plan.resample
        stage = self._plan.schedule[place.stage]
        if self._stepper is None:
            self._stepper = stage.start(self.objective.parameters)
        left, done = self._steps_to_event(stage), Progress(0, None)
        while left:
            steps = left
            if self._weights is not None:
                if self._weights.due(place.iteration) and not self._reweigh():
                    return
                steps = min(left, self._weights.steps(place.iteration))
            done = self._take(self._stepper, steps)
            if done.failure is not None:
                self._failure = f"at iteration {place.iteration} {done.failure}"
                return
            left -= steps
            if done.finished or done.iterations < steps:
                break
        ended = done.finished or place.stage_iteration >= stage.iterations
        at_row = ended or place.stage_iteration % stage.log_every == 0
        # An optimiser may find that no step helps without taking one: then there is a row.
        if at_row and self.history[-1]["iteration"] != place.iteration:
            self._log()
            self._take_spectra()
        if ended:
            place.stage, place.stage_iteration, self._stepper = place.stage + 1, 0, None
            place.done = place.stage >= len(self._plan.schedule)
        due = resample is not None and place.iteration % resample.every == 0
        if due and done.iterations and not place.done and self._failure is None:
            self._renew()
        bar.show(place.iteration, self.history[-1])

    def _take(self, stepper: Stepper, steps: int) -> Progress:
        """Take steps and say what there is to say of them."""
        place = self._place
        done = stepper.advance(self.objective, steps)
        place.iteration += done.iterations
        place.stage_iteration += done.iterations
        if done.loss is not None and math.isfinite(done.loss):
            self._finite_at = place.iteration
        for message in done.messages:
            say(f"iteration {place.iteration}: {message}")
        return done

    def _reweigh(self) -> bool:
        """Renew the weights of terms; tell whether they are finite."""
        assert self._weights is not None
        try:
            self.objective = self._weights.renewed(self.objective)
        except FloatingPointError as error:
            self._check_loss("")
            said = f"at iteration {self._place.iteration} {error}"
            self._failure = self._failure or said
        return self._failure is None

    def _steps_to_event(self, stage: Optimizer) -> int:
        place, resample = self._place, self._plan.resample
        left = [stage.iterations - place.stage_iteration, stage.chunk]
        left.append(stage.log_every - place.stage_iteration % stage.log_every)
        if resample is not None:
            left.append(resample.every - place.iteration % resample.every)
        return min(left)

    def _renew(self) -> None:
        place, resample = self._place, self._plan.resample
        assert resample is not None
        self._check_loss("")
        if self._failure is not None:
            return
        place.round += 1
        points = resample.update_points(self.objective, place.round, self._plan.seed)
        # Clones, since a resampler may write into its tensors again.
        self.objective = self.objective.with_points(
            {n: p.clone() for n, p in points.items()}
        )
        if self._weights is not None:
            self.objective = self._weights.carried(self.objective)
        self._record.update(points, place.iteration)
        self._check_loss(" with the points just drawn")

    def _check_loss(self, when: str) -> None:
        """Note a failure if the loss is not finite."""
        with torch.no_grad():
            loss = float(self.objective.loss())
        if math.isfinite(loss):
            self._finite_at = self._place.iteration
        else:
            self._fail(loss, when)

    def _fail(self, loss: float, when: str = "") -> None:
        where = where_not_finite(self.objective, self.objective.parameters.vector())
        self._failure = (
            f"at iteration {self._place.iteration}{when} the loss is {loss}: {where}"
        )

    def _log(self) -> None:
        self._tick()
        begun = time.perf_counter()
        place, objective = self._place, self.objective
        with torch.no_grad():
            each = objective.point_losses()
            losses = {name: float(values.mean()) for name, values in each.items()}
            total = float(objective.total(each))
        stage = self._plan.schedule[min(place.stage, len(self._plan.schedule) - 1)]
        row: dict[str, Any] = {
            "iteration": place.iteration,
            "seconds": round(place.seconds, 3),
            "stage": type(stage).__name__,
            "points": objective.n_points,
            "loss": total,
            **{f"loss_{name}": value for name, value in losses.items()},
            "validation_loss": self._watch.validation(objective),
        }
        error = self._watch.relative_l2(objective)
        if error is not None:
            row["relative_l2"] = error
        if self._weights is not None:
            row |= {
                f"weight_{name}": term.mean_weight
                for name, term in objective.terms.items()
            }
        self.history.append(row)
        validation, best = row["validation_loss"], self._best_validation()
        if math.isfinite(validation) and (best is None or validation < best):
            place.best_validation, place.best_iteration = validation, place.iteration
            self._best = objective.parameters.vector()
            self._best_points, self._best_buffers = self._points(), self._buffers()
            self._best_weights = weights_of(objective)
        if not math.isfinite(row["loss"]):
            self._fail(row["loss"])
        self._log_seconds = time.perf_counter() - begun

    def _best_validation(self) -> float | None:
        """Return the least validation loss so far; where weights change, that of the best by now.

        Losses of different weights cannot be compared, two networks under the same weights can.
        """
        place, parameters = self._place, self.objective.parameters
        if self._weights is not None and place.best_validation is not None:
            with parameters.at(self._best):
                place.best_validation = self._watch.validation(self.objective)
        return place.best_validation

    def _take_spectra(self) -> None:
        if self._spectra is not None and self._failure is None:
            self._spectra.take(self.objective, self._place.iteration)

    @property
    def spectra(self) -> dict[str, Any] | None:
        """The recorded spectra as arrays, where they were asked for."""
        return None if self._spectra is None else self._spectra.arrays()

    def _keep(self) -> None:
        """Put the kept parameters and points into the objective."""
        if self._kept_best:
            self.objective.parameters.assign(self._best)
            self._put_buffers(self._best_buffers)
            points = self.objective.with_points(self._best_points)
            self.objective = points.with_weights(self._best_weights)

    @property
    def _kept_best(self) -> bool:
        best = self._plan.keep == "best" and self._place.best_validation is not None
        return best and not self._met

    def summary(self, why: str) -> dict[str, Any]:
        """Write and return the summary of the ended run, from the history row of what it keeps."""
        self._tick()
        place = self._place
        kept = place.best_iteration if self._kept_best else place.iteration
        row = next(row for row in reversed(self.history) if row["iteration"] == kept)
        summary = {
            "problem": self._watch.problem.name,
            "seed": self._plan.seed,
            "seconds": round(place.seconds, 3),
            "iterations": place.iteration,
            "parameters": self.objective.parameters.size,
            "points": self.objective.n_points,
            "loss": row["loss"],
            "losses": {name: row[f"loss_{name}"] for name in self.objective.terms},
            "validation_loss": row["validation_loss"],
            "relative_l2": row.get("relative_l2"),
            "max_points": max(row["points"] for row in self.history),
            "kept_iteration": kept,
            "rounds": place.round,
            "finished": place.done,
            "stopped_by": why,
            "failure": place.failure,
        }
        if self._folder is not None:
            with self._saying_what_is_saved():
                self._folder.write_summary(summary)
        return summary

    def _points(self) -> dict[str, Tensor]:
        return {name: term.points for name, term in self.objective.terms.items()}

    def _standing(self) -> Checkpoint:
        """Return what training needs to go on from here; later steps change none of it."""
        self._tick()
        parameters = self.objective.parameters
        state = self._stepper.state() if self._stepper is not None else OptimizerState()
        groups = {
            "points": self._points(),
            "best_points": self._best_points,
            "weights": weights_of(self.objective),
            "best_weights": self._best_weights,
            "weighting": self._weights.tensors() if self._weights is not None else {},
            "optimizer": state.tensors,
            "random": randomness.states(parameters.device),
            "buffers": self._buffers(),
            "best_buffers": self._best_buffers,
        }
        tensors = {"last": parameters.vector(), "best": self._best}
        for group, held in groups.items():
            tensors |= {f"{group}/{name}": tensor for name, tensor in held.items()}
        numbers = {
            "place": dict(vars(self._place)),
            "optimizer": state.numbers,
            "weighting": self._weights.numbers() if self._weights is not None else {},
            "history_rows": len(self.history),
            "in_stage": self._stepper is not None,
        }
        return Checkpoint(tensors, numbers)

    def _return_to(self, state: Checkpoint) -> None:
        """Take up a state of this run, however far it has gone since."""
        parameters, numbers = self.objective.parameters, state.numbers
        like = parameters.vector()
        self._place = Place(**numbers["place"])
        self._best = state.tensors["best"].to(like)
        self._best_points = {
            n: p.to(like) for n, p in state.group("best_points").items()
        }
        parameters.assign(state.tensors["last"].to(like))
        points = {name: p.to(like) for name, p in state.group("points").items()}
        weights = {n: w.to(like.device) for n, w in state.group("weights").items()}
        self.objective = self.objective.with_points(points).with_weights(weights)
        best = state.group("best_weights")
        self._best_weights = {n: w.to(like.device) for n, w in best.items()}
        if self._weights is not None:
            tensors = {
                n: t.to(like.device) for n, t in state.group("weighting").items()
            }
            self._weights.restore(tensors, numbers["weighting"])
        del self.history[numbers["history_rows"] :]
        self._record = self._record.rewind(self._place.iteration)
        if self._spectra is not None:
            self._spectra.rewind(self._place.iteration)
        self._stepper = None
        if numbers["in_stage"]:
            self._stepper = self._plan.schedule[self._place.stage].start(parameters)
            tensors = {
                n: t.to(like.device) for n, t in state.group("optimizer").items()
            }
            self._stepper.restore(OptimizerState(tensors, numbers["optimizer"]))
        randomness.put_back(state.group("random"), parameters.device)
        self._best_buffers = state.group("best_buffers")
        self._put_buffers(state.group("buffers"))

    def _buffers(self) -> dict[str, Tensor]:
        return {n: b.clone() for n, b in self.objective.network.named_buffers()}

    def _put_buffers(self, held: Mapping[str, Tensor]) -> None:
        for name, buffer in self.objective.network.named_buffers():
            buffer.copy_(held[name])

    def _take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint on disk; one of another network or run is a ``ValueError``."""
        assert self._folder is not None
        path = self._folder.path
        self.history = self._folder.history()
        self._record = PointRecord(self._folder.points())
        if self._spectra is not None:
            self._spectra.restore(self._folder.spectra())
        try:
            _check_shapes(checkpoint, self.objective)
            self.objective.network.load_state_dict(checkpoint.group("network"))
            self._return_to(checkpoint)
            rows, expected = (
                checkpoint.numbers["history_rows"],
                checkpoint.numbers["history"],
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ValueError(
                f"{path / CHECKPOINT} is not of this run: {error}"
            ) from None
        if len(self.history) != rows or history_digest(self.history) != expected:
            raise ValueError(
                f"{path / HISTORY} is damaged: it does not fit {CHECKPOINT}"
            )
        present = PointRecord()
        present.update(self._points(), 0)
        if self._record.present() != present.present():
            raise ValueError(
                f"{path / POINTS} is damaged: it does not fit {CHECKPOINT}"
            )
        self._saved = self._place.iteration

    def _save(self, standing: Checkpoint) -> None:
        """Write history, points, and a checkpoint: where training goes on, and what there is.

        ``network/`` and ``kept/`` are what the run has to show at this moment.
        """
        if self._folder is None:
            return
        network = self.objective.network.state_dict()
        shown = {f"network/{name}": value for name, value in network.items()}
        shown |= {f"kept/{name}": value for name, value in self._points().items()}
        kept = weights_of(self.objective)
        shown |= {f"kept_weights/{name}": value for name, value in kept.items()}
        history = history_digest(self.history[: standing.numbers["history_rows"]])
        numbers = {**standing.numbers, "history": history}
        with self._saying_what_is_saved():
            self._folder.check_in_place()
            self._folder.write_history(self.history)
            self._folder.write_points(self._record)
            if self._spectra is not None:
                self._folder.write_spectra(self._spectra.arrays())
            self._folder.write_checkpoint(Checkpoint(standing.tensors | shown, numbers))
        self._saved = standing.numbers["place"]["iteration"]

    @contextmanager
    def _saying_what_is_saved(self) -> Iterator[None]:
        try:
            yield
        except NotWritten as error:
            raise NotWritten(f"{error}. {self._what_is_saved()}") from error

    def _what_is_saved(self) -> str:
        assert self._folder is not None
        path, done = self._folder.path, self._place.iteration
        try:
            self._folder.check_in_place()
        except NotWritten:
            return (
                "Nothing of the run is left on disk: train anew, in a folder that stays"
            )
        if self._saved is None:
            return (
                f"{path} has no checkpoint yet: --resume (resume=True) will start anew"
            )
        return (
            f"{path} holds the run up to iteration {self._saved} of {done} done: after that, go "
            "on with --resume (resume=True) and the same options"
        )


def _check_shapes(checkpoint: Checkpoint, objective: Objective) -> None:
    """Raise ``ValueError`` unless the checkpoint's tensors are of this network and these terms."""
    size, network = (objective.parameters.size,), objective.network
    expected: dict[str, tuple[int, ...]] = {"last": size, "best": size}
    expected |= {
        f"network/{n}": tuple(t.shape) for n, t in network.state_dict().items()
    }
    for name, shape in expected.items():
        held = checkpoint.tensors.get(name)
        if held is None or tuple(held.shape) != shape:
            found = "is missing" if held is None else f"has shape {tuple(held.shape)}"
            raise ValueError(f"its {name!r} {found}, expected shape {shape}")
    for group in ("points", "best_points"):
        points = checkpoint.group(group)
        if set(points) != set(objective.terms):
            raise ValueError(f"its {group} are of terms {', '.join(points) or 'none'}")
        for name, held in points.items():
            _checks.points(
                f"its {group} of term {name!r}", held, len(objective.coordinates)
            )
