"""Training: a schedule of optimisers, resampling between steps, a run folder on disk."""

from __future__ import annotations

import math
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from whence import _checks
from whence._files import PathLike
from whence.objective import Objective
from whence.pinn.optimizers import Optimizer, OptimizerState, Stepper
from whence.pinn.problem import Counts, Problem
from whence.pinn.runs import Checkpoint, PointRecord, RunFolder, described

CHECKPOINT_SECONDS = 20.0
TEST_POINTS = 10_000


class Resampler(Protocol):
    """Renews training points between steps; see :class:`whence.pinn.Resample`."""

    def check(self, objective: Objective) -> None:
        """Raise ``ValueError`` if the objective's points could not be renewed."""

    @property
    def every(self) -> int:
        """Iterations between two rounds."""

    def update_points(self, objective: Objective, round: int, seed: int) -> dict[str, Tensor]:
        """Return the renewed points by term; terms left out keep theirs."""


@dataclass
class Result:
    """A trained network and how it came about.

    ``objective`` holds the network and the last training points: pass it to
    :class:`whence.Influence`. ``history`` has one dict per logged iteration, ``summary`` what
    ``summary.json`` holds, ``path`` the run folder if there is one.
    """

    problem: Problem
    network: nn.Module
    objective: Objective
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    path: Path | None


@dataclass
class _Place:
    """Where a run stands."""

    iteration: int = 0
    stage: int = 0
    stage_iteration: int = 0
    round: int = 0
    seconds: float = 0.0
    best_validation: float = math.inf
    best_iteration: int = 0
    done: bool = False
    why: str = "schedule finished"


def train(
    problem: Problem,
    network: nn.Module | None = None,
    *,
    points: Counts | Mapping[str, Tensor],
    schedule: Sequence[Optimizer],
    resample: Resampler | None = None,
    weights: Mapping[str, float] | None = None,
    sampling: str = "hammersley",
    validation: int = 2000,
    keep: Literal["best", "last"] = "best",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    out: PathLike | None = None,
    max_seconds: float | None = None,
    resume: bool = False,
    start: PathLike | None = None,
    progress: bool = True,
) -> Result:
    """Train a network on a problem.

    Parameters
    ----------
    problem:
        What to solve.
    network:
        What to train; by default the problem's own architecture, initialised from ``seed``.
    points:
        Counts by term (or one count for a single term), or the points themselves by term.
    schedule:
        Optimisers, one after another.
    resample:
        Renews points between steps; ``None`` keeps them.
    weights:
        Weight of each term, 1 unless given.
    sampling:
        How the first points are placed, see :meth:`Problem.sample`.
    validation:
        Fresh random points per term, apart from training and test points, on which the loss is
        watched.
    keep:
        ``"best"``: in the end the parameters of least validation loss are kept, among those of
        the logged iterations. ``"last"``: the last ones.
    seed, dtype, device:
        Seed of everything random, number type, device.
    out:
        Run folder to make; ``None`` writes nothing.
    max_seconds:
        Stop, resumably, after this time in training (that before a resume counts).
    resume:
        Go on with the run in ``out``, which must have been made with the same options, to the
        same bits as if it had never stopped; one killed before its first checkpoint starts anew.
    start:
        A run whose final network to start from.
    progress:
        Whether to show a progress bar.

    Returns
    -------
    Result
        Network, objective, history, summary and folder.

    Raises
    ------
    FileExistsError
        If ``out`` holds a run and ``resume`` is false; nothing is overwritten.
    ValueError
        If an option is wrong, or ``resume`` finds a run made with other options.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=100, schedule=[pinn.GaussNewton(20)], progress=False)
    >>> result.summary["relative_l2"] < 0.05
    True
    """
    _check_options(problem, points, schedule, keep, validation, max_seconds, resume, out)
    _checks.count("seed", seed, zero=True)
    _check_device(device)
    config = {
        "problem": problem.name,
        "hard_constraints": problem.ansatz is not None,
        "network": repr(network) if network is not None else "the problem's own",
        "points": described(points),
        "schedule": described(list(schedule)),
        "resample": described(resample),
        "weights": described(weights),
        "sampling": sampling,
        "validation": validation,
        "keep": keep,
        "seed": seed,
        "dtype": str(dtype),
        "start": str(start) if start is not None else None,
    }
    folder = RunFolder(out) if out is not None else None
    checkpoint = _checkpoint(folder, config, resume)
    module = network if network is not None else problem.network(seed)
    module = module.to(dtype=dtype, device=device)
    if start is not None and checkpoint is None:
        load_network(module, start)
    given = points if _are_tensors(points) else problem.sample(points, seed, sampling)  # type: ignore[arg-type]
    objective = problem.objective(module, given, weights)  # type: ignore[arg-type]
    if resample is not None:
        resample.check(objective)
    watch = _Watch(problem, objective, validation, seed)
    run = _Run(objective, list(schedule), resample, seed, keep, watch, folder, checkpoint)
    if folder is not None and not resume:  # last, so that a wrong option leaves nothing behind
        folder.create({**config, "device": str(device), "versions": _versions()})
    summary = run.go(max_seconds, progress)
    return Result(
        problem, module, run.objective, run.history, summary, folder.path if folder else None
    )


