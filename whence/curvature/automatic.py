"""The default solver: exact where that fits in memory, and what comes nearest where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from whence import _checks
from whence.catalogue import SOLVERS
from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.exact import Exact
from whence.curvature.lowrank import COPIES, Nystrom
from whence.curvature.operators import Curvature
from whence.curvature.solvers import MEMORY_BUDGET, Damping, Solver, State

MAX_RANK = 300
MAX_MULTIPLICATIONS = 3e14
"""Most multiplications of a kernel whose rows are not kept: an hour or two of few cores."""
LOW_RANK_SHARE = 4
"""Part of the memory budget that is for eigenvectors: a quarter."""


@SOLVERS.named()
@dataclass(frozen=True)
class Automatic:
    """Choose a solver by what fits in memory: what ``solver="auto"`` stands for.

    :class:`whence.Exact` where its matrices fit in ``memory_budget``, which of a Gauss–Newton
    matrix need not be the rows, as long as the kernel is not hours of work; otherwise
    :class:`whence.ConjugateGradient` for a Hessian or where the rows fit, which is exact to its
    tolerance, and else :class:`whence.Nystrom`, of rank 300 or what a quarter of the memory holds.
    The reasons are measured in docs/solvers.md. The attribution names the solver chosen.

    Parameters
    ----------
    memory_budget:
        Bytes that matrices may take.

    Examples
    --------
    >>> import whence as wh
    >>> from whence import pinn
    >>> problem = pinn.zoo.load("burgers")
    >>> objective = problem.objective(problem.network(seed=0), problem.sample(50, seed=0))
    >>> operator, damping = wh.GaussNewtonMatrix(objective), wh.Damping(1e-6)
    >>> wh.Automatic().choice(operator, damping).name
    'exact'
    >>> wh.Automatic(memory_budget=900_000).choice(operator, damping)      # layer by layer
    Exact(form='auto', memory_budget=900000, tolerance=0.0)
    >>> wh.Automatic(memory_budget=600_000).choice(operator, damping).name
    'nystrom'
    """

    memory_budget: int = MEMORY_BUDGET
    name = "auto"

    def __post_init__(self) -> None:
        _checks.positive("memory_budget", self.memory_budget)

    def choice(self, operator: Curvature, damping: Damping) -> Solver:
        """Return the solver for this operator."""
        exact = Exact(memory_budget=self.memory_budget)
        if exact.needs(operator, damping) <= self.memory_budget:
            plan = exact.streamed_plan(operator)
            if plan is None or plan.multiplications <= MAX_MULTIPLICATIONS:
                return exact

        # A Hessian may be indefinite, so that no low rank preconditions it.
        root = operator.root()
        if root is None:
            return ConjugateGradient(memory_budget=self.memory_budget)

        # As many eigenvectors as a share of the memory holds, and no more than J has rows.
        itemsize = operator.like().itemsize
        share = self.memory_budget // LOW_RANK_SHARE
        fits = share // (COPIES * operator.size * itemsize)
        rank = max(1, min(MAX_RANK, fits, *root.shape))
        low_rank = Nystrom(rank, memory_budget=self.memory_budget)

        # With the rows in memory a product is quick, and there may be many; otherwise each of them
        # is a pass over all points.
        rows, size = root.shape
        if rows * size * itemsize <= self.memory_budget:
            return ConjugateGradient(
                preconditioner=low_rank, memory_budget=self.memory_budget
            )
        return low_rank

    def factor(self, operator: Curvature, damping: Damping) -> State:
        """Factor with the solver chosen; the state's spectrum names it."""
        solver = self.choice(operator, damping)
        return solver.factor(operator, damping)
