"""``whence train``: train a network on a problem and leave a run folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn

from whence import _checks
from whence.catalogue import (
    NETWORKS,
    OPTIMIZERS,
    RESAMPLERS,
    SAMPLINGS,
    SCORES,
    SELECTIONS,
    WEIGHTINGS,
    Catalogue,
)
from whence.cli import EXIT_ERROR, EXIT_INTERRUPTED, parsed
from whence.cli.flags import (
    build,
    check_used,
    choices,
    counts_by_term,
    given_for,
    groups_of,
    numbers_by_term,
    told,
    with_groups,
)
from whence.cli.sources import source_of
from whence.pinn.networks.mlp import MLP
from whence.pinn.optimizers.stepper import Optimizer
from whence.pinn.pde.problem import Problem
from whence.pinn.sampling.resamplers import Resample, Resampler
from whence.pinn.sampling.scores import SavedScore, Score
from whence.pinn.sampling.selections import Selection
from whence.pinn.training.observers import Observer
from whence.pinn.training.problem_file import ProblemFile
from whence.pinn.training.recipe import Recipe
from whence.pinn.training.result import Result
from whence.pinn.training.run_folder import RunFolder
from whence.pinn.training.spectra import Spectra
from whence.pinn.training.train import Origin, train

COMPILE: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}
SKIPPED = ("seed", "iterations", "dtype")
"""Options of classes that the command line sets otherwise."""
RECIPE = "recipe"
NONE = "none"


@dataclasses.dataclass(frozen=True)
class _Options:
    """Train a network on a problem, resampling its points, and leave a run folder."""

    problem: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROBLEM")]
    """What to solve: a name (`whence problems` describes each), a Python file that defines
    `problem` (and `network`, `recipe` if wanted), or with --resume a run folder."""
    out: Annotated[Path | None, told("runs/PROBLEM-SEED")] = None
    """Run folder to make."""
    seed: int = 0
    """Seed of the network and of everything random."""
    max_seconds: Annotated[float | None, told("the recipe's")] = None
    """Stop, resumably, after this many seconds."""
    constraints: Annotated[Literal["hard", "soft"] | None, told("hard")] = None
    """hard: an ansatz meets initial and boundary conditions exactly. soft: each is a loss term."""
    resume: bool = False
    """Go on with a run: of the folder that is named in place of the problem, with its own
    options; or of --out, with the same options as before."""
    start: Path | None = None
    """Start from the network of this run."""

    network: Annotated[str | None, choices(NETWORKS), told("the problem's own")] = None
    """Kind of network."""
    layers: Annotated[tuple[int, ...], told("the problem's own")] = ()
    """Widths of a multilayer perceptron: inputs, hidden layers, outputs, such as 2 32 32 1."""
    activation: Annotated[str | None, told("tanh")] = None
    """Function between the layers: tanh, gelu, sin or silu."""

    points: Annotated[tuple[str, ...], told("the recipe's")] = ()
    """First training points as TERM=COUNT, such as pde=500."""
    sampling: Annotated[str, choices(SAMPLINGS)] = "hammersley"
    """How the first points are placed."""
    schedule: Annotated[tuple[str, ...], told("the recipe's")] = ()
    """Optimizers in turn as KIND:ITERATIONS, such as adam:5000 lbfgs:2000 gauss_newton:200."""
    lr: Annotated[float | None, told("1e-3")] = None
    """Learning rate of Adam."""

    weights: tuple[str, ...] = ()
    """Weights of terms as TERM=NUMBER, such as initial_u=100; 1 unless given."""
    weighting: Annotated[str, choices(WEIGHTINGS, NONE)] = NONE
    """How weights of terms change while training; they multiply --weights."""

    resampler: Annotated[
        str, choices(RESAMPLERS, RECIPE, NONE), told("the recipe's")
    ] = RECIPE
    """How points are renewed: resample by a score, r3 keeps points above the mean residual, none
    keeps the first points."""
    score: Annotated[str, choices(SCORES, RECIPE), told("the recipe's")] = RECIPE
    """How candidate points are scored."""
    saved_scores: Path | None = None
    """Scores that `whence score` wrote, in place of --score."""
    select: Annotated[str, choices(SELECTIONS, RECIPE), told("the recipe's")] = RECIPE
    """How scored candidates are chosen."""

    spectra_every: int | None = None
    """Record the tangent kernel's eigenvalues by term, at least so many iterations apart."""
    dtype: Literal["float64", "float32"] = "float64"
    """Number type."""
    device: str = "cpu"
    """Device, such as cpu or cuda."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile loss and gradient for Adam and L-BFGS; auto: where the run is long enough."""
    quiet: bool = False
    """Show no progress bar."""


_NAMES = [field.name for field in dataclasses.fields(_Options)]
GROUPS = groups_of(
    (RESAMPLERS, SCORES, SELECTIONS, OPTIMIZERS, WEIGHTINGS, NETWORKS), _NAMES
)
Options: Any = with_groups(_Options, GROUPS, SKIPPED)


