"""``whence influence``: what every training point of a run, or of a model, does to an answer."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from whence import _checks, plots
from whence._netcdf import write_netcdf
from whence.attribution.method import Method
from whence.attribution.quality import FarFromMinimum, quality
from whence.attribution.quantities import Derivative, Loss, Output, Quantity
from whence.catalogue import METHODS, QUANTITIES, SOLVERS
from whence.cli.files import INFLUENCE_FILE, check_file
from whence.cli.flags import (
    build,
    check_used,
    choices,
    given_for,
    groups_of,
    told,
    with_groups,
)
from whence.cli.model_file import NEEDED, ModelFile, file_parameters, read
from whence.pinn.geometry.boundary import named
from whence.pinn.pde.names import parse
from whence.pinn.pde.problem import Problem
from whence.pinn.training.load import load_run
from whence.pinn.training.result import Result
from whence.samples import samples_of

AUTO = "auto"
GRID_POINTS = 10_000


@dataclasses.dataclass(frozen=True)
class _Options:
    """Say what every training point does to an answer of a run, or of a model of your own.

    A Python file must name `model`, `data` = (inputs, targets), a Dataset or a DataLoader, and
    `loss`; `test` data to explain, `parameters`, `checkpoints` and `learning_rates` if wanted.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it, or a Python file that names model, data and loss."""
    of: Annotated[str | None, told("u of a run, loss of a file")] = None
    """What to explain: an output or derivative at --at (u, u_x, u_xt), or the name of a quantity
    (`whence catalogue quantities`) such as loss or residual; of a file for the test data."""
    at: Annotated[tuple[float, ...], told("where the error is largest")] = ()
    """Coordinates of the point to explain, in the problem's order; of a run alone."""
    sample: Annotated[tuple[int, ...], told("all")] = ()
    """Test samples to explain, by their number; of a file alone."""
    method: Annotated[str, choices(METHODS)] = "influence"
    """Attribution method."""
    solver: Annotated[str, choices(SOLVERS)] = AUTO
    """How to apply the inverse curvature, for --method influence."""
    damping: float | None = None
    """Damping λ relative to the largest eigenvalue of the curvature, for --method influence."""
    curvature: Annotated[
        Literal["gauss_newton", "hessian"] | None,
        told("gauss_newton where losses are convex"),
    ] = None
    """Curvature of the loss, for --method influence."""
    effect: Literal["remove", "add"] = "remove"
    """What happens to a point."""
    out: Annotated[Path | None, told("RUN/influence.nc or FILE_influence.nc")] = None
    """NetCDF file to write."""


def _from_file() -> list[str]:
    """Return the options of methods that a model file names, rather than flags."""
    names = ["memory_budget", "damping", "curvature", "solver"]
    names += [*NEEDED, "parameters"]
    for cls in METHODS.values():
        names += [parameter.name for parameter in file_parameters(cls)]
    return names


GROUPS = groups_of(
    (METHODS, SOLVERS), [field.name for field in dataclasses.fields(_Options)]
)
Options: Any = with_groups(_Options, GROUPS, skip=_from_file())


def run(options: Any, arguments: Any) -> int:
    """Attribute an answer to its training points; return the exit code."""
    is_file = options.run.suffix == ".py"
    out = options.out
    if out is None and is_file:
        out = options.run.with_name(f"{options.run.stem}_{INFLUENCE_FILE}")
    elif out is None:
        out = options.run / INFLUENCE_FILE
    if out.suffix != ".nc":
        raise ValueError(f"--out names a NetCDF file, which ends in .nc, got {out}")

    used = {"attribution method": [options.method], "solver": [options.solver]}
    check_used(options, GROUPS, used)
    if is_file:
        return _of_file(options, out)
    return _of_run(options, out)


def _of_run(options: Any, out: Path) -> int:
    if options.sample:
        raise ValueError("--sample is for a Python file: leave it out for a run")
    result = load_run(options.run)
    check_file(out)
    quantity = _quantity(options, result)
    # A run names nothing but its objective: a method that needs more says so.
    file = ModelFile(options.run, result.objective, {})
    row = _attributed(_method(options, file), quantity, options.effect)
    row = row.isel(target=0)

    write_netcdf(row.drop_indexes("term"), out)
    figure = plots.influence_map(row, result.problem)
    png, svg = plots.save(figure, out.with_suffix(""))
    print(plots.describe_influence(row))
    print(f"quality: {quality(row)}")
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    print(f"figure: {png}  {svg}")
    return 0


