"""Training: a schedule of optimizers, resampling between steps, a run folder on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import nn

from whence._files import JsonObject, PathLike, make_folder
from whence._interrupts import Interrupts
from whence.pinn.optimizers.stepper import Optimizer, check_schedule
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers.base import Resampler
from whence.pinn.training import rng
from whence.pinn.training.compile import Compile, with_evaluator_for
from whence.pinn.training.configuration import (
    Origin,
    checkpoint_to_resume,
    circumstances,
    configuration,
)
from whence.pinn.training.first_points import HeldOut, Points
from whence.pinn.training.integrity import CHANGED, recorded_changes
from whence.pinn.training.load import load_network
from whence.pinn.training.loop import Loop, Plan
from whence.pinn.training.monitor import Monitor
from whence.pinn.training.observers import Observer, ProgressBar, say
from whence.pinn.training.option_checks import (
    check_choices,
    check_parts,
    check_plan,
    check_points,
)
from whence.pinn.training.pinned import Pinned
from whence.pinn.training.replayed import NotRecorded, Trained
from whence.pinn.training.replayed_folder import FIRST
from whence.pinn.training.result import Result
from whence.pinn.training.reweighting import WeightingLike
from whence.pinn.training.run_folder import Checkpoint, RunFolder
from whence.pinn.training.saving import Saver, read_state
from whence.pinn.training.spectra import SpectraRecord
from whence.pinn.training.start import starting_points
from whence.pinn.training.stepped_on import OLDER, REMOVED, SteppedOn
from whence.pinn.training.threads import Threads, on_threads


def train(
    problem: Problem,
    network: nn.Module | None = None,
    *,
    points: Points | None = None,
    schedule: Optimizer | Sequence[Optimizer],
    resample: Resampler | None = None,
    pinned: Pinned | None = None,
    weights: Mapping[str, float] | None = None,
    weighting: WeightingLike | None = None,
    observers: Sequence[Observer] = (),
    sampling: str = "hammersley",
    validation: int = 2000,
    test: int = 0,
    hold_out: HeldOut = 0.0,
    keep: Literal["best", "last"] = "best",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    out: PathLike | None = None,
    max_seconds: float | None = None,
    resume: bool = False,
    start: PathLike | None = None,
    compile: Compile = "auto",
    threads: Threads = None,
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
        By term a number of points to draw, of a condition also by part of the boundary
        (``{"cylinder": 60, "y": 60}``), or the points themselves: tensors, arrays, lists or
        data frames, with :class:`pinn.WeightedPoints` weights too (one number where there is one
        term). Points that are given are not resampled
        unless their term is named for that. Measurements and integrals need none. With ``start``,
        terms that are left out take the points of that run.
    schedule:
        Optimizers, one after another; or just one.
    resample:
        Renews points between steps; ``None`` keeps them.
    pinned:
        Points by term that are trained on beside ``points`` and never leave, whatever renews the
        others: sensors of a front, corners. They count as all do, towards ``max_points`` too, and
        ``points.npz`` marks them. Equations share their points only where they pin the same.
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
        How the first points are placed, see :meth:`Problem.sample`. Those of ``"gauss_legendre"``
        and ``"gauss_legendre_panels"`` have the rule's weights, of mean 1, on domains that are
        products of intervals: a term is then the integral of the squared residual over where it
        holds, divided by the measure of that.
    validation:
        Fresh random points per term, apart from training and test points, on which the loss is
        watched. A term whose points were given is watched at (at most so many of) these, or at
        those held out.
    test:
        Further random points per term at which no network is chosen, for the column ``test_loss``
        of the history; terms whose points were given count at these. 0: no such column.
    hold_out:
        Share of given points, measurements among them, that is kept out of training and watched
        instead: a number for all such terms, or by term. By default none, as an estimate is best
        made of all measurements; where a network could fit their noise, 0.2 shows when it does.
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
        A run to start from: its final network, and its last points for the terms that ``points``
        leaves out. Points that it drew are renewed and validated as if drawn here.
    compile:
        Whether stages that step by gradients have them compiled, see :mod:`whence.compilation`.
        ``"auto"``: where there is a compiler and the schedule is long enough to pay for it;
        where compiling fails, that is said once and training goes on without.
    threads:
        Threads of torch to compute with: a number; ``"auto"``: one or all that torch has,
        whichever takes a step sooner in half a second of trials; ``None``: as torch is set. The
        number that the run began with is in its folder, and a resume keeps it.
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
    check_points(problem, points, start, pinned)
    check_parts(resample, weighting, observers, test)
    check_choices(
        keep, validation, max_seconds, seed, compile, device, resume, out, dtype, threads
    )  # fmt: skip

    origin = origin or Origin()  # of Python: from nowhere that could be read again
    place = torch.device(device)
    if network is not None:
        network = network.to(dtype=dtype, device=place)
    config = configuration(
        problem=problem, network=network, points=points, schedule=stages, resample=resample,
        weights=weights, weighting=weighting, observers=observers, sampling=sampling,
        validation=validation, hold_out=hold_out or None, keep=keep, seed=seed, dtype=dtype,
        start=start, compile=compile, origin=origin, test=test or None, pinned=pinned,
    )  # fmt: skip
    plan = Plan(stages, resample, weighting, seed, keep)
    folder = None if out is None else RunFolder(out)
    checkpoint: Checkpoint | None = None

    with ExitStack() as stack:
        if folder is not None and resume:
            folder.config()  # of a folder without a run, say so before a lock file is made there
            stack.enter_context(folder.locked())
            checkpoint = checkpoint_to_resume(folder, config, max_seconds)
        elif folder is not None:
            folder.check_free(origin.code())
        stack.enter_context(rng.seeded(seed, place))
        # Made under the seed, so that dropout and the like begin the same each time.
        raw = problem.network(seed) if network is None else network
        module = problem.model(raw, seed).to(dtype=dtype, device=place)
        # A resumed run has a network and points of its own: where it started from is past.
        if start is not None and checkpoint is None:
            load_network(module, start)
        earlier = folder if start and checkpoint else start
        first = starting_points(problem, points, earlier, seed, sampling, pinned)
        objective, held_out = first.objective(problem, module, weights, hold_out, seed)
        check_plan(plan, objective)
        config |= stack.enter_context(on_threads(threads, objective, plan, out, resume))
        objective = with_evaluator_for(objective, plan, compile, progress)
        watching = [*observers, ProgressBar()] if progress else observers
        monitor = Monitor(problem, objective, validation, seed, held_out, test)
        loop = Loop(objective, plan, monitor, watching)
        saver = ready_saver(loop, folder, checkpoint)

        # From here on Ctrl-C ends training in order, until then it ends the call. The folder is
        # made as late as this, so that a wrong option leaves nothing behind.
        interrupts = stack.enter_context(Interrupts())
        if folder is not None and not resume:
            make_folder(folder.path)
            stack.enter_context(folder.locked())
            config |= circumstances(raw, objective, device, origin)
            folder.create(config, origin.code())

        why = loop.run(interrupts, max_seconds, saver)
        summary = loop.summary(why)
        saver.write_summary(summary)

    return result_of(problem, module, loop, summary, folder)


def ready_saver(
    loop: Loop, folder: RunFolder | None, checkpoint: Checkpoint | None
) -> Saver:
    """Begin a run, or go on with one on disk; return what will save it."""
    saved_up_to = None
    if folder is not None and checkpoint is not None:
        take_up(loop, folder, checkpoint)
        saved_up_to = loop.place.iteration
    else:
        loop.begin()
    loop.try_criteria()
    return Saver(folder, saved_up_to, loop.first)


def take_up(loop: Loop, folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Go on with a run on disk; one of another optimizer or weighting is a ``ValueError``."""
    # Checked against each other: a file of another run or time is refused.
    state, history, points = read_state(folder, checkpoint, loop.objective)
    for observer in loop.observers:
        observer.load(folder)
    loop.history = history
    loop.points = points
    stepped_on = SteppedOn()
    if loop.has_changes:
        stepped_on = stepped_on_to_resume(folder, checkpoint)
    first = checkpoint.tensors.get(FIRST)
    try:
        loop.go_on_from(state, first, stepped_on)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{folder.path / 'checkpoint.safetensors'} is not of this run: {error}"
        ) from None


