"""What users hand to a method: an objective, or a model with data and loss; and points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whence import _checks
from whence.objective import LossLike, Objective, PointsLike
from whence.parameters import Select
from whence.points import Points
from whence.samples import Data
from whence.subsets import Chosen, Members, members, points_at

ALL = slice(None)
"""All points of a term."""


@dataclass(frozen=True, eq=False)
class TrainingPoints:
    """Some of the training points, by their indices, for ``attribute(quantity, points=…)``.

    Unlike points by coordinates they keep the weights that they have in training, and ``index`` of
    the result is their place in their term.

    Parameters
    ----------
    members:
        Indices or a boolean mask by term; of an objective with one term, just those.

    Examples
    --------
    >>> import torch, whence as wh
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(3, 1)
    >>> method = wh.GradDot(model, (x, y), wh.Squared())
    >>> last = method.attribute(wh.Loss(), wh.TrainingPoints([2]))
    >>> last.sizes["point"], last["index"].values
    (1, array([2]))
    """

    members: Members


@dataclass(frozen=True, eq=False)
class PreparedPoints:
    """Checked points by term, and what each weighs.

    Parameters
    ----------
    by_term:
        The points.
    scales:
        Their factors: w/N where all weigh 1, or (n,) with the weights that they have in training.
    chosen:
        The places of training points in their terms; None of any other points, or of all.
    """

    by_term: Mapping[str, Points]
    scales: Mapping[str, float | Tensor]
    chosen: Chosen | None = None

    def __len__(self) -> int:
        return sum(len(of_term) for of_term in self.by_term.values())

    def scale(self, name: str, part: slice) -> float | Tensor:
        """Return the factors of a part of a term's points: (n,), or a number for all."""
        scale = self.scales[name]
        return scale[part] if isinstance(scale, Tensor) else scale

    def index(self) -> Chosen:
        """Return the place of each point in its term, or among the points given for it."""
        if self.chosen is not None:
            return self.chosen
        return {name: np.arange(len(points)) for name, points in self.by_term.items()}


PointsByTerm = Mapping[str, PointsLike] | PointsLike | TrainingPoints | PreparedPoints
"""Points by term, or alone where the objective has one term; or some of the training points."""


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


def prepare_points(objective: Objective, points: PointsByTerm | None) -> PreparedPoints:
    """Return checked points by term; of ``None`` the training points, as they are."""
    terms = objective.data_terms
    if isinstance(points, PreparedPoints):
        return points
    if points is None:
        every_point = {name: term.points for name, term in terms.items()}
        return PreparedPoints(every_point, _training_scales(objective))
    if isinstance(points, TrainingPoints):
        return _prepare_training_points(objective, points)

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
    scales: dict[str, float | Tensor] = {}
    for name, of_term in by_term.items():
        what = f"the points of term {name!r}"
        prepared[name] = objective.prepare(what, of_term, name)
        # Only training points have weights of their own; any other point weighs 1.
        is_trained = prepared[name] is terms[name].points
        scales[name] = terms[name].scale
        if is_trained:
            scales[name] = terms[name].scales(ALL)
    return PreparedPoints(prepared, scales)


def _prepare_training_points(
    objective: Objective, points: TrainingPoints
) -> PreparedPoints:
    chosen = members(objective, "the choice of training points", points.members)
    scales = _training_scales(objective)
    scales_of_chosen = {}
    for name, places in chosen.items():
        scale = scales[name]
        if isinstance(scale, Tensor):
            scale = scale[torch.as_tensor(places, device=scale.device)]
        scales_of_chosen[name] = scale
    return PreparedPoints(points_at(objective, chosen), scales_of_chosen, chosen)


def _training_scales(objective: Objective) -> dict[str, float | Tensor]:
    """Return the factors of all training points by term."""
    terms = objective.data_terms.items()
    return {name: term.scales(ALL) for name, term in terms}


def _is_by_term(objective: Objective, points: Mapping[str, PointsLike]) -> bool:
    # A mapping may also hold the keyword inputs of samples, whose names are no terms.
    if not objective.has_samples:
        return True
    return bool(points) and all(name in objective.terms for name in points)
