"""``whence influence``: what every training point of a run, or of a model, does to an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import xarray as xr
from matplotlib.figure import Figure

from whence import _checks, plots
from whence._netcdf import write_netcdf
from whence.attribution.method import Method
from whence.attribution.quality import quality
from whence.catalogue import METHODS, SOLVERS
from whence.cli.files import INFLUENCE_FILE, check_file, free_name
from whence.cli.flags import (
    build,
    check_used,
    choices,
    default_words,
    groups_of,
    values_for,
    with_groups,
)
from whence.cli.influence_of_run import Explanation, attributed
from whence.cli.model_file import NEEDED, ModelFile, file_parameters, read
from whence.cli.quantities import quantity_of_tests, with_named_components
from whence.cli.run_options import (
    RunOptions,
    check_together,
    given_flags,
    named_terms,
)
from whence.cli.sample_images import draw_influences
from whence.pinn.training.load import load_run
from whence.plots.grouping import Groups

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class _Options(RunOptions):
    """Say what every training point does to an answer of a run, or of a model of your own.

    A Python file must name `model`, `data` = (inputs, targets), a Dataset or a DataLoader, and
    `loss`; `test` data to explain, `parameters`, `weight_decay`, `checkpoints` and
    `learning_rates` if wanted. It is run each time: let it load the trained weights, as
    model.load_state_dict(torch.load("weights.pt")), rather than train.
    """

    sample: Annotated[tuple[int, ...], default_words("all", "[INT ...]")] = ()
    """Test samples to explain, by their number; of a file alone."""
    method: Annotated[str, choices(METHODS)] = "influence"
    """Attribution method."""
    solver: Annotated[str, choices(SOLVERS)] = AUTO
    """How to apply the inverse curvature, for --method influence."""
    damping: Annotated[
        float | None, default_words("by number type and kind of points", "FLOAT")
    ] = None
    """Damping λ relative to the largest eigenvalue of the curvature, for --method influence."""
    curvature: Annotated[
        Literal["gauss_newton", "hessian"] | None,
        default_words("gauss_newton where losses are convex", "{gauss_newton,hessian}"),
    ] = None
    """Curvature of the loss, for --method influence."""
    memory_budget: Annotated[float | None, default_words("2", "GIB")] = None
    """Memory for matrices and rows, in GiB: more lets larger systems be solved exactly."""
    effect: Literal["remove", "add"] = "remove"
    """What happens to a point."""
    out: Annotated[
        Path | None, default_words("RUN/influence.nc or FILE_influence.nc", "PATH")
    ] = None
    """NetCDF file to write; beside a Python file one more each time."""
    overwrite: bool = False
    """Write over a former result."""


def options_not_flags() -> list[str]:
    """Return the options of methods that a model file names, or that have a flag of their own."""
    names = ["memory_budget", "damping", "curvature", "solver"]
    names += [*NEEDED, "parameters", "weight_decay"]
    for cls in METHODS.values():
        names += [parameter.name for parameter in file_parameters(cls)]
    return names


_NAMES = [field.name for field in dataclasses.fields(_Options)]
GROUPS = groups_of((METHODS, SOLVERS), _NAMES)
Options = with_groups(_Options, GROUPS, skip=options_not_flags())


def run(options: _Options, arguments: Sequence[str]) -> int:
    """Attribute an answer to its training points; return the exit code."""
    is_file = options.run.suffix == ".py"
    # Beside what it explains, unless said otherwise.
    out = options.out
    if out is None and is_file:
        out = options.run.with_name(f"{options.run.stem}_{INFLUENCE_FILE}")
        if not options.overwrite:
            out = free_name(out)
    if out is not None and out.suffix != ".nc":
        raise ValueError(f"--out names a NetCDF file, which ends in .nc, got {out}")

    used = {"attribution method": [options.method], "solver": [options.solver]}
    check_used(options, GROUPS, used)
    if is_file:
        assert out is not None  # named above, if not by the user
        return explain_file(options, out)

    return explain_run(options, out)


def explain_run(options: _Options, out: Path | None) -> int:
    """Explain what is asked of a run; return the exit code."""
    if options.sample:
        raise ValueError("--sample is for a Python file: leave it out for a run")

    check_together(options)
    check_kept(options.method)
    result = with_named_components(load_run(options.run), named_terms(options))
    # A run names nothing but its objective: a method that needs more says so.
    file = ModelFile(options.run, result.objective, {})
    explanation = Explanation(
        options,
        result,
        method_of(options, file),
        options.effect,
        out,
        options.overwrite,
    )
    return explanation.run()


def check_kept(method: str) -> None:
    """Raise ``ValueError`` for a method that needs more than a run keeps."""
    for parameter in file_parameters(METHODS[method]):
        # Such as the checkpoints of TracIn: a run keeps its last network alone.
        if parameter.default is parameter.empty:
            raise ValueError(
                f"--method {method} needs {parameter.name}, which a run does not keep: take "
                "another, such as grad_dot, which is TracIn at the last parameters"
            )


def explain_file(options: _Options, out: Path) -> int:
    """Attribute what a model gives for its test data; return the exit code."""
    flags = given_flags(options)
    if flags:
        raise ValueError(
            f"{flags[0]} is for a run: name test samples with --sample 0 3"
        )
    if len(options.of) > 1:
        raise ValueError(
            f"--of takes one name for a Python file, got {' '.join(options.of)}"
        )

    # Before the file is run, which may take a while.
    check_file(out, overwrite=options.overwrite)
    file = read(options.run)

    method = method_of(options, file)
    name = options.of[0] if options.of else None
    quantity = quantity_of_tests(file, name, options.sample)
    table = attributed(method, [quantity], options.effect)
    if options.sample:
        # By their numbers in the test data, rather than 0, 1, … in the order of --sample.
        numbers = list(options.sample)
        table = table.assign_coords(target_index=("target", numbers))

    write_netcdf(table.drop_indexes("term"), out)
    kind = file.kind_of_target()
    named = table.rename(
        {
            name: str(name).replace("label", kind)
            for name in table.coords
            if name in ("label", "target_label")
        }
    )
    print(plots.describe_samples(named, kind))
    print(f"quality: {quality(table)}")
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    if kind in named.coords:
        png, svg = plots.save(histograms(named, kind), out.with_suffix(""))
        print(f"figure: {png}  {svg}")
    draw_influences(file, named, kind, out)
    return 0


def histograms(table: xr.DataArray, kind: str) -> Figure:
    """Return histograms of influences by class, or by range of values, a few of them."""
    groups = Groups.of(table, kind)
    if groups.note:
        print(f"the figure: {groups.note}")
    return plots.influence_histograms(groups.attribution, kind, names=groups.names)


def method_of(options: _Options, file: ModelFile) -> Method:
    """Return the attribution method that the options describe."""
    values = values_for(options, GROUPS, METHODS, options.method)

    memory: dict[str, Any] = {}
    if options.memory_budget is not None:
        _checks.positive("--memory-budget", options.memory_budget)
        memory["memory_budget"] = int(options.memory_budget * 2**30)

    # These three stand without a group's name, as all but influence lack them.
    plain: dict[str, Any] = {}
    if options.damping is not None:
        plain["damping"] = options.damping
    if options.curvature is not None:
        plain["curvature"] = options.curvature
    if options.solver != AUTO:
        solver_options = values_for(options, GROUPS, SOLVERS, options.solver)
        solver_options |= memory
        plain["solver"] = build(SOLVERS, options.solver, solver_options)

    if plain and options.method != "influence":
        flag = next(iter(plain))
        raise ValueError(
            f"--{flag} does nothing with --method {options.method}: leave it out"
        )

    return file.method(options.method, {**values, **plain, **memory})
