"""``whence train``: train a network on a problem and leave a run folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from whence import _checks
from whence.cli import EXIT_ERROR, EXIT_INTERRUPTED
from whence.cli.flags import (
    OPTIMIZERS,
    SCORES,
    SELECTIONS,
    WEIGHTINGS,
    ProblemName,
    ScoreName,
    ScoringOptions,
    WeightingName,
    WeightingOptions,
    build,
    given_of,
    options_of,
    told,
)
from whence.pinn import optimizers, sampling, zoo
from whence.pinn.recipes import Recipe, recipe
from whence.pinn.spectra import Spectra
from whence.pinn.training import train

COMPILE: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}
_ResampleOptions: Any = options_of("Resample", [sampling.Resample])
_SelectionOptions: Any = options_of("Selection", list(SELECTIONS.values()))
_AdamOptions: Any = options_of("Adam", [optimizers.Adam])
_LBFGSOptions: Any = options_of("LBFGS", [optimizers.LBFGS])
_GaussNewtonOptions: Any = options_of("GaussNewton", [optimizers.GaussNewton])


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a network on a problem, resampling its points, and leave a run folder."""

    problem: tyro.conf.Positional[ProblemName]
    """What to solve; `whence problems` describes each."""
    out: Annotated[Path | None, told("runs/PROBLEM-SEED")] = None
    """Run folder to make."""
    seed: int = 0
    """Seed of the network and of everything random."""
    max_seconds: Annotated[float | None, told("the recipe's")] = None
    """Stop, resumably, after this many seconds."""
    constraints: Literal["hard", "soft"] = "hard"
    """hard: an ansatz meets initial and boundary conditions exactly. soft: each is a loss term."""
    resume: bool = False
    """Go on with the run in --out; give the same options as before."""
    start: Path | None = None
    """Start from the network of this run."""
    points: Annotated[tuple[str, ...], told("the recipe's")] = ()
    """First training points as TERM=COUNT, such as pde=500."""
    schedule: tuple[str, ...] = ()
    """Optimisers in turn as KIND:ITERATIONS, such as adam:5000 lbfgs:2000 gauss_newton:200."""
    weights: tuple[str, ...] = ()
    """Weights of terms as TERM=NUMBER, such as initial_u=100; 1 unless given."""
    weighting: Literal["none"] | WeightingName = "none"
    """How weights of terms change while training; they multiply --weights."""
    spectra_every: int | None = None
    """Record the tangent kernel's eigenvalues by term, at least so many iterations apart."""
    score: Literal["recipe", "none", "saved", "r3"] | ScoreName = "recipe"
    """How candidate points are scored; none keeps the first points, saved takes --saved-scores, r3
    keeps points above the mean residual and draws the others anew."""
    saved_scores: Path | None = None
    """Scores that `whence score` wrote, for --score saved."""
    select: Literal["recipe", "proportional", "top_k", "k_means"] = "recipe"
    """How scored candidates are chosen."""
    sampling: Literal[
        "hammersley", "sobol", "halton", "latin_hypercube", "grid", "random"
    ] = "hammersley"
    """How the first points are placed."""
    resample: _ResampleOptions = dataclasses.field(default_factory=_ResampleOptions)
    """When points are renewed, and how many; unset options are the recipe's."""
    scoring: ScoringOptions = dataclasses.field(default_factory=ScoringOptions)
    """Options of the score; unset ones are the recipe's."""
    selection: _SelectionOptions = dataclasses.field(default_factory=_SelectionOptions)
    """Options of the selection; unset ones are the recipe's."""
    weighting_options: WeightingOptions = dataclasses.field(
        default_factory=WeightingOptions
    )
    """Options of the weighting."""
    adam: _AdamOptions = dataclasses.field(default_factory=_AdamOptions)
    """Options of Adam."""
    lbfgs: _LBFGSOptions = dataclasses.field(default_factory=_LBFGSOptions)
    """Options of L-BFGS."""
    gauss_newton: _GaussNewtonOptions = dataclasses.field(
        default_factory=_GaussNewtonOptions
    )
    """Options of Gauss–Newton."""
    dtype: Literal["float64", "float32"] = "float64"
    """Number type."""
    device: str = "cpu"
    """Device, such as cpu or cuda."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile loss and gradient for Adam and L-BFGS; auto: where the run is long enough."""
    quiet: bool = False
    """Show no progress bar."""


def run(options: Options) -> int:
    """Train as the options say; return the exit code."""
    _check_used(options)
    problem = zoo.load(options.problem, options.constraints)
    base = recipe(options.problem, options.constraints)
    out = options.out or Path("runs") / f"{options.problem}-{options.seed}"
    result = train(
        problem,
        points=_counts(options.points, base),
        schedule=_schedule(options, base),
        resample=_resample(options, base),
        weights=_weights(options.weights, base),
        weighting=_weighting(options),
        spectra=None
        if options.spectra_every is None
        else Spectra(options.spectra_every),
        sampling=options.sampling,
        seed=options.seed,
        dtype=getattr(torch, options.dtype),
        device=options.device,
        out=out,
        max_seconds=base.max_seconds
        if options.max_seconds is None
        else options.max_seconds,
        resume=options.resume,
        start=options.start,
        compile=COMPILE[options.compile],
        progress=not options.quiet,
    )
    summary = result.summary
    if summary["failure"]:
        print(
            f"whence: error: {summary['failure']}; {out} holds the last good state",
            file=sys.stderr,
        )
        return EXIT_ERROR
    print(
        f"{summary['problem']}: relative L2 error {summary['relative_l2']:.2e} after "
        f"{summary['iterations']} iterations in {summary['seconds']:.0f} s with "
        f"{summary['points']} points ({summary['stopped_by']})"
    )
    print(
        f"run: {out}  (summary.json, history.csv, points.npz, checkpoint.safetensors)"
    )
    if summary["stopped_by"] == "interrupted":
        print(
            f"go on with: whence train {options.problem} --out {out} --resume, same options"
        )
        return EXIT_INTERRUPTED
    print(f"next: whence influence {out}   and   whence plot {out}")
    return 0


