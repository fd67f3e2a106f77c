"""The command line; its options come from the option dataclasses of the API."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import docstring_parser
import torch
import tyro

from whence._files import replacing
from whence.pinn import optimizers, sampling, zoo
from whence.pinn.recipes import Recipe, recipe
from whence.pinn.runs import RunFolder
from whence.pinn.training import load_network, load_points, train

if typing.TYPE_CHECKING:
    from whence.attribution.quantities import Quantity
    from whence.objective import Objective
    from whence.pinn.problem import Problem

SCORES: dict[str, type] = {
    "influence": sampling.InfluenceScore,
    "residual": sampling.ResidualScore,
    "grad_dot": sampling.GradDotScore,
    "output_grad": sampling.OutputGradScore,
    "loss_grad": sampling.LossGradScore,
    "random": sampling.RandomScore,
}
SELECTIONS: dict[str, type] = {
    "proportional": sampling.Proportional,
    "top_k": sampling.TopK,
}
OPTIMIZERS: dict[str, type] = {
    "adam": optimizers.Adam,
    "lbfgs": optimizers.LBFGS,
    "gauss_newton": optimizers.GaussNewton,
}
ProblemName = Literal["diffusion", "burgers", "allen_cahn", "wave", "drift_diffusion"]
ScoreName = Literal["influence", "residual", "grad_dot", "output_grad", "loss_grad", "random"]
EXIT_ERROR, EXIT_INTERRUPTED = 2, 130
INFLUENCE_FILE, SCORES_FILE = "influence.nc", "scores.npz"


def _scalar_fields(cls: Any) -> list[tuple[str, Any, str]]:
    """Return (name, type, help) of the fields of an option class that a flag can carry."""
    hints = typing.get_type_hints(cls)
    helps = {
        p.arg_name: p.description or "" for p in docstring_parser.parse(cls.__doc__ or "").params
    }
    found = []
    for one in dataclasses.fields(cls):
        kinds = [k for k in _alternatives(hints[one.name]) if _is_plain(k)]
        if kinds and one.init and one.name != "iterations":
            shown = next((h for n, h in helps.items() if one.name in n.split(", ")), "")
            text = f"{shown.replace('`', '')} [pinn.{cls.__name__}: {one.default}]"
            found.append((one.name, typing.Union[tuple(kinds)], text))  # noqa: UP007
    return found


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _is_plain(kind: Any) -> bool:
    return kind in (int, float, str, bool) or typing.get_origin(kind) is Literal


def _options(name: str, classes: Sequence[type], skip: Sequence[str] = ()) -> type:
    """Return a dataclass with the scalar fields of ``classes``, each None unless given."""
    fields: dict[str, Any] = {}
    for cls in classes:
        for field, kind, shown in _scalar_fields(cls):
            if field not in skip and field not in fields:
                hint: Any = Annotated[kind | None, tyro.conf.arg(help=shown)]
                fields[field] = (field, hint, dataclasses.field(default=None))
    return dataclasses.make_dataclass(name, list(fields.values()), frozen=True)


# Made from the API's dataclasses, so that a new option there is a new flag here.
_ResampleOptions: Any = _options("Resample", [sampling.Resample])
_ScoringOptions: Any = _options("Scoring", list(SCORES.values()), skip=("seed",))
_SelectionOptions: Any = _options("Selection", list(SELECTIONS.values()))
_AdamOptions: Any = _options("Adam", [optimizers.Adam])
_LBFGSOptions: Any = _options("LBFGS", [optimizers.LBFGS])
_GaussNewtonOptions: Any = _options("GaussNewton", [optimizers.GaussNewton])


def _given(options: Any) -> dict[str, Any]:
    return {
        f.name: v
        for f in dataclasses.fields(options)
        if (v := getattr(options, f.name)) is not None
    }


def _build(kind: str, cls: Any, given: Mapping[str, Any], base: Any = None) -> Any:
    """Return ``cls`` with the given options, on top of ``base`` if that is one of its kind."""
    known = {f.name for f in dataclasses.fields(cls)}
    for name in given:
        if name not in known:
            raise ValueError(
                f"{name} is no option of {kind}, which has {', '.join(sorted(known)) or 'none'}"
            )
    if isinstance(base, cls):
        return dataclasses.replace(base, **given)
    return cls(**given)


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network on a problem, resampling its points, and leave a run folder."""

    problem: tyro.conf.Positional[ProblemName]
    """What to solve; `whence problems` describes each."""
    out: Path | None = None
    """Run folder to make [default: runs/PROBLEM-SEED]."""
    seed: int = 0
    """Seed of the network and of everything random."""
    max_seconds: float | None = None
    """Stop, resumably, after this many seconds [default: the recipe's]."""
    constraints: Literal["hard", "soft"] = "hard"
    """hard: an ansatz meets initial and boundary conditions exactly. soft: each is a loss term."""
    resume: bool = False
    """Go on with the run in --out; give the same options as before."""
    start: Path | None = None
    """Start from the network of this run."""
    points: tuple[str, ...] = ()
    """First training points as TERM=COUNT, such as pde=500 [default: the recipe's]."""
    schedule: tuple[str, ...] = ()
    """Optimisers in turn as KIND:ITERATIONS, such as adam:5000 lbfgs:2000 gauss_newton:200."""
    score: Literal["recipe", "none", "saved"] | ScoreName = "recipe"
    """How candidate points are scored; none keeps the first points, saved takes --saved-scores."""
    saved_scores: Path | None = None
    """Scores that `whence score` wrote, for --score saved."""
    select: Literal["recipe", "proportional", "top_k"] = "recipe"
    """How scored candidates are chosen."""
    sampling: Literal["hammersley", "sobol", "halton", "latin_hypercube", "grid", "random"] = (
        "hammersley"
    )
    """How the first points are placed."""
    resample: _ResampleOptions = dataclasses.field(default_factory=_ResampleOptions)
    """When points are renewed, and how many; unset options are the recipe's."""
    scoring: _ScoringOptions = dataclasses.field(default_factory=_ScoringOptions)
    """Options of the score; unset ones are the recipe's."""
    selection: _SelectionOptions = dataclasses.field(default_factory=_SelectionOptions)
    """Options of the selection; unset ones are the recipe's."""
    adam: _AdamOptions = dataclasses.field(default_factory=_AdamOptions)
    """Options of Adam."""
    lbfgs: _LBFGSOptions = dataclasses.field(default_factory=_LBFGSOptions)
    """Options of L-BFGS."""
    gauss_newton: _GaussNewtonOptions = dataclasses.field(default_factory=_GaussNewtonOptions)
    """Options of Gauss–Newton."""
    dtype: Literal["float64", "float32"] = "float64"
    """Number type."""
    device: str = "cpu"
    """Device, such as cpu or cuda."""
    quiet: bool = False
    """Show no progress bar."""