def run(options: Any, arguments: Sequence[str]) -> int:
    """Train as the options say; return the exit code."""
    if Path(options.problem).is_dir():
        options, arguments = _of_run_folder(options, arguments)

    source = source_of(options.problem)
    problem = source.problem(options.constraints)
    recipe = source.recipe(problem, options.constraints)
    schedule = _schedule(options, recipe)
    resampler = _resampler(options, recipe)
    _check_used(options, schedule, resampler)

    name = Path(options.problem).stem
    out = options.out or Path("runs") / f"{name}-{options.seed}"
    max_seconds = options.max_seconds
    if max_seconds is None:
        max_seconds = recipe.max_seconds
    is_file = options.problem.endswith(".py")

    result = train(
        problem,
        _network(options, source, problem),
        points=_points(options, problem, recipe),
        schedule=schedule,
        resample=resampler,
        weights=_weights(options, problem),
        weighting=_weighting(options),
        observers=_observers(options),
        sampling=options.sampling,
        seed=options.seed,
        dtype=getattr(torch, options.dtype),
        device=options.device,
        out=out,
        max_seconds=max_seconds,
        resume=options.resume,
        start=options.start,
        compile=COMPILE[options.compile],
        progress=not options.quiet,
        origin=Origin(
            problem_file=Path(options.problem) if is_file else None,
            constraints=options.constraints,
            command=tuple(arguments),
        ),
    )
    return _report(result, out)


def _report(result: Result, out: Path) -> int:
    """Print what came of a run; return the exit code."""
    summary = result.summary
    if summary["failure"]:
        print(
            f"whence: error: {summary['failure']}; {out} holds the last good state",
            file=sys.stderr,
        )
        return EXIT_ERROR

    error = summary["relative_l2"]
    quality = f"validation loss {summary['validation_loss']:.2e}"
    if error is not None:
        quality = f"relative L2 error {error:.2e}"
    print(
        f"{summary['problem']}: {quality} after {summary['iterations']} iterations in "
        f"{summary['seconds']:.0f} s with {summary['points']} points ({summary['stopped_by']})"
    )
    print(
        f"run: {out}  (summary.json, history.csv, points.npz, checkpoint.safetensors)"
    )
    if summary["stopped_by"] == "interrupted":
        print(f"go on with: whence train {out} --resume")
        return EXIT_INTERRUPTED
    print(f"next: whence influence {out}   and   whence plot {out}")
    return 0