def load_network(network: nn.Module, run: PathLike) -> nn.Module:
    """Load a run's final parameters (and buffers) into ``network`` and return it.

    Examples
    --------
    >>> from whence import pinn
    >>> network = pinn.zoo.load("burgers").network()
    >>> pinn.load_network(network, "no/such/run")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no/such/run holds no checkpoint yet: checkpoint.safetensors is missing
    """
    held = RunFolder(run).checkpoint().group("network")
    own = network.state_dict()
    wrong = [n for n in own if n not in held or held[n].shape != own[n].shape]
    if wrong or len(held) != len(own):
        raise ValueError(
            f"the network of run {run} does not fit: its {wrong[0] if wrong else 'parameters'} "
            f"differs from {type(network).__name__}'s"
        )
    network.load_state_dict(held)
    return network


def load_points(run: PathLike) -> dict[str, Tensor]:
    """Return the points by term that a run's network was trained on when it was kept."""
    return RunFolder(run).checkpoint().group("kept")


def _check_options(
    problem: Problem,
    points: Any,
    schedule: Sequence[Optimizer],
    keep: str,
    validation: int,
    max_seconds: float | None,
    resume: bool,
    out: PathLike | None,
) -> None:
    if not schedule:
        raise ValueError("schedule must name at least one optimiser, such as [pinn.Adam(1000)]")
    _checks.one_of("keep", keep, ("best", "last"))
    _checks.count("validation", validation)
    if max_seconds is not None:
        _checks.positive("max_seconds", max_seconds)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the run to go on with")
    if isinstance(points, Mapping):
        for name in points:
            _checks.one_of("term", name, problem.terms)
        missing = [name for name in problem.terms if name not in points]
        if missing:
            raise ValueError(f"no points for term {missing[0]!r}: every term needs points")


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from None


def _are_tensors(points: Any) -> bool:
    return isinstance(points, Mapping) and all(isinstance(p, Tensor) for p in points.values())


def _checkpoint(
    folder: RunFolder | None, config: dict[str, Any], resume: bool
) -> Checkpoint | None:
    """Return the checkpoint of a run made with the same options, or ``None`` to start anew."""
    if folder is None:
        return None
    if not resume:
        folder.check_free()
        return None
    held = folder.config()
    changed = [k for k, v in config.items() if held.get(k) != v]
    if changed:
        raise ValueError(
            f"{folder.path} was made with {changed[0]} = {held.get(changed[0])!r}, not "
            f"{config[changed[0]]!r}: resume with the same options"
        )
    return folder.checkpoint() if folder.started() else None


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"torch": torch.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    try:
        return {"whence": version("whence"), **versions}
    except PackageNotFoundError:
        return {"whence": "not installed", **versions}


class _Watch:
    """Measures validation loss and test error; no training step uses what is measured."""

    def __init__(self, problem: Problem, objective: Objective, validation: int, seed: int) -> None:
        self._problem = problem
        self._validation = {
            name: objective.draw(name, validation, _child(seed, 1)) for name in objective.terms
        }
        self._test: Tensor | None = None
        if problem.solution is not None:
            self._test = problem.domain.sample(TEST_POINTS, "grid")
            self._truth = problem.reference(self._test)

    def validation(self, objective: Objective) -> float:
        """Return the weighted loss at the validation points."""
        with torch.no_grad():
            return float(objective.with_points(self._validation).loss())

    def relative_l2(self, objective: Objective) -> float | None:
        """Return the relative error at the test points, a uniform grid, if there is a reference."""
        if self._test is None:
            return None
        return self._problem.relative_l2(objective.network, self._test, self._truth)