def _of_file(options: Any, out: Path) -> int:
    if options.at:
        raise ValueError("--at is for a run: name test samples with --sample 0 3")
    file = read(options.run)
    check_file(out)
    table = _attributed(_method(options, file), _of_test(options, file), options.effect)
    if options.sample:
        numbers = list(options.sample)
        table = table.assign_coords(target_index=("target", numbers))

    write_netcdf(table.drop_indexes("term"), out)
    print(plots.describe_samples(table))
    print(f"quality: {quality(table)}")
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    if "label" in table.coords:
        figure = plots.influence_histograms(table)
        png, svg = plots.save(figure, out.with_suffix(""))
        print(f"figure: {png}  {svg}")
    return 0


def _attributed(method: Method, quantity: Quantity, effect: Any) -> Any:
    with warnings.catch_warnings():
        # The quality that is printed says it, with the rest.
        warnings.simplefilter("ignore", FarFromMinimum)
        return method.attribute(quantity, effect=effect)


def _method(options: Any, file: ModelFile) -> Method:
    given = given_for(options, GROUPS, METHODS, options.method)
    own = {"damping": options.damping, "curvature": options.curvature}
    own = {name: value for name, value in own.items() if value is not None}
    if options.solver != AUTO:
        solver_options = given_for(options, GROUPS, SOLVERS, options.solver)
        own["solver"] = build(SOLVERS, options.solver, solver_options)

    if own and options.method != "influence":
        flag = next(iter(own))
        raise ValueError(
            f"--{flag} does nothing with --method {options.method}: leave it out"
        )
    return file.method(options.method, {**given, **own})


def _of_test(options: Any, file: ModelFile) -> Quantity:
    """Return what to explain of the test data."""
    like = file.objective.parameters
    test = samples_of("the test data", file.test(), like.dtype, like.device)
    if options.sample:
        for number in options.sample:
            if not 0 <= number < len(test):
                raise ValueError(
                    f"--sample must lie in 0 … {len(test) - 1}, got {number}"
                )
        test = test[torch.tensor(options.sample)]

    of = options.of or "loss"
    if of in file.objective.outputs:
        return Output(test, of)
    _checks.one_of("--of", of, (*_nameable(), *file.objective.outputs))
    quantity: Quantity = QUANTITIES[of].of_objective(file.objective, test)
    return quantity


def _nameable() -> list[str]:
    """Return the names of quantities that the command line can make."""
    return [name for name in QUANTITIES if hasattr(QUANTITIES[name], "of_objective")]


def _quantity(options: Any, result: Result) -> Quantity:
    """Return what to explain of a run."""
    problem = result.problem
    objective = result.objective
    of = options.of or next(iter(problem.outputs))
    if of == "loss":
        if options.at:
            raise ValueError(
                "--at does nothing with --of loss, the mean over all points: leave it out"
            )
        return Loss(reduce="mean")

    is_field = of not in _nameable() or of in problem.outputs
    if is_field:
        name = parse(of, problem.coordinates, tuple(problem.outputs))
        if name.output is None:
            raise ValueError(
                f"--of {of} is a coordinate: name an output or a derivative of one"
            )
    point = _point(options, problem) if options.at else _worst_point(result)
    point = point.to(dtype=objective.parameters.dtype)
    if not is_field:
        quantity: Quantity = QUANTITIES[of].of_objective(objective, point)
        return quantity
    return Derivative(point, of) if name.index else Output(point, of)


def _point(options: Any, problem: Problem) -> torch.Tensor:
    """Return the point of --at, (1, d)."""
    if len(options.at) != len(problem.coordinates):
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({', '.join(problem.coordinates)}), "
            f"got {len(options.at)}"
        )
    point = torch.tensor([options.at], dtype=torch.float64)
    is_finite = all(map(math.isfinite, options.at))
    if not is_finite or not bool(problem.domain.contains(point).all()):
        raise ValueError(
            f"--at {' '.join(map(str, options.at))} lies outside the domain, whose bounds are "
            f"{named(problem.coordinates, problem.domain.bounds.T)}"
        )
    return point


def _worst_point(result: Result) -> torch.Tensor:
    """Return the grid point of the largest error, or without a reference residual, (1, d)."""
    problem = result.problem
    grid = problem.domain.sample(GRID_POINTS, "grid")
    if problem.solution is not None:
        sizes = result.solution.error(grid).abs().sum(dim=1)
    else:
        sizes = result.solution.residual(grid).abs().sum(dim=1)
    worst = int(sizes.argmax())
    return grid[worst : worst + 1]
