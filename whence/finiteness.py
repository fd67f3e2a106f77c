"""Where a loss that is not finite comes from: which term, which points."""

from __future__ import annotations

import torch
from torch import Tensor

from whence.jacobian import point_gradients
from whence.objective import Objective
from whence.points import locations
from whence.term import Term

SHOWN = 3
"""Points named in a message."""


def where_not_finite(objective: Objective, theta: Tensor) -> str:
    """Return which terms and points make the loss at parameters θ, or its gradient, not finite.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.finiteness import where_not_finite
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.log(torch.func.functional_call(network, tensors, (z,)))
    >>> points = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    >>> term = wh.Term("pde", residual, points)
    >>> objective = wh.Objective(network, term, space=wh.Space(coordinates=("x",)))
    >>> where_not_finite(objective, torch.ones(1, dtype=torch.float64))
    "term 'pde' is not finite at 1 of 2 points: row 1 (x = -2)"
    """
    # Parameters that are not finite make everything else so.
    unusable = int((~torch.isfinite(theta)).sum())
    if unusable:
        return f"{unusable} of {len(theta)} parameters are not finite"

    with objective.parameters.at(theta):
        # From the points to the sums: the first that is not finite makes all later ones so.
        return losses_not_finite(objective) or sums_not_finite(objective)


def losses_not_finite(objective: Objective) -> str:
    """Return which points' losses are not finite; an empty string if all are."""
    messages = []
    tensors = objective.parameters.tensors()

    for term in objective.terms.values():
        residual = term.residual(tensors, term.points).detach()
        losses = term.value(residual, term.points)  # (n,)
        what = f"term {term.name!r}"
        messages += _at_points(what, objective, term, ~torch.isfinite(losses))

    return "; ".join(messages)


def sums_not_finite(objective: Objective) -> str:
    """Return what overflows, or which gradients are not finite, where every point's loss is."""
    for name, loss in objective.losses().items():
        if not bool(torch.isfinite(loss)):
            return f"the sum over the points of term {name!r} is too large for its number type"
    if not bool(torch.isfinite(objective.loss())):
        return "the weighted sum of the terms is too large for its number type"

    messages = []
    for term in objective.terms.values():
        parts = []
        blocks = point_gradients(term, objective.parameters, term.points)
        for _, linear, cotangent in blocks:
            gradients = linear.rows(cotangent)  # ∇ℓ of each point, (n, P)
            parts.append(~torch.isfinite(gradients).all(dim=1))
        what = f"the gradient of term {term.name!r}"
        messages += _at_points(what, objective, term, torch.cat(parts))

    if messages:
        return "; ".join(messages)

    return "the sum of the gradients is too large for its number type"


def _at_points(
    what: str, objective: Objective, term: Term, is_bad: Tensor
) -> list[str]:
    """Return a message that names the first of the bad points, none if there are none."""
    rows = is_bad.nonzero().flatten().tolist()
    if not rows:
        return []

    named = []
    for row in rows[:SHOWN]:
        numbers = locations(term.points)[row].tolist()
        pairs = zip(objective.coordinates, numbers, strict=True)
        values = ", ".join(f"{name} = {value:.6g}" for name, value in pairs)
        named.append(f"row {row} ({values})")

    if len(rows) > SHOWN:
        named.append("…")

    n = len(term.points)
    return [f"{what} is not finite at {len(rows)} of {n} points: {', '.join(named)}"]
