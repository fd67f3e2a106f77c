"""The objective of a problem in double precision, for what single precision cannot resolve."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from whence.objective import Objective
from whence.pinn.pde.problem import ProblemSpace
from whence.term import Term


def in_double(objective: Objective) -> Objective:
    """Return the same objective with a copy of its network in double precision.

    Parameters, points and weights are those of the objective to the bit. One that is in double
    precision, or of no problem, is returned as it is.

    Warns
    -----
    UserWarning
        If the network or an equation has no meaning in double precision; the objective is then
        returned as it is.
    """
    space = objective.space
    is_double = objective.parameters.dtype is torch.float64
    if is_double or not isinstance(space, ProblemSpace):
        return objective

    points = {}
    for name, term in objective.terms.items():
        if isinstance(term.points, Tensor):
            points[name] = term.points.double()

    try:
        network = copy.deepcopy(objective.network).double()
        made = space.problem.objective(network, points)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(
            "errors and intervals are computed in single precision, where they have few digits, "
            f"as this problem has no meaning in double precision: {reason}",
            stacklevel=2,
        )
        return objective

    terms = []
    for name, term in objective.terms.items():
        terms.append(_weighed_as(made.term(name), term))

    # Those that the objective does not move stay as they are here too.
    names = set(objective.parameters.names)
    return Objective(
        made.network,
        terms,
        select=lambda name, parameter: name in names,
        space=made.space,
        weight_decay=objective.weight_decay,
    )


def _weighed_as(made: Term, term: Term) -> Term:
    """Return a term in double precision with the weights and the source of another."""
    point_weights = term.point_weights
    if point_weights is not None:
        point_weights = point_weights.double()
    base_weights = term.base_weights
    if base_weights is not None:
        base_weights = base_weights.double()
    return replace(
        made,
        weight=term.weight,
        point_weights=point_weights,
        base_weights=base_weights,
        source=term.source,
    )
