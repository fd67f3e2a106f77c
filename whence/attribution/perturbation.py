"""The effect of moving a training point's input: the derivative of influences by the inputs.

Moving the input of point z by δ changes the loss by ``(w/N)·∂ₓℓ(z)δ`` and so, to first order, a
target f by ``−(w/N)·∇fᵀ(A + λI)⁻¹ ∂ₓ∇ℓ(z) δ`` (Koh & Liang 2017, section 2.2), with A for the
method's own curvature or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from whence.attribution.method import Method, Solved, count
from whence.attribution.quantities import Quantity
from whence.objective import Objective
from whence.points import Points, are_samples, inputs_of
from whence.term import Term

if TYPE_CHECKING:
    from whence.attribution.result import Attribution


def perturbation(
    method: Method,
    quantity: Quantity,
    points: Mapping[str, Points],
    out: str | Path | None,
) -> Attribution:
    """Return the change of every target by unit of every number of every point's input.

    Dimensions (target, point, feature): features are coordinates, or the numbers of a sample's
    inputs one after the other. See :meth:`whence.attribution.method.Method.attribute`.
    """
    if out is not None:
        raise ValueError(
            "effect='perturb' is kept in memory: leave out= away, or ask for fewer"
        )
    if not method.movable:
        raise ValueError(
            f"{method.name} does not predict a change, so there is none by unit of an input: use "
            "wh.Influence, wh.TracIn or wh.GradDot"
        )
    features = _features(method.objective, points)
    rows, columns = method._rows_of(quantity), count(points)
    method._check_size(rows, columns * len(features))
    solved, blocks = Solved(), []
    for _, vectors, found in method._directions(quantity):
        solved = solved.and_also(found)
        parts = []
        for name, part, scale in method._parts(points):
            term, total = method.objective.terms[name], None
            for stage, vector in vectors:
                with stage.at():
                    one = input_products(term, method.objective, part, vector)
                total = one if total is None else total + one
            assert total is not None
            by_point = scale[:, None] if isinstance(scale, Tensor) else scale
            parts.append(total * -by_point)
        blocks.append(torch.cat(parts, dim=1))
    return method.labelled(
        torch.cat(blocks).cpu().numpy(),
        quantity,
        points,
        "perturb",
        solved,
        dims=("target", "point", "feature"),
        coords={"feature": ("feature", features)},
    )


def input_products(
    term: Term, objective: Objective, points: Points, vectors: Tensor
) -> Tensor:
    """Return ``∂ₓ(∇ℓ(z)ᵀ v)`` of some points for each column v of vectors (P, K): (K, n, d)."""
    inputs, rebuilt = inputs_of(points)
    theta = objective.parameters.vector()

    def along(vector: Tensor) -> Tensor:
        def change(x: Tensor) -> Tensor:
            moved = rebuilt(x)

            def loss(t: Tensor) -> Tensor:
                residual = term.residual(objective.parameters.substituted(t), moved)
                return term.value(residual, moved).sum()

            tangent: Tensor = torch.func.jvp(loss, (theta,), (vector,))[1]
            return tangent

        slope: Tensor = torch.func.grad(change)(inputs)
        return slope.detach()

    return torch.stack([along(vector) for vector in vectors.unbind(1)])


def _features(objective: Objective, points: Mapping[str, Points]) -> np.ndarray:
    first = next(iter(points.values()))
    if are_samples(first):
        return np.arange(first[:1].features().shape[1])
    return np.asarray(objective.coordinates, dtype=object)
