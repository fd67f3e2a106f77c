"""What solvers take before they run: memory, passes through the network, multiplications.

A pass is one evaluation of the network at all training points, forward or backward. Numbers are
those of the largest arrays and products, not of everything: about, not to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from whence.curvature.automatic import Automatic
from whence.curvature.conjugate_gradient import ConjugateGradient
from whence.curvature.exact import Exact
from whence.curvature.kronecker import EKFAC
from whence.curvature.lowrank import COPIES, Arnoldi, Nystrom, largest_rank
from whence.curvature.operators import Curvature
from whence.curvature.sketched import Sketched
from whence.curvature.solvers import Damping, Solver
from whence.jacobian import LARGE_NETWORK, SOME_OUTPUTS

LANCZOS_PRODUCTS = 20
"""Products that finding a largest eigenvalue takes, about."""
PRODUCT_PASSES = 3
"""Passes that a product with A takes through the outputs: forward with a tangent, and backward."""


@dataclass(frozen=True)
class Cost:
    """What factoring takes.

    Parameters
    ----------
    solver, form, rank:
        Name of the solver, which matrix an exact one factors, and the rank of a low-rank one.
    bytes:
        At the peak.
    passes:
        Through the network, over all training points.
    multiplications:
        Of the products and factorisations besides.
    solve_passes:
        To solve for one vector of P numbers.
    target_passes:
        For one target at the training points, where that takes another number.
    """

    solver: str
    form: str | None
    rank: int | None
    bytes: int
    passes: float
    multiplications: float
    solve_passes: float
    target_passes: float | None = None


def solver_cost(solver: Solver, operator: Curvature, damping: Damping) -> Cost | None:
    """Return what a solver takes, None for one that is not of this package.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.curvature.costs import solver_cost
    >>> model, data = torch.nn.Linear(3, 1), (torch.rand(10, 3), torch.rand(10, 1))
    >>> operator = wh.GaussNewtonMatrix(wh.Objective.supervised(model, data, wh.Squared()))
    >>> cost = solver_cost(wh.Exact(), operator, wh.Damping(1e-3))
    >>> cost.form, cost.bytes                       # two matrices 4 × 4 of 4 bytes
    ('primal', 128)
    """
    if isinstance(solver, Automatic):
        return solver_cost(solver.choice(operator, damping), operator, damping)
    if isinstance(solver, Exact):
        return exact_cost(solver, operator, damping)

    counts = Counts.of(operator, getattr(solver, "memory_budget", 0))
    if isinstance(solver, EKFAC):
        return ekfac_cost(solver, operator, counts)
    if isinstance(solver, (Nystrom, Arnoldi)):
        return low_rank_cost(solver, operator, counts)
    if isinstance(solver, ConjugateGradient):
        return iteration_cost(solver, operator, damping, counts)
    if isinstance(solver, Sketched):
        # Each row is met by the few nonzero entries of S.
        k = solver.columns(operator.size)
        passes = counts.row_passes + LANCZOS_PRODUCTS * product_passes(operator)
        multiplications = counts.rows * operator.size * solver.nonzeros
        needed = solver.needed(operator)
        return _cost(solver, counts, k, needed, passes, multiplications)
    return None


@dataclass(frozen=True)
class Counts:
    """What costs are made of.

    Parameters
    ----------
    rows, kept_bytes, vector_bytes:
        R; bytes of the rows where they are kept in memory, else 0; bytes of P numbers.
    row_passes, product_passes:
        Passes that all rows take, and a product with A.
    """

    rows: int
    kept_bytes: int
    vector_bytes: int
    row_passes: float
    product_passes: float

    @classmethod
    def of(cls, operator: Curvature, memory_budget: int) -> Counts:
        """Return those of an operator whose rows are kept if they fit."""
        root = operator.root()
        rows = 0 if root is None else root.shape[0]
        vector_bytes = operator.size * operator.like().itemsize
        row_bytes = rows * vector_bytes
        is_kept = root is not None and row_bytes <= memory_budget
        return cls(
            rows,
            row_bytes if is_kept else 0,
            vector_bytes,
            passes_for_rows(operator),
            0.0 if is_kept else product_passes(operator),
        )

    @property
    def first_passes(self) -> float:
        """Passes for the rows, or for the largest eigenvalue without them."""
        if self.kept_bytes:
            return self.row_passes
        return LANCZOS_PRODUCTS * self.product_passes


def _cost(
    solver: Solver,
    counts: Counts,
    rank: int | None,
    needed: int,
    passes: float,
    multiplications: float,
) -> Cost:
    """Return the cost of a solver whose solutions take the product of their residual."""
    return Cost(
        solver.name,
        None,
        rank,
        needed,
        passes,
        multiplications,
        counts.product_passes,
    )


def ekfac_cost(solver: EKFAC, operator: Curvature, counts: Counts) -> Cost:
    """Return what factors of all rows take, or of a few samples of each point's rows."""
    k = min(solver.coupled, operator.size)
    rows = counts.rows
    row_passes = counts.row_passes
    passes = counts.first_passes
    needed = counts.vector_bytes + 16 * k**2

    if solver.mc_samples is None:
        needed += counts.kept_bytes
    else:
        # Forward, and backward for each sample; nothing is kept, and no eigenvalue looked for.
        rows = solver.mc_samples * operator.objective.n_points
        row_passes = 1.0 + solver.mc_samples
        passes = 0.0

    # Bases, curvatures along them, and those of coupled directions.
    passes += (3 if k else 2) * row_passes
    return _cost(solver, counts, None, needed, passes, rows * k**2)


