"""What ``whence influence`` explains: quantities of a run, or of the test data of a model file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from whence import _checks
from whence.attribution.quantities import (
    Derivative,
    Loss,
    Output,
    Quantity,
    UnknownValue,
)
from whence.catalogue import QUANTITIES
from whence.cli.model_file import ModelFile
from whence.pinn.geometry.boundary import named
from whence.pinn.pde.problem import Problem
from whence.pinn.training.result import Result
from whence.samples import samples_of

GRID_POINTS = 10_000
"""Points of the grid on which the largest error is searched."""


def nameable() -> list[str]:
    """Return the names of quantities that the command line can make."""
    return [name for name in QUANTITIES if hasattr(QUANTITIES[name], "of_objective")]


def quantity_of_run(result: Result, of: str | None, at: Sequence[float]) -> Quantity:
    """Return what to explain of a run.

    Parameters
    ----------
    result:
        The run.
    of:
        An output, a derivative, or the name of a quantity; by default the first output.
    at:
        Coordinates of the point; by default where the error is largest.
    """
    problem = result.problem
    of = of or next(iter(problem.outputs))
    if of == "loss":
        if at:
            raise ValueError(
                "--at does nothing with --of loss, the mean over all points: leave it out"
            )
        return Loss(reduce="mean")

    # An output of the problem may have the name of a quantity: the user's own names come first.
    own = (*problem.outputs, *problem.unknowns)
    is_field = of in own or of not in nameable()
    if is_field:
        name = problem.parse(of)
        if name.symbol in problem.numbers:
            # An unknown number is the same everywhere.
            if at:
                raise ValueError(
                    f"--at does nothing with --of {of}, which is the same everywhere: leave it out"
                )
            return UnknownValue(of)
        if name.output is None:
            kind = "a derived field" if name.symbol else "a coordinate"
            raise ValueError(
                f"--of {of} is {kind}: name an output or a derivative of one"
            )

    point = point_of(problem, at) if at else worst_point(result)
    # --at and the grid are float64, the network may be float32.
    point = point.to(dtype=result.objective.parameters.dtype)
    if not is_field:
        quantity: Quantity = QUANTITIES[of].of_objective(result.objective, point)
        return quantity
    if name.index:
        return Derivative(point, of)

    return Output(point, of)


def quantity_of_tests(
    file: ModelFile, of: str | None, numbers: Sequence[int]
) -> Quantity:
    """Return what to explain of a file's test data, or of the samples of these numbers."""
    like = file.objective.parameters
    test = samples_of("the test data", file.test(), like.dtype, like.device)
    if numbers:
        for number in numbers:
            if not 0 <= number < len(test):
                raise ValueError(
                    f"--sample must lie in 0 … {len(test) - 1}, got {number}"
                )
        test = test[torch.tensor(numbers)]  # in the order of --sample

    of = of or "loss"
    outputs = file.objective.outputs
    if of in outputs:
        return Output(test, of)

    _checks.one_of("--of", of, (*nameable(), *outputs))
    quantity: Quantity = QUANTITIES[of].of_objective(file.objective, test)
    return quantity


def point_of(problem: Problem, at: Sequence[float]) -> Tensor:
    """Return the point of ``--at``, (1, d); one outside the domain is an error."""
    if len(at) != len(problem.coordinates):
        raise ValueError(
            f"--at takes {len(problem.coordinates)} numbers ({', '.join(problem.coordinates)}), "
            f"got {len(at)}"
        )

    point = torch.tensor([at], dtype=torch.float64)  # (1, d)
    is_finite = all(map(math.isfinite, at))
    if not is_finite or not bool(problem.domain.contains(point).all()):
        raise ValueError(
            f"--at {' '.join(map(str, at))} lies outside the domain, whose bounds are "
            f"{named(problem.coordinates, problem.domain.bounds.T)}"
        )

    return point


def worst_point(result: Result) -> Tensor:
    """Return the grid point of the largest error, or without a reference residual, (1, d)."""
    problem = result.problem
    grid = problem.domain.sample(GRID_POINTS, "grid")
    if problem.solution is not None:
        values = result.solution.error(grid)
    else:
        values = result.solution.residual(grid)

    # The 1-norm over outputs or residual components, (n,).
    sizes = values.abs().sum(dim=1)
    worst = int(sizes.argmax())
    return grid[worst : worst + 1]  # a slice, (1, d), where an index gives (d,)