def stepped_on_to_resume(folder: RunFolder, checkpoint: Checkpoint) -> SteppedOn:
    """Return what the steps of a run on disk were made with, to go on with.

    Raises
    ------
    ValueError
        If the file that says it is damaged.
    """
    if checkpoint.numbers.get(CHANGED) is None:
        return SteppedOn(missing=OLDER)
    try:
        return recorded_changes(folder, checkpoint)
    except FileNotFoundError as error:
        # Only replays need it.
        say(f"{error}: going on without it, so that this run cannot be replayed")
        return SteppedOn(missing=REMOVED)
    except ValueError as error:
        raise ValueError(
            f"{error}. Put the file back, or remove it to go on with a run that cannot be replayed"
        ) from None


def trained_of(loop: Loop, kept: int) -> Trained | NotRecorded:
    """Return what the steps up to the kept network were made with, or why it is not known."""
    stepped_on = loop.stepped_on
    if stepped_on.missing is not None:
        return NotRecorded(stepped_on.missing)
    if loop.first is None:
        return NotRecorded(OLDER)
    like = loop.objective.parameters.vector()
    objectives = stepped_on.objectives(loop.objective)
    return Trained(
        loop.schedule(), loop.place.ends, loop.first.to(like), objectives, kept
    )


def result_of(
    problem: Problem,
    network: nn.Module,
    loop: Loop,
    summary: JsonObject,
    folder: RunFolder | None,
) -> Result:
    """Return what a run that has ended leaves."""
    spectra = None
    for observer in loop.observers:
        if isinstance(observer, SpectraRecord):
            spectra = observer.arrays()

    return Result(
        problem=problem,
        network=network,
        objective=loop.objective,
        history=loop.history,
        summary=summary,
        path=None if folder is None else folder.path,
        spectra=spectra,
        points=loop.points.arrays(),
        trained=trained_of(loop, summary["kept_iteration"]),
    )
