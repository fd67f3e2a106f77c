"""What an influence will take, said before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from whence.attribution.tiled import Tiled
from whence.curvature.costs import Cost
from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization, Linearization
from whence.subsets import keep_points

PROBE_POINTS = 4
"""Points of a term that a pass is timed on."""
PROBE_ROWS = 2
"""Rows of a point that are asked for then."""
PROBE_SIZE = 1024
"""Order of the product by which multiplications are timed."""
GIB = 2**30
MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """What an influence will take: ``print(influence.plan())``.

    Parameters
    ----------
    solver, form, rank:
        The solver that is taken, the matrix that an exact one factors, the rank of one that has
        such.
    parameters, rows, points, targets:
        P, R, the number of training points, and of targets, or None.
    bytes, memory_budget:
        Memory at the peak beside model and data, about, and what it is held to.
    passes:
        Evaluations of the network at all training points, forward or backward, targets included.
    seconds:
        About, from one short pass that was timed.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(3, 2)
    >>> x, y = torch.rand(10, 3), torch.arange(10) % 2
    >>> plan = wh.Influence(model, (x, y), torch.nn.CrossEntropyLoss()).plan()
    >>> plan.solver, plan.form, plan.passes
    ('exact', 'primal', 2.0)
    """

    solver: str
    form: str | None
    rank: int | None
    parameters: int
    rows: int
    points: int
    targets: int | None
    bytes: int
    memory_budget: int
    passes: float
    seconds: float

    def __str__(self) -> str:
        what = self.solver
        if self.form is not None:
            what += f" ({self.form})"
        if self.rank is not None:
            what += f" of rank {self.rank}"
        sizes = f"{self.parameters:,} parameters, {self.points:,} points, {self.rows:,} rows"
        if self.targets is not None:
            sizes += f", {self.targets:,} targets"
        memory = f"{_bytes(self.bytes)} of a budget of {_bytes(self.memory_budget)}"
        lines = [
            f"solver   {what}",
            f"sizes    {sizes}",
            f"memory   about {memory}, beside model and data",
            f"passes   about {self.passes:.0f} through the network at all points",
            f"seconds  about {self.seconds:.2g}",
        ]
        return "\n".join(lines)


def _bytes(count: int) -> str:
    """Return bytes in words."""
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.1f} MiB"


def plan_of(method: Tiled, cost: Cost, targets: int | None) -> Plan:
    """Return the plan of an influence whose factorisation takes a cost."""
    objective = method.objective
    jacobian = Jacobian(objective, scaled=True)
    rows, size = jacobian.shape
    passes = cost.passes
    if targets:
        by_target = cost.solve_passes
        if cost.target_passes is not None:
            # Through the kernel the least of one by one, and of all at once.
            by_target = min(cost.target_passes, cost.passes / targets)
        # A gradient of a target goes forward and backward at its own point.
        passes += targets * (by_target + 2 / objective.n_points)

    seconds = passes * seconds_a_pass(method)
    seconds += cost.multiplications * seconds_a_multiplication(jacobian)
    return Plan(
        cost.solver,
        cost.form,
        cost.rank,
        size,
        rows,
        objective.n_points,
        targets,
        cost.bytes,
        method.memory_budget,
        passes,
        seconds,
    )


def seconds_a_pass(method: Tiled) -> float:
    """Return how long a pass through the network at all training points takes, by a few of them."""
    objective = method.objective
    chosen = {}
    for name, term in objective.data_terms.items():
        n = min(PROBE_POINTS, len(term.points))
        chosen[name] = torch.arange(n).numpy()
    # A part of the points, whose rows are never made.
    few = Jacobian(keep_points(objective, chosen), scaled=True)

    # The first time finds out what the function does.
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        passes = 0
        for block, _ in few.blocks():
            passes += 1
            for cotangent in block.cotangents[:PROBE_ROWS]:
                go_back(block.linear, cotangent)
                passes += 1
        seconds = (time.perf_counter() - begun) / passes

    # As many blocks as it takes, a forward pass in each.
    n_blocks = sum(1 for _ in few.blocks())
    return seconds * n_blocks * objective.n_points / few.objective.n_points


def go_back(linear: Linearization, cotangent: Tensor) -> None:
    """Take a backward pass."""
    if isinstance(linear, LayerLinearization):
        linear.deltas(cotangent)
    else:
        linear.rmatvec(cotangent)


def seconds_a_multiplication(jacobian: Jacobian) -> float:
    """Return how long a multiplication within a large product takes."""
    like = jacobian.parameters.vector()
    # Its numbers do not matter; the second time its memory is warm.
    matrix = like.new_ones(PROBE_SIZE, PROBE_SIZE)
    best = float("inf")
    for _ in range(2):
        begun = time.perf_counter()
        (matrix @ matrix).sum().item()
        best = min(best, time.perf_counter() - begun)
    return best / PROBE_SIZE**3
