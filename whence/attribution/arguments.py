"""What users hand to a method: an objective, or a model with data and loss; and points."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from whence import _checks
from whence.objective import LossLike, Objective, PointsLike
from whence.parameters import Select
from whence.points import Points
from whence.samples import Data

PointsByTerm = Mapping[str, PointsLike] | PointsLike
"""Points by term, or alone where the objective has one term."""


def objective_of(
    who: str,
    objective: Objective | nn.Module,
    data: Data | None,
    loss: LossLike | None,
    parameters: Select = None,
    weight_decay: float | None = None,
) -> Objective:
    """Return the objective given, or that of a model trained on data; errors name ``who``.

    Raises
    ------
    TypeError
        If an objective comes with data, loss, parameters or a penalty, a model without data or
        loss, or it is neither of the two.
    """
    if isinstance(objective, Objective):
        extras = {
            "data": data,
            "loss": loss,
            "parameters": parameters,
            "weight_decay": weight_decay,
        }
        for name, extra in extras.items():
            if extra is not None:
                raise TypeError(
                    f"an Objective has {name} of its own: leave {name} out, or give the model "
                    f"itself, as in wh.{who}(model, data=data, loss=loss)"
                )
        return objective

    if not isinstance(objective, nn.Module):
        raise TypeError(
            "what to attribute must be an Objective, such as problem.objective(...) or "
            "wh.Objective.supervised(model, data, loss), or a model with data and loss, got "
            f"{_checks.describe(objective)}"
        )
    for name, argument in (("data", data), ("loss", loss)):
        if argument is None:
            raise TypeError(
                f"a model needs {name}: give the data it was trained on and the loss, as in "
                f"wh.{who}(model, data=(x, y), loss=torch.nn.CrossEntropyLoss())"
            )
    # The loop has seen to it, which the type checker cannot follow.
    assert data is not None
    assert loss is not None
    return Objective.supervised(
        objective, data, loss, parameters=parameters, weight_decay=weight_decay or 0.0
    )


def prepare_points(
    objective: Objective, points: PointsByTerm | None
) -> dict[str, Points]:
    """Return checked points by term; of ``None`` the training points, as they are."""
    terms = objective.terms
    if points is None:
        return {name: term.points for name, term in terms.items()}

    if isinstance(points, Mapping) and _is_by_term(objective, points):
        by_term = points
    elif len(terms) == 1:
        by_term = {next(iter(terms)): points}
    else:
        raise ValueError(
            f"the objective has terms {', '.join(terms)}: give points by term, such as "
            f"{{{next(iter(terms))!r}: points}}"
        )

    if not by_term:
        raise ValueError(
            f"no points are given: the terms are {', '.join(terms)}; leave points= out for the "
            "training points"
        )
    # An unknown term is an error before any points are prepared.
    for name in by_term:
        objective.term(name)
    prepared = {}
    for name, of_term in by_term.items():
        what = f"the points of term {name!r}"
        prepared[name] = objective.prepare(what, of_term, name)
    return prepared


def _is_by_term(objective: Objective, points: Mapping[str, PointsLike]) -> bool:
    # A mapping may also hold the keyword inputs of samples, whose names are no terms.
    if not objective.has_samples:
        return True
    return bool(points) and all(name in objective.terms for name in points)


def n_points(points: Mapping[str, Points]) -> int:
    """Return the number of points of all terms."""
    return sum(len(of_term) for of_term in points.values())
