"""Training: a schedule of optimisers, resampling between steps, a run folder on disk."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence._files import PathLike, make_folder
from whence._interrupts import Interrupts
from whence.gradient import CompiledGradient, NotCompiled, TermGradients, Work
from whence.objective import Objective
from whence.pinn import randomness
from whence.pinn.loop import Plan, Resampler, Run
from whence.pinn.optimizers import Optimizer
from whence.pinn.problem import Counts, Problem
from whence.pinn.reweighting import Weighting
from whence.pinn.runs import Checkpoint, RunFolder, described
from whence.pinn.spectra import Spectra
from whence.pinn.watch import Watch, say


@dataclass
class Result:
    """A trained network and how it came about.

    ``objective`` holds the network and the last training points: pass it to
    :class:`whence.Influence`. ``history`` has one dict per logged iteration, ``summary`` what
    ``summary.json`` holds, ``path`` the run folder if there is one, ``spectra`` the arrays of
    ``spectra.npz`` where they were asked for.
    """

    problem: Problem
    network: nn.Module
    objective: Objective
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    path: Path | None
    spectra: dict[str, np.ndarray[Any, np.dtype[Any]]] | None = None


def train(
    problem: Problem,
    network: nn.Module | None = None,
    *,
    points: Counts | Mapping[str, Tensor],
    schedule: Sequence[Optimizer],
    resample: Resampler | None = None,
    weights: Mapping[str, float] | None = None,
    weighting: Weighting | None = None,
    spectra: Spectra | None = None,
    sampling: str = "hammersley",
    validation: int = 2000,
    keep: Literal["best", "last"] = "best",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    out: PathLike | None = None,
    max_seconds: float | None = None,
    stop: Callable[[dict[str, Any]], bool] | None = None,
    resume: bool = False,
    start: PathLike | None = None,
    compile: Literal["auto"] | bool = "auto",
    progress: bool = True,
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
        What to train; by default the problem's own architecture, initialised from ``seed``.
    points:
        Counts by term (or one count for a single term), or the points themselves by term.
    schedule:
        Optimisers, one after another.
    resample:
        Renews points between steps; ``None`` keeps them.
    weights:
        Weight of each term, 1 unless given.
    weighting:
        Renews the weights between steps, such as ``pinn.NeuralTangentKernel()``, of which a copy
        is used; they multiply ``weights``. The history has the mean weight of each term in
        ``weight_TERM``, and its losses are weighted so; which network is best is judged under the
        weights of the moment.
    spectra:
        When to record the tangent kernel's eigenvalues by term, such as ``pinn.Spectra()``.
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
    stop:
        Stops, resumably, at the first row of the history for which it is true, such as
        ``lambda row: row["relative_l2"] < 1e-4``; what met it is kept, whatever ``keep`` says.
    resume:
        Go on with the run in ``out``, which must have been made with the same options, to the
        same bits as if it had never stopped; one killed before its first checkpoint starts anew.
    start:
        A run whose final network to start from.
    compile:
        Whether Adam and L-BFGS use a compiled loss and gradient, see :mod:`whence.gradient`.
        ``"auto"``: where there is a compiler and the schedule is long enough to pay for it;
        where compiling fails, that is said once and training goes on without.
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
    _check_options(
        problem, points, schedule, keep, validation, max_seconds, stop, resume, out
    )
    _check_weighting(weighting, spectra)
    _checks.count("seed", seed, zero=True)
    _checks.one_of("compile", compile, ("auto", True, False))
    _check_device(device)
    if network is not None:
        network = network.to(dtype=dtype, device=device)
    config = {
        "problem": problem.name,
        "hard_constraints": problem.ansatz is not None,
        "network": repr(network) if network is not None else "the problem's own",
        "points": described(points),
        "schedule": described(list(schedule)),
        "resample": described(resample),
        "weights": described(weights),
        "weighting": described(weighting),
        "spectra": described(spectra),
        "sampling": sampling,
        "validation": validation,
        "keep": keep,
        "seed": seed,
        "dtype": str(dtype),
        "start": str(start) if start is not None else None,
        "compile": compile,
    }
    folder = RunFolder(out) if out is not None else None
    place = torch.device(device)
    with ExitStack() as held:
        if folder is not None and resume:
            folder.config()  # of a folder without a run, say so before a lock file is made there
            held.enter_context(folder.locked())
        checkpoint = _checkpoint(folder, config, resume)
        _check_time_left(folder, checkpoint, max_seconds)
        held.enter_context(randomness.seeded(seed, place))
        module = network if network is not None else problem.network(seed)
        module = module.to(dtype=dtype, device=place)
        if start is not None and checkpoint is None:
            load_network(module, start)
        given: Any = points
        if not _are_tensors(points):
            given = problem.sample(given, seed, sampling)
        objective = problem.objective(module, given, weights)
        if resample is not None:
            resample.check(objective)
        if weighting is not None:
            weighting.check(objective)
            objective = objective.with_evaluation(TermGradients())
        objective = _compiled(objective, schedule, weighting, compile, progress)
        watch = Watch(problem, objective, validation, seed)
        plan = Plan(tuple(schedule), resample, weighting, seed, keep, spectra, stop)
        run = Run(objective, plan, watch, folder, checkpoint)
        if stop is not None:
            stop(
                dict(run.history[-1])
            )  # one that raises does so before there is a folder
        interrupts = held.enter_context(Interrupts())
        if (
            folder is not None and not resume
        ):  # late, so that a wrong option leaves nothing behind
            make_folder(folder.path)
            held.enter_context(folder.locked())
            folder.create({**config, "device": str(device), "versions": _versions()})
        summary = run.summary(run.go(interrupts, max_seconds, progress))
    place_on_disk = folder.path if folder else None
    return Result(
        problem, module, run.objective, run.history, summary, place_on_disk, run.spectra
    )


def _compiled(
    objective: Objective,
    schedule: Sequence[Optimizer],
    weighting: Weighting | None,
    compile: str | bool,
    progress: bool,
) -> Objective:
    """Return the objective with a compiled gradient where that is asked for or pays."""
    gradients = sum(stage.iterations for stage in schedule if stage.by_gradient)
    parameters, terms = objective.parameters.size, len(objective.terms)
    work = Work(gradients, objective.n_points, parameters, terms)
    if compile is True and not gradients:
        raise ValueError(
            "compile=True does nothing: no Adam and no L-BFGS is in the schedule"
        )
    if not gradients or not (
        compile is True or (compile and work.pays_for_compilation())
    ):
        return objective
    if progress:
        say(f"compiling the loss and its gradient: {terms} term(s), some seconds each")
    try:
        compiled = CompiledGradient(objective)
        if weighting is not None and weighting.reads_traces:
            updates = replace(work, gradients=gradients // weighting.update_every)
            if updates.pays_for_compilation():
                _compile_traces(compiled, objective, progress)
        return objective.with_evaluation(compiled)
    except NotCompiled as error:
        if compile is True:
            raise ValueError(
                f"compile=True, but the gradient cannot be compiled: {error}"
            ) from None
        say(f"training without compilation: {error}")
        return objective


def _compile_traces(
    compiled: CompiledGradient, objective: Objective, progress: bool
) -> None:
    if progress:
        say("compiling the traces of the tangent kernel too")
    try:
        compiled.compile_traces(objective)
    except NotCompiled as error:
        say(f"the kernel's traces are not compiled: {error}")


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


def load_weights(run: PathLike) -> dict[str, Tensor]:
    """Return the weights by term with which a run's network was kept, (N,) where by point."""
    return RunFolder(run).checkpoint().group("kept_weights")