def _check_used(options: Options) -> None:
    """Raise ``ValueError`` for an option that would do nothing beside the others."""
    unscored = {
        "none": ("resample", "scoring", "selection"),
        "r3": ("scoring", "selection"),
    }
    said = f"with --score {options.score}"
    idle = dict.fromkeys(unscored.get(options.score, ()), said)
    if options.weighting == "none":
        idle["weighting_options"] = "without --weighting"
    kinds = {text.partition(":")[0] for text in options.schedule} or _kinds(options)
    idle |= {
        name: f"as no {name} is in the schedule"
        for name in OPTIMIZERS
        if name not in kinds
    }
    for group, why in idle.items():
        for name in given_of(getattr(options, group)):
            flag = f"--{group}.{name}".replace("_", "-")
            raise ValueError(f"{flag} does nothing {why}: leave it out")
    if options.score in unscored and options.select != "recipe":
        raise ValueError(f"--select does nothing {said}: leave it out")
    others = [name for name in given_of(options.resample) if name != "every"]
    if options.score == "r3" and others:
        flag = others[0].replace("_", "-")
        raise ValueError(f"--resample.{flag} does nothing {said}: leave it out")


def _kinds(options: Options) -> set[str]:
    stages = recipe(options.problem, options.constraints).schedule
    return {
        name
        for name, cls in OPTIMIZERS.items()
        if any(isinstance(s, cls) for s in stages)
    }


def _counts(given: Sequence[str], base: Recipe) -> dict[str, int]:
    counts = dict(base.points)
    for text in given:
        term, _, number = text.partition("=")
        if not number.isdecimal():
            raise ValueError(
                f"--points takes TERM=COUNT, such as pde=500, got {text!r}"
            )
        _checks.one_of("term in --points", term, base.points)
        counts[term] = int(number)
    return counts


def _weights(given: Sequence[str], base: Recipe) -> dict[str, float] | None:
    weights = {}
    for text in given:
        term, _, number = text.partition("=")
        try:
            weights[term] = float(number)
        except ValueError:
            raise ValueError(
                f"--weights takes TERM=NUMBER, such as initial_u=100, got {text!r}"
            ) from None
        _checks.one_of("term in --weights", term, base.points)
    return weights or None


def _weighting(options: Options) -> Any:
    if options.weighting == "none":
        return None
    given = given_of(options.weighting_options)
    return build(f"weighting {options.weighting}", WEIGHTINGS[options.weighting], given)


def _schedule(options: Options, base: Recipe) -> list[Any]:
    given = {name: given_of(getattr(options, name)) for name in OPTIMIZERS}
    if not options.schedule:
        named = {cls: name for name, cls in OPTIMIZERS.items()}
        return [dataclasses.replace(s, **given[named[type(s)]]) for s in base.schedule]  # type: ignore[type-var]
    stages = []
    for text in options.schedule:
        kind, _, number = text.partition(":")
        if kind not in OPTIMIZERS or not number.isdecimal():
            hint = "" if kind in OPTIMIZERS else _checks.nearest(kind, OPTIMIZERS)
            raise ValueError(
                f"--schedule takes KIND:ITERATIONS with KIND one of {', '.join(OPTIMIZERS)}, such "
                f"as adam:5000, got {text!r}{hint}"
            )
        stages.append(OPTIMIZERS[kind](iterations=int(number), **given[kind]))
    return stages


def _resample(options: Options, base: Recipe) -> sampling.Resample | sampling.R3 | None:
    if options.score == "none":
        return None
    if options.score == "r3":
        return sampling.R3(
            **{"every": base.resample.every, **given_of(options.resample)}
        )
    old = base.resample
    score = _score(options, old)
    select_class = (
        type(old.selection)
        if options.select == "recipe"
        else SELECTIONS[options.select]
    )
    given = given_of(options.resample)
    if given.get("update") == "replace":
        given = {"max_points": None, **given}  # the recipe's limit is for adding
    changed: sampling.Resample = dataclasses.replace(
        old,
        score=score,
        selection=build(
            f"selection {options.select}",
            select_class,
            given_of(options.selection),
            old.selection,
        ),
        **given,
    )
    return changed


def _score(options: Options, old: sampling.Resample) -> Any:
    if (options.score == "saved") != (options.saved_scores is not None):
        raise ValueError("--score saved and --saved-scores FILE go together")
    given = given_of(options.scoring)
    if options.saved_scores is not None:
        if given:
            raise ValueError(
                "--scoring.* options do nothing with --score saved: leave them out"
            )
        return sampling.SavedScore.load(options.saved_scores)
    chosen = type(old.score) if options.score == "recipe" else SCORES[options.score]
    return build(f"score {options.score}", chosen, given, old.score)