def low_rank_cost(
    solver: Nystrom | Arnoldi, operator: Curvature, counts: Counts
) -> Cost:
    """Return what eigenpairs take."""
    rank = largest_rank(solver, operator)
    needed = counts.kept_bytes + COPIES * rank * counts.vector_bytes
    # One product with all vectors by the rows, or one after the other.
    passes = counts.first_passes + counts.row_passes
    if isinstance(solver, Nystrom) and not operator.semidefinite:
        # Lanczos for both ends of the spectrum, and vectors one after the other.
        passes = 2 * counts.first_passes + rank * counts.product_passes
    if isinstance(solver, Arnoldi):
        passes = counts.first_passes + 2 * rank * counts.product_passes
    # A times the vectors by their rows, and orthogonal bases of them.
    multiplications = 2.0 * rank * operator.size * (counts.rows + 2 * rank)
    return _cost(solver, counts, rank, needed, passes, multiplications)


def iteration_cost(
    solver: ConjugateGradient, operator: Curvature, damping: Damping, counts: Counts
) -> Cost:
    """Return what conjugate gradients take, of some tens of iterations for a vector."""
    preconditioner = solver.preconditioner
    if preconditioner == "auto":
        suits = operator.semidefinite and damping.is_positive
        preconditioner = solver.low_rank(operator) if suits else None

    needed = counts.kept_bytes + 6 * counts.vector_bytes
    passes = counts.first_passes
    if isinstance(preconditioner, Solver):
        inner = solver_cost(preconditioner, operator, damping)
        if inner is not None:
            needed = max(needed, inner.bytes)
            passes += inner.passes
    solve_passes = LANCZOS_PRODUCTS * counts.product_passes
    return Cost(solver.name, None, None, needed, passes, 0.0, solve_passes)


def exact_cost(solver: Exact, operator: Curvature, damping: Damping) -> Cost:
    """Return what the exact solver takes."""
    size = operator.size
    needed = solver.needs(operator, damping)
    root = operator.root()
    if root is None:
        # A column of a Hessian is forward over reverse.
        passes = float(2 * size)
        return Cost(solver.name, "hessian", None, needed, passes, size**3 / 3, 0.0)

    rows = root.shape[0]
    row_passes = passes_for_rows(operator)
    if not solver.is_dual(operator, damping):
        # Cholesky's n³/3 of P × P, and half of JᵀJ.
        multiplications = size**3 / 3 + rows * size**2 / 2
        return Cost(
            solver.name, "primal", None, needed, row_passes, multiplications, 0.0
        )

    plan = solver.streamed_plan(operator)
    if plan is None:
        # JJᵀ and L⁻¹J, half of each being zero or known, and the factors.
        multiplications = rows**2 * size * 1.5 + rows**3
        return Cost(solver.name, "dual", None, needed, row_passes, multiplications, 0.0)
    return Cost(
        solver.name,
        "dual, layer by layer",
        None,
        needed,
        plan.product_passes,
        plan.multiplications + rows**3 / 3,
        # Twice forward and backward for a solution and its residual.
        4 * PRODUCT_PASSES,
        min(float(PRODUCT_PASSES), plan.product_passes),
    )


def passes_for_rows(operator: Curvature) -> float:
    """Return the passes that all rows of J take: one forward, one backward for each of a point."""
    root = operator.root()
    if root is None:
        return product_passes(operator)
    return 1.0 + max(root.components().values())


def product_passes(operator: Curvature) -> float:
    """Return the passes that a product with A takes, where rows are not in memory."""
    root = operator.root()
    if root is None or root.has_many_outputs:
        return float(PRODUCT_PASSES)
    outputs = max(root.widths().values())
    if operator.size >= LARGE_NETWORK and outputs >= SOME_OUTPUTS:
        return float(PRODUCT_PASSES)
    # By rows: δ and the layers' own products for each row of a point.
    return 1.0 + 3.0 * max(root.components().values())