def run_train(options: Train) -> int:
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
        sampling=options.sampling,
        seed=options.seed,
        dtype=getattr(torch, options.dtype),
        device=options.device,
        out=out,
        max_seconds=base.max_seconds if options.max_seconds is None else options.max_seconds,
        resume=options.resume,
        start=options.start,
        progress=not options.quiet,
    )
    summary = result.summary
    print(
        f"{summary['problem']}: relative L2 error {summary['relative_l2']:.2e} after "
        f"{summary['iterations']} iterations in {summary['seconds']:.0f} s with "
        f"{summary['points']} points ({summary['stopped_by']})"
    )
    print(f"run: {out}  (summary.json, history.csv, points.npz, checkpoint.safetensors)")
    if summary["stopped_by"] == "interrupted":
        print(f"go on with: whence train {options.problem} --out {out} --resume, same options")
        return EXIT_INTERRUPTED
    print(f"next: whence influence {out}   and   whence plot {out}")
    return 0


def _check_used(options: Train) -> None:
    """Raise ``ValueError`` for an option that would do nothing beside the others."""
    groups = ("resample", "scoring", "selection") if options.score == "none" else ()
    idle = dict.fromkeys(groups, "with --score none")
    kinds = {text.partition(":")[0] for text in options.schedule} or _kinds(options)
    idle |= {name: f"as no {name} is in the schedule" for name in OPTIMIZERS if name not in kinds}
    for group, why in idle.items():
        for name in _given(getattr(options, group)):
            flag = f"--{group}.{name}".replace("_", "-")
            raise ValueError(f"{flag} does nothing {why}: leave it out")
    if options.score == "none" and options.select != "recipe":
        raise ValueError("--select does nothing with --score none: leave it out")


def _kinds(options: Train) -> set[str]:
    stages = recipe(options.problem, options.constraints).schedule
    return {name for name, cls in OPTIMIZERS.items() if any(isinstance(s, cls) for s in stages)}


def _counts(given: Sequence[str], base: Recipe) -> dict[str, int]:
    counts = dict(base.points)
    for text in given:
        term, _, number = text.partition("=")
        if not number.isdecimal():
            raise ValueError(f"--points takes TERM=COUNT, such as pde=500, got {text!r}")
        counts[term] = int(number)
    return counts


