"""``whence influence``: what every training point of a run does to one of its answers."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from whence import plots
from whence._netcdf import write_netcdf
from whence.attribution.influence import Influence
from whence.attribution.quality import FarFromMinimum, quality
from whence.attribution.quantities import Derivative, Loss, Output, Quantity
from whence.cli.flags import told
from whence.cli.loading import INFLUENCE_FILE, check_file, load
from whence.objective import Objective
from whence.pinn.boundary import named
from whence.pinn.fields import parse
from whence.pinn.problem import Problem


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what every training point of a run does to one of its answers."""

    run: tyro.conf.Positional[Path]
    """Run folder, as `whence train` leaves it."""
    of: str = "u"
    """What to explain: an output or derivative at --at (u, u_x, u_xt), or `loss`."""
    at: Annotated[tuple[float, ...], told("where the error is largest")] = ()
    """Coordinates of the point to explain, in the problem's order."""
    damping: float | None = None
    """Damping λ relative to the largest eigenvalue of the curvature."""
    curvature: Literal["gauss_newton", "hessian"] = "gauss_newton"
    """Curvature of the loss."""
    effect: Literal["remove", "add"] = "remove"
    """What happens to a point."""
    out: Annotated[Path | None, told("RUN/influence.nc")] = None
    """NetCDF file to write."""


def run(options: Options) -> int:
    """Attribute a run's answer to its training points; return the exit code."""
    out = options.out or options.run / INFLUENCE_FILE
    if out.suffix != ".nc":
        raise ValueError(f"--out names a NetCDF file, which ends in .nc, got {out}")
    problem, objective = load(options.run)
    check_file(out)
    quantity = _quantity(options, problem, objective)
    influence = Influence(objective, damping=options.damping, curvature=options.curvature)
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


def _quantity(options: Options, problem: Problem, objective: Objective) -> Quantity:
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
    point = _point(options, problem) if options.at else _worst_point(problem, objective)
    placed = point.to(dtype=objective.parameters.dtype, device=objective.parameters.device)
    return Derivative(placed, options.of) if name.index else Output(placed, options.of)


def _point(options: Options, problem: Problem) -> torch.Tensor:
    """Return the point of --at, (1, d)."""
    if len(options.at) != len(problem.coordinates):
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({', '.join(problem.coordinates)}), "
            f"got {len(options.at)}"
        )
    point = torch.tensor([options.at], dtype=torch.float64)
    if not (all(map(math.isfinite, options.at)) and bool(problem.domain.contains(point).all())):
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