def _of_run_folder(options: Any, arguments: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Return the options that a run was made with, those given now on top of them."""
    run_folder = Path(options.problem)
    if not options.resume:
        raise ValueError(
            f"{run_folder} is a folder: name a problem, or go on with a run by --resume"
        )
    folder = RunFolder(run_folder)
    command = folder.config().get("command")
    if not command:
        raise ValueError(
            f"{run_folder} was not made by whence train: resume it from Python, with the same "
            "options, pinn.train(..., out=..., resume=True)"
        )

    # The problem stands first among the arguments, as it is the only one without a flag.
    original = list(command)
    position = original.index(_positional(original))
    file = folder.problem_file()
    if file is not None:
        original[position] = str(file)
    given = [argument for argument in arguments if argument != options.problem]
    combined = [*original, "--out", str(run_folder), *given]
    return parsed(Options, "train", combined), command


def _positional(arguments: Sequence[str]) -> str:
    """Return the problem among the arguments of a command line."""
    problem: str = parsed(Options, "train", arguments).problem
    return problem


def _check_used(
    options: Any, schedule: Sequence[Optimizer], resampler: Resampler | None
) -> None:
    """Raise ``ValueError`` for an option that would do nothing beside the others."""
    chosen: dict[str, list[str]] = {
        "weighting": [options.weighting],
        "network": [options.network or "mlp"],
        "optimizer": _names(OPTIMIZERS, schedule),
        "resampler": _names(RESAMPLERS, [resampler]),
        "score": [],
        "selection": [],
    }
    if isinstance(resampler, Resample):
        chosen["score"] = _names(SCORES, [resampler.score])
        chosen["selection"] = _names(SELECTIONS, [resampler.selection])
    check_used(options, GROUPS, chosen)

    if not isinstance(resampler, Resample):
        for flag, value in (("--score", options.score), ("--select", options.select)):
            if value != RECIPE:
                raise ValueError(
                    f"{flag} does nothing with --resampler {options.resampler}: leave it out"
                )
    if options.lr is not None and "adam" not in chosen["optimizer"]:
        raise ValueError(
            "--lr does nothing, as no adam is in the schedule: leave it out"
        )


def _names(catalogue: Catalogue[Any], things: Sequence[object]) -> list[str]:
    names = [catalogue.name_of(thing) for thing in things]
    return [name for name in names if name is not None]


def _points(options: Any, problem: Problem, recipe: Recipe) -> dict[str, int]:
    given = counts_by_term("--points", options.points, problem.terms)
    return {**recipe.points, **given}


def _weights(options: Any, problem: Problem) -> dict[str, float] | None:
    weights = numbers_by_term("--weights", options.weights)
    for term in weights:
        _checks.one_of("term in --weights", term, problem.terms)
    return weights or None


def _weighting(options: Any) -> Any:
    if options.weighting == NONE:
        return None
    given = given_for(options, GROUPS, WEIGHTINGS, options.weighting)
    return build(WEIGHTINGS, options.weighting, given)


def _observers(options: Any) -> list[Observer]:
    if options.spectra_every is None:
        return []
    return [Spectra(options.spectra_every)]


def _network(options: Any, source: ProblemFile, problem: Problem) -> nn.Module | None:
    """Return the network asked for, or the file's; None for the problem's own."""
    given = given_for(options, GROUPS, NETWORKS, options.network or "mlp")
    if options.layers:
        given["layers"] = list(options.layers)
    if options.activation is not None:
        given["activation"] = options.activation

    if options.network is None and not given:
        if not source.has_network and problem.architecture is not None:
            return None
        return source.network(problem, options.seed)

    name = options.network or "mlp"
    own = source.network(problem, options.seed)
    if name == "mlp" and "layers" not in given and isinstance(own, MLP):
        given = {**own.options(), **given}
    if "layers" in given:
        given["layers"] = list(given["layers"])
    network: nn.Module = build(NETWORKS, name, {**given, "seed": options.seed})
    return network


def _schedule(options: Any, recipe: Recipe) -> list[Optimizer]:
    """Return the optimizers in turn, with the options given for each kind."""
    if not options.schedule:
        return [_with_options(options, stage) for stage in recipe.schedule]

    stages = []
    for text in options.schedule:
        name, _, number = text.partition(":")
        if name not in OPTIMIZERS or not number.isdecimal():
            hint = "" if name in OPTIMIZERS else _checks.nearest(name, OPTIMIZERS)
            raise ValueError(
                f"--schedule takes KIND:ITERATIONS with KIND one of {', '.join(OPTIMIZERS)}, such "
                f"as adam:5000, got {text!r}{hint}"
            )
        given = {"iterations": int(number), **_optimizer_options(options, name)}
        stages.append(build(OPTIMIZERS, name, given))
    return stages


def _with_options(options: Any, stage: Optimizer) -> Optimizer:
    name = OPTIMIZERS.name_of(stage)
    if name is None:
        return stage
    changed: Optimizer = build(
        OPTIMIZERS, name, _optimizer_options(options, name), stage
    )
    return changed


def _optimizer_options(options: Any, name: str) -> dict[str, Any]:
    given = given_for(options, GROUPS, OPTIMIZERS, name)
    if name == "adam" and options.lr is not None:
        given["lr"] = options.lr
    return given


def _resampler(options: Any, recipe: Recipe) -> Resampler | None:
    """Return what renews the points: the recipe's with what was given on top."""
    base = recipe.resample
    name = options.resampler
    if name == RECIPE:
        name = NONE if base is None else RESAMPLERS.name_of(base)
    wants_score = options.score != RECIPE or options.saved_scores is not None
    if name == NONE and options.resampler == RECIPE and wants_score:
        name = "resample"
    if name == NONE:
        return None

    given = given_for(options, GROUPS, RESAMPLERS, name)
    if RESAMPLERS[name] is Resample:
        return _resample(options, given, base if isinstance(base, Resample) else None)
    if base is not None and "every" not in given:
        given["every"] = base.every
    resampler: Resampler = build(RESAMPLERS, name, given)
    return resampler


def _resample(options: Any, given: dict[str, Any], base: Resample | None) -> Resample:
    """Return a resampling by score, unset options as in ``base``."""
    base = base or Resample()
    if given.get("update") == "replace":
        given = {"max_points": None, **given}  # the recipe's limit is for adding
    return dataclasses.replace(
        base, score=_score(options, base), selection=_selection(options, base), **given
    )


def _selection(options: Any, base: Resample) -> Selection:
    name = options.select
    if name == RECIPE:
        name = SELECTIONS.name_of(base.selection)
    given = given_for(options, GROUPS, SELECTIONS, name)
    selection: Selection = build(SELECTIONS, name, given, base.selection)
    return selection


def _score(options: Any, base: Resample) -> Score:
    if options.saved_scores is not None:
        if options.score != RECIPE:
            raise ValueError(
                "--score and --saved-scores exclude each other: leave one of them out"
            )
        return SavedScore.load(options.saved_scores)

    name = options.score
    if name == RECIPE:
        name = SCORES.name_of(base.score)
    given = given_for(options, GROUPS, SCORES, name)
    score: Score = build(SCORES, name, given, base.score)
    return score