def _schedule(options: Train, base: Recipe) -> list[Any]:
    given = {name: _given(getattr(options, name)) for name in OPTIMIZERS}
    if not options.schedule:
        named = {cls: name for name, cls in OPTIMIZERS.items()}
        return [dataclasses.replace(s, **given[named[type(s)]]) for s in base.schedule]  # type: ignore[type-var]
    stages = []
    for text in options.schedule:
        kind, _, number = text.partition(":")
        if kind not in OPTIMIZERS or not number.isdecimal():
            raise ValueError(
                f"--schedule takes KIND:ITERATIONS with KIND one of {', '.join(OPTIMIZERS)}, such "
                f"as adam:5000, got {text!r}"
            )
        stages.append(OPTIMIZERS[kind](iterations=int(number), **given[kind]))
    return stages


def _resample(options: Train, base: Recipe) -> sampling.Resample | None:
    if options.score == "none":
        return None
    old = base.resample
    score = _score(options, old)
    select_class = type(old.selection) if options.select == "recipe" else SELECTIONS[options.select]
    changed: sampling.Resample = dataclasses.replace(
        old,
        score=score,
        selection=_build(
            f"selection {options.select}", select_class, _given(options.selection), old.selection
        ),
        **_given(options.resample),
    )
    return changed


def _score(options: Train, old: sampling.Resample) -> Any:
    if (options.score == "saved") != (options.saved_scores is not None):
        raise ValueError("--score saved and --saved-scores FILE go together")
    given = _given(options.scoring)
    if options.saved_scores is not None:
        if given:
            raise ValueError("--scoring.* options do nothing with --score saved: leave them out")
        return sampling.SavedScore.load(options.saved_scores)
    chosen = type(old.score) if options.score == "recipe" else SCORES[options.score]
    return _build(f"score {options.score}", chosen, given, old.score)


@dataclasses.dataclass(frozen=True)
class Influence:
    """Say what every training point of a run does to one of its answers."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    of: str = "u"
    """What to explain: an output or derivative at --at (u, u_x, u_xt), or `loss`."""
    at: tuple[float, ...] = ()
    """Coordinates of the point to explain, in the problem's order [default: where the error is
    largest]."""
    damping: float | None = None
    """Damping λ relative to the largest eigenvalue of the curvature."""
    curvature: Literal["gauss_newton", "hessian"] = "gauss_newton"
    """Curvature of the loss."""
    effect: Literal["remove", "add"] = "remove"
    """What happens to a point."""
    out: Path | None = None
    """NetCDF file to write [default: RUN/influence.nc]."""


def run_influence(options: Influence) -> int:
    """Attribute a run's answer to its training points; return the exit code."""
    from whence import plots
    from whence.attribution.influence import Influence as InfluenceOf

    out = options.out or options.run / INFLUENCE_FILE
    if out.suffix != ".nc":
        raise ValueError(f"--out names a NetCDF file, which ends in .nc, got {out}")
    problem, objective = _load(options.run)
    quantity = _quantity(options, problem, objective)
    influence = InfluenceOf(objective, damping=options.damping, curvature=options.curvature)
    row = influence.attribute(quantity, effect=options.effect).isel(target=0)
    _write_netcdf(row, out)
    png, svg = plots.save(plots.influence_map(row, problem), out.with_suffix(""))
    print(plots.describe_influence(row))
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    print(f"figure: {png}  {svg}")
    return 0


def _quantity(options: Influence, problem: Problem, objective: Objective) -> Quantity:
    from whence.attribution.quantities import Derivative, Loss, Output
    from whence.pinn.fields import parse

    if options.of == "loss":
        if options.at:
            raise ValueError(
                "--at does nothing with --of loss, the mean over all points: leave it out"
            )
        return Loss(reduce="mean")
    name = parse(options.of, problem.coordinates, tuple(problem.outputs))
    if name.output is None:
        raise ValueError(
            f"--of {options.of} is a coordinate: name an output or a derivative of one"
        )
    if options.at and len(options.at) != len(problem.coordinates):
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({', '.join(problem.coordinates)}), "
            f"got {len(options.at)}"
        )
    point = torch.tensor([options.at], dtype=torch.float64)
    if not options.at:
        point = _worst_point(problem, objective)
    if not bool(problem.domain.contains(point).all()):
        raise ValueError(f"--at {' '.join(map(str, options.at))} lies outside the domain")
    placed = point.to(dtype=objective.parameters.dtype, device=objective.parameters.device)
    return Derivative(placed, options.of) if name.index else Output(placed, options.of)


def _worst_point(problem: Problem, objective: Objective) -> torch.Tensor:
    """Return the grid point at which the network differs most from the reference, (1, d)."""
    grid = problem.domain.sample(10_000, "grid")
    placed = grid.to(objective.parameters.dtype)
    fields = objective.fields(tuple(problem.outputs))
    values = fields(objective.parameters.tensors(), placed).detach().double()
    worst = (values - problem.reference(grid)).abs().sum(dim=1).argmax()
    return grid[worst : worst + 1]


