"""The training loop: steps, log rows and resampling in turn, each state a place to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence import _checks
from whence._files import JsonObject
from whence._interrupts import Interrupts
from whence.finiteness import where_not_finite
from whence.objective import Objective
from whence.pinn.optimizers.stepper import Optimizer, Progress, Stepper
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.sampling.weighted_points import points_by_term, weights_by_term
from whence.pinn.training import rng
from whence.pinn.training.history import History
from whence.pinn.training.monitor import Monitor
from whence.pinn.training.observers import Observer, say
from whence.pinn.training.pinned import pinned_kept
from whence.pinn.training.point_record import PointRecord
from whence.pinn.training.reweighting import Reweighting, WeightingLike
from whence.pinn.training.run_folder import RunFolder
from whence.pinn.training.saving import Saver
from whence.pinn.training.state import Place, RunState, Snapshot
from whence.pinn.training.stepped_on import SteppedOn

CHECKPOINT_SECONDS = 20.0
"""Time between two checkpoints: what a kill can cost."""
PROMPT_SECONDS = 0.2
"""Longest time of a log row for which Ctrl-C still waits."""

FINISHED = "schedule finished"
TIME_LIMIT = "time limit"
CRITERION = "stop criterion"
INTERRUPTED = "interrupted"
NOT_FINITE = "loss not finite"


@dataclass(frozen=True)
class Plan:
    """What a run is to do: optimizers in turn, points, weights, what to keep."""

    schedule: tuple[Optimizer, ...]
    resample: Resampler | None
    weighting: WeightingLike | None
    seed: int
    keep: str

    @property
    def iterations(self) -> int:
        """Steps of all stages."""
        return sum(stage.iterations for stage in self.schedule)

    @property
    def resamples_at_start(self) -> bool:
        """Whether points are renewed before the first step."""
        return bool(getattr(self.resample, "at_start", False))

    @property
    def stages_of_round(self) -> int | None:
        """Stages between two rounds of resampling, None where iterations are counted."""
        return getattr(self.resample, "stages", None)

    @property
    def rounds(self) -> float:
        """Rounds of resampling at most."""
        rounds = getattr(self.resample, "rounds", None)
        return math.inf if rounds is None else rounds


class Loop:
    """One training run.

    Between two rounds of the loop the run stands; :meth:`state` is then all that it needs to go
    on, in memory after Ctrl-C or a failure as on disk after a kill. A state is saved only if its
    loss is finite.
    """

    def __init__(
        self,
        objective: Objective,
        plan: Plan,
        monitor: Monitor,
        observers: Sequence[Observer],
    ) -> None:
        self.objective = objective
        self.history = History()
        self.points = PointRecord()
        self.place = Place()
        self.observers = [o.start(objective, plan.iterations) for o in observers]
        self._plan = plan
        self._monitor = monitor
        # The first network is the best so far, should no row be finite.
        self._best = Snapshot.of(objective)
        self._reweighting: Reweighting | None = None
        if plan.weighting is not None:
            self._reweighting = Reweighting(plan.weighting, objective)
        self._stepper: Stepper | None = None
        self.first: Tensor | None = objective.parameters.vector()
        """θ before any step of the run; None where a folder that it goes on from lacks it."""
        self.stepped_on = SteppedOn()

        self._failure: str | None = None
        """Where the loss is not finite, until the run goes back from there."""
        self._finite_at: int | None = None
        """The iteration at which the loss is known to be finite."""
        self._met_criterion = False
        self._log_seconds = 0.0
        self._begun: float | None = None

    def begin(self) -> None:
        """Note the first points and the first row; a loss that is not finite is a ValueError."""
        self._record(Snapshot.of(self.objective).points)
        if self._plan.resamples_at_start:
            self._renew_points()
        if self._failure is None:
            self._log()
        self._show_row()
        if self._failure is not None:
            raise ValueError(f"before any step, {self._failure}")

    def try_criteria(self) -> None:
        """Ask observers about the last row: a criterion that raises does so before any step."""
        for observer in self.observers:
            observer.should_stop(self.history[-1])

    # --- the run ---

    def run(
        self, interrupts: Interrupts, max_seconds: float | None, saver: Saver
    ) -> str:
        """Train until something ends it, and save; return what did."""
        # As if begun earlier by the time before a resume, which counts.
        self._begun = time.perf_counter() - self.place.seconds
        try:
            why, standing = self._train(interrupts, max_seconds, saver)
            self._met_criterion = why == CRITERION
            # The state to go on from was taken first, and observers do not see this row: one logged
            # only because the run stops here must not change how it goes on.
            if self._needs_row(why):
                self._log()
            if self.keeps_best:
                self.objective = self._best.restored(self.objective)
            self._save(saver, standing, self.kept_iteration)
        finally:
            for observer in self.observers:
                observer.end()

        # The other endings are what was asked for.
        if why in (INTERRUPTED, NOT_FINITE):
            say(self._farewell(why, saver.folder))
        return why

    def _train(
        self, interrupts: Interrupts, max_seconds: float | None, saver: Saver
    ) -> tuple[str, RunState]:
        """Return what ended training and the state to go on from, which is also taken up."""
        # `now` is where the run stands, `good` the last state whose loss is known to be finite.
        now = self.state()
        good = now
        saved_at = time.perf_counter()
        # Without the time limit: a run that is not over takes one round at least.
        why = self._ending(None)

        while why is None:
            if not interrupts.completes(self._advance):
                # Ctrl-C in the midst of a round, of which nothing is kept.
                self.restore(now)
                return INTERRUPTED, self._last_good(now, good)

            if self._failure is not None:
                failure = self._failure  # read first, as restoring clears it
                self.restore(now)
                self._last_good(now, good)
                self.place.failure = failure
                return NOT_FINITE, self.state()

            good = now
            now = self.state()
            why = self._ending(max_seconds)
            is_due = time.perf_counter() - saved_at > CHECKPOINT_SECONDS
            if why is None and is_due and self._is_good():
                self._save(saver, now, now.place.iteration)
                saved_at = time.perf_counter()

        return why, self._last_good(now, good)

    def _ending(self, max_seconds: float | None) -> str | None:
        """Return what ends training here, if anything does."""
        if self.place.done:
            return FINISHED
        if self.place.failure is not None:
            return NOT_FINITE
        if max_seconds is not None and self.place.seconds >= max_seconds:
            return TIME_LIMIT

        row = self.history[-1]
        # Criteria are asked at rows only, so that a resumed run stops at the same.
        is_at_row = row["iteration"] == self.place.iteration
        if is_at_row and any(o.should_stop(row) for o in self.observers):
            return CRITERION

        return None

    def _last_good(self, now: RunState, good: RunState) -> RunState:
        """Return the present state, or the one before if only that has a finite loss."""
        if self._is_good():
            return now
        self.restore(good)
        return good

    def _is_good(self) -> bool:
        """Whether the loss is finite here."""
        if self._finite_at == self.place.iteration:
            return True
        # Whether this is asked depends on the clock, so it must not move the random state.
        with torch.no_grad(), rng.kept(self.objective.parameters.device):
            return math.isfinite(float(self.objective.loss()))

    def _needs_row(self, why: str) -> bool:
        """Whether a row is due as the run ends; Ctrl-C waits only for a quick one."""
        if self.history[-1]["iteration"] == self.place.iteration:
            return False
        has_best = self._plan.keep == "best" and self.place.best_validation is not None
        if why != INTERRUPTED or not has_best:
            return True
        return self._log_seconds < PROMPT_SECONDS

    def _farewell(self, why: str, folder: RunFolder | None) -> str:
        """Return what to tell of a run that did not end by itself."""
        place = self.place
        if why == NOT_FINITE:
            where = "" if folder is None else f" in {folder.path}"
            return (
                f"stopped, as {place.failure}. What is kept{where} is the state at iteration "
                f"{place.iteration}, before that"
            )

        if folder is None:
            return (
                f"interrupted at iteration {place.iteration}; without out= nothing is "
                "saved"
            )

        return (
            f"interrupted; {folder.path} is saved up to iteration {place.iteration}: go on with "
            "--resume (resume=True) and the same options"
        )

    def _save(self, saver: Saver, state: RunState, kept: int) -> None:
        stepped_on = self.stepped_on if self.has_changes else None
        saver.save(
            self.objective, kept, self.history, self.points, stepped_on, self.observers,
            state,
        )  # fmt: skip

    # --- one round ---

    def _advance(self) -> None:
        """Take steps until the next event: resampling, a log row, the end of a stage."""
        place = self.place
        stage = self._plan.schedule[place.stage]
        if self._stepper is None:
            self._stepper = stage.start(self.objective.parameters)

        done = self._take_steps(self._stepper, self._steps_to_event(stage))
        if self._failure is not None:
            return

        # An optimizer may end its stage early: no step helps any more.
        is_ended = done.finished or place.stage_iteration >= stage.iterations
        is_row = is_ended or place.stage_iteration % stage.log_every == 0
        # An optimizer may find that no step helps without taking one: then there is a row.
        if is_row and self.history[-1]["iteration"] != place.iteration:
            self._log()
            self._show_row()

        if is_ended:
            # The next stage has an optimizer of its own, with nothing remembered.
            place.ends = (*place.ends, place.iteration)
            place.stage += 1
            place.stage_iteration = 0
            place.done = place.stage >= len(self._plan.schedule)
            self._stepper = None

        if self._resampling_is_due(done.iterations):
            self._renew_points()
        for observer in self.observers:
            observer.at_step(place.iteration, self.history[-1])

    def _steps_to_event(self, stage: Optimizer) -> int:
        """Return how many steps to take before anything else may happen."""
        place = self.place
        # From i the next multiple of n is n − (i mod n) steps away.
        steps = [
            stage.iterations - place.stage_iteration,
            stage.chunk,
            stage.log_every - place.stage_iteration % stage.log_every,
        ]
        resample = self._plan.resample
        if resample is not None and self._plan.stages_of_round is None:
            steps.append(resample.every - place.iteration % resample.every)
        return min(steps)

    def _take_steps(self, stepper: Stepper, n: int) -> Progress:
        """Take up to n steps with weights renewed in between; note a failure."""
        place = self.place
        # So many steps as no event lies between, in parts between two renewals of the weights.
        done = Progress(0, None)
        left = n

        while left:
            steps = left
            if self._reweighting is not None:
                if self._reweighting.is_due(place.iteration) and not self._reweigh():
                    return done
                until_due = self._reweighting.steps_until_due(place.iteration)
                steps = min(left, until_due)

            done = self._take(stepper, steps)
            if done.failure is not None:
                self._failure = f"at iteration {place.iteration} {done.failure}"
                return done

            left -= steps
            if done.finished or done.iterations < steps:
                break

        return done

    def _take(self, stepper: Stepper, steps: int) -> Progress:
        """Take steps and show the messages of the stepper."""
        place = self.place
        self.stepped_on.note(place.iteration, self.objective)
        done = stepper.advance(self.objective, steps)
        place.iteration += done.iterations
        place.stage_iteration += done.iterations
        # A loss known here need not be evaluated again before a checkpoint.
        if done.loss is not None and math.isfinite(done.loss):
            self._finite_at = place.iteration
        for message in done.messages:
            say(f"iteration {place.iteration}: {message}")
        return done

    def _reweigh(self) -> bool:
        """Renew the weights of terms; return whether they are finite."""
        assert self._reweighting is not None
        try:
            self.objective = self._reweighting.renewed(self.objective)
        except FloatingPointError as error:
            # A loss that is not finite is the cause, and its message names the points.
            self._check_loss("")
            if self._failure is None:
                self._failure = f"at iteration {self.place.iteration} {error}"

        return self._failure is None

    def _resampling_is_due(self, steps_taken: int) -> bool:
        """Whether points are to be renewed at this iteration, after so many steps."""
        resample = self._plan.resample
        if resample is None or self.place.done or self._failure is not None:
            return False
        if self.place.round >= self._plan.rounds:
            return False

        stages = self._plan.stages_of_round
        if stages is not None:
            # A stage has just ended, if the next one has taken no step.
            is_between = self.place.stage_iteration == 0
            return is_between and self.place.stage % stages == 0

        # An optimizer that finds no step to take must not renew the points of its place again.
        is_multiple = self.place.iteration % resample.every == 0
        return is_multiple and steps_taken > 0

    def _renew_points(self) -> None:
        """Let the resampler change the points, weights with them; note a failure."""
        resample = self._plan.resample
        assert resample is not None
        self._check_loss("")
        if self._failure is not None:
            return

        place = self.place
        place.round += 1
        points = resample.update_points(self.objective, place.round, self._plan.seed)
        if not isinstance(points, Mapping):
            raise TypeError(
                f"{type(resample).__name__}.update_points must return points by term, such as "
                f"{{'pde': points}}, got {_checks.describe(points)}"
            )
        weights = weights_by_term(points)
        points = pinned_kept(self.objective, points_by_term(points))
        # Clones, since a resampler may write into its tensors again.
        clones = {name: rows.clone() for name, rows in points.items()}
        self.objective = self.objective.with_points(clones).with_base_weights(weights)
        if self._reweighting is not None:
            # Weights of single points belong to the points that were: new ones get theirs here.
            self.objective = self._reweighting.carried(self.objective)
        self._record(points)
        self._check_loss(" with the points just drawn")

    def _record(self, points: Mapping[str, Tensor]) -> None:
        """Note the points that train from here on."""
        pinned = {name: term.pinned for name, term in self.objective.terms.items()}
        self.points.update(points, self.place.iteration, pinned)

    def _check_loss(self, when: str) -> None:
        """Note a failure if the loss is not finite."""
        with torch.no_grad():
            loss = float(self.objective.loss())
        if math.isfinite(loss):
            self._finite_at = self.place.iteration
        else:
            self._fail(loss, when)

    def _fail(self, loss: float, when: str = "") -> None:
        """Note that the loss is not finite, and at which points of which term."""
        theta = self.objective.parameters.vector()
        where = where_not_finite(self.objective, theta)
        iteration = self.place.iteration
        self._failure = f"at iteration {iteration}{when} the loss is {loss}: {where}"

    # --- rows ---

    def _tick(self) -> None:
        """Bring the seconds in training up to date; those before a resume count."""
        if self._begun is not None:
            self.place.seconds = time.perf_counter() - self._begun

    def _log(self) -> None:
        """Add a row to the history, and keep the network if it is the best so far."""
        self._tick()
        begun = time.perf_counter()
        place = self.place
        stages = self._plan.schedule
        # A finished run stands past its last stage.
        stage = stages[min(place.stage, len(stages) - 1)]

        row: JsonObject = {
            "iteration": place.iteration,
            "seconds": round(place.seconds, 3),
            "stage": type(stage).__name__,
            **self._monitor.measure(self.objective),
        }
        if self._reweighting is not None:
            for name, term in self.objective.terms.items():
                row[f"weight_{name}"] = term.mean_weight
        self.history.append(row)
        self._keep_if_best(row["validation_loss"])
        if not math.isfinite(row["loss"]):
            self._fail(row["loss"])
        self._log_seconds = time.perf_counter() - begun

    def _show_row(self) -> None:
        """Let observers see the row just logged, if its loss is finite."""
        if self._failure is None:
            for observer in self.observers:
                observer.at_row(self.objective, self.history[-1])

    def _keep_if_best(self, validation: float) -> None:
        """Keep the present network if its validation loss is the least so far."""
        place = self.place
        best = self._best_validation()
        if math.isfinite(validation) and (best is None or validation < best):
            place.best_validation = validation
            place.best_iteration = place.iteration
            self._best = Snapshot.of(self.objective)

    def _best_validation(self) -> float | None:
        """Return the least validation loss so far; where weights change, that of the best by now.

        Losses of different weights cannot be compared, two networks under the same weights can.
        """
        place = self.place
        # Under the weights of now, at the parameters of then.
        if self._reweighting is not None and place.best_validation is not None:
            with self.objective.parameters.at(self._best.theta):
                place.best_validation = self._monitor.validation_loss(self.objective)
        return place.best_validation

    @property
    def keeps_best(self) -> bool:
        """Whether the network of least validation loss is kept, rather than the last one."""
        has_best = self.place.best_validation is not None
        return self._plan.keep == "best" and has_best and not self._met_criterion

    @property
    def kept_iteration(self) -> int:
        """The iteration of the network that an ended run keeps."""
        return self.place.best_iteration if self.keeps_best else self.place.iteration

    def summary(self, why: str) -> JsonObject:
        """Return the summary of the ended run, from the history row of what it keeps."""
        self._tick()
        place = self.place
        kept = self.kept_iteration
        row = self.history.at_iteration(kept)

        return {
            "problem": self._monitor.problem.name,
            "variant": self._monitor.problem.variant,
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

    @property
    def has_changes(self) -> bool:
        """Whether points or weights change between steps."""
        return self._plan.resample is not None or self._plan.weighting is not None

    def schedule(self) -> tuple[Optimizer, ...]:
        """Return the stages of the run."""
        return self._plan.schedule

    # --- states ---

    def go_on_from(
        self, state: RunState, first: Tensor | None, stepped_on: SteppedOn
    ) -> None:
        """Take up a state of the run that another process saved, and how it came to be there."""
        self.stepped_on = stepped_on
        self.first = first
        self.restore(state)
        if not self.has_changes:
            self.stepped_on.note(0, self.objective)

    def state(self) -> RunState:
        """Return what training needs to go on from here; later steps change none of it."""
        self._tick()
        device = self.objective.parameters.device
        reweighting = self._reweighting
        return RunState(
            place=replace(self.place),  # a copy, as steps change it in place
            present=Snapshot.of(self.objective),
            best=self._best,
            optimizer=None if self._stepper is None else self._stepper.state(),
            weighting={} if reweighting is None else reweighting.state(),
            random=rng.states(device),
            history_rows=len(self.history),
        )

    def restore(self, state: RunState) -> None:
        """Take up a state of this run, however far it has gone since."""
        parameters = self.objective.parameters
        self._failure = None
        self.place = replace(state.place)
        self._best = state.best
        self.objective = state.present.restored(self.objective)
        self.stepped_on = self.stepped_on.before(self.place.iteration)
        if self._reweighting is not None:
            self._reweighting.restore(state.weighting, self.objective)

        self.history.truncate(state.history_rows)
        self.points = self.points.rewind(self.place.iteration)
        for observer in self.observers:
            observer.rewind(self.place.iteration)

        self._stepper = None
        if state.optimizer is not None:
            stage = self._plan.schedule[self.place.stage]
            self._stepper = stage.start(parameters)
            self._stepper.restore(state.optimizer.to(parameters.device))
        rng.put_back(state.random, parameters.device)
