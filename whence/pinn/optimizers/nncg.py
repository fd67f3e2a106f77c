"""NysNewton-CG: Newton steps on the true Hessian, by conjugate gradients with a preconditioner."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whence import _checks
from whence.catalogue import OPTIMIZERS
from whence.curvature.lowrank import nystrom
from whence.curvature.operators import GaussNewtonMatrix, Hessian
from whence.objective import Objective
from whence.parameters import Parameters
from whence.pinn.optimizers.stepper import (
    OptimizerState,
    Progress,
    Stepper,
    check_state,
    describe_failure,
    is_finite,
)

MAX_HALVINGS = 40
"""Lengths of a step that are tried before it is given up."""
MEMORY_BUDGET = 2**31
"""Bytes of the rows of J that are kept while the preconditioner is made."""


@OPTIMIZERS.named("nncg")
@dataclass(frozen=True)
class NNCG:
    """NysNewton-CG: Newton steps by conjugate gradients with a Nyström preconditioner.

    A step d solves ``(H + μI) d = −g`` with the true Hessian H, and has its length by halving until
    ``L(θ + αd) ≤ L(θ) + c αgᵀd`` (Rathore et al. 2024, arXiv 2402.01868, algorithm 4). The
    preconditioner is the Nyström approximation of rank r of the Gauss–Newton matrix, renewed every
    few steps: near a small residual that is the Hessian, it is never indefinite, and a product with
    it costs less. Conjugate gradients end at a direction of negative curvature, with what they have
    (Nocedal & Wright, algorithm 7.1).

    Parameters
    ----------
    iterations:
        Steps of this stage.
    rank:
        r, or P if that is smaller.
    damping:
        μ relative to the largest eigenvalue of the Gauss–Newton matrix.
    update_every:
        Steps between two preconditioners.
    rtol:
        Relative residual at which conjugate gradients end.
    max_products:
        Most products with H in a step.
    armijo:
        c.
    seed:
        Seed of the random directions of the preconditioner.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from whence import pinn
    >>> pinn.NNCG(100).rank
    60
    """

    iterations: int
    rank: int = 60
    damping: float = 1e-8
    update_every: int = 20
    rtol: float = 1e-3
    max_products: int = 200
    armijo: float = 1e-4
    seed: int = 0

    chunk: ClassVar[int] = 1
    log_every: ClassVar[int] = 5
    by_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("iterations", "rank", "update_every", "max_products"):
            _checks.count(name, getattr(self, name))
        _checks.positive("damping", self.damping)
        _checks.seed("seed", self.seed)
        for name in ("rtol", "armijo"):
            share = getattr(self, name)
            number = _checks.number(name, share)
            if not 0 < number < 1:
                raise ValueError(f"{name} must be a number in (0, 1), got {share!r}")

    def start(self, parameters: Parameters) -> Stepper:
        """Return a stepper for these parameters."""
        return NNCGStepper(self, parameters)


@dataclass(frozen=True, eq=False)
class NystromInverse:
    """``P⁻¹ = U(Λ + μ)⁻¹Uᵀ + (I − UUᵀ)/(λ_r + μ)`` of r eigenpairs, λ_r the least of them.

    It has the scale of ``(H + μI)⁻¹``, so that ``−P⁻¹g`` is a step by itself.

    Parameters
    ----------
    vectors:
        U, (P, r).
    values:
        Λ, (r,).
    damping:
        μ.
    """

    vectors: Tensor
    values: Tensor
    damping: float

    def times(self, vector: Tensor) -> Tensor:
        """Return ``P⁻¹ v``, (P,)."""
        shifted = self.values + self.damping
        outside = 1 / shifted.min()

        # U(Λ + μ)⁻¹Uᵀv + (I − UUᵀ)v/(λ_r + μ), with the parts along U put together.
        inside = self.vectors.T @ vector
        change = (1 / shifted - outside) * inside
        return outside * vector + self.vectors @ change


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    right: Tensor,
    rtol: float,
    max_products: int,
) -> tuple[Tensor, int]:
    """Return x of ``A x = b``, and the products with A that it took.

    They end where pᵀAp is not positive: with the x so far, or ``P⁻¹b`` if that happens at once.

    Parameters
    ----------
    product:
        ``v → A v``.
    inverse:
        ``v → P⁻¹ v``, the preconditioner.
    right:
        b, (P,).
    rtol:
        Share of ``‖b‖`` that may be left.
    max_products:
        Most products with A.

    Examples
    --------
    >>> import torch
    >>> from whence.pinn.optimizers.nncg import conjugate_gradients
    >>> A, b = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 1.0])
    >>> conjugate_gradients(A.mv, lambda v: v, b, 1e-6, 10)
    (tensor([1.0000, 0.2500]), 2)
    """
    error = right.clone()  # b − A x
    direction = inverse(error)
    solution = torch.zeros_like(right)
    size = float(error @ direction)
    target = rtol * float(right.norm())

    for done in range(1, max_products + 1):
        image = product(direction)
        curvature = float(direction @ image)
        # Not "<=", which a NaN would pass.
        if not curvature > 0:
            return (direction if done == 1 else solution), done

        # Along p the quadratic is least at α = rᵀP⁻¹r / pᵀAp.
        length = size / curvature
        solution = solution + length * direction
        error = error - length * image
        if float(error.norm()) <= target:
            return solution, done

        # β = (rᵀP⁻¹r)_new / (rᵀP⁻¹r) makes the next direction conjugate to p.
        pushed = inverse(error)
        new_size = float(error @ pushed)
        direction = pushed + new_size / size * direction
        size = new_size

    return solution, max_products


class NNCGStepper:
    """NysNewton-CG at work; its state is the preconditioner and the number of steps."""

    def __init__(self, options: NNCG, parameters: Parameters) -> None:
        self._options = options
        self._parameters = parameters
        self._inverse: NystromInverse | None = None
        self._steps = 0

    def advance(self, objective: Objective, iterations: int) -> Progress:
        """Take steps that lower the loss; at one that is not finite all are taken back."""
        before = self._parameters.vector()
        loss = math.nan

        for done in range(iterations):
            loss, gradient = objective.loss_and_gradient()
            if not is_finite(loss, gradient):
                theta = self._parameters.vector()
                failure = describe_failure(objective, loss, theta)
                self._parameters.assign(before)
                return Progress(done, loss, finished=True, failure=failure)

            lower = self._step(objective, loss, gradient)
            if lower is None:
                message = f"NNCG found no step that lowers the loss of {loss:.3e}"
                return Progress(done + 1, loss, [message], finished=True)

            loss = lower

        return Progress(iterations, loss)

    def _step(
        self, objective: Objective, loss: float, gradient: Tensor
    ) -> float | None:
        """Take a Newton step, or a part of it; return the new loss, None if none is lower."""
        options = self._options
        # By the number of the step, so that a resumed run renews it when the whole one does.
        is_due = self._steps % options.update_every == 0
        inverse = self._inverse
        if inverse is None or is_due:
            inverse = self._preconditioner(objective)
            self._inverse = inverse
        self._steps += 1

        hessian = Hessian(objective)

        def product(vector: Tensor) -> Tensor:
            # (H + μI) v.
            image = hessian.matvec(vector)
            return image + inverse.damping * vector

        direction, _ = conjugate_gradients(
            product,
            inverse.times,
            -gradient,
            options.rtol,
            options.max_products,
        )

        slope = float(gradient @ direction)
        return self._search(objective, loss, slope, direction)

    def _search(
        self, objective: Objective, loss: float, slope: float, direction: Tensor
    ) -> float | None:
        """Go along a direction as far as Armijo's condition lets; return the loss there."""
        theta = self._parameters.vector()
        length = 1.0

        for _ in range(MAX_HALVINGS):
            trial = theta + length * direction
            tensors = self._parameters.substituted(trial)
            lower = float(objective.loss(tensors).detach())
            # A NaN is no decrease; nor is what rounding leaves of one.
            most = loss + self._options.armijo * length * slope
            if lower <= most and lower < loss:
                self._parameters.assign(trial)
                return lower
            length /= 2

        return None

    def _preconditioner(self, objective: Objective) -> NystromInverse:
        """Return the preconditioner at the network's parameters."""
        options = self._options
        operator = GaussNewtonMatrix(objective).cached(MEMORY_BUDGET)
        rank = min(options.rank, operator.size)
        # Other directions each time, and the same again after a resume.
        seed = options.seed + self._steps
        vectors, values = nystrom(operator, rank, seed)

        # Column by column in memory, as a restored state has them: sums depend on the order.
        vectors = vectors.T.contiguous().T
        # Where nothing depends on θ the largest eigenvalue is zero, and any μ will do.
        largest = float(values.max()) or 1.0
        damping = options.damping * largest
        return NystromInverse(vectors, values, damping)

    def state(self) -> OptimizerState:
        """Return the eigenpairs of the preconditioner, μ and the number of steps."""
        if self._inverse is None:
            return OptimizerState(numbers={"steps": self._steps})

        # One vector for each eigenpair, as states hold vectors of P numbers.
        tensors = {}
        columns = self._inverse.vectors.unbind(1)
        for k, column in enumerate(columns):
            tensors[f"vectors/{k}"] = column.contiguous()

        numbers = {
            "steps": self._steps,
            "damping": self._inverse.damping,
            "eigenvalues": self._inverse.values.tolist(),
        }
        return OptimizerState(tensors, numbers)

    def restore(self, state: OptimizerState) -> None:
        """Take up what :meth:`state` returned."""
        check_state(state, self._parameters.size)
        numbers = state.numbers
        self._steps = int(numbers["steps"])
        self._inverse = None
        if not state.tensors:
            return

        count = len(state.tensors)
        columns = []
        for k in range(count):
            column = state.tensors[f"vectors/{k}"]
            columns.append(column)

        vectors = torch.stack(columns).T
        values = vectors.new_tensor(numbers["eigenvalues"])
        damping = float(numbers["damping"])
        self._inverse = NystromInverse(vectors, values, damping)