def _write_netcdf(row: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        row.drop_indexes("term").to_netcdf(temporary)


def _load(run: Path) -> tuple[Problem, Objective]:
    """Return the problem of a run and its objective at the kept network and its points."""
    config = RunFolder(run).config()
    if config["problem"] not in zoo.names():
        raise ValueError(
            f"{run} solves {config['problem']!r}, which is not one of {', '.join(zoo.names())}: "
            "use pinn.load_network and pinn.load_points from Python"
        )
    problem = zoo.load(config["problem"], "hard" if config["hard_constraints"] else "soft")
    network = problem.network(config["seed"]).to(getattr(torch, config["dtype"].split(".")[1]))
    load_network(network, run)
    return problem, problem.objective(network, load_points(run), config["weights"])


@dataclasses.dataclass(frozen=True)
class Score:
    """Score candidate points for a run's network, and save the scores for later training."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    score: ScoreName = "influence"
    """Which score."""
    candidates: int = 10_000
    """Number of fresh uniform candidates."""
    term: str = "pde"
    """Which term's candidates."""
    seed: int = 0
    """Seed of candidates and test points."""
    scoring: _ScoringOptions = dataclasses.field(default_factory=_ScoringOptions)
    """Options of the score."""
    out: Path | None = None
    """File to write [default: RUN/scores.npz]."""


def run_score(options: Score) -> int:
    """Score candidates and save them; return the exit code."""
    problem, objective = _load(options.run)
    kind, given = SCORES[options.score], _given(options.scoring)
    if "seed" in {field.name for field in dataclasses.fields(kind)}:
        given["seed"] = options.seed
    scorer = _build(f"score {options.score}", kind, given)
    pool = objective.draw(options.term, options.candidates, options.seed)
    values = scorer.score(objective, {options.term: pool})
    out = options.out or options.run / SCORES_FILE
    sampling.SavedScore(options.term, pool, values).save(out)
    best = int(values.argmax())
    where = ", ".join(
        f"{n}={v:.4g}" for n, v in zip(problem.coordinates, pool[best].tolist(), strict=True)
    )
    print(f"{options.score} score of {len(pool)} candidates: largest {values[best]:.3e} at {where}")
    print(f"scores: {out}  (pinn.SavedScore.load reads it)")
    return 0


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw a run: its solution and error, its convergence, where its points went."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    out: Path | None = None
    """Folder for the figures [default: RUN/figures]."""


def run_plot(options: Plot) -> int:
    """Draw every figure of a run; return the exit code."""
    from whence import plots

    problem, objective = _load(options.run)
    folder = RunFolder(options.run)
    out = options.out or options.run / "figures"
    out.mkdir(parents=True, exist_ok=True)
    made = [
        plots.save(plots.solution(problem, objective.network), out / "solution"),
        plots.save(plots.convergence(folder.history()), out / "convergence"),
        plots.save(plots.rounds(problem, folder.points()), out / "points"),
    ]
    sentence = None
    if (options.run / INFLUENCE_FILE).is_file():
        import xarray as xr

        with xr.open_dataarray(options.run / INFLUENCE_FILE) as row:
            made.append(plots.save(plots.influence_map(row, problem), out / "influence"))
            sentence = plots.describe_influence(row)
    grid = problem.domain.sample(10_000, "grid")
    print(f"relative L2 error: {problem.relative_l2(objective.network, grid):.2e}")
    if sentence:
        print(sentence)
    for png, svg in made:
        print(f"figure: {png}  {svg.name}")
    return 0


@dataclasses.dataclass(frozen=True)
class Problems:
    """List the benchmark problems."""


def run_problems(options: Problems) -> int:
    """Print one line on each problem; return the exit code."""
    for name in zoo.names():
        print(f"{name:16s} {zoo.describe(name)}")
    print("train one with: whence train burgers")
    return 0


COMMANDS: dict[type, Callable[[Any], int]] = {
    Train: run_train,
    Influence: run_influence,
    Score: run_score,
    Plot: run_plot,
    Problems: run_problems,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for an error, 130 for an interrupt)."""
    options = tyro.extras.subcommand_cli_from_dict(
        {cls.__name__.lower(): _identity(cls) for cls in COMMANDS},
        prog="whence",
        description=inspect.cleandoc(
            """Which training points do a network's answers come from?

            Start with: whence train burgers, then whence influence RUN, then whence plot RUN."""
        ),
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        return COMMANDS[type(options)](options)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        print(f"whence: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("whence: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _identity(cls: type) -> Callable[..., Any]:
    return cls


if __name__ == "__main__":
    sys.exit(main())
