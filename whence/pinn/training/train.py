"""Training: a schedule of optimizers, resampling between steps, a run folder on disk."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from whence import _checks
from whence._files import PathLike, digest, make_folder
from whence._interrupts import Interrupts
from whence.arrays import ArrayLike
from whence.catalogue import NETWORKS
from whence.objective import Objective
from whence.pinn.networks.base import Rebuildable
from whence.pinn.optimizers.stepper import Optimizer, check_schedule
from whence.pinn.pde.problem import Counts, Problem
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.training import rng
from whence.pinn.training.compile import Compile, with_evaluator_for
from whence.pinn.training.load import load_network
from whence.pinn.training.loop import Loop, Plan
from whence.pinn.training.monitor import Monitor
from whence.pinn.training.observers import Observer, ProgressBar
from whence.pinn.training.result import Result
from whence.pinn.training.reweighting import WeightingLike
from whence.pinn.training.run_folder import Checkpoint, RunFolder, described
from whence.pinn.training.saving import Saver, read_state
from whence.pinn.training.spectra import Spectra, SpectraRecord

OWN_NETWORK = "the problem's own"
"""What the configuration says of a network that the problem made."""


@dataclass(frozen=True)
class Origin:
    """Where a run comes from beside its options; kept in its folder.

    Parameters
    ----------
    problem_file:
        Python file that defines the problem; a copy of it goes into the folder.
    constraints:
        Which of its problems.
    command:
        Arguments of the command line that made the run.
    """

    problem_file: Path | None = None
    constraints: str | None = None
    command: tuple[str, ...] | None = None

    def code(self) -> str | None:
        """Return what the problem file holds."""
        return None if self.problem_file is None else self.problem_file.read_text()


def train(
    problem: Problem,
    network: nn.Module | None = None,
    *,
    points: Counts | Mapping[str, ArrayLike],
    schedule: Optimizer | Sequence[Optimizer],
    resample: Resampler | None = None,
    weights: Mapping[str, float] | None = None,
    weighting: WeightingLike | None = None,
    observers: Sequence[Observer] = (),
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
    compile: Compile = "auto",
    progress: bool = True,
    origin: Origin | None = None,
) -> Result:
    """Train a network on a problem.

    Ctrl-C ends training within a second, between two steps or in the midst of one, which is then
    taken back. A loss that is not finite ends it too, stages to come included, as they would start
    from where the failing one did: back in the last state whose loss was finite, the message and
    ``summary["failure"]`` name the term and the points, and ``summary["stopped_by"]`` is ``"loss
    not finite"``. In both cases, as after a kill at any instant, ``out`` holds a whole run. One
    process at a time trains in a folder.

    Parameters
    ----------
    problem:
        What to solve.
    network:
        What to train; by default the problem's own architecture, initialized from ``seed``.
    points:
        Counts by term (or one count for a single term), or the points themselves by term:
        tensors, arrays, lists or data frames.
    schedule:
        Optimizers, one after another; or just one.
    resample:
        Renews points between steps; ``None`` keeps them.
    weights:
        Weight of each term, 1 unless given.
    weighting:
        Renews the weights between steps, such as ``pinn.NeuralTangentKernel()``, of which a copy
        is used; they multiply ``weights``. The history has the mean weight of each term in
        ``weight_TERM``, and its losses are weighted so; which network is best is judged under the
        weights of the moment.
    observers:
        What looks on: ``pinn.Stop(criterion)`` ends training early, ``pinn.Spectra()`` records the
        tangent kernel's eigenvalues, and any :class:`whence.pinn.Observer` of one's own.
    sampling:
        How the first points are placed, see :meth:`Problem.sample`.
    validation:
        Fresh random points per term, apart from training and test points, on which the loss is
        watched.
    keep:
        ``"best"``: in the end the parameters of least validation loss are kept, among those of
        the logged iterations. ``"last"``: the last ones.
    seed, dtype, device:
        Seed of everything random, number type, device. Torch's own random numbers, which dropout
        draws, are seeded too; outside of training they stay as they were.
    out:
        Run folder to make; ``None`` writes nothing.
    max_seconds:
        Stop, resumably, after this time in training; that before a resume counts, compiling does
        not.
    resume:
        Go on with the run in ``out``, which must have been made with the same options, to the
        same bits as if it had never stopped; one killed before its first checkpoint starts over.
    start:
        A run whose final network to start from.
    compile:
        Whether Adam and L-BFGS use a compiled loss and gradient, see :mod:`whence.compilation`.
        ``"auto"``: where there is a compiler and the schedule is long enough to pay for it;
        where compiling fails, that is said once and training goes on without.
    progress:
        Whether to show a progress bar.
    origin:
        The problem file and command line that the run comes from, for its folder.

    Returns
    -------
    Result
        Network, solution, objective, history, summary and folder.

    Raises
    ------
    FileExistsError
        If ``out`` holds a run and ``resume`` is false; nothing is overwritten.
    TypeError
        If an option is of the wrong kind.
    ValueError
        If an option is wrong, the loss is not finite before any step, or ``resume`` finds a
        damaged run, one made with other options, or one that has trained for ``max_seconds``.
    BlockingIOError
        If another process trains in ``out``.
    OSError
        If a file cannot be written; it says what is saved.

    Examples
    --------
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("diffusion")
    >>> result = pinn.train(problem, points=100, schedule=[pinn.GaussNewton(20)], progress=False)
    >>> result.summary["relative_l2"] < 0.05
    True
    """
    stages = check_schedule(schedule)
    _check_points(problem, points)
    _check_parts(resample, weighting, observers)
    _check_choices(keep, validation, max_seconds, seed, compile, device)
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the run to go on with")

    origin = origin or Origin()
    place = torch.device(device)
    if network is not None:
        network = network.to(dtype=dtype, device=place)
    config = _config(
        problem=problem, network=network, points=points, schedule=stages,
        resample=resample, weights=weights, weighting=weighting, observers=observers,
        sampling=sampling, validation=validation, keep=keep, seed=seed, dtype=dtype,
        start=start, compile=compile, origin=origin,
    )  # fmt: skip
    plan = Plan(stages, resample, weighting, seed, keep)
    folder = None if out is None else RunFolder(out)

    with ExitStack() as stack:
        if folder is not None and resume:
            folder.config()  # of a folder without a run, say so before a lock file is made there
            stack.enter_context(folder.locked())
        checkpoint = _checkpoint(folder, config, resume)
        _check_time_left(folder, checkpoint, max_seconds)

        stack.enter_context(rng.seeded(seed, place))
        module = problem.network(seed) if network is None else network
        module = module.to(dtype=dtype, device=place)
        if start is not None and checkpoint is None:
            load_network(module, start)
        objective = _objective(problem, module, points, weights, seed, sampling)
        _check_plan(plan, objective)
        objective = with_evaluator_for(objective, plan, compile, progress)

        watchers = _started(observers, objective, plan, progress)
        monitor = Monitor(problem, objective, validation, seed)
        loop = Loop(objective, plan, monitor, watchers)
        saved = _begin_or_take_up(loop, folder, checkpoint)

        interrupts = stack.enter_context(Interrupts())
        if folder is not None and not resume:
            # Late, so that a wrong option leaves nothing behind.
            make_folder(folder.path)
            stack.enter_context(folder.locked())
            folder.create(
                {**config, **_circumstances(module, device, origin)}, origin.code()
            )
        saver = Saver(folder, saved)
        why = loop.run(interrupts, max_seconds, saver)
        summary = loop.summary(why)
        saver.write_summary(summary)

    return Result(
        problem,
        module,
        loop.objective,
        loop.history,
        summary,
        None if folder is None else folder.path,
        _spectra(watchers),
        loop.points.arrays(),
    )


def _config(
    *,
    problem: Problem,
    network: nn.Module | None,
    origin: Origin,
    observers: Sequence[Observer],
    **options: Any,
) -> dict[str, Any]:
    """Return the options that a run must be resumed with, as JSON can hold them."""
    code = origin.code()
    spectra = [observer for observer in observers if isinstance(observer, Spectra)]
    config = {
        "problem": problem.name,
        "hard_constraints": problem.ansatz is not None,
        "constraints": origin.constraints,
        "problem_file": None if code is None else digest(code),
        "network": OWN_NETWORK if network is None else repr(network),
        "spectra": described(spectra[0]) if spectra else None,
        "dtype": str(options.pop("dtype")),
        "schedule": described(list(options.pop("schedule"))),
    }
    return config | {name: described(option) for name, option in options.items()}


def _circumstances(
    network: nn.Module, device: str | torch.device, origin: Origin
) -> dict[str, Any]:
    """Return what the configuration says beside options: a run may be resumed under others."""
    name = NETWORKS.name_of(network)
    architecture = None
    if isinstance(network, Rebuildable):
        architecture = {"name": name, "options": network.options()}
    return {
        "architecture": architecture,
        "command": described(origin.command),
        "device": str(device),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    try:
        return {"whence": version("whence"), **versions}
    except PackageNotFoundError:
        return {"whence": "not installed", **versions}


def _objective(
    problem: Problem,
    network: nn.Module,
    points: Counts | Mapping[str, ArrayLike],
    weights: Mapping[str, float] | None,
    seed: int,
    sampling: str,
) -> Objective:
    """Return the objective at the points given, or at as many as asked for."""
    given: Any = points
    if not _are_points(points):
        given = problem.sample(given, seed, sampling)
    return problem.objective(network, given, weights)


def _are_points(points: object) -> bool:
    if not isinstance(points, Mapping):
        return False
    return all(not isinstance(rows, int) for rows in points.values())


def _check_plan(plan: Plan, objective: Objective) -> None:
    """Raise ``ValueError`` if points or weights of this objective could not be renewed so."""
    if plan.resample is not None:
        plan.resample.check(objective)
    if plan.weighting is not None:
        plan.weighting.check(objective)


def _started(
    observers: Sequence[Observer], objective: Objective, plan: Plan, progress: bool
) -> list[Observer]:
    """Return what watches this run."""
    given = [*observers, ProgressBar()] if progress else list(observers)
    return [observer.start(objective, plan.iterations) for observer in given]


def _begin_or_take_up(
    loop: Loop, folder: RunFolder | None, checkpoint: Checkpoint | None
) -> int | None:
    """Begin a run, or go on with one on disk; return the iteration up to which that is saved."""
    if checkpoint is None:
        loop.begin()
        saved = None
    else:
        assert folder is not None
        state, history, points = read_state(folder, checkpoint, loop.objective)
        for observer in loop.observers:
            observer.load(folder)
        loop.history = history
        loop.points = points
        _restore(loop, folder, state)
        saved = loop.place.iteration

    # A criterion that raises does so before there is a folder.
    for observer in loop.observers:
        observer.should_stop(loop.history[-1])
    return saved


def _spectra(watchers: Sequence[Observer]) -> dict[str, np.ndarray] | None:
    for watcher in watchers:
        if isinstance(watcher, SpectraRecord):
            return watcher.arrays()
    return None


def _check_points(problem: Problem, points: object) -> None:
    if not isinstance(points, Mapping):
        return
    for name in points:
        _checks.one_of("term", name, problem.terms)
    missing = [name for name in problem.terms if name not in points]
    if missing:
        raise ValueError(f"no points for term {missing[0]!r}: every term needs points")


def _check_parts(
    resample: object, weighting: object, observers: Sequence[object]
) -> None:
    """Raise ``TypeError`` for an object of the wrong kind."""
    if resample is not None and not _is_object_of(Resampler, resample):
        raise TypeError(
            "resample must be an object such as pinn.Resample(pinn.InfluenceScore()), got "
            f"{resample!r}"
        )
    if weighting is not None and not _is_object_of(WeightingLike, weighting):
        raise TypeError(
            "weighting must be an object such as pinn.NeuralTangentKernel(), or pinn.Fixed({...}) "
            f"for weights that stay, got {weighting!r}"
        )
    if not isinstance(observers, Sequence) or isinstance(observers, str):
        raise TypeError(
            f"observers must be a list such as [pinn.Stop(criterion)], got {observers!r}"
        )
    for observer in observers:
        if not isinstance(observer, Observer):
            raise TypeError(
                "observers must be objects such as pinn.Stop(criterion) or pinn.Spectra(), got "
                f"{observer!r}"
            )


def _is_object_of(protocol: Any, given: object) -> bool:
    return isinstance(given, protocol) and not isinstance(given, type)


def _check_choices(
    keep: str,
    validation: int,
    max_seconds: float | None,
    seed: int,
    compile: object,
    device: str | torch.device,
) -> None:
    _checks.one_of("keep", keep, ("best", "last"))
    _checks.count("validation", validation)
    if max_seconds is not None:
        _checks.positive("max_seconds", max_seconds)
    _checks.count("seed", seed, zero=True)
    _checks.one_of("compile", compile, ("auto", True, False))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from None


def _checkpoint(
    folder: RunFolder | None, config: dict[str, Any], resume: bool
) -> Checkpoint | None:
    """Return the checkpoint of a run made with the same options, or ``None`` to start one."""
    if folder is None:
        return None
    if not resume:
        folder.check_free()
        return None

    saved = folder.config()
    for name, option in config.items():
        # A run of an older format does not know every option; those that it lacks were unset.
        if saved.get(name) != option:
            raise ValueError(
                f"{folder.path} was made with {name} = {saved.get(name)!r}, not "
                f"{option!r}: resume with the same options"
            )
    return folder.checkpoint() if folder.is_started() else None


def _check_time_left(
    folder: RunFolder | None, checkpoint: Checkpoint | None, max_seconds: float | None
) -> None:
    """Raise ``ValueError`` if the time limit of a run that could go on is reached already."""
    if folder is None or checkpoint is None or max_seconds is None:
        return
    place = checkpoint.numbers["place"]
    has_ended = place["done"] or place["failure"] is not None
    if not has_ended and place["seconds"] >= max_seconds:
        raise ValueError(
            f"{folder.path} has trained for {place['seconds']:.6g} s, which reaches the limit of "
            f"{max_seconds:.6g} s: the time before a resume counts, so give a larger limit "
            "(max_seconds, --max-seconds)"
        )


def _restore(loop: Loop, folder: RunFolder, state: Any) -> None:
    """Take up a state from disk; one of another optimizer or weighting is a ``ValueError``."""
    try:
        loop.restore(state)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{folder.path / 'checkpoint.safetensors'} is not of this run: {error}"
        ) from None
