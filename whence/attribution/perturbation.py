"""The effect of moving a training point's input: the derivative of influences by the inputs.

Moving the input of point z by δ changes the loss by ``(w/N)·∂ₓℓ(z)δ`` and so, to first order, a
target f by ``−(w/N)·∇fᵀ(A + λI)⁻¹ ∂ₓ∇ℓ(z) δ`` (Koh & Liang 2017, section 2.2), with A for the
method's own curvature or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from whence.attribution.tiles import Directions, PointBlock, Solved
from whence.objective import Objective
from whence.points import Points, are_samples, inputs_of
from whence.term import Term


def input_changes(
    objective: Objective,
    directions: Iterable[Directions],
    point_blocks: Callable[[], Iterator[PointBlock]],
) -> tuple[Tensor, Solved]:
    """Return the change of every target by unit of every number of every point's input.

    Parameters
    ----------
    objective:
        Whose losses they are.
    directions:
        The targets' vectors ``(A + λI)⁻¹∇f``, some targets at a time.
    point_blocks:
        Starts a walk through the points, one for each of the directions.

    Returns
    -------
    tuple of Tensor and Solved
        Changes (targets, points, features), and how well the vectors were solved for.
    """
    solved = Solved()
    rows = []
    for some_targets in directions:
        solved = solved.worst_with(some_targets.solved)
        columns = []
        for block in point_blocks():
            changes = _summed_over_stages(objective, some_targets, block)
            scale = block.scale
            if isinstance(scale, Tensor):
                scale = scale[:, None]  # (n, 1), beside the features
            # The minus of −∇fᵀ(A + λI)⁻¹ ∂ₓ∇ℓ.
            columns.append(changes * -scale)
        rows.append(torch.cat(columns, dim=1))  # (targets, points, features)
    return torch.cat(rows), solved


def _summed_over_stages(
    objective: Objective, directions: Directions, block: PointBlock
) -> Tensor:
    total: Tensor | None = None
    for stage, vectors in directions.vectors:
        with stage.at():
            products = input_products(block.term, objective, block.points, vectors)
        total = products if total is None else total + products
    assert total is not None
    return total


def input_products(
    term: Term, objective: Objective, points: Points, vectors: Tensor
) -> Tensor:
    """Return ``∂ₓ(∇ℓ(z)ᵀ v)`` of some points for each column v of vectors (P, K): (K, n, d)."""
    inputs, rebuilt = inputs_of(points)
    theta = objective.parameters.vector()

    def along(vector: Tensor) -> Tensor:
        def slope(x: Tensor) -> Tensor:
            """Return Σ ∇ℓ(z)ᵀv at inputs x: the derivative of the loss along v."""
            moved = rebuilt(x)

            def loss(t: Tensor) -> Tensor:
                residual = term.residual(objective.parameters.substituted(t), moved)
                return term.value(residual, moved).sum()

            tangent: Tensor = torch.func.jvp(loss, (theta,), (vector,))[1]
            return tangent

        # Each term of the sum depends on its own point's input alone: one reverse pass for all.
        mixed: Tensor = torch.func.grad(slope)(inputs)
        return mixed.detach()

    products = [along(vector) for vector in vectors.unbind(1)]
    return torch.stack(products)


def feature_names(objective: Objective, points: Mapping[str, Points]) -> np.ndarray:
    """Return the names of coordinates; of samples the places of the numbers of an input."""
    first = next(iter(points.values()))
    if are_samples(first):
        n_features = first[:1].features().shape[1]
        return np.arange(n_features)
    return np.asarray(objective.coordinates, dtype=object)
