"""Where a loss that is not finite comes from: which term, which points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from whence.jacobian import point_gradients
from whence.objective import Objective
from whence.points import locations
from whence.term import Term

_Rows = Callable[[Objective, Term], list[Tensor]]
SHOWN = 3
"""Points named in a message."""


def where_not_finite(objective: Objective, theta: Tensor) -> str:
    """Say which terms and points make the loss at parameters θ, or its gradient, not finite.

    Examples
    --------
    >>> import torch, whence as wh
    >>> from whence.finiteness import where_not_finite
    >>> network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> def residual(tensors, z):
    ...     return torch.log(torch.func.functional_call(network, tensors, (z,)))
    >>> points = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    >>> objective = wh.Objective(network, [wh.Term("pde", residual, points)], coordinates="x")
    >>> where_not_finite(objective, torch.ones(1, dtype=torch.float64))
    "term 'pde' is not finite at 1 of 2 points: row 1 (x = -2)"
    """
    unusable = int((~torch.isfinite(theta)).sum())
    if unusable:
        return f"{unusable} of {len(theta)} parameters are not finite"
    held = objective.parameters.vector()
    objective.parameters.assign(theta)
    try:
        return _of_points(objective, _loss_rows, "term") or _of_sums(objective)
    finally:
        objective.parameters.assign(held)


def _of_sums(objective: Objective) -> str:
    """Say what overflows, or which gradients are not finite, where every point's loss is."""
    for name, loss in objective.losses().items():
        if not bool(torch.isfinite(loss)):
            return f"the sum over the points of term {name!r} is too large for its number type"
    if not bool(torch.isfinite(objective.loss())):
        return "the weighted sum of the terms is too large for its number type"
    found = _of_points(objective, _gradient_rows, "the gradient of term")
    return found or "the sum of the gradients is too large for its number type"


def _of_points(objective: Objective, rows: _Rows, what: str) -> str:
    said = []
    for name, term in objective.terms.items():
        bad = torch.cat(rows(objective, term)).nonzero().flatten().tolist()
        if bad:
            named = ", ".join(
                _named(row, term, objective.coordinates) for row in bad[:SHOWN]
            )
            more = ", …" if len(bad) > SHOWN else ""
            said.append(
                f"{what} {name!r} is not finite at {len(bad)} of {len(term.points)} points: "
                f"{named}{more}"
            )
    return "; ".join(said)


def _named(row: int, term: Term, coordinates: Sequence[str]) -> str:
    values = zip(coordinates, locations(term.points)[row].tolist(), strict=True)
    return f"row {row} ({', '.join(f'{name} = {value:.6g}' for name, value in values)})"


def _loss_rows(objective: Objective, term: Term) -> list[Tensor]:
    residual = term.residual(objective.parameters.tensors(), term.points).detach()
    return [~torch.isfinite(term.value(residual, term.points))]


def _gradient_rows(objective: Objective, term: Term) -> list[Tensor]:
    parts = point_gradients(term, objective.parameters, term.points)
    return [~torch.isfinite(linear.rows(seed)).all(dim=1) for _, linear, seed in parts]
