"""``whence influence``: what every training point of a run, or of a model, does to an answer."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from whence import _checks, plots
from whence._netcdf import write_netcdf
from whence.attribution.influence import Influence
from whence.attribution.method import Method
from whence.attribution.quality import FarFromMinimum, quality
from whence.attribution.quantities import Derivative, Loss, Output, Quantity
from whence.cli.flags import told
from whence.cli.loading import INFLUENCE_FILE, check_file, load
from whence.cli.model_file import MethodName, ModelFile, read
from whence.objective import Objective
from whence.pinn.boundary import named
from whence.pinn.fields import parse
from whence.pinn.problem import Problem
from whence.samples import samples_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what every training point does to an answer of a run, or of a model of your own.

    A Python file must name `model`, `data` = (inputs, targets), a Dataset or a DataLoader, and
    `loss`; `test` data to explain, `parameters`, `checkpoints` and `learning_rates` if wanted.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it, or a Python file that names model, data and loss."""
    of: Annotated[str | None, told("u of a run, loss of a file")] = None
    """What to explain: an output or derivative at --at (u, u_x, u_xt), or `loss`; of a file `loss`
    or an output such as output_3, for the test data."""
    at: Annotated[tuple[float, ...], told("where the error is largest")] = ()
    """Coordinates of the point to explain, in the problem's order; of a run alone."""
    sample: Annotated[tuple[int, ...], told("all")] = ()
    """Test samples to explain, by their number; of a file alone."""
    method: MethodName = "influence"
    """Attribution method; of a run `influence`."""
    damping: float | None = None
    """Damping λ relative to the largest eigenvalue of the curvature."""
    curvature: Annotated[
        Literal["gauss_newton", "hessian"] | None,
        told("gauss_newton where losses are convex"),
    ] = None
    """Curvature of the loss."""
    effect: Literal["remove", "add"] = "remove"
    """What happens to a point."""
    out: Annotated[Path | None, told("RUN/influence.nc or FILE_influence.nc")] = None
    """NetCDF file to write."""


def run(options: Options) -> int:
    """Attribute an answer to its training points; return the exit code."""
    python = options.run.suffix == ".py"
    default = options.run.with_name(f"{options.run.stem}_{INFLUENCE_FILE}")
    out = options.out or (default if python else options.run / INFLUENCE_FILE)
    if out.suffix != ".nc":
        raise ValueError(f"--out names a NetCDF file, which ends in .nc, got {out}")
    return _of_file(options, out) if python else _of_run(options, out)


def _of_run(options: Options, out: Path) -> int:
    if options.sample or options.method != "influence":
        raise ValueError(
            "--sample and --method are for a Python file: leave them out for a run"
        )
    problem, objective = load(options.run)
    check_file(out)
    quantity = _quantity(options, problem, objective)
    influence = Influence(
        objective, damping=options.damping, curvature=options.curvature
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarFromMinimum)  # said below, with the rest
        row = influence.attribute(quantity, effect=options.effect).isel(target=0)
    write_netcdf(row.drop_indexes("term"), out)
    png, svg = plots.save(plots.influence_map(row, problem), out.with_suffix(""))
    print(plots.describe_influence(row))
    print(f"quality: {quality(row)}")
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    print(f"figure: {png}  {svg}")
    return 0


def _of_file(options: Options, out: Path) -> int:
    if options.at:
        raise ValueError("--at is for a run: name test samples with --sample 0 3")
    given = read(options.run)
    check_file(out)
    method: Method = given.method(options.method, options.damping)
    if isinstance(method, Influence):
        method = Influence(
            given.objective, damping=options.damping, curvature=options.curvature
        )
    elif options.curvature:
        raise ValueError(
            f"--curvature does nothing with --method {options.method}: leave it out"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarFromMinimum)  # said below, with the rest
        found = method.attribute(_asked(options, given), effect=options.effect)
    if options.sample:
        found = found.assign_coords(target_index=("target", list(options.sample)))
    write_netcdf(found.drop_indexes("term"), out)
    print(plots.describe_samples(found))
    print(f"quality: {quality(found)}")
    print(f"attribution: {out}  (xarray.open_dataarray reads it)")
    if "label" in found.coords:
        png, svg = plots.save(plots.influence_histograms(found), out.with_suffix(""))
        print(f"figure: {png}  {svg}")
    return 0


def _asked(options: Options, given: ModelFile) -> Quantity:
    like = given.objective.parameters
    test = samples_of("the test data", given.test(), like.dtype, like.device)
    if options.sample:
        outside = [i for i in options.sample if not 0 <= i < len(test)]
        if outside:
            raise ValueError(
                f"--sample must lie in 0 … {len(test) - 1}, got {outside[0]}"
            )
        test = test[torch.tensor(options.sample)]
    if options.of in (None, "loss"):
        return Loss(test)
    _checks.one_of("--of", options.of, ("loss", *given.objective.outputs))
    return Output(test, options.of)


def _quantity(options: Options, problem: Problem, objective: Objective) -> Quantity:
    if options.of == "loss":
        if options.at:
            raise ValueError(
                "--at does nothing with --of loss, the mean over all points: leave it out"
            )
        return Loss(reduce="mean")
    of = options.of or next(iter(problem.outputs))
    name = parse(of, problem.coordinates, tuple(problem.outputs))
    if name.output is None:
        raise ValueError(
            f"--of {of} is a coordinate: name an output or a derivative of one"
        )
    point = _point(options, problem) if options.at else _worst_point(problem, objective)
    placed = point.to(
        dtype=objective.parameters.dtype, device=objective.parameters.device
    )
    return Derivative(placed, of) if name.index else Output(placed, of)


def _point(options: Options, problem: Problem) -> torch.Tensor:
    """Return the point of --at, (1, d)."""
    if len(options.at) != len(problem.coordinates):
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({', '.join(problem.coordinates)}), "
            f"got {len(options.at)}"
        )
    point = torch.tensor([options.at], dtype=torch.float64)
    if not (
        all(map(math.isfinite, options.at))
        and bool(problem.domain.contains(point).all())
    ):
        raise ValueError(
            f"--at {' '.join(map(str, options.at))} lies outside the domain, whose bounds are "
            f"{named(problem.coordinates, problem.domain.bounds.T)}"
        )
    return point


def _worst_point(problem: Problem, objective: Objective) -> torch.Tensor:
    """Return the grid point at which the network differs most from the reference, (1, d)."""
    grid = problem.domain.sample(10_000, "grid")
    placed = grid.to(objective.parameters.dtype)
    fields = objective.fields(tuple(problem.outputs))
    values = fields(objective.parameters.tensors(), placed).detach().double()
    worst = (values - problem.reference(grid)).abs().sum(dim=1).argmax()
    return grid[worst : worst + 1]