def _check_options(
    problem: Problem,
    points: Any,
    schedule: Sequence[Optimizer],
    keep: str,
    validation: int,
    max_seconds: float | None,
    stop: Any,
    resume: bool,
    out: PathLike | None,
) -> None:
    if not schedule:
        raise ValueError(
            "schedule must name at least one optimiser, such as [pinn.Adam(1000)]"
        )
    _checks.one_of("keep", keep, ("best", "last"))
    _checks.count("validation", validation)
    if max_seconds is not None:
        _checks.positive("max_seconds", max_seconds)
    if stop is not None and not callable(stop):
        raise TypeError(
            f"stop must be a function of a row of the history, got {stop!r}"
        )
    if resume and out is None:
        raise ValueError("resume=True needs out=, the folder of the run to go on with")
    if isinstance(points, Mapping):
        for name in points:
            _checks.one_of("term", name, problem.terms)
        missing = [name for name in problem.terms if name not in points]
        if missing:
            raise ValueError(
                f"no points for term {missing[0]!r}: every term needs points"
            )


def _check_weighting(weighting: Any, spectra: Any) -> None:
    if weighting is not None and (
        isinstance(weighting, type) or not hasattr(weighting, "renew")
    ):
        raise TypeError(
            "weighting must be an object such as pinn.NeuralTangentKernel(), or pinn.Fixed({...}) "
            f"for weights that stay, got {weighting!r}"
        )
    if spectra is not None and not isinstance(spectra, Spectra):
        raise TypeError(f"spectra must be pinn.Spectra(...), got {spectra!r}")


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from None


def _are_tensors(points: Any) -> bool:
    return isinstance(points, Mapping) and all(
        isinstance(p, Tensor) for p in points.values()
    )


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


def _check_time_left(
    folder: RunFolder | None, checkpoint: Checkpoint | None, max_seconds: float | None
) -> None:
    """Raise ``ValueError`` if the time limit of a run that could go on is reached already."""
    if folder is None or checkpoint is None or max_seconds is None:
        return
    place = checkpoint.numbers["place"]
    ended = place["done"] or place["failure"] is not None
    if not ended and place["seconds"] >= max_seconds:
        raise ValueError(
            f"{folder.path} has trained for {place['seconds']:.6g} s, which reaches the limit of "
            f"{max_seconds:.6g} s: the time before a resume counts, so give a larger limit "
            "(max_seconds, --max-seconds)"
        )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"torch": torch.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    try:
        return {"whence": version("whence"), **versions}
    except PackageNotFoundError:
        return {"whence": "not installed", **versions}
