"""Influences at training points by the kernel ``K = JJᵀ``, where J itself is not in memory.

With ``∇L = Jᵀρ`` every training point's influence on f is a sum of entries of
``ρ ∘ (K + λI)⁻¹J∇f``, so that of a target ``J∇f`` is all that is needed, (R,). For the losses of
training points, whose gradients are sums of J's rows, K has it already; for other losses and
outputs it comes layer by layer as K does; and for few targets, or those of any other kind, from a
pass forward through the network for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whence.attribution.quantities import Linearized, Loss, Quantity
from whence.curvature.solvers import KernelState, Solution
from whence.jacobian import Jacobian
from whence.linearization import LayerLinearization
from whence.objective import Objective
from whence.streamed_kernel import RowBlock

IMAGE_BYTES = 256 * 2**20
"""What images of targets, (R, t) in double precision, take at a time."""
PUSH_PASSES = 3
"""Passes through the network that a product ``Jv`` takes, about."""


def own_weights(objective: Objective) -> Tensor | None:
    """Return W (R, n) with ``∇ℓ = JᵀW`` for the training points, without w/N; None if some weigh 0.

    As Jᵢᵀρᵢ is the gradient of point i with its weight, W has ρᵢ by that weight in column i.
    """
    jacobian = Jacobian(objective, scaled=True)
    rho = jacobian.residual()
    weights = rho.new_zeros(len(rho), objective.n_points)
    first_row = 0
    first_point = 0
    for name, m in jacobian.components().items():
        term = objective.terms[name]
        n = len(term.points)
        # The weight w/N of each point, times its own.
        scales = torch.as_tensor(
            term.scales(slice(None)), dtype=rho.dtype, device=rho.device
        ).expand(n)
        if not bool((scales > 0).all()):
            return None

        # Row m·i + k of the term belongs to its point i.
        rows = torch.arange(first_row, first_row + n * m, device=rho.device)
        points = torch.arange(first_point, first_point + n, device=rho.device)
        columns = points.repeat_interleave(m)
        weights[rows, columns] = rho[rows] / scales.repeat_interleave(m)
        first_row += n * m
        first_point += n
    return weights


def solved_images(
    state: KernelState,
    objective: Objective,
    quantity: Quantity,
    gradients: Iterator[Tensor],
) -> Iterator[Solution]:
    """Yield ``J(A + λI)⁻¹∇f`` of some targets at a time, (R, t).

    Parameters
    ----------
    state:
        The kernel, factored.
    objective:
        Whose training points.
    quantity:
        The targets.
    gradients:
        Their gradients, some targets at a time: used where nothing better is known.
    """
    if are_own_losses(quantity):
        weights = own_weights(objective)
        if weights is not None:
            # As many columns at a time as their images in double precision may take.
            at_once = max(1, IMAGE_BYTES // (8 * len(weights)))
            for part in weights.split(at_once, dim=1):
                yield state.solve_sums(part)
            return

    # Layer by layer the images of all targets come together; one by one each is a pass forward.
    count = len(next(iter(quantity.targets(objective).values())))
    is_many = PUSH_PASSES * count > state.product_passes
    if is_many and isinstance(quantity, Linearized):
        targets = LayerTargets(quantity, objective, count)
        if targets.are_by_layers():
            yield state.solve_products(targets.rows, count, targets.combination)
            return
    # Aggregates and targets of several components come as gradients only.
    for some in gradients:
        yield state.solve_images(some.T)


def are_own_losses(quantity: Quantity) -> bool:
    """Whether the targets are the losses of all training points."""
    if not isinstance(quantity, Loss):
        return False
    return quantity.points is None and quantity.reduce == "none"


class LayerTargets:
    """Targets whose gradients are rows of linearizations by layers."""

    def __init__(self, quantity: Linearized, objective: Objective, count: int) -> None:
        self._quantity = quantity
        self._objective = objective
        self._count = count

    def are_by_layers(self) -> bool:
        """Whether there is a row for each target, and all come from layers."""
        first = next(iter(self._quantity.linearized(self._objective)), None)
        return first is not None and isinstance(first[0], LayerLinearization)

    def rows(self) -> Iterator[RowBlock]:
        """Yield the gradients as rows, some targets at a time."""
        start = 0
        for linear, cotangent in self._quantity.linearized(self._objective):
            assert isinstance(linear, LayerLinearization)
            yield RowBlock(linear, [cotangent], start)
            start += len(cotangent)

    def combination(self, weights: Tensor) -> Tensor:
        """Return ``Σ_t c_t ∇f_t``, (P, 1), for c (T, 1)."""
        # Of rows Jᵀu is linear in the cotangent u, which takes the factor.
        total = self._objective.parameters.vector().zero_()
        for block in self.rows():
            (cotangent,) = block.cotangents
            stop = block.start + len(cotangent)
            factors = weights[block.start : stop].to(cotangent)
            total += block.linear.rmatvec(cotangent * factors)
        return total.unsqueeze(1)