class _Run:
    """One training run: the loop, its clock and its files."""

    def __init__(
        self,
        objective: Objective,
        schedule: list[Optimizer],
        resample: Resampler | None,
        seed: int,
        keep: str,
        watch: _Watch,
        folder: RunFolder | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.objective = objective
        self.history: list[dict[str, Any]] = []
        self._schedule = schedule
        self._resample = resample
        self._seed = seed
        self._keep = keep
        self._watch = watch
        self._folder = folder
        self._place = _Place()
        self._best = objective.parameters.vector()
        self._best_points = self._points()
        self._stepper: Stepper | None = None
        self._record = PointRecord()
        self._begun: float | None = None
        if checkpoint is not None:
            self._restore(checkpoint)
        else:
            self._record.update(self._points(), 0)
            self._log()

    def go(self, max_seconds: float | None, progress: bool) -> dict[str, Any]:
        """Train to the end, the time limit or an interrupt; return the summary."""
        saved = time.perf_counter()
        self._begun = saved - self._place.seconds
        with _interruptible() as interrupted, _Bar(self, progress) as bar:
            while not self._place.done:
                self._advance(bar)
                self._tick()
                if self._stops(max_seconds, interrupted()):
                    break
                if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self._save(self._standing())
                    saved = time.perf_counter()
            # Taken first: a row logged only because the run stops here must not change how it
            # goes on.
            standing = self._standing()
            if self.history[-1]["iteration"] != self._place.iteration:
                self._log()
        return self._finish(standing)

    def _stops(self, max_seconds: float | None, interrupted: bool) -> bool:
        """Tell whether training stops here, and note why; a finished schedule comes first."""
        place = self._place
        if not place.done and max_seconds is not None and place.seconds >= max_seconds:
            place.why = "time limit"
        elif not place.done and interrupted:
            place.why = "interrupted"
        else:
            return place.done
        return True

    def _tick(self) -> None:
        if self._begun is not None:
            self._place.seconds = time.perf_counter() - self._begun

    def _advance(self, bar: _Bar) -> None:
        """Take steps until the next event: resampling, a log row, the end of a stage."""
        place = self._place
        stage = self._schedule[place.stage]
        if self._stepper is None:
            self._stepper = stage.start(self.objective.parameters)
        left = [stage.iterations - place.stage_iteration, stage.chunk]
        left.append(stage.log_every - place.stage_iteration % stage.log_every)
        if self._resample is not None:
            left.append(self._resample.every - place.iteration % self._resample.every)
        done = self._stepper.advance(self.objective, min(left))
        place.iteration += done.iterations
        place.stage_iteration += done.iterations
        for message in done.messages:
            bar.say(f"iteration {place.iteration}: {message}")
        ended = done.finished or place.stage_iteration >= stage.iterations
        if ended or place.stage_iteration % stage.log_every == 0:
            self._log()
        if ended:
            place.stage, place.stage_iteration, self._stepper = place.stage + 1, 0, None
            place.done = place.stage >= len(self._schedule)
        due = self._resample is not None and place.iteration % self._resample.every == 0
        if due and not place.done:
            self._renew(bar)
        bar.show()

    def _renew(self, bar: _Bar) -> None:
        assert self._resample is not None
        with torch.no_grad():
            loss = float(self.objective.loss())
        if not math.isfinite(loss):
            bar.say(f"iteration {self._place.iteration}: the loss is {loss}, so the points stay")
            return
        self._place.round += 1
        points = self._resample.update_points(self.objective, self._place.round, self._seed)
        self.objective = self.objective.with_points(points)
        self._record.update(points, self._place.iteration)

    def _log(self) -> None:
        self._tick()
        place = self._place
        with torch.no_grad():
            losses = {name: float(loss) for name, loss in self.objective.losses().items()}
        stage = self._schedule[min(place.stage, len(self._schedule) - 1)]
        row: dict[str, Any] = {
            "iteration": place.iteration,
            "seconds": round(place.seconds, 3),
            "stage": type(stage).__name__,
            "points": self.objective.n_points,
            "loss": sum(self.objective.terms[n].weight * v for n, v in losses.items()),
            **{f"loss_{name}": value for name, value in losses.items()},
            "validation_loss": self._watch.validation(self.objective),
        }
        error = self._watch.relative_l2(self.objective)
        if error is not None:
            row["relative_l2"] = error
        self.history.append(row)
        if row["validation_loss"] < place.best_validation:
            place.best_validation = row["validation_loss"]
            place.best_iteration = place.iteration
            self._best = self.objective.parameters.vector()
            self._best_points = self._points()

    def _finish(self, standing: Checkpoint) -> dict[str, Any]:
        """Put the kept parameters into the network, save, write and return the summary."""
        place = self._place
        parameters = self.objective.parameters
        kept = self._keep == "best" and math.isfinite(place.best_validation)
        if kept:
            parameters.assign(self._best)
            self.objective = self.objective.with_points(self._best_points)
        losses = {n: float(v.detach()) for n, v in self.objective.losses().items()}
        summary = {
            "problem": self._watch._problem.name,
            "seed": self._seed,
            "seconds": round(place.seconds, 3),
            "iterations": place.iteration,
            "parameters": parameters.size,
            "points": self.objective.n_points,
            "loss": sum(self.objective.terms[n].weight * v for n, v in losses.items()),
            "losses": losses,
            "validation_loss": self._watch.validation(self.objective),
            "relative_l2": self._watch.relative_l2(self.objective),
            "max_points": max(row["points"] for row in self.history),
            "kept_iteration": place.best_iteration if kept else place.iteration,
            "rounds": place.round,
            "finished": place.done,
            "stopped_by": place.why,
        }
        self._save(standing)
        if self._folder is not None:
            self._folder.write_summary(summary)
        return summary

    def _points(self) -> dict[str, Tensor]:
        return {name: term.points for name, term in self.objective.terms.items()}

    def _standing(self) -> Checkpoint:
        """Return what training needs to go on from here."""
        state = self._stepper.state() if self._stepper is not None else OptimizerState()
        tensors = {
            "last": self.objective.parameters.vector(),
            "best": self._best,
            **{f"points/{name}": value for name, value in self._points().items()},
            **{f"best_points/{name}": value for name, value in self._best_points.items()},
            **{f"optimizer/{name}": value for name, value in state.tensors.items()},
        }
        numbers = {
            "place": dict(vars(self._place)),
            "optimizer": state.numbers,
            "history_rows": len(self.history),
            "in_stage": self._stepper is not None,
        }
        return Checkpoint(tensors, numbers)

    def _save(self, standing: Checkpoint) -> None:
        """Write history, points, and a checkpoint: where training goes on, and what there is.

        ``network/`` and ``kept/`` are what the run has to show at this moment.
        """
        if self._folder is None:
            return
        network = self.objective.network.state_dict()
        shown = {f"network/{name}": value for name, value in network.items()}
        shown |= {f"kept/{name}": value for name, value in self._points().items()}
        self._folder.write_history(self.history)
        self._folder.write_points(self._record)
        self._folder.write_checkpoint(Checkpoint(standing.tensors | shown, standing.numbers))

    def _restore(self, checkpoint: Checkpoint) -> None:
        assert self._folder is not None
        like = self._best
        numbers = checkpoint.numbers
        self._place = _Place(**numbers["place"])
        self._place.why = "schedule finished"
        self._best = checkpoint.tensors["best"].to(like)
        self.objective.network.load_state_dict(checkpoint.group("network"))
        self.objective.parameters.assign(checkpoint.tensors["last"].to(like))
        points = {name: p.to(like) for name, p in checkpoint.group("points").items()}
        self._best_points = {n: p.to(like) for n, p in checkpoint.group("best_points").items()}
        self.objective = self.objective.with_points(points)
        self.history = self._folder.history()[: numbers["history_rows"]]
        self._record = PointRecord(self._folder.points()).rewind(self._place.iteration)
        if numbers["in_stage"]:
            self._stepper = self._schedule[self._place.stage].start(self.objective.parameters)
            tensors = {n: t.to(like.device) for n, t in checkpoint.group("optimizer").items()}
            self._stepper.restore(OptimizerState(tensors, numbers["optimizer"]))


def _child(seed: int, k: int) -> int:
    return int(np.random.SeedSequence([seed, 7919, k]).generate_state(1)[0])


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that a run stops between steps; a second one raises."""
    hit = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield hit.is_set
        return

    def handle(signum: int, frame: Any) -> None:
        if hit.is_set():
            raise KeyboardInterrupt
        hit.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield hit.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass
class _Bar:
    """The progress bar: stage, loss by term, error, number of points."""

    run: _Run
    enabled: bool
    _bar: Any = field(default=None, init=False)

    def __enter__(self) -> _Bar:
        total = sum(stage.iterations for stage in self.run._schedule)
        self._bar = tqdm(
            total=total,
            initial=self.run._place.iteration,
            disable=not self.enabled,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
            unit="it",
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def say(self, message: str) -> None:
        """Write a line above the bar; always, also where the bar is off."""
        tqdm.write(message, file=sys.stderr)

    def show(self) -> None:
        """Bring the bar up to date."""
        row = self.run.history[-1]
        self._bar.set_description(str(row["stage"]), refresh=False)
        terms = {n[5:]: f"{v:.1e}" for n, v in row.items() if n.startswith("loss_")}
        error = {"error": f"{row['relative_l2']:.1e}"} if "relative_l2" in row else {}
        self._bar.set_postfix({**terms, **error, "points": row["points"]}, refresh=False)
        self._bar.update(self.run._place.iteration - self._bar.n)
